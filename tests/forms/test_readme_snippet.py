"""The Python that README shows to those who come from the original, run as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.models import chatglm_tiny as tiny

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("readme", ["README.md", "README.zh-CN.md"])
def test_the_snippet_answers(readme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / readme).read_text(encoding="utf-8")
    (snippet,) = re.findall(r"```python\n((?:(?!```).)*?AutoModel.*?)```", text, re.DOTALL)
    assert ".cuda()" in snippet
    # A small checkpoint in the published form stands in the model folder under the model's name.
    config = tiny.config(_name_or_path="THUDM/chatglm2-6b")
    tiny.save(tmp_path / "chatglm2-6b", config, tiny.weights(config))
    monkeypatch.setenv("GLM_MODEL_DIR", str(tmp_path))
    names: dict[str, object] = {}
    exec(snippet.replace(".half().cuda()", ".float()"), names)  # there is no GPU here
    assert isinstance(names["response"], str)
    assert len(names["history"]) >= 1  # type: ignore[arg-type]
