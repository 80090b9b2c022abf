"""In how many bits keys and values are kept beside quantised weights.

Half precision takes half the memory and half the reading, which is most of what a step with many
answers costs beside the weights; its error (2**-11) is a tenth of what INT8 weights bring along.
Not every CPU computes with it quickly, so it is measured once for a machine.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F

from glm_backend.models.kernel_choice import CHOICE, quickest_round
from glm_backend.models.model import LoadedModel

_DTYPES = {"float16": torch.float16, "float32": torch.float32}
_SLOTS, _ROWS, _BLOCK = 8, 256, 64
#: Smaller heads gain nothing.
_LEAST_DIM = 64


def kv_dtype(model: LoadedModel) -> torch.dtype | None:
    """What keys and values are kept in; None for what the model computes in."""
    config: Any = model.module.config
    plain = model.quantization == "none" or model.dtype is not torch.float32
    if plain or model.device.type != "cpu" or not hasattr(config, "num_key_value_heads"):
        return None
    heads = config.num_attention_heads
    kv_heads = config.num_key_value_heads or heads
    dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    if dim < _LEAST_DIM:
        return None
    shape = (kv_heads, heads // kv_heads, dim)
    trials = {name: functools.partial(_seconds, dtype, *shape) for name, dtype in _DTYPES.items()}
    return _DTYPES[CHOICE.quickest("attention {}x{}x{}".format(*shape), trials)]


def _seconds(dtype: torch.dtype, kv_heads: int, share: int, dim: int) -> float:
    """A step of eight answers, and one portion of a prompt."""
    cache = torch.zeros(_SLOTS, _ROWS, 2 * kv_heads, dim, dtype=dtype).transpose(1, 2)
    keys, values = cache[:, :kv_heads], cache[:, kv_heads:]
    one = torch.zeros(_SLOTS, kv_heads, share, dim, dtype=dtype)
    block = torch.zeros(kv_heads, share, _BLOCK, dim, dtype=dtype)
    one_mask = torch.zeros(_SLOTS, 1, 1, _ROWS, dtype=dtype)
    mask = torch.zeros(_BLOCK, _ROWS, dtype=dtype)
    keys_of_one, values_of_one = (p[0, :, None].expand(-1, share, -1, -1) for p in (keys, values))

    def attend() -> None:
        F.scaled_dot_product_attention(one, keys, values, attn_mask=one_mask)
        F.scaled_dot_product_attention(block, keys_of_one, values_of_one, attn_mask=mask)

    with torch.inference_mode():
        return quickest_round(attend)
