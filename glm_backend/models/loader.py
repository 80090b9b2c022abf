"""A name or a folder -> a LoadedModel: find it, read it, put it on its device.

One straight line of work in the caller's thread; `manager.py` runs it in the background.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from glm_backend.errors import ModelMissing, ModelUnsupported, Phrase
from glm_backend.models import chatglm_language
from glm_backend.models.allocator import large_blocks_apart
from glm_backend.models.catalog import CATALOG, STARTER, entry_of
from glm_backend.models.chatglm import PublishedChatGLM, is_published
from glm_backend.models.checkpoint import Checkpoint
from glm_backend.models.hub import download
from glm_backend.models.memory import kv_values_per_token, needed_by_checkpoint
from glm_backend.models.model import (
    LoadedModel,
    Prefix,
    PromptFormat,
    Quantization,
    TextTokenizer,
)
from glm_backend.models.prompts import ChatTemplate
from glm_backend.models.ptuning import read_prefix
from glm_backend.models.spread import room_for, spread
from glm_backend.models.starter import ensure_starter
from glm_backend.models.tokenizer import TOKENIZER_FILE, FastTokenizer
from glm_backend.threads import a_core_left

if TYPE_CHECKING:
    import torch

    from glm_backend.models.assembly import Placement

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
#: Called with a stage ("downloading", "converting", "reading", "quantizing", "starting") and how
#: much of it is done, 0 to 1. It may raise errors.Cancelled to stop the work.
Progress = Callable[[str, float], None]

#: Taken where config.json does not say how long a context may be.
_DEFAULT_CONTEXT = 2048
#: A repository of the hub: owner/name, in the letters that the hub allows.
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)


def _unheard(stage: str, fraction: float) -> None:
    """For callers who do not watch."""


def load(
    source: str,
    *,
    quantization: Quantization = "none",
    dtype: Dtype = "auto",
    device: str = "auto",
    max_context: int = 0,
    family: str | None = None,
    ptuning: str | Path | None = None,
    model_dir: Path,
    on_progress: Progress = _unheard,
    hub_endpoint: str | None = None,
) -> LoadedModel:
    """Loads a catalogue id, the path of a model folder, or a repository of the hub (owner/name).

    max_context: tokens, 0 takes the model's own limit. family: overrides what a ChatGLM folder is
    taken for. ptuning: folder of a trained prefix (p-tuning v2) for ChatGLM2 and ChatGLM3.
    Weights stored as INT8 or INT4 stay that; `quantization` then only adds an INT8 head.
    model_dir: where downloads and conversions are kept. hub_endpoint: a mirror of the hub. Raises
    ModelError (ModelMissing, StarterMissing, ModelUnsupported, CheckpointDamaged, DownloadFailed)
    and what `on_progress` raises.
    """
    from glm_backend.models.assembly import Placement, assemble
    from glm_backend.models.kernel_choice import CHOICE
    from glm_backend.models.kernel_choice import FILE as KERNELS_FILE
    from glm_backend.models.quantization import weight_bytes

    CHOICE.remember_in(model_dir / KERNELS_FILE)
    entry = entry_of(source)
    checkpoint = prepare(
        source,
        family=family,
        model_dir=model_dir,
        on_progress=on_progress,
        hub_endpoint=hub_endpoint,
    )
    folder = checkpoint.folder
    name = entry.title if entry else source if is_repository(source) else folder.name
    target = resolve_device(device, model=name)
    placement = Placement(quantization, resolve_dtype(dtype, target), target)
    needs = needed_by_checkpoint(
        checkpoint,
        quantization,
        bytes_per_value=placement.dtype.itemsize,
        max_context=max_context,
    )
    if layers := spread(needs, room_for(checkpoint, device)):
        placement = replace(placement, device=layers[0], layers=layers)
    stage = "reading" if quantization == "none" else "quantizing"
    on_progress(stage, 0.0)
    with large_blocks_apart(), a_core_left():
        module = assemble(
            checkpoint, placement, model=name, on_fraction=lambda done: on_progress(stage, done)
        )
    on_progress("starting", 0.0)
    tokenizer, prompt_format, more_eos = _language(checkpoint, module.config, name)
    prefix = _prefix(checkpoint, ptuning, module.config, placement, name)
    limit = _context_length(module.config)
    loaded = LoadedModel(
        id=source,
        name=name,
        family=checkpoint.family,
        recognised=checkpoint.recognised,
        module=module,
        tokenizer=tokenizer,
        prompt_format=prompt_format,
        context_length=min(max_context, limit) if max_context else limit,
        eos_ids=_eos_ids(folder, module.config) | more_eos,
        vocab_size=module.config.get_text_config().vocab_size,
        quantization=stored_quantization(checkpoint) or quantization,
        dtype=placement.dtype,
        device=placement.device,
        layers=placement.layers,
        memory_bytes=weight_bytes(module),
        kv_bytes_per_token=kv_values_per_token(checkpoint.config) * placement.dtype.itemsize,
        english_first=entry.english_first if entry else False,
        prefix=prefix,
    )
    on_progress("starting", 1.0)
    return loaded


def prepare(
    source: str,
    *,
    family: str | None = None,
    model_dir: Path,
    on_progress: Progress = _unheard,
    hub_endpoint: str | None = None,
) -> Checkpoint:
    """Brings `source` onto this machine (download, conversion) and checks it, weights unread.

    Raises as `load` does: what passes here is whole and of a kind that can be loaded.
    """
    from glm_backend.models.assembly import check

    refuse_hopeless(source, model_dir=model_dir)
    entry = entry_of(source)
    name = entry.title if entry else source
    folder = local_folder(source, model_dir=model_dir)
    if folder is None and entry is STARTER:
        folder = ensure_starter(model_dir, on_progress)
    elif folder is None:
        folder, repo = _kept(source, model_dir), entry.repo if entry else source
        download(repo, folder, model=name, on_progress=on_progress, endpoint=hub_endpoint)
    checkpoint = open_checkpoint(folder, model=name, family=family)
    check(checkpoint, model=name)
    return checkpoint


def open_checkpoint(folder: Path, *, model: str, family: str | None = None) -> Checkpoint:
    """A published ChatGLM folder under native names, every other as it is; weights unread.

    Raises ModelError.
    """
    checkpoint = Checkpoint.open(folder, model=model)
    if is_published(checkpoint):
        return PublishedChatGLM.translate(checkpoint, model=model, family=family)
    if family not in (None, checkpoint.family):
        raise ModelUnsupported(
            model=model,
            reason=Phrase(
                "it cannot be {family!r}: its config.json says {found!r}",
                family=family,
                found=checkpoint.family,
            ),
            remedy=Phrase("Leave family out."),
        )
    return checkpoint


def _language(
    checkpoint: Checkpoint, config: Any, name: str
) -> tuple[TextTokenizer | None, PromptFormat | None, frozenset[int]]:
    """Tokenizer, prompt format, and the ends of an answer that they name."""
    if isinstance(checkpoint, PublishedChatGLM):
        return chatglm_language.open_folder(checkpoint, vocab_size=config.vocab_size, name=name)
    if not (checkpoint.folder / TOKENIZER_FILE).is_file():
        return None, None, frozenset()
    template = ChatTemplate.open(checkpoint.folder, name)
    named = () if template.eos_id is None else (template.eos_id,)
    return FastTokenizer.open(checkpoint.folder), template, frozenset(named)


def _prefix(
    checkpoint: Checkpoint,
    ptuning: str | Path | None,
    config: Any,
    placement: Placement,
    name: str,
) -> Prefix:
    """The trained prefix that was asked for, or the one among the folder's own weights."""
    source = Path(ptuning).expanduser() if ptuning else None
    if source is None and isinstance(checkpoint, PublishedChatGLM):
        source = checkpoint.prefix_file
    if source is None:
        return ()
    kind = {"dtype": placement.dtype, "device": placement.device}
    return read_prefix(source, config, model=name, **kind)


