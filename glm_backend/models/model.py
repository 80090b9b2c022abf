"""A model that is loaded and ready: the module, its tokenizer and the facts about it.

A value only: it knows neither where the weights came from nor how tokens are generated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NotRequired, Protocol, TypedDict, get_args

from glm_backend.errors import ModelUnsupported, Phrase

if TYPE_CHECKING:
    import torch

Quantization = Literal["none", "int8", "int4"]
QUANTIZATIONS: tuple[Quantization, ...] = get_args(Quantization)
Prefix = Sequence[tuple["torch.Tensor", "torch.Tensor"]]


class Message(TypedDict):
    """One message of a conversation; role is system, user or assistant.

    ChatGLM3 also knows observation (what a tool said), tools on a system message and metadata on
    an assistant's (the tool it called).
    """

    role: str
    content: str
    tools: NotRequired[object]
    metadata: NotRequired[str]


class Detokenizer(Protocol):
    """Turns one stream of token ids into text as they arrive."""

    def push(self, token_id: int) -> str:
        """The characters that this token finished; empty while a character is incomplete."""
        ...

    def finish(self) -> str:
        """What is still held back; incomplete bytes come out as U+FFFD."""
        ...


class TextTokenizer(Protocol):
    """Text to token ids and back. No special id is added, and none is parsed out of text."""

    def encode(self, text: str) -> list[int]: ...

    def decode(self, ids: Sequence[int]) -> str: ...

    def detokenizer(self) -> Detokenizer: ...


class PromptFormat(Protocol):
    """How a family of models writes a conversation as token ids."""

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]: ...


@dataclass(eq=False)
class LoadedModel:
    """A module in eval mode with everything that is needed to talk to it.

    context_length: tokens of prompt and answer together. eos_ids: any of them ends an answer.
    vocab_size: width of the logits. memory_bytes: bytes of the weights as held, counted.
    kv_bytes_per_token: of its keys and values in all layers, 0 where that is not known.
    tokenizer and prompt_format are None where the folder has no tokenizer. recognised: why it is
    taken for its family, for people. prefix: keys and values of each layer that stand before every
    conversation (p-tuning), [kv_heads, rows, head_dim]; mostly none. layers: the device of each
    layer where they lie on several; all else is on `device`.
    """

    id: str
    name: str
    family: str
    recognised: str
    module: torch.nn.Module
    tokenizer: TextTokenizer | None
    prompt_format: PromptFormat | None
    context_length: int
    eos_ids: frozenset[int]
    vocab_size: int
    quantization: Quantization
    dtype: torch.dtype
    device: torch.device
    memory_bytes: int
    kv_bytes_per_token: int
    english_first: bool
    prefix: Prefix = ()
    layers: tuple[torch.device, ...] = ()

    @property
    def devices(self) -> tuple[torch.device, ...]:
        """Where its weights are: mostly one."""
        return tuple(dict.fromkeys((self.device, *self.layers)))

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """The whole conversation as ids, up to where the answer begins.

        Raises ModelUnsupported when the folder has no tokenizer or no chat template, or when the
        template refuses the conversation.
        """
        if self.prompt_format is None:
            raise ModelUnsupported(
                model=self.name,
                reason=Phrase(
                    "its folder has no tokenizer.json (ChatGLM: tokenizer.model or "
                    "ice_text.model), so text cannot be turned into tokens"
                ),
                remedy=Phrase("Add the model's own file to the folder and load it again."),
            )
        return self.prompt_format.prompt_ids(messages)
