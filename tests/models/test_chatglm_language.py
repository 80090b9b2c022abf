"""ChatGLM's texts against recordings of the authors' programs."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_backend.models import chatglm_text
from glm_backend.models.chatglm_language import open_tokenizer
from glm_backend.models.chatglm_prompts import ChatGLM2Prompt, ChatGLM3Prompt, chatglm2_text
from glm_backend.models.model import Message
from glm_backend.models.sentencepiece_tokenizer import SentencePieceTokenizer
from tests.models import golden

pytestmark = golden.needs_fixtures


@pytest.fixture(scope="module")
def second() -> SentencePieceTokenizer:
    return open_tokenizer(golden.FIXTURES / "chatglm2" / "tokenizer.model", "chatglm2")


@pytest.fixture(scope="module")
def third() -> SentencePieceTokenizer:
    return open_tokenizer(golden.FIXTURES / "chatglm3" / "tokenizer.model", "chatglm3")


@pytest.fixture(scope="module")
def recorded() -> dict[str, Any]:
    value: dict[str, Any] = golden.read("tokenizer_golden.json")
    return value


def test_all_recorded_strings(
    second: SentencePieceTokenizer, third: SentencePieceTokenizer, recorded: dict[str, Any]
) -> None:
    assert len(recorded["encode"]) == 500
    opening = recorded["constants"]["chatglm2"]["prefix_tokens"]
    for case in recorded["encode"]:
        ids = second.encode(case["text"])
        assert ids == third.encode(case["text"]) == case["ids"], case["text"]
        assert second.decode(ids) == case["decode"], case["text"]
        assert second.decode(opening + ids) == case["decode_with_prefix_v2"]
        assert third.decode(opening + ids) == case["decode_with_prefix_v3"]


def test_special_ids(
    second: SentencePieceTokenizer, third: SentencePieceTokenizer, recorded: dict[str, Any]
) -> None:
    for tokenizer, family in ((second, "chatglm2"), (third, "chatglm3")):
        assert tokenizer.special_ids == recorded["constants"][family]["special_tokens"]
        assert tokenizer.size == recorded["constants"][family]["len"]


def test_recorded_ids_that_no_text_gives(
    second: SentencePieceTokenizer, third: SentencePieceTokenizer, recorded: dict[str, Any]
) -> None:
    for case in recorded["decode"]:
        assert third.decode(case["ids"]) == case["v3"], case
        if "v2" in case:
            assert second.decode(case["ids"]) == case["v2"], case


@given(ids=st.lists(st.integers(0, 64_788) | st.integers(3, 258), max_size=30))
@settings(deadline=None, max_examples=300)
def test_any_ids_decode_as_sentencepiece_decodes_them(
    second: SentencePieceTokenizer, ids: list[int]
) -> None:
    unknown = second._processor.decode([0])
    expected = second._processor.decode([i for i in ids if i > 0])
    assert second.decode([i for i in ids if i > 0]) == expected
    assert unknown  # SentencePiece shows ⁇ for it, the authors' program nothing
    assert second.decode([0]) == ""


@pytest.mark.parametrize("text", ["</s>", "[gMASK]", "<|user|>", "<unk>", "sop", "<0x41>"])
def test_what_looks_like_a_special_token_is_text(third: SentencePieceTokenizer, text: str) -> None:
    ids = third.encode(text)
    assert max(ids) < third.pieces
    assert min(ids) > 2
    assert third.decode(ids) == text


def conversation(history: list[list[str]], query: str) -> list[Message]:
    messages: list[Message] = []
    for asked, answer in history:
        messages.append({"role": "user", "content": asked})
        messages.append({"role": "assistant", "content": answer})
    return [*messages, {"role": "user", "content": query}]


def test_chatglm2_prompts(second: SentencePieceTokenizer, recorded: dict[str, Any]) -> None:
    prompt = ChatGLM2Prompt(second, "ChatGLM2-6B")
    for case in recorded["build_prompt_v2"]:
        messages = conversation(case["history"], case["query"])
        assert chatglm2_text([tuple(t) for t in case["history"]], case["query"]) == case["prompt"]
        assert prompt.prompt_ids(messages) == case["input_ids"]


def test_chatglm3_prompts_with_tools_and_observations(
    third: SentencePieceTokenizer, recorded: dict[str, Any]
) -> None:
    prompt = ChatGLM3Prompt(third, "ChatGLM3-6B")
    for case in recorded["build_chat_input_v3"]:
        last: Message = {"role": case["role"], "content": case["query"]}
        assert prompt.prompt_ids([*case["history"], last]) == case["input_ids"]
    for case in recorded["build_single_message_v3"]:
        message: Message = {
            "role": case["role"],
            "content": case["message"],
            "metadata": case["metadata"],
        }
        assert prompt.message_ids(message) == case["ids"]


def test_answers_are_finished_as_the_authors_do() -> None:
    recorded = golden.read("chat_text_golden.json")
    for case in recorded["process_response_v2"]:
        assert chatglm_text.chatglm2_answer(case["input"]) == case["output"]
    for case in recorded["process_response_v1"]:
        assert chatglm_text.chatglm1_answer(case["input"]) == case["output"]
    for case in recorded["process_response_v3"]:
        answer, history = chatglm_text.chatglm3_answer(case["output_text"], case["history_in"])
        assert (answer, history) == (case["content"], case["history_out"])
