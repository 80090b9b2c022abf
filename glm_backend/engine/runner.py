"""One forward pass of a transformers model over several sequences at once.

The new tokens of all sequences stand in one row, [1, tokens]: linear layers see one matrix, and
attention takes each sequence's stretch by itself against its own KV cache. A prompt being read
and answers being written thus share a step, without padding.

transformers lets a program bring its own attention function under a name (AttentionInterface);
the ragged batch reaches it as a keyword argument of the model's forward.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, DynamicCache, PreTrainedModel

from glm_backend.engine.kv_cache import KVCache, Prefix
from glm_backend.errors import InternalError, Phrase

ATTENTION = "glm_ragged"

#: Largest difference, as a share of the largest logit, that counts as the same numbers.
_TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
_QUANTISED_TOLERANCE = 5e-2
_TRIAL = [5, 7, 11, 13, 17]

logger = logging.getLogger(__name__)

CacheT = TypeVar("CacheT")
KVT = TypeVar("KVT", bound=KVCache)


@dataclass(slots=True)
class Stretch(Generic[CacheT]):
    """The new tokens of one sequence in one step, and the cache that holds what came before."""

    token_ids: Sequence[int]
    cache: CacheT
    mask: Tensor | None = None


class Runner(Protocol[CacheT]):
    """What the engine needs of a model."""

    batched: bool
    """Whether `forward` takes several stretches. One that does and raises leaves the caches as
    they were, so that the pass can be taken again."""

    def new_cache(self, capacity: int) -> CacheT:
        """An empty cache for one sequence of at most `capacity` tokens."""
        ...

    def forward(self, batch: Sequence[Stretch[CacheT]]) -> Tensor:
        """Logits after the last token of each stretch: [len(batch), vocab], float32, on CPU."""
        ...

    def score(self, token_ids: Sequence[int]) -> Tensor:
        """Logits after every token of one sequence: [tokens, vocab], float32, on CPU."""
        ...


class RaggedRunner:
    """Runs any transformers causal language model that takes a custom attention function.

    prefix: rows that every sequence finds before its first token.
    """

    batched = True

    def __init__(self, module: PreTrainedModel) -> None:
        self.prefix: Prefix = ()
        self._module = module
        self._device = next(module.parameters()).device
        module.set_attn_implementation(ATTENTION)

    @classmethod
    def takes(cls, module: PreTrainedModel) -> bool:
        """Whether the positions of one sequence say nothing about another's.

        These kinds of rotation change all angles with the longest sequence of the pass.
        """
        rope = getattr(module.config, "rope_parameters", None) or {}
        return rope.get("rope_type") not in {"dynamic", "longrope"}

    def pack(self) -> int:
        """Makes itself as fast as it can be; called once its numbers are known to be right.

        Gives the bytes of the weights that it now holds itself, the module no longer.
        """
        return 0

    def new_cache(self, capacity: int) -> KVCache:
        return KVCache(capacity, self.prefix)

    def forward(self, batch: Sequence[Stretch[KVCache]]) -> Tensor:
        last = torch.tensor([len(stretch.token_ids) for stretch in batch]).cumsum(0) - 1
        return self._run(batch, last.to(self._device))

    def score(self, token_ids: Sequence[int]) -> Tensor:
        return self._run([Stretch(token_ids, self.new_cache(len(token_ids)))], 0)

    def _run(self, batch: Sequence[Stretch[KVCache]], keep: Tensor | int) -> Tensor:
        """The pass itself; `keep` chooses the places whose logits are wanted, 0 means all."""
        ids = [token for stretch in batch for token in stretch.token_ids]
        positions = [
            stretch.cache.position + i for stretch in batch for i in range(len(stretch.token_ids))
        ]
        for stretch in batch:
            stretch.mask = causal_mask(stretch, self._device)
        with torch.inference_mode():
            logits = self._pass(
                torch.tensor([ids], device=self._device),
                torch.tensor([positions], device=self._device),
                keep,
                batch,
            )
            logits = logits.float().cpu()
        for stretch in batch:
            stretch.cache.advance(len(stretch.token_ids))
        return logits

    def _pass(
        self, ids: Tensor, positions: Tensor, keep: Tensor | int, batch: Sequence[Stretch[KVCache]]
    ) -> Tensor:
        """Through the module. ids, positions: [1, tokens]; logits: [kept, vocab]."""
        output = self._module(
            input_ids=ids,
            position_ids=positions,
            use_cache=False,
            logits_to_keep=keep,
            ragged=batch,
        )
        logits: Tensor = output.logits[0]
        return logits


class SoloRunner:
    """Runs a model that cannot take our attention: one sequence a pass, with its own cache."""

    batched = False

    def __init__(self, module: PreTrainedModel) -> None:
        self._module = module
        self._device = next(module.parameters()).device
        # Attention models name it past_key_values, state space models cache_params.
        names = inspect.signature(module.forward).parameters
        self._cache_name = "cache_params" if "cache_params" in names else "past_key_values"

    def new_cache(self, capacity: int) -> DynamicCache:
        return DynamicCache(config=self._module.config)

    def forward(self, batch: Sequence[Stretch[DynamicCache]]) -> Tensor:
        (stretch,) = batch
        with torch.inference_mode():
            output = self._module(
                input_ids=torch.tensor([list(stretch.token_ids)], device=self._device),
                use_cache=True,
                logits_to_keep=1,
                **{self._cache_name: stretch.cache},
            )
            logits: Tensor = output.logits[0, -1:].float().cpu()
        return logits

    def score(self, token_ids: Sequence[int]) -> Tensor:
        with torch.inference_mode():
            output = self._module(
                input_ids=torch.tensor([list(token_ids)], device=self._device), use_cache=False
            )
        logits: Tensor = output.logits[0].float().cpu()
        return logits


def runner_for(module: PreTrainedModel, prefix: Prefix = ()) -> RaggedRunner | SoloRunner:
    """The fastest runner that the model's own numbers come out of.

    Whether a model family honours a foreign attention function is not written anywhere, so it is
    tried: a few tokens through both ways, in two steps and beside a neighbour. The runner takes the
    module over, which may not be able to compute by itself from here on. Raises InternalError for
    a prefix that only the solo one could take.
    """
    from glm_backend.engine.lean_decoder import LeanRunner  # it stands on this module

    solo = SoloRunner(module)
    expected = solo.forward([Stretch(_TRIAL, solo.new_cache(len(_TRIAL)))])[0]
    own_attention = module.config._attn_implementation
    for kind in (LeanRunner, RaggedRunner):
        if kind.takes(module) and _gives(runner := kind(module), expected, module):
            runner.prefix = prefix
            return runner
    if prefix:
        raise InternalError(message=Phrase("this model cannot take a trained prefix"))
    module.set_attn_implementation(own_attention)
    return solo


def _gives(runner: RaggedRunner, expected: Tensor, module: PreTrainedModel) -> bool:
    """Whether the runner's logits after the trial tokens are the expected ones."""
    first, second = runner.new_cache(len(_TRIAL)), runner.new_cache(len(_TRIAL))
    try:
        runner.forward([Stretch(_TRIAL[:3], first)])
        both = runner.forward([Stretch(_TRIAL, second), Stretch(_TRIAL[3:], first)])
    except Exception as error:
        logger.info("%s cannot run this model: %s", type(runner).__name__, error)
        return False
    # A quantised layer rounds its input too: where that is a hair off, the output is a step off.
    plain = sum(isinstance(part, nn.Linear) for part in module.modules()) > 1
    tolerance = _TOLERANCE[module.dtype] if plain else _QUANTISED_TOLERANCE
    scale = expected.abs().max().clamp(min=1)
    return bool((both - expected).abs().max() <= tolerance * scale)


