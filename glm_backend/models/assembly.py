"""Checkpoint -> module: built without memory, then filled tensor by tensor.

Every tensor is put in place (and quantised) as it is read, so the whole model is never held twice,
nor once in full precision when it is to be quantised. What transformers would do silently here is
an error: a weight that is missing is never initialised at random.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from glm_backend.errors import CheckpointDamaged, ModelUnsupported, Phrase
from glm_backend.models.checkpoint import CONFIG_FILE, Checkpoint, layer_number
from glm_backend.models.model import Quantization
from glm_backend.models.quantization import (
    QuantizedLinear,
    QuantizedWeight,
    is_quantizable,
    quantized_int4,
    quantized_int8,
)
from glm_backend.models.rotation import Rotation

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PretrainedConfig, PreTrainedModel

#: What config.json names as the form of the weights where convert.py wrote them.
KEPT_BY_US = "glm_chat"
#: More than any published model has; a hostile config cannot keep the loader busy for ever.
_MOST_LAYERS = 1000
#: What reads the middle of a feed-forward block, where some numbers are much larger than the rest
#: and nothing turns them: rounding them to 8 bits costs more than all other inputs together.
_UNEVEN = ".down_proj"


@dataclass(frozen=True, slots=True)
class Placement:
    """What the weights become: precision, arithmetic and device.

    layers: the device of each layer where they lie on several; all else is on `device`.
    """

    quantization: Quantization
    dtype: torch.dtype
    device: torch.device
    layers: tuple[torch.device, ...] = ()

    def device_of(self, name: str) -> torch.device:
        """Where the weight of this name belongs."""
        layer = layer_number(name) if self.layers else None
        return self.device if layer is None else self.layers[layer]


def native_config(config: Mapping[str, Any], *, model: str, file: str) -> PretrainedConfig:
    """The cleaned config.json as transformers' own class for its model_type.

    Raises ModelUnsupported for a model_type that is no causal language model here,
    CheckpointDamaged for values that make no model.
    """
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    from glm_backend.models import chatglm1

    model_type = config["model_type"]
    own = model_type == chatglm1.MODEL_TYPE
    if not own and model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise ModelUnsupported(
            model=model,
            reason=Phrase("models of the type {kind!r} are not read yet", kind=model_type),
            remedy=Phrase("Choose one whose type transformers knows as a causal language model."),
        )
    form = config.get("quantization_config")
    if form is not None and form != {"quant_method": KEPT_BY_US}:
        raise ModelUnsupported(
            model=model,
            reason=Phrase("its weights are stored quantised in a form that is not read"),
            remedy=Phrase("Take the unquantised version and load it with INT8 or INT4 here."),
        )
    layers = config.get("num_hidden_layers", 0)
    if not isinstance(layers, int) or layers > _MOST_LAYERS:
        reason = Phrase("num_hidden_layers is {layers!r}", layers=layers)
        raise CheckpointDamaged(file=file, reason=reason)
    try:
        kind = chatglm1.ChatGLM1Config if own else CONFIG_MAPPING[model_type]
        return kind.from_dict({k: v for k, v in config.items() if k != "quantization_config"})
    except Exception as error:  # each class checks its values in its own way
        raise _senseless(file, error) from error


def _senseless(file: str, error: Exception) -> CheckpointDamaged:
    reason = Phrase("its values make no model ({error})", error=str(error))
    return CheckpointDamaged(file=file, reason=reason)


def check(checkpoint: Checkpoint, *, model: str) -> None:
    """Whether config.json and the weights' names and shapes make a model; raises as `assemble`."""
    import torch

    _blueprint(checkpoint, Placement("none", torch.float32, torch.device("cpu")), model)


def assemble(
    checkpoint: Checkpoint,
    placement: Placement,
    *,
    model: str,
    on_fraction: Callable[[float], None],
) -> PreTrainedModel:
    """The module of `checkpoint` in eval mode with all weights in place.

    Raises ModelUnsupported, CheckpointDamaged where weights and config.json disagree, and what
    `on_fraction` raises.
    """
    module, names = _blueprint(checkpoint, placement, model)
    total = max(1, checkpoint.size_bytes)
    # Groups of columns keep INT4's small numbers, and weights that were in groups of 4 bits before.
    turns = placement.quantization == "int8" and Rotation.takes(checkpoint)
    rotation = Rotation(checkpoint) if turns else None
    placed: set[str] = set()
    for stored, weight in checkpoint.stream(lambda done: on_fraction(done / total)):
        if stored in names:
            _check_finite(weight, stored, str(checkpoint.tensors[stored].file))
            pairs = rotation.turned(stored, weight) if rotation else [(stored, weight)]
            for name, tensor in pairs:
                through = rotation.through(name) if rotation else None
                _place(module, name, tensor, placement, through)
                placed.add(name)
    _tie(module, placed, placement)
    _check_filled(module, str(checkpoint.folder / CONFIG_FILE))
    module.train(False)
    module.requires_grad_(False)
    return module


