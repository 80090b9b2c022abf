"""Conversations -> token ids, as the programs of the ChatGLM family write them.

Text typed by people is encoded apart from control tokens, so nothing in it becomes one. ChatGLM
and ChatGLM2 have no system prompt of their own: here it stands at the head of the first question,
where the user of the original would have typed it, so that every prompt still begins as in
training.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from glm_backend.errors import ModelUnsupported, Phrase
from glm_backend.models.ice_tokenizer import IceTokenizer
from glm_backend.models.model import Message
from glm_backend.models.sentencepiece_tokenizer import SentencePieceTokenizer

#: What ChatGLM3's own role is called where another name is usual.
_ROLES = {"tool": "observation", "function": "observation"}
_CHATGLM3_ROLES = ("system", "user", "assistant", "observation")


def rounds(messages: Sequence[Message], *, model: str) -> tuple[list[tuple[str, str]], str]:
    """(question, answer) of each finished round, and the question that is open.

    System prompts stand at the head of the first question; questions that follow each other, or
    answers, are one; an answer that nobody asked for follows an empty question. Raises
    ModelUnsupported for roles other than system, user and assistant.
    """
    systems = [m["content"] for m in messages if m["role"] == "system" and m["content"]]
    pairs: list[tuple[list[str], list[str]]] = [([], [])]
    for message in messages:
        role = message["role"]
        if role == "user":
            if pairs[-1][1]:
                pairs.append(([], []))
            pairs[-1][0].append(message["content"])
        elif role == "assistant":
            pairs[-1][1].append(message["content"])
        elif role != "system":
            raise _no_role(role, model)
    if pairs[-1][1]:
        pairs.append(([], []))
    pairs[0][0][:0] = systems
    joined = [("\n\n".join(asked), "\n\n".join(answers)) for asked, answers in pairs]
    return joined[:-1], joined[-1][0]


def as_the_original_api(messages: Sequence[Message]) -> tuple[Message, ...]:
    """What ChatGLM2's own OpenAI server made of a conversation that ends with a question.

    A system prompt at the beginning stands, without a space, before the last question. (What is not
    in pairs of question and answer it left out; here it stays as it is.)
    """
    *before, last = messages
    query = last["content"]
    if before and before[0]["role"] == "system":
        query = before.pop(0)["content"] + query
    if [m["role"] for m in before] != ["user", "assistant"] * (len(before) // 2):
        return tuple(messages)
    return (*before, {"role": "user", "content": query})


def chatglm2_text(history: Sequence[tuple[str, str]], query: str) -> str:
    """ChatGLM2's prompt as text."""
    done = "".join(
        f"[Round {i}]\n\n问：{asked}\n\n答：{answer}\n\n"
        for i, (asked, answer) in enumerate(history, 1)
    )
    return f"{done}[Round {len(history) + 1}]\n\n问：{query}\n\n答："


def chatglm1_text(history: Sequence[tuple[str, str]], query: str) -> str:
    """The first ChatGLM's prompt as text: rounds count from 0, a first question stands alone."""
    if not history:
        return query
    done = "".join(
        f"[Round {i}]\n问：{asked}\n答：{answer}\n" for i, (asked, answer) in enumerate(history)
    )
    return f"{done}[Round {len(history)}]\n问：{query}\n答："


class ChatGLM1Prompt:
    """The whole text, then [gMASK] and <sop>, behind which the answer is written."""

    def __init__(self, tokenizer: IceTokenizer, model: str) -> None:
        self._tokenizer = tokenizer
        self._model = model

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        text = chatglm1_text(*rounds(messages, model=self._model))
        specials = self._tokenizer.special_ids
        return [*self._tokenizer.encode(text), specials["[gMASK]"], specials["<sop>"]]


class ChatGLM2Prompt:
    """[gMASK] sop, then numbered rounds of 问 and 答 as one text."""

    def __init__(self, tokenizer: SentencePieceTokenizer, model: str) -> None:
        self._tokenizer = tokenizer
        self._model = model

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        history, query = rounds(messages, model=self._model)
        text = chatglm2_text(history, query)
        return [*opening(self._tokenizer), *self._tokenizer.encode(text)]


class ChatGLM3Prompt:
    """[gMASK] sop, then each message behind the token of its role."""

    def __init__(self, tokenizer: SentencePieceTokenizer, model: str) -> None:
        self._tokenizer = tokenizer
        self._model = model

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        ids = opening(self._tokenizer)
        for message in messages:
            ids += self.message_ids(message)
        return [*ids, self._tokenizer.special_ids["<|assistant|>"]]

    def message_ids(self, message: Message) -> list[int]:
        """<|role|>, the metadata with its line end, the text; each encoded by itself."""
        role = _ROLES.get(message["role"], message["role"])
        if role not in _CHATGLM3_ROLES:
            raise _no_role(message["role"], self._model)
        text = message["content"]
        if role == "system" and "tools" in message:
            text += "\n" + json.dumps(message["tools"], indent=4, ensure_ascii=False)
        metadata = message.get("metadata", "")
        encode = self._tokenizer.encode
        return [self._tokenizer.special_ids[f"<|{role}|>"], *encode(f"{metadata}\n"), *encode(text)]


def opening(tokenizer: SentencePieceTokenizer) -> list[int]:
    """What every prompt of ChatGLM2 and ChatGLM3 begins with."""
    return [tokenizer.special_ids["[gMASK]"], tokenizer.special_ids["sop"]]


def _no_role(role: str, model: str) -> ModelUnsupported:
    return ModelUnsupported(
        model=model,
        reason=Phrase("its prompt has no place for a message of the role {role!r}", role=role),
        remedy=Phrase("Use system, user and assistant (ChatGLM3 also takes observation)."),
    )
