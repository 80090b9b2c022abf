"""tokenizer.model: text to ids and back, on a SentencePiece model trained here."""

from __future__ import annotations

import pytest
import sentencepiece
from hypothesis import example, given, settings
from hypothesis import strategies as st

from glm_backend.errors import ModelUnsupported
from glm_backend.models.chatglm_language import open_tokenizer
from glm_backend.models.chatglm_prompts import ChatGLM2Prompt, ChatGLM3Prompt
from glm_backend.models.model import Message
from glm_backend.models.sentencepiece_tokenizer import SentencePieceTokenizer
from tests.models import chatglm_tiny as tiny

TEXT = st.text(max_size=60)


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> SentencePieceTokenizer:
    path = tmp_path_factory.mktemp("second") / "tokenizer.model"
    path.write_bytes(tiny.tokenizer_model())
    return open_tokenizer(path, "chatglm2")


@pytest.fixture(scope="module")
def third(tmp_path_factory: pytest.TempPathFactory) -> SentencePieceTokenizer:
    path = tmp_path_factory.mktemp("third") / "tokenizer.model"
    path.write_bytes(tiny.tokenizer_model())
    return open_tokenizer(path, "chatglm3")


@pytest.fixture(scope="module")
def library() -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_proto=tiny.tokenizer_model())


def streamed(tokenizer: SentencePieceTokenizer, ids: list[int]) -> list[str]:
    stream = tokenizer.detokenizer()
    return [*(stream.push(token_id) for token_id in ids), stream.finish()]


@given(text=TEXT)
@example(text="")
@example(text="  two  spaces ")
@example(text="👩‍👩‍👧‍👦 é 你好 \ufffd\ufffd")
@example(text="\x00\n\t▁")
@settings(deadline=None, max_examples=300)
def test_text_comes_back_and_never_in_half_characters(
    second: SentencePieceTokenizer, third: SentencePieceTokenizer, text: str
) -> None:
    for tokenizer in (second, third):
        ids = tokenizer.encode(text)
        assert all(3 <= token_id < tokenizer.pieces for token_id in ids)
        expected = text.replace("▁", " ")  # SentencePiece's own sign for a space
        assert tokenizer.decode(ids) == expected
        pieces = streamed(tokenizer, ids)
        assert "".join(pieces) == expected
        if "\ufffd" not in text:
            assert "\ufffd" not in "".join(pieces)


@given(text=TEXT, cut=st.integers(0, 200))
@settings(deadline=None, max_examples=200)
def test_a_stream_that_is_cut_anywhere_shows_a_beginning_of_the_text(
    second: SentencePieceTokenizer, text: str, cut: int
) -> None:
    ids = second.encode(text)[:cut]
    shown = "".join(streamed(second, ids)[:-1])
    assert text.replace("▁", " ").startswith(shown)


@given(ids=st.lists(st.integers(1, tiny.PIECES - 1), max_size=40))
@settings(deadline=None, max_examples=400)
def test_any_ids_decode_as_sentencepiece_decodes_them(
    second: SentencePieceTokenizer, library: sentencepiece.SentencePieceProcessor, ids: list[int]
) -> None:
    assert second.decode(ids) == library.decode(ids)
    assert "".join(streamed(second, ids)) == library.decode(ids)


@given(text=TEXT)
@settings(deadline=None)
def test_encoding_is_that_of_sentencepiece(
    third: SentencePieceTokenizer, library: sentencepiece.SentencePieceProcessor, text: str
) -> None:
    assert third.encode(text) == library.encode(text)


@pytest.mark.parametrize(
    "text", ["</s>", "<unk>", "[gMASK]sop", "<|user|>\n", "<|assistant|>", "<0x41>", "eop"]
)
def test_what_looks_like_a_special_token_stays_text(
    second: SentencePieceTokenizer, third: SentencePieceTokenizer, text: str
) -> None:
    for tokenizer in (second, third):
        ids = tokenizer.encode(text)
        assert 2 < min(ids) <= max(ids) < tokenizer.pieces
        assert tokenizer.decode(ids) == text
    for prompt in (ChatGLM2Prompt(second, "two"), ChatGLM3Prompt(third, "three")):
        ids = prompt.prompt_ids([{"role": "user", "content": text}])
        plain = prompt.prompt_ids([{"role": "user", "content": "x"}])
        specials = [i for i in ids if i >= tiny.PIECES]
        assert specials == [i for i in plain if i >= tiny.PIECES]


