"""The forward pass of a small llama-like model as one graph, which OpenVINO computes.

Of a small model's token, what it costs to call each operation is most of the time, and attention of
many answers reads keys and values at a third of what memory gives. OpenVINO
(https://docs.openvino.ai) takes a whole step in one call, and its paged attention, made for servers
of many sequences (the manner of vLLM, https://arxiv.org/abs/2309.06180), reads them at full speed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel

from glm_backend.engine.batch import Stretch
from glm_backend.engine.llama_like import (
    PAIRS,
    Layer,
    head_counts,
    is_known,
    layer_of,
    rotation,
    small_twin,
    turns_of,
    unless_ones,
)
from glm_backend.engine.runner import Parts, gives, trial
from glm_backend.engine.slot_memory import SlotMemory
from glm_backend.graphs import compiled

#: Tokens of a block of keys or values: what OpenVINO's attention takes on CPUs.
_BLOCK = 32
#: Hidden sizes from which on reading the weights is what takes the time, and one layer at a time is
#: enough (int8_kernels.py); their memory while loading is promised, too.
_LARGE = 2048
#: Heads that its attention was tried with.
_HEAD_DIMS = (64, 128)

KV_DTYPE = torch.float16
#: What the twin's numbers are held against: activations are rounded to 8 bits.
_TWIN_DTYPE = torch.bfloat16
_SEQUENCES = ("scored", "past_lens", "sequence_begins", "blocks", "block_begins")

logger = logging.getLogger(__name__)
#: Of an OpenVINO graph, whose own types are not told.
Node = Any


class Quantised(Protocol):
    """A layer with weights in few bits."""

    def joined(self, *others: Any, order: Tensor | None = None) -> tuple[Any, Tensor | None]:
        """One weight and bias in the place of those of this layer and of `others`.

        They let go of theirs. order: the rows of all in the order in which they are wanted. The
        weight has `node`, which multiplies a node by it, and `nbytes`.
        """
        ...


class GraphRunner:
    """Runs a small llama-like model with weights in INT8, several sequences a pass.

    It takes the module over. Keys and values are kept in half precision. An answer is the same in
    any company, to the last bit (observed, and tested): OpenVINO takes sequences of one token in
    one way and longer ones in another, and a sequence that is all alone in a third.
    """

    batched = True
    rewinds = True
    parts = 1
    kernels = frozenset({"OpenVINO"})
    kv_dtype = KV_DTYPE

    def __init__(self, module: PreTrainedModel) -> None:
        self._module = module
        self._turns = turns_of(module, module.config.max_position_embeddings, torch.device("cpu"))
        packing = _Packing()
        model = _Graph(module, packing).model
        self._weights = packing.held  # which OpenVINO may read at any call
        self.held_bytes = sum(weight.nbytes for weight in packing.held)
        self._compiled = compiled(model, KV_CACHE_PRECISION="f16")
        _, self._kv_heads, self._head_dim = head_counts(module)
        self._layers = module.config.num_hidden_layers

    @classmethod
    def fits(cls, module: PreTrainedModel) -> bool:
        """Whether this is a model for it, and a small twin has its own numbers in any company."""
        linear = [part for part in module.modules() if hasattr(part, "joined")]
        if not linear or not all(getattr(part.weight, "has_node", False) for part in linear):
            return False
        small = module.config.hidden_size < _LARGE and module.device.type == "cpu"
        if not small or module.dtype is not torch.float32 or not is_known(module):
            return False
        if (dim := head_counts(module)[2]) not in _HEAD_DIMS:
            return False
        twin = _quantised_twin(module, dim, linear[0])
        expected = trial(twin)
        try:
            runner = cls(twin)
            return gives(runner, _TWIN_DTYPE, expected) and _is_the_same_in_company(runner)
        except (ImportError, RuntimeError) as error:
            logger.info("OpenVINO cannot run this model: %s", error)
            return False

    def open(self, slots: int, tokens: int) -> None:
        self._slots = self._places(slots, tokens)

    def forward(self, batch: Sequence[Stretch]) -> Tensor:
        for stretch in batch:
            self._slots.make_ready(stretch.slot, stretch.end)
        return self._run(_Step(batch, self._slots), self._slots)

    def read(self, batch: Sequence[Stretch]) -> Parts:
        raise AssertionError("it cannot rest")

    def copy(self, source: int, target: int, tokens: int) -> None:
        self._slots.copy(source, target, tokens)

    def clear(self, slot: int) -> None:
        self._slots.clear(slot)

    def score(self, token_ids: Sequence[int]) -> Tensor:
        slots = self._places(1, len(token_ids))
        whole = Stretch(0, 0, token_ids, scored=len(token_ids))
        return self._run(_Step([whole], slots), slots)

    def _places(self, slots: int, tokens: int) -> _Slots:
        shape = (self._kv_heads, _BLOCK, self._head_dim)
        return _Slots(slots, tokens, self._layers, shape, self._compiled.create_infer_request())

    def _run(self, step: _Step, slots: _Slots) -> Tensor:
        if step.length > len(self._turns):
            self._turns = turns_of(self._module, step.length, torch.device("cpu"))
        with torch.inference_mode():
            hidden = F.embedding(step.ids, self._module.model.embed_tokens.weight)
            turns = self._turns[step.positions][:, None]
        numbers = {"hidden": hidden, "cos": turns.real.contiguous(), "sin": turns.imag.contiguous()}
        inputs = {name: tensor.numpy() for name, tensor in numbers.items()} | step.numbers
        return slots.infer(inputs)[: step.scored]


class _Slots:
    """Keys and values of so many sequences, and the request that reads and writes them.

    Each layer's keys and values are [blocks, kv_heads, 32, head_dim]; the blocks of a slot lie side
    by side. Behind the last slot there is one more, of what only fills up.
    """

    def __init__(
        self, slots: int, tokens: int, layers: int, block: tuple[int, int, int], request: Any
    ) -> None:
        import openvino

        self.filling = slots
        self.blocks = _blocks(tokens + 1)  # a prompt's last token may be read with one behind it
        self._memory = SlotMemory(slots + 1, torch.device("cpu"))
        self._request = request
        for name in ("keys", "values"):
            for layer in range(layers):
                tensor = self._memory.new((self.blocks, *block), KV_DTYPE).flatten(0, 1)
                held = openvino.Tensor(tensor.numpy(), shared_memory=True)
                request.set_tensor(f"{name}_{layer}", held)

    def make_ready(self, slot: int, tokens: int) -> None:
        self._memory.make_ready(slot, _blocks(tokens + 1))

    def copy(self, source: int, target: int, tokens: int) -> None:
        self._memory.copy(source, target, _blocks(tokens))

    def clear(self, slot: int) -> None:
        self._memory.clear(slot)

    def infer(self, inputs: dict[str, NDArray[Any]]) -> Tensor:
        """Logits: float32 [scored, vocab]."""
        import openvino

        for name, array in inputs.items():
            self._request.set_tensor(name, openvino.Tensor(array, shared_memory=True))
        self._request.infer(share_outputs=True)
        return torch.from_numpy(self._request.get_output_tensor(0).data.copy())


class _Step:
    """The tensors of one step over `stretches`.

    ids, positions: [tokens]. length: tokens of the longest sequence. numbers: what attention is
    told about the sequences, and the places whose logits are wanted, in the order of the stretches.
    """

    def __init__(self, stretches: Sequence[Stretch], slots: _Slots) -> None:
        ids: list[int] = []
        positions: list[int] = []
        scored: list[int] = []
        sequences: list[tuple[int, int, int]] = []  # slot, tokens before, tokens
        for stretch in stretches:
            new = list(stretch.token_ids)
            if stretch.answering:
                sequences += [
                    (stretch.slot, place, 1) for place in range(stretch.start, stretch.end)
                ]
            else:
                if len(new) == 1:  # what is behind it is written anew by its own token
                    new.append(0)
                sequences.append((stretch.slot, stretch.start, len(new)))
            end = len(ids) + len(stretch.token_ids)
            scored += range(end - stretch.scored, end)
            ids += new
            positions += range(stretch.start, stretch.start + len(new))
        sequences.append((slots.filling, 0, 1))  # so that none is ever alone
        self.scored = len(scored)
        if not scored:  # a graph without any output computes nothing
            scored.append(len(ids))
        self.ids = torch.tensor([*ids, 0])
        self.positions = torch.tensor([*positions, 0])
        self.length = max(stretch.end for stretch in stretches) + 1
        blocks = [
            range(slot * slots.blocks, slot * slots.blocks + _blocks(before + tokens))
            for slot, before, tokens in sequences
        ]
        self.numbers = {
            "scored": _int32(scored),
            "past_lens": _int32([before for _, before, _ in sequences]),
            "sequence_begins": _begins([tokens for _, _, tokens in sequences]),
            "blocks": _int32([block for some in blocks for block in some]),
            "block_begins": _begins([len(some) for some in blocks]),
            "longest": np.array(max(before + tokens for _, before, tokens in sequences), np.int32),
        }


class _Graph:
    """The graph of a module. Inputs are those of `_Step` and `_Slots`; the output is the logits.

    model: an openvino.Model.
    """

    def __init__(self, module: PreTrainedModel, packing: _Packing) -> None:
        from openvino import Model
        from openvino import opset13 as op

        self._op = op
        self._inputs: list[Node] = []
        self._heads, self._kv_heads, self._dim = head_counts(module)
        self._eps = op.constant(np.float32(module.config.rms_norm_eps))
        half = self._dim // 2
        hidden = self._input("hidden", [-1, module.config.hidden_size])
        self._cos, self._sin = (self._input(name, [-1, 1, half]) for name in ("cos", "sin"))
        scored, *self._sequences = (self._input(name, [-1], np.int32) for name in _SEQUENCES)
        self._longest = self._input("longest", [], np.int32)
        order = _half_order(module)
        for number, layer in enumerate(module.model.layers):
            hidden = self._layer(number, layer_of(layer, packing, order), hidden)
        last = op.gather(hidden, scored, op.constant(np.array(0)))
        logits = packing.packed(module.lm_head)(
            self._norm(last, unless_ones(module.model.norm.weight))
        )
        self.model = Model([logits], self._inputs)

    def _layer(self, number: int, layer: Layer[Node], hidden: Node) -> Node:
        op = self._op
        x = self._attention(number, layer, self._norm(hidden, layer.before_attention))
        hidden = op.add(hidden, self._behind(x, layer.after_attention))
        gate, up = self._split(layer.gate_up(self._norm(hidden, layer.before_mlp)), 1, 2)
        x = layer.down(op.multiply(op.swish(gate), up))
        return op.add(hidden, self._behind(x, layer.after_mlp))

    def _attention(self, number: int, layer: Layer[Node], x: Node) -> Node:
        op, heads, kv_heads = self._op, self._heads, self._kv_heads
        x = op.reshape(layer.query_key_value(x), [0, heads + 2 * kv_heads, self._dim], True)
        turning, values = self._parts(x, [heads + kv_heads, kv_heads])
        one, other = self._split(turning, 2, 2)
        one, other = (
            op.subtract(op.multiply(one, self._cos), op.multiply(other, self._sin)),
            op.add(op.multiply(other, self._cos), op.multiply(one, self._sin)),
        )
        query, keys = self._parts(op.concat([one, other], 2), [heads, kv_heads])
        flat = [op.reshape(part, [0, -1], True) for part in (query, keys, values)]
        return layer.output(self._attended(number, *flat))

    def _attended(self, number: int, query: Node, keys: Node, values: Node) -> Node:
        """Paged attention: writes keys and values, and attends to all of each sequence."""
        from openvino import PartialShape, Type, op

        caches = []
        for name in ("keys", "values"):
            # Of no type: told one, the graph may work on a copy in another.
            cache = op.Parameter(Type.dynamic, PartialShape([-1, self._kv_heads, -1, self._dim]))
            cache.output(0).set_names({f"{name}_{number}"})
            self._inputs.append(cache)
            caches.append(cache)
        constant = self._op.constant
        none = {dtype: constant(np.zeros(0, dtype)) for dtype in (np.int32, np.float32, np.uint8)}
        zero = constant(np.int32(0))
        node = op._PagedAttentionExtension(
            [
                part.output(0)
                for part in (
                    query,
                    keys,
                    values,
                    *caches,
                    *self._sequences,
                    constant(np.float32(self._dim**-0.5)),
                    zero,  # no window
                    none[np.float32],  # nor biases by distance
                    self._longest,
                    none[np.int32],  # no sums of scores
                    none[np.int32],  # no keys that turn
                    constant(np.zeros((0, 0), np.int32)),
                    constant(np.zeros((0, 0), np.float32)),
                    none[np.float32],  # none of them left out
                    zero,
                    zero,
                    none[np.float32],  # no sinks
                    zero,  # nothing let go of
                    *[none[np.int32]] * 4,
                    none[np.uint8],  # no trees of guesses
                    none[np.int32],
                )
            ]
        )
        about = node.get_rt_info()
        about["num_k_heads"] = about["num_v_heads"] = self._kv_heads
        about["k_head_size"] = about["v_head_size"] = self._dim
        return node.output(0)

    def _norm(self, x: Node, weight: Tensor | None) -> Node:
        """Root mean square norm (Zhang and Sennrich 2019), [rows, hidden]."""
        op = self._op
        mean = op.reduce_mean(op.multiply(x, x), op.constant(np.array([1])), True)
        scaled = op.divide(x, op.sqrt(op.add(mean, self._eps)))
        return scaled if weight is None else op.multiply(scaled, op.constant(_array(weight)))

    def _behind(self, x: Node, weight: Tensor | None) -> Node:
        return x if weight is None else self._norm(x, weight)

    def _split(self, x: Node, axis: int, parts: int) -> list[Node]:
        return list(self._op.split(x, self._op.constant(np.array(axis)), parts).outputs())

    def _parts(self, x: Node, heads: Sequence[int]) -> list[Node]:
        axis, sizes = self._op.constant(np.array(1)), self._op.constant(np.array(heads))
        return list(self._op.variadic_split(x, axis, sizes).outputs())

    def _input(self, name: str, shape: Sequence[int], dtype: type = np.float32) -> Node:
        node = self._op.parameter(shape, dtype)
        node.output(0).set_names({name})
        self._inputs.append(node)
        return node


class _Packing:
    """Linear layers as nodes. held: the weights that the graph reads."""

    def __init__(self) -> None:
        self.held: list[Any] = []

    def packed(self, *parts: nn.Module, order: Tensor | None = None) -> Callable[[Node], Node]:
        """Layers of one input as one."""
        from openvino import opset13 as op

        first, *others = cast(Sequence[Quantised], parts)
        weight, bias = first.joined(*others, order=order)
        self.held.append(weight)

        def product(x: Node) -> Node:
            y = weight.node(x)
            return y if bias is None else op.add(y, op.constant(_array(bias)))

        return product


def _quantised_twin(module: PreTrainedModel, head_dim: int, linear: Any) -> PreTrainedModel:
    """A small twin whose linear layers are of the kind of `linear`."""
    twin = small_twin(module, head_dim)
    for name, part in list(twin.named_modules()):
        if type(part) is nn.Linear:
            weight = linear.weight.like(part.weight.detach())
            twin.set_submodule(name, type(linear)(weight, part._parameters["bias"]))
    return twin


def _is_the_same_in_company(runner: GraphRunner) -> bool:
    """Whether a prompt read in portions, and guesses, get the bits that they get alone.

    Nothing promises it: which way attention and products go is up to OpenVINO and the processor.
    """
    prompt, answer = [5 + n % 50 for n in range(70)], [7, 11, 13]
    runner.open(3, len(prompt) + len(answer))
    alone = [runner.forward([Stretch(0, 0, prompt)])]
    for place, token_id in enumerate(answer):
        single = Stretch(0, len(prompt) + place, [token_id], answering=True)
        alone.append(runner.forward([single]))
    runner.forward([Stretch(1, 0, prompt[:44], scored=0), Stretch(2, 0, prompt[:33])])
    other = Stretch(2, 33, [9], answering=True)
    runner.forward([other, Stretch(1, 44, prompt[44:69], scored=0)])
    read = runner.forward([other, Stretch(1, 69, prompt[69:])])[1:]
    guessed = Stretch(1, len(prompt), answer, scored=len(answer), answering=True)
    company = [read, runner.forward([guessed, other])[: len(answer)]]
    return torch.equal(torch.cat(alone), torch.cat(company))


def _half_order(module: PreTrainedModel) -> Tensor | None:
    """The rows of query, key and value with the two numbers of a pair half a head apart.

    Where they stand side by side: queries and keys are laid out alike, so no product of them
    notices. None where they stand so already.
    """
    if rotation(module) != PAIRS:
        return None
    heads, kv_heads, dim = head_counts(module)
    turning = (heads + kv_heads) * dim
    rows = torch.arange(turning).view(-1, dim // 2, 2).transpose(1, 2).flatten()
    return torch.cat([rows, torch.arange(turning, turning + kv_heads * dim)])


def _blocks(tokens: int) -> int:
    """Blocks that so many tokens take."""
    return -(-tokens // _BLOCK)


def _int32(numbers: Sequence[int]) -> NDArray[np.int32]:
    return np.array(numbers, np.int32)


def _begins(lengths: Sequence[int]) -> NDArray[np.int32]:
    """Where each of several parts begins, and the last one ends."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)


def _array(tensor: Tensor) -> NDArray[np.float32]:
    return tensor.detach().float().numpy()