def _blueprint(
    checkpoint: Checkpoint, placement: Placement, model: str
) -> tuple[PreTrainedModel, set[str]]:
    """The module without weights, and the names of the weights it takes."""
    config_file = str(checkpoint.folder / CONFIG_FILE)
    config = native_config(checkpoint.config, model=model, file=config_file)
    module = _empty_module(config, placement, file=config_file)
    return module, _matched(module, checkpoint, model)


def _empty_module(config: PretrainedConfig, placement: Placement, *, file: str) -> PreTrainedModel:
    """The module on the meta device, but for the buffers that no checkpoint carries."""
    import torch
    from torch import nn
    from transformers import AutoModelForCausalLM

    from glm_backend.models.chatglm1 import ChatGLM1, ChatGLM1Config

    def build(attention: str) -> PreTrainedModel:
        with torch.device("meta"):
            if isinstance(config, ChatGLM1Config):
                return nn.Module.to(ChatGLM1(config), placement.dtype)
            module: PreTrainedModel = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
                config, dtype=placement.dtype, attn_implementation=attention
            )
            return module

    try:
        try:
            module = build("sdpa")
        except ValueError:  # this architecture has no sdpa
            module = build("eager")
    except Exception as error:  # shapes that do not fit together, as each class finds them
        raise _senseless(file, error) from error
    for part in module.modules():
        if names := part._non_persistent_buffers_set:
            for name in names:
                if (buffer := part._buffers[name]) is not None:
                    part._buffers[name] = torch.empty_like(buffer, device="cpu")
            # transformers' hook for computed buffers (rotary tables)
            module._init_weights(part)  # type: ignore[no-untyped-call]
            for name in names:
                if (buffer := part._buffers[name]) is not None:
                    part._buffers[name] = buffer.to(placement.device)
    return module


def _matched(module: PreTrainedModel, checkpoint: Checkpoint, model: str) -> set[str]:
    """The names to take from the checkpoint, after checking that names and shapes agree."""
    expected = module.state_dict()  # on the meta device: names and shapes
    stored = checkpoint.tensors
    tied = module.all_tied_weights_keys
    for name, info in stored.items():
        if name in expected and info.shape != tuple(expected[name].shape):
            reason = Phrase(
                "{name} has the shape {stored}, by {config} it should be {wanted}",
                name=name,
                stored=list(info.shape),
                config=CONFIG_FILE,
                wanted=list(expected[name].shape),
            )
            raise CheckpointDamaged(file=str(info.file), reason=reason)
    unexpected = _without(
        stored.keys() - expected.keys(), module._keys_to_ignore_on_load_unexpected
    )
    missing = _without(expected.keys() - stored.keys(), module._keys_to_ignore_on_load_missing)
    missing -= {name for pair in tied.items() for name in pair if stored.keys() & set(pair)}
    if missing or unexpected:
        _refuse_regrouped(module, model)
        reason = _disagreement(missing, unexpected)
        raise CheckpointDamaged(file=str(next(iter(stored.values())).file), reason=reason)
    return stored.keys() & expected.keys()


def _refuse_regrouped(module: PreTrainedModel, model: str) -> None:
    """Some families (mixtures of experts) store their weights otherwise than they compute."""
    from transformers.conversion_mapping import get_model_conversion_mapping

    if get_model_conversion_mapping(module, add_legacy=False):
        raise ModelUnsupported(
            model=model,
            reason=Phrase(
                "weights of the type {kind!r} must be regrouped, which is not done yet",
                kind=module.config.model_type,
            ),
            remedy=Phrase("Choose a dense model."),
        )


def _without(names: set[str], patterns: Iterable[str] | None) -> set[str]:
    # Rotary tables were stored by old versions; they are computed from config.json.
    ignored = [*(patterns or ()), r"rotary_emb\.inv_freq$"]
    return {name for name in names if not any(re.search(p, name) for p in ignored)}


