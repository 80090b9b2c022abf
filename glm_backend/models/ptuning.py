"""P-tuning v2: rows of keys and values that every conversation finds before its first token.

The authors' training writes them as one table [rows, layers * 2 * groups * head_dim], alone in a
pytorch_model.bin or among the weights of a whole model; with prefix_projection a small network
makes that table. The rows carry no position. Knows nothing of prompts.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from glm_backend.errors import CheckpointDamaged, ModelMissing, ModelUnsupported, Phrase
from glm_backend.models import weight_files

if TYPE_CHECKING:
    from torch import Tensor

PREFIX_ENCODER = "transformer.prefix_encoder."
_FILES = ("pytorch_model.bin", "model.safetensors")

#: Keys and values of each layer, [groups, rows, head_dim].
Prefix = list[tuple["Tensor", "Tensor"]]


def read_prefix(source: Path, config: Any, *, dtype: Any, device: Any, model: str) -> Prefix:
    """The prefix in a folder (or file) that p-tuning wrote, for a module with this GlmConfig.

    Raises ModelMissing, CheckpointDamaged naming the file, or ModelUnsupported for a model that
    takes no prefix.
    """
    if config.model_type != "glm":
        raise ModelUnsupported(
            model=model,
            reason=Phrase("a trained prefix is only taken for ChatGLM2 and ChatGLM3"),
            remedy=Phrase("Load it without ptuning."),
        )
    file = _file(source, model)
    stored = {
        name.removeprefix(PREFIX_ENCODER): tensor.float()
        for name, tensor in prefix_tensors(file).items()
    }
    return split(_table(file, stored), config, file=file, dtype=dtype, device=device)


def split(table: Tensor, config: Any, *, file: Path, dtype: Any, device: Any) -> Prefix:
    """Table [rows, layers * 2 * groups * head_dim] -> keys and values of each layer."""
    import torch

    layers, groups, dim = config.num_hidden_layers, config.num_key_value_heads, config.head_dim
    if table.dim() != 2 or table.shape[1] != layers * 2 * groups * dim or not len(table):
        reason = Phrase(
            "its prefix has the shape {shape}, which is for another model", shape=list(table.shape)
        )
        raise CheckpointDamaged(file=str(file), reason=reason)
    if not torch.isfinite(table).all():
        reason = Phrase("its prefix holds NaN or infinite numbers")
        raise CheckpointDamaged(file=str(file), reason=reason)
    # [layers * 2, groups, rows, head_dim]
    parts = table.view(len(table), layers * 2, groups, dim).permute(1, 2, 0, 3)
    parts = parts.to(dtype=dtype, device=device)
    return [(parts[2 * i], parts[2 * i + 1]) for i in range(layers)]


def _file(source: Path, model: str) -> Path:
    if source.is_file():
        return source
    for name in _FILES:
        if (source / name).is_file():
            return source / name
    remedy = Phrase("Name the folder that p-tuning wrote; it holds pytorch_model.bin.")
    prefix = Phrase("{model} (prefix)", model=model)
    raise ModelMissing(model=prefix, where=str(source), remedy=remedy)


def prefix_tensors(file: Path) -> dict[str, Tensor]:
    """What belongs to a prefix among the weights of a file, as it is stored, by stored names."""
    infos = {
        name: info
        for name, info in weight_files.headers(file).items()
        if name.startswith(PREFIX_ENCODER)
    }
    return dict(weight_files.tensors(file, infos.items()))


def _table(file: Path, stored: dict[str, Tensor]) -> Tensor:
    """The embedding itself, or what the network of prefix_projection makes of it."""
    import torch.nn.functional as F

    try:
        table = stored["embedding.weight"]
        if "trans.0.weight" not in stored:
            return table
        hidden = F.linear(table, stored["trans.0.weight"], stored["trans.0.bias"]).tanh()
        return F.linear(hidden, stored["trans.2.weight"], stored["trans.2.bias"])
    except (KeyError, RuntimeError) as error:
        reason = Phrase(
            "it holds no prefix as p-tuning writes it ({error})", error=str(error).splitlines()[0]
        )
        raise CheckpointDamaged(file=str(file), reason=reason) from error
