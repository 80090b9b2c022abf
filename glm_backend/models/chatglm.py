"""Published ChatGLM checkpoints, seen as checkpoints of the modules that run them.

ChatGLM2 and ChatGLM3 become transformers' own GLM: config, names and shapes are translated, and
fused tensors are split while they are read, which was measured to give the authors' numbers bit by
bit (docs/models.md). The first generation keeps its names and has a module of its own
(chatglm1.py). Published INT8 and INT4 come out as integers with their scales.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glm_backend.errors import CheckpointDamaged, ModelUnsupported, Phrase
from glm_backend.models.chatglm_family import MODEL_TYPE, Family, recognise, rope_ratio
from glm_backend.models.checkpoint import CONFIG_FILE, Checkpoint, OnBytes, Wanted, everything
from glm_backend.models.ptuning import PREFIX_ENCODER
from glm_backend.models.weight_files import TensorInfo

if TYPE_CHECKING:
    import torch

    from glm_backend.models.quantization import QuantizedWeight
    from glm_backend.models.row_quantization import Bits

_HEAD = "lm_head.weight"
#: Published name -> native name; {} is the number of a layer.
_NAMES = {
    "transformer.embedding.word_embeddings.weight": "model.embed_tokens.weight",
    "transformer.encoder.final_layernorm.weight": "model.norm.weight",
    "transformer.output_layer.weight": _HEAD,
}
_LAYER = re.compile(r"transformer\.encoder\.layers\.(\d+)\.(.+)\.(weight|bias)")
_PARTS = {
    "input_layernorm": "input_layernorm",
    "post_attention_layernorm": "post_attention_layernorm",
    "self_attention.dense": "self_attn.o_proj",
    "mlp.dense_h_to_4h": "mlp.gate_up_proj",
    "mlp.dense_4h_to_h": "mlp.down_proj",
}
_FUSED = "self_attention.query_key_value"
#: Computed from config.json; read elsewhere; the embedding once more.
_DROPPED = re.compile(rf".*rotary_\w+\.inv_freq|{re.escape(PREFIX_ENCODER)}.*")
#: Variants that the authors' program could compute and no published model uses.
_ALWAYS: dict[str, object] = {
    "rmsnorm": True,
    "post_layer_norm": True,
    "multi_query_attention": True,
    "add_bias_linear": False,
    "apply_residual_connection_post_layernorm": False,
}
_ROPE_BASE = 10_000.0


def is_published(checkpoint: Checkpoint) -> bool:
    """Whether the folder is in the form of the authors' own program."""
    return bool(checkpoint.config["model_type"] == MODEL_TYPE)


