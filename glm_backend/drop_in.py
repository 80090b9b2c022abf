"""AutoModel and AutoTokenizer as scripts for ChatGLM know them, on our own loader and engine.

A script that says `from transformers import AutoModel, AutoTokenizer` works again with that line
changed. `trust_remote_code` is taken and means nothing: no code of a checkpoint is ever run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast, get_args

from glm_backend.engine.request import LIMITS, Failed, Finished, SamplingParams, Token
from glm_backend.errors import InvalidParameter, ModelUnsupported, Phrase
from glm_backend.language_model import LanguageModel
from glm_backend.models import chatglm_language
from glm_backend.models.chatglm import PublishedChatGLM
from glm_backend.models.chatglm_text import chatglm1_answer, chatglm2_answer, chatglm3_answer
from glm_backend.models.loader import Dtype, load, prepare, refuse_hopeless
from glm_backend.models.model import LoadedModel, Message, TextTokenizer
from glm_backend.models.tokenizer import FastTokenizer
from glm_backend.settings import Settings, is_device
from glm_backend.threads import apart

History = list[Any]
Turn = tuple[Any, ...]
_ANSWERS = {"chatglm": chatglm1_answer, "chatglm2": chatglm2_answer}
_SAMPLING = (
    "max_new_tokens", "top_p", "temperature", "top_k", "min_p", "typical_p",
    "repetition_penalty", "seed",
)  # fmt: skip
#: What may stand behind the history without its name, in the originals' order.
_CHAT = ("max_length", "num_beams", "do_sample", "top_p", "temperature", "logits_processor")
_STREAM_CHAT = ("max_length", "do_sample", "top_p", "temperature", "logits_processor")
#: Keywords of from_pretrained that mean nothing here. Downloads are kept in GLM_MODEL_DIR.
_MEANINGLESS = {"trust_remote_code", "cache_dir", "empty_init", "low_cpu_mem_usage", "use_fast"}


class AutoTokenizer:
    """Where scripts ask for the tokenizer."""

    @staticmethod
    def from_pretrained(path: str, *, family: str = "", **others: Any) -> TextTokenizer:
        """The tokenizer of a folder, a catalogue entry or the hub; raises ModelError.

        `encode` adds no special ids and parses none out of text. family: as for the model.
        """
        _refuse_unknown(path, others)
        settings = Settings.load()
        checkpoint = prepare(
            path,
            family=family or settings.family or None,
            model_dir=settings.resolved_model_dir,
            hub_endpoint=settings.hub_endpoint or None,
        )
        if not isinstance(checkpoint, PublishedChatGLM):
            return FastTokenizer.open(checkpoint.folder)
        size = checkpoint.config["vocab_size"]
        tokenizer, _, _ = chatglm_language.open_folder(checkpoint, vocab_size=size, name=path)
        if tokenizer is None:
            raise ModelUnsupported(
                model=path,
                reason=Phrase("its folder has no tokenizer.model (ChatGLM-6B: ice_text.model)"),
                remedy=Phrase("Add that file to the folder."),
            )
        return tokenizer


class AutoModel:
    """Where scripts ask for the model."""

    @staticmethod
    def from_pretrained(
        path: str,
        *,
        device: object = "cpu",
        device_map: object = None,
        torch_dtype: object = "auto",
        ptuning: str | None = None,
        family: str = "",
        **others: Any,
    ) -> ChatModel:
        """A model to be loaded from a folder, a catalogue entry or the hub; raises ModelMissing.

        device_map: a device, or "auto" for GPUs where there are some. ptuning: folder of a trained
        prefix (p-tuning v2). family: what a ChatGLM folder is taken for that does not say. The
        weights are read at `eval()` or the first question, as they are wanted by then: nothing is
        read as float32 only to be halved. Raises InvalidParameter for what is not known here.
        """
        _refuse_unknown(path, others)
        refuse_hopeless(path, model_dir=Settings.load().resolved_model_dir)
        place = _device("device", device)
        if device_map is not None:
            place = _device("device_map", device_map)
        dtype = _dtype("torch_dtype", torch_dtype)
        return ChatModel(_Plan(path, place, dtype, ptuning=ptuning, family=family))


def _refuse_unknown(path: str, others: dict[str, Any]) -> None:
    for name, value in others.items():
        there = name == "revision" and (value == "main" or Path(path).is_dir())
        if value is not None and name not in _MEANINGLESS and not there:
            raise InvalidParameter(name=name, value=repr(value)[:100], allowed="left out")


def _device(name: str, value: object) -> str:
    """A device as the loader knows it; numbers are those of GPUs."""
    text = f"cuda:{value}" if isinstance(value, int) else str(value)
    if not is_device(text):
        allowed = Phrase("auto, cpu, cuda or cuda:N")
        raise InvalidParameter(name=name, value=repr(value), allowed=allowed)
    return text


def _dtype(name: str, value: object) -> Dtype:
    text = "auto" if value is None else str(value).removeprefix("torch.")
    if text not in get_args(Dtype):
        allowed = Phrase("one of {names}", names=", ".join(get_args(Dtype)))
        raise InvalidParameter(name=name, value=repr(value), allowed=allowed)
    return cast(Dtype, text)


@dataclass(frozen=True, slots=True)
class _Plan:
    """What the script has asked for so far. bits: 0 leaves the weights as they are."""

    source: str
    device: str
    dtype: Dtype = "auto"
    bits: Literal[0, 4, 8] = 0
    ptuning: str | None = None
    family: str = ""

    def load(self) -> LanguageModel:
        settings = Settings.load()
        model = load(
            self.source,
            dtype=self.dtype,
            device=self.device,
            ptuning=self.ptuning,
            family=self.family or settings.family or None,
            model_dir=settings.resolved_model_dir,
            hub_endpoint=settings.hub_endpoint or None,
        )
        if self.bits and model.quantization == "none":  # what is published quantised stays so
            _quantize(model, self.bits)
        return LanguageModel(model, max_concurrent=settings.max_concurrent)


@dataclass(slots=True)
class Past:
    """What `stream_chat` gives for past_key_values: the ids that the next question follows."""

    ids: list[int]


class ChatModel:
    """A model with the methods of ChatGLM's own class. Not for several threads at once."""

    def __init__(self, plan: _Plan) -> None:
        self._plan = plan
        self._loaded: LanguageModel | None = None

    def quantize(self, bits: Literal[4, 8]) -> ChatModel:
        """The authors' own quantisation: one scale a row, q = round(weight / scale)."""
        if bits not in (4, 8):
            raise InvalidParameter(name="bits", value=repr(bits), allowed="4 or 8")
        return self._changed(replace(self._plan, bits=bits))

    def half(self) -> ChatModel:
        return self._changed(replace(self._plan, dtype="float16"))

    def bfloat16(self) -> ChatModel:
        return self._changed(replace(self._plan, dtype="bfloat16"))

    def float(self) -> ChatModel:
        return self._changed(replace(self._plan, dtype="float32"))

    def cuda(self, device: object = None) -> ChatModel:
        return self.to("cuda" if device is None else device)

    def cpu(self) -> ChatModel:
        return self.to("cpu")

    def to(self, device: object = None, dtype: object = None) -> ChatModel:
        """A device, a precision, or both, as torch's own; raises InvalidParameter for others."""
        plan = self._plan
        if str(device).startswith("torch."):  # .to(torch.float16)
            device, dtype = None, device
        if device is not None:
            plan = replace(plan, device=_device("device", device))
        if dtype is not None:
            plan = replace(plan, dtype=_dtype("dtype", dtype))
        return self._changed(plan)

    def eval(self) -> ChatModel:
        """Loads the model; raises ModelError."""
        self._model()
        return self

    def close(self) -> None:
        """Ends the model's thread and gives its memory back; a question would load it again."""
        if self._loaded is not None:
            self._loaded.close()
            self._loaded = None

    def chat(
        self,
        tokenizer: object,
        query: str,
        history: History | None = None,
        *unnamed: Any,
        **options: Any,
    ) -> tuple[Any, History]:
        """The answer, and the history with it; the list that was given stays as it is.

        history: (query, answer) pairs, for ChatGLM3 its messages with roles. options: role (whose
        the query is; with ChatGLM3 "observation" for what a tool gave), max_length (8192 tokens of
        prompt and answer; 2048 for the first ChatGLM), max_new_tokens (of the answer), do_sample,
        top_p and temperature (0.8, 0.8; 0.7, 0.95), top_k, min_p, typical_p, repetition_penalty,
        seed. Raises InvalidParameter, ContextOverflow and what ended the answer.
        """
        before = ("role",) if self._model().family == "chatglm3" else ()
        options = _named((*before, *_CHAT), unnamed, options)
        answer: tuple[Any, History] | None = None
        for answer in self._answers(query, history, **options):  # noqa: B007
            pass
        question: Message = {"role": options.get("role", "user"), "content": query}
        return self._turn("", question, history or []) if answer is None else answer

    def stream_chat(
        self,
        tokenizer: object,
        query: str,
        history: History | None = None,
        *unnamed: Any,
        **options: Any,
    ) -> Iterator[Turn]:
        """(the whole answer so far, the history with it) at each token; see `chat`.

        past_key_values: what the turn before gave as its third value with return_past_key_values;
        the new question then follows those very tokens, of which only those are read that the
        engine does not hold any more. It finds by itself what is the same in any prompt.
        """
        family = self._model().family
        before = {"chatglm": (), "chatglm3": ("role", "past_key_values")}
        names = (*before.get(family, ("past_key_values",)), *_STREAM_CHAT)
        yield from self._answers(query, history, **_named(names, unnamed, options))

    def _answers(
        self,
        query: str,
        history: History | None,
        *,
        role: str = "user",
        past_key_values: Past | None = None,
        return_past_key_values: bool = False,
        **options: Any,
    ) -> Iterator[Turn]:
        model = self._model()
        turns = list(history or [])
        if role != "user" and model.family != "chatglm3":
            raise InvalidParameter(name="role", value=repr(role), allowed="user")
        question: Message = {"role": role, "content": query}
        asked = self._prompt(model, question, turns, past_key_values)
        before = len(past_key_values.ids) if past_key_values else 0
        params = _sampling(model.family, options, prompt_tokens=len(asked) - before)
        past = Past(asked)
        for text in _texts(model, past, params):
            answer = self._turn(text, question, turns)
            yield (*answer, past) if return_past_key_values else answer

    def _changed(self, plan: _Plan) -> ChatModel:
        if plan != self._plan:
            self.close()
        self._plan = plan
        return self

    def _model(self) -> LanguageModel:
        if self._loaded is None:
            self._loaded = apart(self._plan.load)
        return self._loaded

    def _prompt(
        self, model: LanguageModel, question: Message, turns: History, past: Past | None
    ) -> list[int]:
        if model.family == "chatglm3":
            before = [] if past else turns
            return [*(past.ids if past else ()), *model.prompt_ids([*before, question])]
        if past and turns and model.family == "chatglm2" and model.tokenizer:
            text = f"\n\n[Round {len(turns) + 1}]\n\n问：{question['content']}\n\n答："
            # The tokenizer begins every text with a space of its own, which is no part of this one.
            return [*past.ids, *model.tokenizer.encode(text)[1:]]
        messages: list[Message] = []
        for asked, answer in turns:
            messages.append({"role": "user", "content": asked})
            messages.append({"role": "assistant", "content": answer})
        return model.prompt_ids([*messages, question])

    def _turn(self, text: str, question: Message, turns: Sequence[Any]) -> tuple[Any, History]:
        family = self._model().family
        if family == "chatglm3":
            return chatglm3_answer(text, [*turns, dict(question)])
        answer = _ANSWERS.get(family, str.strip)(text)
        return answer, [*turns, (question["content"], answer)]


