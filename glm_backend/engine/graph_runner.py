"""Runs a small llama-like model through graphs that OpenVINO computes.

Of a small model's token, what it costs to call each operation is most of the time, and torch's
attention of many answers reads keys and values at a third of what memory gives. OpenVINO
(https://docs.openvino.ai) takes a step in a few calls, and its paged attention, made for servers of
many sequences in the manner of vLLM (https://arxiv.org/abs/2309.06180), reads two to three times as
fast.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from glm_backend.engine.batch import Stretch
from glm_backend.engine.llama_graph import BLOCK, LAYERS_AT_ONCE, SEQUENCES, graphs_of
from glm_backend.engine.llama_like import head_counts, is_known, quantised_twin, turns_of
from glm_backend.engine.runner import Parts, finished, gives, trial
from glm_backend.engine.slot_memory import SlotMemory

#: What keys and values are kept in.
_KV_DTYPE = torch.float16
#: Hidden sizes from which on reading the weights is what takes the time, so that a call for each
#: layer is quick enough (int8_kernels.py); their memory while loading is promised, too.
_LARGE = 2048
#: Numbers of a head that its attention was tried with.
_HEAD_DIMS = (64, 128)
#: What the twin's numbers are held against: activations are rounded to 8 bits.
_TWIN_DTYPE = torch.bfloat16

logger = logging.getLogger(__name__)


class GraphRunner:
    """Runs a small llama-like model with weights in INT8, several sequences a pass.

    It takes the module over. Keys and values are kept in half precision. An answer is the same in
    any company, to the last bit (observed, and tried when a model is loaded).
    """

    batched = True
    rewinds = True
    kernels = frozenset({"OpenVINO"})
    kv_dtype = _KV_DTYPE

    def __init__(self, module: PreTrainedModel) -> None:
        self._module = module
        self._turns = turns_of(module, module.config.max_position_embeddings, torch.device("cpu"))
        self._graphs = graphs_of(module)
        self.parts = len(self._graphs.layers)
        self.held_bytes = self._graphs.nbytes

    @classmethod
    def fits(cls, module: PreTrainedModel) -> bool:
        """Whether this is a model for it, and a small twin has its own numbers in any company."""
        small = module.config.hidden_size < _LARGE and module.device.type == "cpu"
        if not small or module.dtype is not torch.float32 or not is_known(module):
            return False
        if (dim := head_counts(module)[2]) not in _HEAD_DIMS:
            return False
        linear = [part for part in module.modules() if hasattr(part, "joined")]
        if not linear or not all(getattr(part.weight, "has_node", False) for part in linear):
            return False
        twin = quantised_twin(module, dim, linear[0])
        expected = trial(twin)
        try:
            runner = cls(twin)
            return gives(runner, _TWIN_DTYPE, expected) and _is_the_same_in_company(runner)
        except (ImportError, RuntimeError) as error:
            logger.info("OpenVINO cannot run this model: %s", error)
            return False

    def open(self, slots: int, tokens: int) -> None:
        self._slots = self._places(slots, tokens)
        self.forward([Stretch(0, 0, [0, 0])])  # weights are laid out anew when they are first read
        self._graphs.shelf.let_go()
        self.clear(0)

    def forward(self, batch: Sequence[Stretch]) -> Tensor:
        return finished(self._step(batch))

    def read(self, batch: Sequence[Stretch]) -> Parts:
        return self._step(batch)

    def copy(self, source: int, target: int, tokens: int) -> None:
        self._slots.copy(source, target, tokens)

    def clear(self, slot: int) -> None:
        self._slots.clear(slot)

    def score(self, token_ids: Sequence[int]) -> Tensor:
        slots = self._places(1, len(token_ids))
        whole = Stretch(0, 0, token_ids, scored=len(token_ids))
        return finished(self._pass(_Step([whole], slots), slots))

    def _step(self, batch: Sequence[Stretch]) -> Parts:
        for stretch in batch:
            self._slots.make_ready(stretch.slot, stretch.end)
        return self._pass(_Step(batch, self._slots), self._slots)

    def _places(self, slots: int, tokens: int) -> _Slots:
        graphs, layers = self._graphs, self._module.config.num_hidden_layers
        _, kv_heads, dim = head_counts(self._module)
        requests = [graph.create_infer_request() for graph in (*graphs.layers, graphs.head)]
        return _Slots(slots, tokens, layers, (kv_heads, BLOCK, dim), requests)

    def _pass(self, step: _Step, slots: _Slots) -> Parts:
        if step.length > len(self._turns):
            self._turns = turns_of(self._module, step.length, torch.device("cpu"))
        turns = self._turns[step.positions][:, None]
        about = {"cos": turns.real.numpy(), "sin": turns.imag.numpy()} | step.sequences
        embedding = self._module.model.embed_tokens.weight.detach()
        hidden: NDArray[np.float32] = F.embedding(step.ids, embedding).numpy()
        for request in slots.layers:
            slots.tell(about)  # another pass may have been between
            hidden = _inferred(request, hidden)
            yield
        if not step.scored:
            return torch.empty(0, self._module.config.vocab_size)
        return torch.from_numpy(_inferred(slots.head, hidden[step.scored]))


class _Slots:
    """Keys and values of so many sequences, and the requests that read and write them.

    Each layer's keys and values are [blocks, kv_heads, 32, head_dim]; the blocks of a slot lie side
    by side. Behind the last slot there is one more, of what only fills up. layers, head: a request
    of each graph.
    """

    def __init__(
        self,
        slots: int,
        tokens: int,
        layers: int,
        block: tuple[int, int, int],
        requests: Sequence[Any],
    ) -> None:
        from openvino import Tensor as Held

        self.filling = slots
        self.blocks = _blocks(tokens + 1)  # a prompt's last token may be read with one behind it
        *self.layers, self.head = requests
        self._told: dict[str, NDArray[Any]] | None = None
        self._inputs: dict[str, NDArray[Any]] = {}
        self.memory = SlotMemory(slots + 1)
        for layer in range(layers):
            graph, number = divmod(layer, LAYERS_AT_ONCE)
            for name in ("keys", "values"):
                held = self.memory.new((self.blocks, *block), _KV_DTYPE, torch.device("cpu"))
                tensor = Held(held.flatten(0, 1).numpy(), shared_memory=True)
                self.layers[graph].set_tensor(f"{name}_{number}", tensor)

    def tell(self, about: dict[str, NDArray[Any]]) -> None:
        """Gives the inputs of a step to the requests of all layers, unless they have them.

        Setting one takes 5 microseconds for each request, so those of the same shape are written
        where the last ones lie.
        """
        from openvino import Tensor as Held

        if self._told is about:
            return
        self._told = None
        for name, array in about.items():
            held = self._inputs.get(name)
            if held is not None and held.shape == array.shape:
                held[...] = array
                continue
            held = self._inputs[name] = array.copy()
            tensor = Held(held, shared_memory=True)
            for request in self.layers:
                request.set_tensor(name, tensor)
        self._told = about

    def make_ready(self, slot: int, tokens: int) -> None:
        """Has the memory ready that a sequence of so many tokens reads and writes."""
        self.memory.make_ready(slot, _blocks(tokens + 1))

    def copy(self, source: int, target: int, tokens: int) -> None:
        """Gives the slot `target` the first `tokens` of `source`."""
        self.memory.copy(source, target, _blocks(tokens))

    def clear(self, slot: int) -> None:
        """Makes a slot zero, and gives its memory back where that can be."""
        self.memory.clear(slot)


class _Step:
    """The tensors of one step over `stretches`.

    OpenVINO's attention takes sequences of one token in one way, longer ones in another, and one
    that is all alone in a third. So the tokens of an answer, guesses, too, are a sequence each,
    which all read the same blocks; a part of a prompt is never of one token; and none is alone.

    ids, positions: [tokens]. length: tokens of the longest. sequences: what the graphs are told.
    scored: the places whose logits are wanted, in the order of the stretches.
    """

    def __init__(self, stretches: Sequence[Stretch], slots: _Slots) -> None:
        ids: list[int] = []
        positions: list[int] = []
        self.scored: list[int] = []
        found: list[tuple[int, int, int]] = []  # slot, tokens before, tokens
        for stretch in stretches:
            new, places = list(stretch.token_ids), range(stretch.start, stretch.end)
            end = len(ids) + len(new)
            self.scored += range(end - stretch.scored, end)
            if stretch.answering:
                found += [(stretch.slot, place, 1) for place in places]
            else:
                if len(new) == 1:  # what is behind it, its own token will write anew
                    new.append(0)
                found.append((stretch.slot, stretch.start, len(new)))
            ids += new
            positions += range(stretch.start, stretch.start + len(new))
        found.append((slots.filling, 0, 1))
        self.ids = torch.tensor([*ids, 0])
        self.positions = torch.tensor([*positions, 0])
        self.length = max(before + tokens for _, before, tokens in found)
        blocks = [
            range(slot * slots.blocks, slot * slots.blocks + _blocks(before + tokens))
            for slot, before, tokens in found
        ]
        told = (
            np.array([before for _, before, _ in found], np.int32),
            _begins([tokens for _, _, tokens in found]),
            np.array([block for some in blocks for block in some], np.int32),
            _begins([len(some) for some in blocks]),
            np.array(self.length, np.int32),
        )
        self.sequences = dict(zip(SEQUENCES, told, strict=True))


def _inferred(request: Any, hidden: NDArray[np.float32]) -> NDArray[np.float32]:
    """What a request gives for these: [rows, numbers] -> the same or [rows, vocab]."""
    from openvino import Tensor as Held

    request.set_tensor("hidden", Held(hidden, shared_memory=True))
    request.infer(share_outputs=True)
    output: NDArray[np.float32] = request.get_output_tensor(0).data
    return output.copy()  # the next step writes over it


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


def _blocks(tokens: int) -> int:
    """Blocks that so many tokens take."""
    return -(-tokens // BLOCK)


def _begins(lengths: Sequence[int]) -> NDArray[np.int32]:
    """Where each of several parts begins, and the last one ends."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
