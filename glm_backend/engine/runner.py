"""One forward pass of a transformers model over several sequences at once.

transformers lets a program bring its own attention function under a name (AttentionInterface);
the batch reaches it as a keyword argument of the model's forward. Models that do not take one run
one sequence a pass, with their own cache.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Generator, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, DynamicCache, PreTrainedModel

from glm_backend.engine.batch import Batch, Stretch
from glm_backend.engine.kv_cache import KVCache, Prefix
from glm_backend.errors import InternalError, Phrase

ATTENTION = "glm_ragged"
#: A pass that rests between its parts, and gives the logits at its end.
Parts = Generator[None, None, Tensor]

#: Largest difference, as a share of the largest logit, that counts as the same numbers.
_TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
_TRIAL = [5, 7, 11, 13, 17]

logger = logging.getLogger(__name__)


class Runner(Protocol):
    """What the engine needs of a model. Slots are numbered from 0."""

    @property
    def held_bytes(self) -> int:
        """Bytes of the weights that it holds itself, the module no longer."""
        ...

    @property
    def kernels(self) -> frozenset[str]:
        """What computes the linear layers that are no part of the module any more, by name."""
        ...

    @property
    def batched(self) -> bool:
        """Whether `forward` takes several stretches."""
        ...

    @property
    def rewinds(self) -> bool:
        """Whether a slot may go on from fewer tokens than it holds, or from another slot's."""
        ...

    @property
    def parts(self) -> int:
        """Of how many parts of about the same length `read` is; 1 where it cannot rest."""
        ...

    def open(self, slots: int, tokens: int) -> None:
        """Makes room for so many sequences of at most `tokens` tokens; called once."""
        ...

    def forward(self, batch: Sequence[Stretch]) -> Tensor:
        """Logits of the scored tokens, stretch by stretch: [scored, vocab], float32, on the CPU.

        A pass that raises leaves every slot usable up to the start of its stretch.
        """
        ...

    def read(self, batch: Sequence[Stretch]) -> Parts:
        """`forward` in parts, between which other slots may take their passes; only where several.

        One that is given up leaves its slots as one that raises.
        """
        ...

    def copy(self, source: int, target: int, tokens: int) -> None:
        """Gives a slot the first tokens of another; only where `rewinds`."""
        ...

    def clear(self, slot: int) -> None:
        """Forgets what a slot holds and gives its memory back where that can be."""
        ...

    def score(self, token_ids: Sequence[int]) -> Tensor:
        """Logits after every token of one sequence: [tokens, vocab], float32, on the CPU.

        Touches no slot; may be called from any thread.
        """
        ...


class RaggedRunner:
    """Runs any transformers causal language model that takes a custom attention function.

    prefix: rows that every sequence finds before its first token. kv_dtype: in what keys and values
    are kept, None for what the model computes in. Both are set before `open`.
    """

    batched = True
    rewinds = True
    parts = 1
    kernels: frozenset[str] = frozenset()
    held_bytes = 0

    def __init__(self, module: PreTrainedModel) -> None:
        self.prefix: Prefix = ()
        self.kv_dtype: torch.dtype | None = None
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

    def open(self, slots: int, tokens: int) -> None:
        self._cache = KVCache(slots, tokens, self.prefix, self.kv_dtype)

    def forward(self, batch: Sequence[Stretch]) -> Tensor:
        return self._run(batch, self._cache)

    def read(self, batch: Sequence[Stretch]) -> Parts:
        raise AssertionError("it cannot rest")

    def copy(self, source: int, target: int, tokens: int) -> None:
        self._cache.copy(source, target, tokens)

    def clear(self, slot: int) -> None:
        self._cache.clear(slot)

    def score(self, token_ids: Sequence[int]) -> Tensor:
        cache = KVCache(1, len(token_ids), self.prefix, self.kv_dtype)
        return self._run([Stretch(0, 0, token_ids, scored=len(token_ids))], cache)

    def _run(self, batch: Sequence[Stretch], cache: KVCache) -> Tensor:
        with torch.inference_mode():
            return self._pass(Batch(batch, cache, self._device)).float().cpu()

    def _pass(self, batch: Batch) -> Tensor:
        """Logits of the scored places: [scored, vocab]."""
        output = self._module(
            input_ids=batch.ids[None],
            position_ids=batch.positions[None],
            use_cache=False,
            # An empty tensor of places is not taken by every family.
            logits_to_keep=batch.scored if len(batch.scored) else 1,
            batch=batch,
        )
        logits: Tensor = output.logits[0]
        return logits[: len(batch.scored)]