@dataclass(frozen=True, slots=True)
class PublishedChatGLM(Checkpoint):
    """A ChatGLM folder under native names.

    source: the folder as it is stored. targets: for each stored name its native names with the
    rows they get. bits: width of the published integers, 0 where there are none.
    """

    source: Checkpoint
    targets: Mapping[str, list[tuple[str, slice]]]
    bits: Bits | None

    @classmethod
    def translate(
        cls, source: Checkpoint, *, model: str, family: str | None = None
    ) -> PublishedChatGLM:
        """Raises ModelUnsupported and CheckpointDamaged, before any weight is read."""
        recognition = recognise(source, model=model, family=family)
        bits = _bits(source)
        if recognition.family == "chatglm":
            config = _chatglm1_config(source)
            sizes: list[int] = []
        else:
            config = _glm_config(source, recognition.family, model)
            heads, groups = config["num_attention_heads"], config["num_key_value_heads"]
            sizes = [n * config["head_dim"] for n in (heads, groups, groups)]
        targets = {name: _targets(name, sizes) for name in source.tensors if _is_used(name)}
        head = source.tensors.get(_HEAD)
        if recognition.family == "chatglm" and head is not None and not head.quantized:
            del targets[_HEAD]  # tied: the embedding, stored a second time
        infos = dict(_infos(source, targets, bits))
        return cls(
            source.folder, config, infos, recognition.family, recognition.why, source, targets, bits
        )

    @property
    def size_bytes(self) -> int:
        return self.source.size_bytes

    @property
    def prefix_file(self) -> Path | None:
        """The weight file that also holds a trained prefix, if one does."""
        held = (i.file for n, i in self.source.tensors.items() if n.startswith(PREFIX_ENCODER))
        return next(held, None)

    def stream(
        self, on_bytes: OnBytes, wanted: Wanted = everything
    ) -> Iterator[tuple[str, torch.Tensor | QuantizedWeight]]:
        import torch

        halves: dict[str, torch.Tensor] = {}  # integers and scales that wait for each other
        for name, tensor in self.source.stored(on_bytes, wanted):
            weight_name = name.removesuffix("_scale")
            scaled = f"{weight_name}_scale" in self.source.tensors
            if not scaled or not isinstance(tensor, torch.Tensor):
                yield from self._split(name, tensor)
            elif (other := halves.pop(weight_name, None)) is None:
                halves[weight_name] = tensor
            else:
                q, scale = (other, tensor) if name != weight_name else (tensor, other)
                yield from self._split(weight_name, self._integers(weight_name, q, scale))

    def _split(
        self, name: str, tensor: torch.Tensor | QuantizedWeight
    ) -> Iterator[tuple[str, torch.Tensor | QuantizedWeight]]:
        import torch

        for native, rows in self.targets.get(name, ()):
            yield native, tensor[rows] if isinstance(tensor, torch.Tensor) else tensor.part(rows)

    def _integers(self, name: str, q: torch.Tensor, scale: torch.Tensor) -> QuantizedWeight:
        import torch

        from glm_backend.models.row_quantization import published_weight

        if q.dtype is not torch.int8 or not torch.isfinite(scale).all():
            reason = Phrase(
                "{name} holds no {bits}-bit integers with finite scales", name=name, bits=self.bits
            )
            raise CheckpointDamaged(file=str(self.source.tensors[name].file), reason=reason)
        assert self.bits is not None, "scales without quantization_bit were refused"
        return published_weight(q, scale, self.bits)


def _is_used(name: str) -> bool:
    return not _DROPPED.fullmatch(name) and not name.endswith("_scale")


def _targets(name: str, sizes: list[int]) -> list[tuple[str, slice]]:
    """Native names and the rows of the stored tensor that each of them gets.

    A name that is not known stays as it is: it will not be expected, and the error will show it.
    """
    everything = slice(None)
    if name in _NAMES:
        return [(_NAMES[name], everything)]
    if not (layer := _LAYER.fullmatch(name)):
        return [(name, everything)]
    number, part, leaf = layer.groups()
    if part != _FUSED:
        return [(f"model.layers.{number}.{_PARTS.get(part, part)}.{leaf}", everything)]
    ends = [sum(sizes[: i + 1]) for i in range(3)]
    return [
        (f"model.layers.{number}.self_attn.{letter}_proj.{leaf}", slice(end - size, end))
        for letter, size, end in zip("qkv", sizes, ends, strict=True)
    ]


def _infos(
    source: Checkpoint, targets: Mapping[str, list[tuple[str, slice]]], bits: Bits | None
) -> Iterator[tuple[str, TensorInfo]]:
    for name, natives in targets.items():
        info = source.tensors[name]
        rows, *columns = info.shape or (1,)
        if len(natives) > 1 and rows != (wanted := natives[-1][1].stop):
            reason = Phrase(
                "{name} has {rows} rows, by {config} it should have {wanted}",
                name=name,
                rows=rows,
                config=CONFIG_FILE,
                wanted=wanted,
            )
            raise CheckpointDamaged(file=str(info.file), reason=reason)
        scale = source.tensors.get(f"{name}_scale")
        if scale is not None:
            if scale.shape != (rows,) or len(columns) != 1:
                reason = Phrase("the shapes of {name} and its scales do not fit", name=name)
                raise CheckpointDamaged(file=str(scale.file), reason=reason)
            columns = [columns[0] * 2] if bits == 4 else columns
            info = replace(info, size_bytes=info.size_bytes + scale.size_bytes, quantized=True)
        for native, part in natives:
            taken = len(range(*part.indices(rows)))
            share = info.size_bytes * taken // max(1, rows)
            shape = (taken, *columns) if info.shape else ()
            yield native, replace(info, shape=shape, size_bytes=share)