def test_special_ids_follow_the_pieces_and_only_chatglm3_shows_them(
    second: SentencePieceTokenizer, third: SentencePieceTokenizer
) -> None:
    assert second.special_ids == {
        "[MASK]": 400,
        "[gMASK]": 401,
        "[sMASK]": 402,
        "sop": 403,
        "eop": 404,
    }
    assert list(third.special_ids)[5:] == [
        "<|system|>",
        "<|user|>",
        "<|assistant|>",
        "<|observation|>",
    ]
    hello = second.encode("hello")
    assert second.decode([401, 403, *hello, 2, 10_000, -1]) == "hello"
    assert third.decode([*hello, 407, 2, 10_000]) == "hello<|assistant|>"


def test_lone_surrogates_do_no_harm(second: SentencePieceTokenizer) -> None:
    assert second.decode(second.encode("a\ud800b")) == "a?b"


def test_bytes_that_make_no_character_do_not_hide_what_follows(
    second: SentencePieceTokenizer, library: sentencepiece.SentencePieceProcessor
) -> None:
    broken = [library.piece_to_id(f"<0x{byte:02X}>") for byte in (0xE4, 0xBD)]
    ids = [*broken, *second.encode("ok")]
    assert second.decode(ids) == library.decode(ids) == "\ufffd\ufffd ok"
    assert streamed(second, broken) == ["", "", "\ufffd\ufffd"]


# --- conversations


def chat(*turns: tuple[str, str]) -> list[Message]:
    return [{"role": role, "content": content} for role, content in turns]


def text_of(tokenizer: SentencePieceTokenizer, ids: list[int]) -> str:
    return tokenizer.decode(ids)


def test_a_system_prompt_stands_at_the_head_of_chatglm2s_first_question(
    second: SentencePieceTokenizer,
) -> None:
    prompt = ChatGLM2Prompt(second, "two")
    ids = prompt.prompt_ids(
        chat(("system", "Be brief."), ("user", "q1"), ("assistant", "a1"), ("user", "q2"))
    )
    assert ids[:2] == [401, 403]
    assert text_of(second, ids) == (
        "[Round 1]\n\n问：Be brief.\n\nq1\n\n答：a1\n\n[Round 2]\n\n问：q2\n\n答："
    )


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        ([("user", "a"), ("user", "b")], "[Round 1]\n\n问：a\n\nb\n\n答："),
        (
            [("assistant", "hi"), ("user", "b")],
            "[Round 1]\n\n问：\n\n答：hi\n\n[Round 2]\n\n问：b\n\n答：",
        ),
        ([], "[Round 1]\n\n问：\n\n答："),
    ],
)
def test_conversations_that_are_not_in_turn(
    second: SentencePieceTokenizer, turns: list[tuple[str, str]], expected: str
) -> None:
    assert text_of(second, ChatGLM2Prompt(second, "two").prompt_ids(chat(*turns))) == expected


def test_chatglm3_writes_each_message_behind_its_role(third: SentencePieceTokenizer) -> None:
    tools = [{"name": "weather", "description": "天气"}]
    messages: list[Message] = [
        {"role": "system", "content": "S", "tools": tools},
        {"role": "user", "content": "q"},
        {"role": "assistant", "metadata": "weather", "content": "call"},
        {"role": "tool", "content": "{}"},
    ]
    ids = ChatGLM3Prompt(third, "three").prompt_ids(messages)
    shown = text_of(third, ids)
    assert '"description": "天气"' in shown
    assert shown.startswith("[gMASK]sop<|system|> \n S\n[\n    {\n")
    assert shown.endswith(
        "<|user|> \n q<|assistant|> weather\n call<|observation|> \n {}<|assistant|>"
    )


def test_a_role_without_a_place_is_refused(
    second: SentencePieceTokenizer, third: SentencePieceTokenizer
) -> None:
    for prompt in (ChatGLM2Prompt(second, "two"), ChatGLM3Prompt(third, "three")):
        with pytest.raises(ModelUnsupported, match="narrator"):
            prompt.prompt_ids(chat(("narrator", "once")))


def test_the_trained_model_is_of_the_authors_kind(
    library: sentencepiece.SentencePieceProcessor,
) -> None:
    assert library.is_byte(3)
    assert len(library.encode("龘")) == 4  # the dummy prefix and three bytes
