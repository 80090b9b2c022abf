"""ice_text.model of the first ChatGLM-6B, on a file of that kind trained here."""

from __future__ import annotations

import functools
import io
import json
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import example, given, settings
from hypothesis import strategies as st

from glm_backend import AutoModel, AutoTokenizer, load_model
from glm_backend.completion import Text
from glm_backend.engine.request import SamplingParams
from glm_backend.errors import CheckpointDamaged
from glm_backend.models.chatglm_prompts import ChatGLM1Prompt
from glm_backend.models.chatglm_text import chatglm1_answer
from glm_backend.models.ice_tokenizer import IceTokenizer
from tests.models import chatglm_tiny as tiny

_BLANKS = [f"<|blank_{n}|>" for n in range(2, 81)]
CONTROLS = ["[MASK]", "[gMASK]", "[sMASK]", "<unused_0>", "<sop>", "<eop>", "<ENC>", "<dBLOCK>"]
_CORPUS = [
    "你好，世界。今天天气很好。",
    "[Round 0]\n问：你好\n答：你好！",
    "the quick brown fox",
] * 30


@functools.cache
def ice_model() -> bytes:
    """Its controls are the kind that SentencePiece would parse out of text: the worst case."""
    made = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(_CORPUS),
        model_writer=made,
        model_type="unigram",
        vocab_size=440,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        user_defined_symbols=["<n>", "<|tab|>", *_BLANKS, *CONTROLS],
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return made.getvalue()


@functools.cache
def library() -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_proto=ice_model())


def config(offset: int = 0) -> dict[str, object]:
    ids = {name: library().piece_to_id(name) + offset for name in CONTROLS}
    return tiny.first_config() | {
        "vocab_size": 512 + offset,
        "mask_token_id": ids["[MASK]"],
        "gmask_token_id": ids["[gMASK]"],
        "bos_token_id": ids["<sop>"],
        "eos_token_id": ids["<eop>"],
    }


def folder(path: Path, offset: int = 0) -> Path:
    values = config(offset)
    tiny.save(path, values, tiny.first_weights(values), tokenizer=False)
    (path / "ice_text.model").write_bytes(ice_model())
    return path


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> IceTokenizer:
    path = tmp_path_factory.mktemp("ice") / "ice_text.model"
    path.write_bytes(ice_model())
    return IceTokenizer.open(path, config())


def test_line_ends_tabs_and_runs_of_spaces_are_one_piece_each(tokenizer: IceTokenizer) -> None:
    piece = library().piece_to_id
    ids = tokenizer.encode("a\n\tb" + " " * 83)
    named = [piece("<n>"), piece("<|tab|>"), piece("<|blank_80|>"), piece("<|blank_3|>")]
    assert [i for i in ids if i in named] == named
    assert ids == library().encode("a<n><|tab|>b<|blank_80|><|blank_3|>")
    assert tokenizer.decode(ids) == "a\n\tb" + " " * 83


@given(text=st.text(max_size=60))
@example(text="")
@example(text="  two\n\n\tlines 👩‍👩‍👧‍👦 你好")
@settings(deadline=None, max_examples=300)
def test_text_comes_back_and_never_in_half_characters(tokenizer: IceTokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    stream = tokenizer.detokenizer()
    pieces = [*(stream.push(i) for i in ids), stream.finish()]
    assert "".join(pieces) == tokenizer.decode(ids) == text.replace("▁", " ")
    if "\ufffd" not in text:
        assert all("\ufffd" not in piece for piece in pieces)


@given(parts=st.lists(st.sampled_from([*CONTROLS, "a", " ", "\n", "你好", "[", "sop>"])))
@settings(deadline=None, max_examples=200)
def test_what_looks_like_a_control_stays_text(tokenizer: IceTokenizer, parts: list[str]) -> None:
    text = "".join(parts)
    ids = tokenizer.encode(text)
    assert not set(ids) & set(tokenizer.special_ids.values())
    assert tokenizer.decode(ids) == text


def test_the_prompt_counts_rounds_from_0_and_a_first_question_stands_alone(
    tokenizer: IceTokenizer,
) -> None:
    prompt = ChatGLM1Prompt(tokenizer, "first")
    end = [tokenizer.special_ids["[gMASK]"], tokenizer.special_ids["<sop>"]]
    asked = prompt.prompt_ids([{"role": "user", "content": "你好"}])
    assert asked == [*tokenizer.encode("你好"), *end]
    later = prompt.prompt_ids(
        [
            {"role": "user", "content": "q0"},
            {"role": "assistant", "content": "a0"},
            {"role": "user", "content": "q1"},
        ]
    )
    text = "[Round 0]\n问：q0\n答：a0\n[Round 1]\n问：q1\n答："
    assert later == [*tokenizer.encode(text), *end]


@pytest.mark.parametrize("offset", [0, 20_000])
def test_ids_begin_behind_those_of_images_where_config_json_says_so(
    tmp_path: Path, offset: int
) -> None:
    path = folder(tmp_path / "chatglm-6b", offset)
    tokenizer = AutoTokenizer.from_pretrained(str(path), trust_remote_code=True)
    ids = tokenizer.encode("你好\n")
    assert ids == [i + offset for i in library().encode("你好<n>")]
    assert tokenizer.decode([2, *ids]) == "你好\n"


def test_a_file_that_does_not_fit_config_json_is_refused(tmp_path: Path) -> None:
    path = folder(tmp_path / "chatglm-6b")
    (path / "config.json").write_text(json.dumps(config() | {"mask_token_id": 5}))
    with pytest.raises(CheckpointDamaged, match=r"ice_text\.model.*config\.json"):
        load_model(str(path))
    (path / "ice_text.model").write_bytes(tiny.tokenizer_model())
    with pytest.raises(CheckpointDamaged, match=r"ice_text\.model"):
        load_model(str(path))


def test_it_chats_from_text_to_text_the_same_way_in_every_form(tmp_path: Path) -> None:
    path = str(folder(tmp_path / "chatglm-6b"))
    tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=True)
    script = AutoModel.from_pretrained(path, trust_remote_code=True).float().eval()
    response, history = script.chat(tokenizer, "你好", history=[], do_sample=False, max_length=60)
    *_, (streamed, _) = script.stream_chat(
        tokenizer, "你好", history=[], do_sample=False, max_length=60
    )
    script.close()
    model = load_model(path)
    prompt = model.prompt_ids([{"role": "user", "content": "你好"}])
    ids = model.generate_ids(prompt, max_new_tokens=60 - len(prompt))
    params = SamplingParams(temperature=0, max_new_tokens=60 - len(prompt))
    events = list(model.complete([{"role": "user", "content": "你好"}], params).events())
    model.close()
    expected = chatglm1_answer(tokenizer.decode(ids))
    assert response == expected
    assert history == [("你好", expected)]
    assert streamed == expected
    assert "".join(event.text for event in events if isinstance(event, Text)) == expected
