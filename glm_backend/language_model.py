"""A loaded model joined with an engine: what answers a chat, and what a Python script holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypedDict, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from glm_backend.completion import TokenCompletion
from glm_backend.engine.kv_cache import padded
from glm_backend.engine.lean_decoder import LeanRunner
from glm_backend.engine.local import LocalEngine
from glm_backend.engine.native_runner import NativeRunner
from glm_backend.engine.prefix_runner import PrefixRunner
from glm_backend.engine.request import Failed, Generation, SamplingParams, Token
from glm_backend.engine.runner import RaggedRunner, Runner, runner_for
from glm_backend.engine.stats import EngineStats
from glm_backend.engine.thread_count import ThreadCount
from glm_backend.errors import EngineClosed, ModelUnsupported, Phrase
from glm_backend.models.allocator import large_blocks_apart
from glm_backend.models.chatglm1 import ChatGLM1
from glm_backend.models.chatglm_family import FAMILIES
from glm_backend.models.chatglm_prompts import ChatGLM1Prompt, ChatGLM3Prompt
from glm_backend.models.chatglm_text import AnswerDetokenizer
from glm_backend.models.kv_precision import kv_dtype
from glm_backend.models.loader import Dtype, load
from glm_backend.models.memory import available_bytes
from glm_backend.models.model import LoadedModel, Message, Quantization, TextTokenizer
from glm_backend.models.prompts import ChatTemplate
from glm_backend.models.quantization import Kernel, weight_bytes
from glm_backend.settings import Settings
from glm_backend.threads import apart, cores

#: Conversations whose keys and values are kept for their next turn, beside those being answered.
_KEPT = 24
#: Share of the free memory that keys and values may take.
_KV_SHARE = 0.5
#: Characters for a token of context from which on a text is hardly one that fits.
_LONG = 8
#: Characters that are cut into tokens at a time where a text is far too long.
_PART = 16_384


class LanguageModel:
    """A model ready to answer. Close it to end its thread and give its memory back.

    It takes the LoadedModel over: whose module may not be able to compute by itself any more.

    family, name, context_length (tokens), tokenizer (None where the folder has none): facts of
    the model; `prompt_ids`, `logits` and `generate_ids` work on token ids.
    """

    def __init__(self, model: LoadedModel, *, max_concurrent: int = 8) -> None:
        torch.set_num_threads(cores())
        self._model = model
        runner = _runner(model)
        self._runner: Runner | None = runner  # None once it is closed
        self._kernels = _kernels(runner, model.module)
        self._engine = LocalEngine(
            runner,
            name=model.name,
            context_length=model.context_length,
            vocab_size=model.vocab_size,
            stop_ids=model.eos_ids,
            **_room(model, max_concurrent),
            threads=ThreadCount(cores() if model.device.type == "cpu" else 1),
            set_threads=torch.set_num_threads,
        )

    @property
    def name(self) -> str:
        return self._model.name

    @property
    def family(self) -> str:
        return self._model.family

    @property
    def recognised(self) -> str:
        """Why it is taken for its family."""
        return self._model.recognised

    @property
    def quantization(self) -> str:
        return self._model.quantization

    @property
    def context_length(self) -> int:
        return self._model.context_length

    @property
    def vocab_size(self) -> int:
        return self._model.vocab_size

    @property
    def tokenizer(self) -> TextTokenizer | None:
        return self._model.tokenizer

    def stats(self) -> EngineStats:
        """How busy the engine is, and what it has done."""
        return self._engine.stats()

    @property
    def kernels(self) -> Sequence[str]:
        """What its linear layers are computed with, where that was chosen here."""
        return self._kernels

    @property
    def kv_bytes_per_token(self) -> int:
        """Of the keys and values of one token; 0 where that is not known."""
        return self._model.kv_bytes_per_token

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """The conversation as the model's own prompt, up to where the answer begins."""
        return self._model.prompt_ids(messages)

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Prompt tokens. Of texts twice as long as the context or more, an estimate.

        To cut millions of words takes seconds, in which nobody else's question is cut.
        """
        length = sum(len(message["content"]) for message in messages)
        if self.tokenizer is not None and length > _LONG * self.context_length:
            text = "".join(message["content"] for message in messages)
            tokens = estimated_tokens(self.tokenizer, text, enough=2 * self.context_length)
            if tokens > 2 * self.context_length:
                return tokens
        prompt, begun = self._prompt_and_beginning(messages)
        return len(prompt) + len(begun)

    def complete(
        self, messages: Sequence[Message], params: SamplingParams, *, client: str = ""
    ) -> TokenCompletion:
        """Starts an answer; see `Completer`."""
        prompt, begun = self._prompt_and_beginning(messages)
        generation = self.submit([*prompt, *begun], params, client=client)
        assert self.tokenizer is not None, "what has no tokenizer has no prompts either"
        detokenizer = self.tokenizer.detokenizer()
        for token_id in begun:  # so that it knows what the new text stands behind
            detokenizer.push(token_id)
        if self.family in FAMILIES:
            behind = messages[-1]["content"] if begun else ""
            wide = self.family == "chatglm"
            detokenizer = AnswerDetokenizer(detokenizer, wide=wide, behind=behind)
        return TokenCompletion(generation, detokenizer, self.tokenizer.decode)

    def _prompt_and_beginning(self, messages: Sequence[Message]) -> tuple[list[int], list[int]]:
        """The ids of the prompt, and of the beginning of the answer when one is carried on."""
        if not messages or messages[-1]["role"] != "assistant":
            return self.prompt_ids(messages), []
        return self.prompt_ids(messages[:-1]), self._beginning(messages[-1])

    def _beginning(self, message: Message) -> list[int]:
        """The beginning of an answer, as its family writes it behind the prompt."""
        tokenizer, text = self.tokenizer, message["content"]
        assert tokenizer is not None, "what has no tokenizer has no prompts either"
        match self._model.prompt_format:
            case ChatGLM3Prompt() as its:  # a line of metadata, then a text by itself
                return its.message_ids(message)[1:]
            case ChatGLM1Prompt():  # behind <sop> a text by itself
                return tokenizer.encode(text)
            case ChatTemplate() as its:
                text = its.before_answer + text
        return ids_behind(tokenizer, text)

    def submit(
        self,
        ids: Sequence[int],
        params: SamplingParams,
        *,
        ignore_eos: bool = False,
        client: str = "",
    ) -> Generation:
        """Starts an answer to a prompt of token ids; its events are tokens. See the engine."""
        if isinstance(self._runner, PrefixRunner):
            self._runner.check(ids)
        return self._engine.submit(ids, params, ignore_eos=ignore_eos, client=client)

    def logits(self, ids: Sequence[int]) -> Tensor:
        """Next-token scores after every token of `ids`: [tokens, vocab], float32.

        Raises EngineClosed.
        """
        if (runner := self._runner) is None:
            raise EngineClosed()
        return apart(lambda: runner.score(ids))

    def generate_ids(
        self,
        ids: Sequence[int],
        max_new_tokens: int = 24,
        temperature: float = 0.0,
        seed: int | None = None,
        ignore_eos: bool = False,
    ) -> list[int]:
        """The ids that follow `ids`, through the engine. Raises what ended it, if it failed."""
        params = SamplingParams(
            temperature=temperature, top_p=1.0, max_new_tokens=max_new_tokens, seed=seed
        )
        answer = []
        for event in self.submit(ids, params, ignore_eos=ignore_eos).events():
            if isinstance(event, Token):
                answer.append(event.token_id)
            elif isinstance(event, Failed):
                raise event.error
        return answer

    def close(self) -> None:
        """Ends every answer under way as cancelled and lets go of the weights."""
        self._engine.close()
        # Somebody may still hold this object for its name; the weights must go now.
        self._model.module = nn.Module()
        self._runner = None


def estimated_tokens(tokenizer: TextTokenizer, text: str, *, enough: int) -> int:
    """Counted part by part; once there are more than `enough`, the rest is taken to be alike."""
    tokens = 0
    for start in range(0, len(text), _PART):
        tokens += len(tokenizer.encode(text[start : start + _PART]))
        if tokens > enough:
            return tokens * len(text) // min(start + _PART, len(text))
    return tokens


def ids_behind(tokenizer: TextTokenizer, text: str) -> list[int]:
    """Ids of a text that stands behind others: without the space that some tokenizers put first.

    The text is encoded behind a character that shares no token with it, and the ids of that one
    are taken off.
    """
    for before in _BEFORE:
        ids, head = tokenizer.encode(before + text), tokenizer.encode(before)
        if ids[: len(head)] == head:
            return ids[len(head) :]
    return tokenizer.encode(text)


_BEFORE = ("\n", ":", "。")


def _runner(model: LoadedModel) -> Runner:
    runner: Runner
    with large_blocks_apart():
        if isinstance(model.module, ChatGLM1):
            runner = PrefixRunner(model.module)
        else:
            module = cast(PreTrainedModel, model.module)
            if model.layers and not LeanRunner.fits(module):
                raise ModelUnsupported(
                    model=model.name,
                    reason=Phrase("it does not fit on one GPU, and its layers cannot be spread"),
                    remedy=Phrase("Choose INT8 or INT4, or the device cpu."),
                )
            runner = runner_for(module, model.prefix)
            if isinstance(runner, RaggedRunner):
                runner.kv_dtype = kv_dtype(model)
            if isinstance(runner, RaggedRunner | NativeRunner) and (narrow := runner.kv_dtype):
                model.kv_bytes_per_token = model.kv_bytes_per_token * narrow.itemsize // 4
        model.memory_bytes = runner.held_bytes + weight_bytes(model.module)
    return runner


def _kernels(runner: Runner, module: nn.Module) -> list[str]:
    names = {type(part).__name__ for part in module.modules() if isinstance(part, Kernel)}
    return sorted(names | runner.kernels)


class _Room(TypedDict):
    max_concurrent: int
    kept: int
    kv_tokens: int | None


def _room(model: LoadedModel, max_concurrent: int) -> _Room:
    """How many conversations there is memory for, beside the weights that are loaded."""
    if not model.kv_bytes_per_token:
        return {"max_concurrent": max_concurrent, "kept": _KEPT, "kv_tokens": None}
    tokens = max(_kv_tokens(model), model.context_length)
    if model.device.type == "cpu":  # what is not written takes no memory
        return {"max_concurrent": max_concurrent, "kept": _KEPT, "kv_tokens": tokens}
    slots = max(1, tokens // padded(model.context_length))
    running = min(max_concurrent, slots)
    return {"max_concurrent": running, "kept": min(_KEPT, slots - running), "kv_tokens": None}


def _kv_tokens(model: LoadedModel) -> int:
    """Tokens whose keys and values the free memory holds, of every device those of its layers."""
    layers = Counter(model.layers or [model.device])
    return min(
        int(available_bytes(device) * _KV_SHARE * layers.total() / (model.kv_bytes_per_token * n))
        for device, n in layers.items()
    )


def load_model(  # noqa: PLR0917 - the order is public
    folder_or_catalog_id: str,
    quantization: Quantization = "none",
    dtype: Dtype = "auto",
    device: str = "auto",
    ptuning: str | Path | None = None,
    on_progress: Callable[[str, float], None] | None = None,
    family: str | None = None,
) -> LanguageModel:
    """Loads a model for a script: a catalogue id, a folder, or owner/name on the hub.

    ptuning: folder of a trained prefix (p-tuning v2). on_progress: called with the stage and the
    fraction of it that is done, 0 to 1. family: overrides what a ChatGLM folder is taken for.
    Models are kept where the dashboard keeps them (GLM_MODEL_DIR). Raises ModelError and its kinds.
    """
    settings = Settings.load()

    def made() -> LanguageModel:
        model = load(
            folder_or_catalog_id,
            quantization=quantization,
            dtype=dtype,
            device=device,
            ptuning=ptuning,
            family=family,
            model_dir=settings.resolved_model_dir,
            on_progress=on_progress or (lambda stage, fraction: None),
            hub_endpoint=settings.hub_endpoint or None,
        )
        return LanguageModel(model, max_concurrent=settings.max_concurrent)

    return apart(made)