def causal_mask(stretch: Stretch[KVT], device: torch.device) -> Tensor | None:
    """Which of the known rows each new token may see: bool [tokens, rows]; None if all."""
    tokens = len(stretch.token_ids)
    if tokens == 1:
        return None
    rows = stretch.cache.length + tokens
    return torch.ones(tokens, rows, dtype=torch.bool, device=device).tril_(stretch.cache.length)


def _windowed(mask: Tensor | None, tokens: int, rows: int, window: int, like: Tensor) -> Tensor:
    """The mask of a layer that sees only the last `window` rows (Mistral's sliding window)."""
    shape = (tokens, rows)
    every = torch.ones(shape, dtype=torch.bool, device=like.device) if mask is None else mask
    return every.triu(rows - tokens - window + 1)


def ragged_attention(
    module: nn.Module,
    query: Tensor,  # [1, heads, tokens, head_dim]
    key: Tensor,  # [1, kv_heads, tokens, head_dim]
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    ragged: Sequence[Stretch[KVCache]],
    scaling: float | None = None,
    sliding_window: int | None = None,
    **_: object,
) -> tuple[Tensor, None]:
    """Attention of each stretch against its own cache; output [1, tokens, heads, head_dim].

    The query heads that share a key head are laid out as more queries of that head: nothing is
    repeated, and one call serves decoding and reading a prompt.
    """
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    output = attend(
        layer, query, key, value, ragged=ragged, scaling=scaling, sliding_window=sliding_window
    )
    return output, None


def attend(
    layer: int,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    ragged: Sequence[Stretch[KVT]],
    scaling: float | None = None,
    sliding_window: int | None = None,
) -> Tensor:
    """The same for models that are told to call it; shapes as above."""
    heads, total, head_dim = query.shape[1:]
    kv_heads = key.shape[1]
    output = query.new_empty(1, total, heads, value.shape[-1])
    start = 0
    for stretch in ragged:
        tokens = len(stretch.token_ids)
        new = slice(start, start + tokens)
        keys, values = stretch.cache.extend(layer, key[0, :, new], value[0, :, new])
        mask, rows = stretch.mask, keys.shape[1]
        if sliding_window and rows > sliding_window:
            mask = _windowed(mask, tokens, rows, sliding_window, query)
        grouped = query[0, :, new].reshape(1, kv_heads, -1, head_dim)
        attended = F.scaled_dot_product_attention(
            grouped,
            keys[None],
            values[None],
            attn_mask=None if mask is None else mask.repeat(heads // kv_heads, 1),
            scale=scaling,
        )
        output[0, new] = attended.view(heads, tokens, -1).transpose(0, 1)
        start += tokens
    return output


AttentionInterface.register(ATTENTION, ragged_attention)
