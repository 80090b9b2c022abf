"""The terminal chat on a fake model: `python tests/forms/fake_terminal.py [PAUSE_S [FOLDER]]`.

It answers as the stub with which the original was recorded; FOLDER keeps the questions.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from glm_backend.engine.request import SamplingParams  # noqa: E402
from glm_backend.errors import UpstreamError  # noqa: E402
from glm_backend.models.model import Message  # noqa: E402
from glm_backend.terminal import TerminalChat, remembered_questions  # noqa: E402
from glm_backend.testing import FakeCompletion, FakeModel  # noqa: E402


class Stub(FakeModel):
    """Says the question back; "fail" fails, "long" does not end by itself, "count" counts."""

    def complete(
        self, messages: Sequence[Message], params: SamplingParams, *, client: str = ""
    ) -> FakeCompletion:
        query = messages[-1]["content"]
        words = ["你好", "👋 ", f"{query}\n第二行"]
        if query == "long":
            words = ["word "] * 500
        if query == "count":
            words = [f"{len(messages)} messages"]
        if query == "escape":
            words = ["\x1b]0;title\x07\x9b2J", "text"]
        error = UpstreamError(host="stub", reason="as asked") if query == "fail" else None
        return FakeModel(words, self.pause_s, error=error).complete(messages, params)


if __name__ == "__main__":
    pause_s = float(sys.argv[1]) if len(sys.argv) > 1 else 0.0
    kept = Path(sys.argv[2]) / "terminal_history" if len(sys.argv) > 2 else Path("no such folder/x")
    with remembered_questions(kept):
        TerminalChat(Stub(pause_s=pause_s), "ChatGLM2-6B").run()