def _bits(source: Checkpoint) -> Bits | None:
    """The published width; integers without it, or it without integers, are damage."""
    bits = source.config.get("quantization_bit") or None
    scaled = next((name for name in source.tensors if name.endswith(".weight_scale")), None)
    if bits in (4, 8) and scaled:
        return bits  # type: ignore[no-any-return]
    if bits or scaled:
        reason = (
            Phrase("quantization_bit is {bits!r}, and there is {scale}", bits=bits, scale=scaled)
            if scaled
            else Phrase("quantization_bit is {bits!r}, and the weights have no scales", bits=bits)
        )
        raise CheckpointDamaged(file=str(source.folder / CONFIG_FILE), reason=reason)
    return None


def _glm_config(source: Checkpoint, family: Family, model: str) -> dict[str, Any]:
    """ChatGLM2's and ChatGLM3's config.json in the words of transformers' GlmConfig."""
    published = source.config
    for key, value in _ALWAYS.items():
        if published.get(key, value) != value:
            raise ModelUnsupported(
                model=model,
                reason=Phrase(
                    "its {key} is {value!r}, which no published ChatGLM has",
                    key=key,
                    value=published[key],
                ),
                remedy=Phrase("Choose a model of the ChatGLM family as it was published."),
            )
    whole = {key: source.whole_number(name) for key, name in _WHOLE_NUMBERS.items()}
    return whole | {
        "model_type": "glm",
        "rms_norm_eps": published.get("layernorm_epsilon", 1e-5),
        "attention_bias": bool(published.get("add_qkv_bias", True)),
        "tie_word_embeddings": False,
        "rope_parameters": _rope(source, family),
        "eos_token_id": 2,
        "pad_token_id": 0,
    }


#: GlmConfig's word -> theirs.
_WHOLE_NUMBERS = {
    "hidden_size": "hidden_size",
    "intermediate_size": "ffn_hidden_size",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_attention_heads",
    "num_key_value_heads": "multi_query_group_num",
    "head_dim": "kv_channels",
    "max_position_embeddings": "seq_length",
    "vocab_size": "padded_vocab_size",
}


#: ChatGLM1Config's word -> theirs.
_WHOLE_NUMBERS_1 = {
    "hidden_size": "hidden_size",
    "intermediate_size": "inner_hidden_size",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_attention_heads",
    "num_key_value_heads": "num_attention_heads",
    "max_position_embeddings": "max_sequence_length",
    "vocab_size": "vocab_size",
    "mask_token_id": "mask_token_id",
    "gmask_token_id": "gmask_token_id",
    "bos_token_id": "bos_token_id",
    "eos_token_id": "eos_token_id",
}


def _chatglm1_config(source: Checkpoint) -> dict[str, Any]:
    """The first generation's config.json in the words of ChatGLM1Config."""
    whole = {key: source.whole_number(name) for key, name in _WHOLE_NUMBERS_1.items()}
    return whole | {
        "model_type": "chatglm1",
        "layer_norm_eps": source.config.get("layernorm_epsilon", 1e-5),
    }


def _rope(source: Checkpoint, family: Family) -> dict[str, Any]:
    """The two meanings of rope_ratio: ChatGLM2 divides positions, ChatGLM3 multiplies the base."""
    ratio = rope_ratio(source.config)
    if type(ratio) not in (int, float) or not (0 < ratio < math.inf):
        reason = Phrase("rope_ratio is {ratio!r}; it must be a number above 0", ratio=ratio)
        raise CheckpointDamaged(file=str(source.folder / CONFIG_FILE), reason=reason)
    common = {"partial_rotary_factor": 0.5, "rope_theta": _ROPE_BASE}
    if ratio == 1:
        return common | {"rope_type": "default"}
    if family == "chatglm2":
        return common | {"rope_type": "linear", "factor": float(ratio)}
    return common | {"rope_type": "default", "rope_theta": _ROPE_BASE * ratio}