class SoloRunner:
    """Runs a model that cannot take our attention: one sequence a pass, with its own cache."""

    batched = False
    rewinds = False
    parts = 1
    kernels: frozenset[str] = frozenset()
    held_bytes = 0

    def __init__(self, module: PreTrainedModel) -> None:
        self._module = module
        self._device = next(module.parameters()).device
        self._caches: dict[int, DynamicCache] = {}
        # Attention models name it past_key_values, state space models cache_params.
        names = inspect.signature(module.forward).parameters
        self._cache_name = "cache_params" if "cache_params" in names else "past_key_values"

    def open(self, slots: int, tokens: int) -> None:
        """Each sequence takes what it needs."""

    def forward(self, batch: Sequence[Stretch]) -> Tensor:
        (stretch,) = batch
        if stretch.start == 0:
            self._caches[stretch.slot] = DynamicCache(config=self._module.config)
        logits = self._logits(
            stretch.token_ids,
            use_cache=True,
            logits_to_keep=max(1, stretch.scored),
            **{self._cache_name: self._caches[stretch.slot]},
        )
        return logits[len(logits) - stretch.scored :]

    def read(self, batch: Sequence[Stretch]) -> Parts:
        raise AssertionError("it cannot rest")

    def copy(self, source: int, target: int, tokens: int) -> None:
        raise AssertionError("it does not rewind")

    def clear(self, slot: int) -> None:
        self._caches.pop(slot, None)

    def score(self, token_ids: Sequence[int]) -> Tensor:
        return self._logits(token_ids, use_cache=False)

    def _logits(self, token_ids: Sequence[int], **options: object) -> Tensor:
        with torch.inference_mode():
            ids = torch.tensor([list(token_ids)], device=self._device)
            logits: Tensor = self._module(input_ids=ids, **options).logits[0]
            return logits.float().cpu()


def finished(parts: Parts) -> Tensor:
    """The logits of a pass without a rest."""
    while True:
        try:
            next(parts)
        except StopIteration as end:
            logits: Tensor = end.value
            return logits


def pack_quantised(module: nn.Module) -> None:
    """Puts the fastest kernel in the place of each layer that holds its weights in few bits."""
    for name, part in list(module.named_modules()):
        if hasattr(part, "packed"):
            module.set_submodule(name, part.packed())


def runner_for(module: PreTrainedModel, prefix: Prefix = ()) -> Runner:
    """The fastest runner that the model's own numbers come out of.

    The runner takes the module over, which may not be able to compute by itself from here on.
    Raises InternalError for a prefix that only the solo one could take.
    """
    from glm_backend.engine.lean_decoder import LeanRunner  # they stand on this module
    from glm_backend.engine.native_runner import NativeRunner

    if not prefix and NativeRunner.fits(module):
        return NativeRunner(module)
    if LeanRunner.fits(module):
        lean = LeanRunner(module)
        lean.prefix = prefix
        return lean
    solo, own_attention = SoloRunner(module), module.config._attn_implementation
    if RaggedRunner.takes(module):
        expected = solo.score(_TRIAL)
        if gives(ragged := RaggedRunner(module), module.dtype, expected):
            pack_quantised(module)
            ragged.prefix = prefix
            return ragged
    if prefix:
        raise InternalError(message=Phrase("this model cannot take a trained prefix"))
    module.set_attn_implementation(own_attention)
    pack_quantised(module)
    return solo


def gives(runner: Runner, dtype: torch.dtype, expected: Tensor) -> bool:
    """Whether these are the logits after the trial tokens of a runner that computes in `dtype`.

    Whether a model family honours a foreign attention function is not written anywhere, so it is
    tried: a few tokens in two steps, and beside a neighbour.
    """
    runner.open(2, len(_TRIAL))
    try:
        runner.forward([Stretch(0, 0, _TRIAL[:3], scored=0)])
        both = runner.forward([Stretch(1, 0, _TRIAL, scored=5), Stretch(0, 3, _TRIAL[3:])])
    except Exception as error:
        logger.info("%s cannot run this model: %s", type(runner).__name__, error)
        return False
    off = (both - torch.cat([expected, expected[-1:]])).abs().max()
    return bool(off <= _TOLERANCE[dtype] * expected.abs().max().clamp(min=1))


def trial(module: PreTrainedModel) -> Tensor:
    """The module's own logits after the trial tokens."""
    return SoloRunner(module).score(_TRIAL)


def ragged_attention(
    module: nn.Module,
    query: Tensor,  # [1, heads, tokens, head_dim]
    key: Tensor,  # [1, kv_heads, tokens, head_dim]
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    batch: Batch,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **_: object,
) -> tuple[Tensor, None]:
    """Attention of the batch as transformers calls it; output [1, tokens, heads, head_dim]."""
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    query, key, value = (part[0].transpose(0, 1) for part in (query, key, value))
    attended = batch.attend(layer, query, key, value, scale=scaling, window=sliding_window)
    return attended[None], None


AttentionInterface.register(ATTENTION, ragged_attention)