def stored_quantization(checkpoint: Checkpoint) -> Quantization | None:
    """What the stored weights are quantised to, where they are."""
    bits = checkpoint.bits if isinstance(checkpoint, PublishedChatGLM) else None
    kinds = {info.kind for info in checkpoint.tensors.values() if info.parts}
    if bits == 4 or "int4" in kinds:
        return "int4"
    return "int8" if bits or kinds else None


def refuse_hopeless(source: str, *, model_dir: Path) -> None:
    """Raises at once for what can never be loaded: ModelMissing."""
    known = entry_of(source) is not None or is_repository(source)
    if not known and local_folder(source, model_dir=model_dir) is None:
        raise _nothing_at(source)


def is_repository(source: str) -> bool:
    """Whether `source` is written like a repository of the hub, and no folder of that name is."""
    return bool(_REPOSITORY.fullmatch(source)) and not _is_dir(Path(source))


def local_folder(source: str, *, model_dir: Path) -> Path | None:
    """The folder of `source` where it is on this machine already, else None."""
    places = [_kept(source, model_dir)] if entry_of(source) or is_repository(source) else []
    if source not in CATALOG:
        places.insert(0, Path(source).expanduser())
    return next((folder for folder in places if _is_dir(folder)), None)


def _kept(source: str, model_dir: Path) -> Path:
    """Where what was downloaded or converted is kept."""
    entry = entry_of(source)
    return model_dir / (entry.id if entry else source.replace("/", "--"))


def _is_dir(folder: Path) -> bool:
    try:
        return folder.is_dir()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _nothing_at(source: str) -> ModelMissing:
    names = ", ".join(CATALOG)
    remedy = Phrase(
        "Name a folder on this machine, a repository of the hub (owner/name), or one of: {names}.",
        names=names,
    )
    return ModelMissing(model=source, where=source, remedy=remedy)


def resolve_device(device: str, *, model: str) -> torch.device:
    """ "auto" is the first CUDA device, else the CPU; raises ModelUnsupported for one not there.

    What is too large for the first may lie on several (spread.py).
    """
    import torch

    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    cuda = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    if device not in ("cpu", *cuda) and not (device == "cuda" and cuda):
        raise ModelUnsupported(
            model=model,
            reason=Phrase("this machine has no device {device}", device=device),
            remedy=Phrase("Choose the device auto or cpu."),
        )
    return torch.device(device)


def resolve_dtype(dtype: Dtype, device: torch.device) -> torch.dtype:
    """ "auto": float32 on CPUs (bf16 is slower there), on CUDA bfloat16 where it has it."""
    import torch

    if dtype != "auto":
        return {
            "float32": torch.float32,
            "bfloat16": torch.bfloat16,
            "float16": torch.float16,
        }[dtype]
    if device.type == "cpu":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


def _context_length(config: Any) -> int:
    length = getattr(config.get_text_config(), "max_position_embeddings", None)
    return length if isinstance(length, int) and length > 0 else _DEFAULT_CONTEXT


def _eos_ids(folder: Path, config: Any) -> frozenset[int]:
    """Every id that ends an answer: chat models often name more of them than their config does."""
    named = [config.get_text_config().eos_token_id]
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # the file is optional
        named.append(json.loads((folder / "generation_config.json").read_bytes())["eos_token_id"])
    flat = [i for value in named for i in (value if isinstance(value, list) else [value])]
    return frozenset(i for i in flat if isinstance(i, int))