def _named(names: Sequence[str], unnamed: Sequence[Any], options: dict[str, Any]) -> dict[str, Any]:
    """The options, with those that were given by their place."""
    placed = dict(zip(names, unnamed, strict=False))
    if len(unnamed) > len(names) or placed.keys() & options.keys():
        given = ", ".join(map(repr, unnamed))
        allowed = f"at most one each of {', '.join(names)}"
        raise InvalidParameter(name="what stands behind the history", value=given, allowed=allowed)
    return placed | options


def _texts(model: LanguageModel, past: Past, params: SamplingParams) -> Iterator[str]:
    """The raw text so far, at each token that adds to it; `past` grows behind it.

    As in the originals: ChatGLM3 shows a token when the next has come, and so never the one at
    which max_length ends the answer; the others show the whole answer once more at its end.
    """
    assert model.tokenizer is not None, "a prompt was made with it"
    late = model.family == "chatglm3"
    detokenizer, text, last = model.tokenizer.detokenizer(), "", None
    generation = model.submit(tuple(past.ids), params)
    try:
        for event in generation.events():
            if isinstance(event, Failed):
                raise event.error
            if isinstance(event, Finished) and event.reason == "length":
                return
            if last is not None:
                past.ids.append(last)
            shown = last if late else event.token_id if isinstance(event, Token) else None
            piece = "" if shown is None else detokenizer.push(shown)
            if isinstance(event, Finished):
                piece += detokenizer.finish()
            text += piece
            if text and (piece or isinstance(event, Finished)):
                yield text
            last = event.token_id if isinstance(event, Token) else None
    finally:
        generation.cancel()


