"""A llama-like model as graphs of OpenVINO's, a few layers each.

What a graph is told about the sequences of a step (SEQUENCES) is what its paged attention takes;
keys and values lie in blocks of BLOCK tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel

from glm_backend.engine.llama_like import (
    Layer,
    half_order,
    head_counts,
    layer_of,
    unless_ones,
)
from glm_backend.graphs import Shelf, compiled

#: Tokens of a block of keys or values: what OpenVINO's attention takes on CPUs.
BLOCK = 32
#: Of each sequence the tokens before; where its new ones and its blocks begin in the next two; the
#: blocks of all; and the tokens of the longest.
SEQUENCES = ("past_lens", "sequence_begins", "blocks", "block_begins", "longest")
#: Layers of one graph. A prompt rests between graphs, so that answers go on; each costs a step
#: 0.2 ms (docs/architecture.md).
LAYERS_AT_ONCE = 3

#: Of an OpenVINO graph, whose own types are not told.
Node = Any
#: A linear layer.
Product = Callable[[Node], Node]


class Quantised(Protocol):
    """A layer with weights in few bits."""

    def joined(self, *others: Any, order: Tensor | None = None) -> tuple[Any, Tensor | None]:
        """One weight and bias in the place of those of this layer and of `others`.

        They let go of theirs. order: the rows of all in the order in which they are wanted. The
        weight has `node`, which multiplies a node by it, `shelved` and `tensors`.
        """
        ...


class Graphs(NamedTuple):
    """Compiled graphs of a model.

    layers: each takes "hidden", "cos", "sin", SEQUENCES, and "keys_0", "values_0" of its first
    layer and so on; it gives hidden. head: takes "hidden", gives logits. held: the weights that
    they may read at any call, which lie on the shelf. nbytes: of them.
    """

    layers: list[Any]
    head: Any
    held: list[Any]
    shelf: Shelf
    nbytes: int


def graphs_of(module: PreTrainedModel) -> Graphs:
    """The graphs of a module, which lets go of its weights.

    Raises ImportError where OpenVINO is not installed, RuntimeError for what it cannot take.
    """
    linear: list[Any] = [part for part in module.modules() if hasattr(part, "joined")]
    nbytes = sum(tensor.nbytes for part in linear for tensor in part.weight.tensors().values())
    packing = _Packing(Shelf(nbytes))
    order = half_order(module)
    layers = [layer_of(layer, packing, order) for layer in module.model.layers]
    groups = [layers[i : i + LAYERS_AT_ONCE] for i in range(0, len(layers), LAYERS_AT_ONCE)]
    models = [_Graph(module).of_layers(group) for group in groups]
    norm, head = unless_ones(module.model.norm.weight), packing.packed(module.lm_head)
    models.append(_Graph(module).of_head(norm, head))
    compiling = partial(compiled, KV_CACHE_PRECISION="f16")
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:  # each takes a tenth of a second
        *graphs, last = threads.map(compiling, models)
    return Graphs(graphs, last, packing.held, packing.shelf, nbytes)


class _Graph:
    """One graph under construction."""

    def __init__(self, module: PreTrainedModel) -> None:
        from openvino import opset13 as op

        self._op = op
        self._inputs: list[Node] = []
        self._heads, self._kv_heads, self._dim = head_counts(module)
        self._eps = op.constant(np.float32(module.config.rms_norm_eps))
        self._hidden = self._input("hidden", [-1, module.config.hidden_size])

    def of_layers(self, layers: Sequence[Layer[Product]]) -> Any:
        """An openvino.Model of some layers."""
        from openvino import Model

        half = self._dim // 2
        self._cos, self._sin = (self._input(name, [-1, 1, half]) for name in ("cos", "sin"))
        shapes = [[] if name == "longest" else [-1] for name in SEQUENCES]
        self._sequences = [
            self._input(name, shape, np.int32)
            for name, shape in zip(SEQUENCES, shapes, strict=True)
        ]
        hidden = self._hidden
        for number, layer in enumerate(layers):
            hidden = self._layer(number, layer, hidden)
        return Model([hidden], self._inputs)

    def of_head(self, norm: Tensor | None, head: Product) -> Any:
        """An openvino.Model from hidden to logits."""
        from openvino import Model

        return Model([head(self._norm(self._hidden, norm))], self._inputs)

    def _layer(self, number: int, layer: Layer[Product], hidden: Node) -> Node:
        op = self._op
        x = self._attention(number, layer, self._norm(hidden, layer.before_attention))
        hidden = op.add(hidden, self._behind(x, layer.after_attention))
        gate, up = self._split(layer.gate_up(self._norm(hidden, layer.before_mlp)), 1, 2)
        x = layer.down(op.multiply(op.swish(gate), up))
        return op.add(hidden, self._behind(x, layer.after_mlp))

    def _attention(self, number: int, layer: Layer[Product], x: Node) -> Node:
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
        *sequences, longest = self._sequences
        node = op._PagedAttentionExtension(
            [
                part.output(0)
                for part in (
                    query,
                    keys,
                    values,
                    *caches,
                    *sequences,
                    constant(np.float32(self._dim**-0.5)),
                    zero,  # no window
                    none[np.float32],  # nor biases by distance
                    longest,
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
    """Linear layers as nodes. held: the weights that the graphs read, on a shelf."""

    def __init__(self, shelf: Shelf) -> None:
        self.shelf = shelf
        self.held: list[Any] = []

    def packed(self, *parts: nn.Module, order: Tensor | None = None) -> Product:
        """Layers of one input as one."""
        from openvino import opset13 as op

        first, *others = cast(Sequence[Quantised], parts)
        weight, bias = first.joined(*others, order=order)
        weight = weight.shelved(self.shelf)
        self.held.append(weight)

        def product(x: Node) -> Node:
            y = weight.node(x)
            return y if bias is None else op.add(y, op.constant(_array(bias)))

        return product


def _array(tensor: Tensor) -> NDArray[np.float32]:
    return tensor.detach().float().numpy()
