"""Conversations -> token ids, as the model's own chat template writes them.

The template runs in transformers' sandbox (CVE-2026-5760 is what happens without one). Text that
looks like a control token ("<|im_end|>") stays text: only the template writes control tokens.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import jinja2

from glm_backend.errors import CheckpointDamaged, ModelUnsupported, Phrase
from glm_backend.models.model import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

#: What a template can raise: its own refusals, and mistakes in its arithmetic.
_TEMPLATE_TROUBLE = (
    jinja2.TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError,
)  # fmt: skip


class ChatTemplate:
    """The chat template of one model folder."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, name: str) -> None:
        self._tokenizer = tokenizer
        self._name = name
        # Encoding control tokens as text switches the tokenizer's own state back and forth.
        self._one_at_a_time = threading.Lock()

    @classmethod
    def open(cls, folder: Path, name: str) -> ChatTemplate:
        """Reads the tokenizer files of `folder`; raises CheckpointDamaged when they are broken."""
        from transformers import PreTrainedTokenizerFast

        try:
            tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
        except Exception as error:  # whatever a broken file makes of the library
            raise CheckpointDamaged(
                file=str(folder / "tokenizer_config.json"),
                reason=Phrase("it makes no tokenizer ({error})", error=str(error)),
            ) from error
        return cls(tokenizer, name)

    @property
    def eos_id(self) -> int | None:
        """The id that the tokenizer files name as the end of a text."""
        return self._tokenizer.eos_token_id  # type: ignore[no-any-return]

    @functools.cached_property
    def before_answer(self) -> str:
        """The space between a prompt and the text of its answer that the model writes itself.

        GLM-4's prompts end with <|assistant|>, and a line end stands before each answer.
        """
        asked, answer = {"role": "user", "content": "?"}, {"role": "assistant", "content": "!!"}
        try:
            with self._one_at_a_time:
                render = functools.partial(self._tokenizer.apply_chat_template, tokenize=False)
                prompt = str(render([asked], add_generation_prompt=True))
                whole = str(render([asked, answer]))
        except _TEMPLATE_TROUBLE:  # which the conversation itself will meet, if it does
            return ""
        if not whole.startswith(prompt):
            return ""
        between = whole[len(prompt) :].partition("!!")[0]
        return between if between.isspace() else ""

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """Ids of the conversation with the opening of the assistant's answer.

        Raises ModelUnsupported without a template, or when the template refuses the messages.
        """
        if not self._tokenizer.chat_template:
            raise ModelUnsupported(
                model=self._name,
                reason=Phrase(
                    "it has no chat template (it continues texts, it was not made to chat)"
                ),
                remedy=Phrase("Choose the model's chat or instruct version."),
            )
        conversation = [
            {"role": m["role"], "content": m["content"].encode("utf-8", "replace").decode("utf-8")}
            for m in messages
        ]
        try:
            with self._one_at_a_time:
                ids = self._tokenizer.apply_chat_template(
                    conversation,
                    add_generation_prompt=True,
                    sanitize_control_tokens=True,
                    return_dict=False,
                )
        except _TEMPLATE_TROUBLE as error:
            raise ModelUnsupported(
                model=self._name,
                reason=Phrase(
                    "its chat template refuses this conversation ({error})", error=str(error)
                ),
                remedy=Phrase("Leave the system prompt empty, or choose another model."),
            ) from error
        return cast("list[int]", ids)