def _sampling(family: str, options: dict[str, Any], *, prompt_tokens: int) -> SamplingParams:
    """SamplingParams of the originals' options; prompt_tokens: of this turn alone."""
    first = family == "chatglm"
    defaults = (0.7, 0.95) if first else (0.8, 0.8)
    given: dict[str, Any] = {"top_p": defaults[0], "temperature": defaults[1], **options}
    if not given.pop("do_sample", True):
        given["temperature"] = 0.0
    for name, only in {"num_beams": 1, "logits_processor": None}.items():
        if given.pop(name, only) != only:
            raise InvalidParameter(name=name, value=repr(options[name]), allowed=f"{only}")
    for name in given.keys() - {"max_length", *_SAMPLING}:
        allowed = f"left out; known are max_length, do_sample, {', '.join(_SAMPLING)}"
        raise InvalidParameter(name=name, value=repr(given[name]), allowed=allowed)
    most = given.pop("max_new_tokens", LIMITS["max_new_tokens"][1])
    usual = most + prompt_tokens if "max_new_tokens" in options else 2048 if first else 8192
    max_length = given.pop("max_length", usual)
    room = max_length - prompt_tokens
    if room < 1:
        allowed = f"more than the {prompt_tokens} tokens of the prompt"
        raise InvalidParameter(name="max_length", value=max_length, allowed=allowed)
    return SamplingParams(max_new_tokens=min(room, most), **given)


def _quantize(model: LoadedModel, bits: Literal[4, 8]) -> None:
    """Replaces the linear layers, but the one that gives the logits, as the authors do."""
    from torch import nn

    from glm_backend.models.quantization import QuantizedLinear, weight_bytes
    from glm_backend.models.row_quantization import published_weight, quantized_by_rows

    linear = [(n, m) for n, m in model.module.named_modules() if isinstance(m, nn.Linear)]
    for name, layer in linear:
        if name.endswith("lm_head"):
            continue
        q, scale = quantized_by_rows(layer.weight.data.half(), bits)  # published in half precision
        bias = None if layer.bias is None else layer.bias.data
        held = QuantizedLinear(published_weight(q, scale, bits), bias)
        model.module.set_submodule(name, held)
    model.quantization = "int4" if bits == 4 else "int8"
    model.memory_bytes = weight_bytes(model.module)