def _disagreement(missing: set[str], unexpected: set[str]) -> Phrase:
    lack = Phrase("lack {names}", names=_some(missing)) if missing else None
    have = Phrase("have besides {names}", names=_some(unexpected)) if unexpected else None
    they = Phrase("{one} and {other}", one=lack, other=have) if lack and have else lack or have
    return Phrase(
        "the weights do not belong to this {config}: they {they}", config=CONFIG_FILE, they=they
    )


def _some(names: set[str]) -> str:
    first, more = min(names), len(names) - 1
    return Phrase("{name} and {count} more", name=first, count=more) if more else first


def _check_finite(tensor: torch.Tensor | QuantizedWeight, name: str, file: str) -> None:
    """One NaN makes every answer NaN; the smallest and largest value show it in one pass."""
    import torch

    if isinstance(tensor, torch.Tensor) and tensor.is_floating_point() and tensor.numel():
        low, high = tensor.aminmax()
        if not (torch.isfinite(low) and torch.isfinite(high)):
            reason = Phrase("{name} holds NaN or infinite numbers", name=name)
            raise CheckpointDamaged(file=file, reason=reason)


def _place(
    module: PreTrainedModel,
    name: str,
    tensor: torch.Tensor | QuantizedWeight,
    placement: Placement,
    through: Callable[[torch.Tensor], torch.Tensor] | None,
) -> None:
    """Puts one tensor where it belongs, quantised when it is the weight of a linear layer.

    through: what becomes of its rows before.
    """
    import torch

    path, _, leaf = name.rpartition(".")
    owner, device = module.get_submodule(path), placement.device_of(name)
    if not isinstance(tensor, torch.Tensor):
        weight = tensor.to(device)
        _replace(module, path, QuantizedLinear(weight, owner._parameters["bias"]))
        return
    if placement.quantization != "none" and leaf == "weight" and is_quantizable(owner):
        _quantize(module, path, tensor, placement, through)
        return
    tensor = tensor if through is None else through(tensor)
    held = tensor.to(device=device, dtype=placement.dtype)
    if leaf in owner._parameters:
        owner._parameters[leaf] = torch.nn.Parameter(held, requires_grad=False)
    else:
        owner._buffers[leaf] = held


def _quantize(
    module: PreTrainedModel,
    path: str,
    weight: torch.Tensor,
    placement: Placement,
    through: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> None:
    """Replaces the linear layer at `path` by one with quantised weights.

    The output layer never goes below INT8: it decides between words, and in INT4 it alone would
    cost more accuracy than all other layers together (measured on the starter model).
    """
    linear, kind = module.get_submodule(path), placement.quantization
    device = placement.device_of(f"{path}.weight")
    is_head = linear is module.get_output_embeddings()  # type: ignore[no-untyped-call]
    held: QuantizedWeight
    if is_head or kind == "int8":
        rows = weight.to(device) if through is None else weight
        int8 = replace(quantized_int8(rows, through), uneven=is_head or path.endswith(_UNEVEN))
        held = int8.to(device)
    else:
        held = quantized_int4(weight.to(device))
    _replace(module, path, QuantizedLinear(held, linear._parameters["bias"]))


def _replace(module: nn.Module, path: str, layer: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(module.get_submodule(parent), name, layer)


def _tie(module: PreTrainedModel, present: set[str], placement: Placement) -> None:
    """Shares the weights that config.json ties; a quantised head gets a copy of its own."""
    for target, source in module.all_tied_weights_keys.items():
        if target in present and source in present:
            continue
        if target in present:
            target, source = source, target  # noqa: PLW2901 - some store the head only
        path, _, leaf = target.rpartition(".")
        owner = module.get_submodule(path)
        weight = module.get_parameter(source)
        if placement.quantization != "none" and is_quantizable(owner):
            _quantize(module, path, weight.data, placement)
        else:
            owner._parameters[leaf] = weight


def _check_filled(module: nn.Module, config_file: str) -> None:
    tensors = (*module.named_parameters(), *module.named_buffers())
    empty = [name for name, tensor in tensors if tensor.is_meta]
    if empty:
        reason = Phrase("no weights were found for {names}", names=_some(set(empty)))
        raise CheckpointDamaged(file=config_file, reason=reason)
