"""The Python form, against what the original programs answered, where those records are at hand."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from glm_backend.drop_in import AutoModel, AutoTokenizer
from glm_backend.errors import InvalidParameter, ModelMissing, ModelUnsupported
from tests.models import chatglm_tiny, tiny

FIXTURES = Path(__file__).parents[3] / "shared" / "fixtures"
recorded = pytest.mark.skipif(not FIXTURES.is_dir(), reason="the records are not at hand")


def as_pairs(history: Any) -> Any:
    """JSON knows no tuples."""
    return [tuple(turn) if isinstance(turn, list) else turn for turn in history]


@recorded
@pytest.mark.parametrize("name", ["chatglm2", "chatglm2-int4", "chatglm3"])
def test_greedy_chats_are_those_of_the_originals(name: str) -> None:
    folder = str(FIXTURES / name)
    golden = json.loads((FIXTURES / name / "golden.json").read_text(encoding="utf-8"))["chat"]
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    model = AutoModel.from_pretrained(folder, trust_remote_code=True).float().eval()
    history: list[Any] = []
    for title, record in golden.items():
        if title == "stream_chat_cache_reuse":
            continue
        if title == "stream_chat":
            pieces = list(model.stream_chat(tokenizer, record["query"], [], do_sample=False))
            assert [text for text, _ in pieces] == record["yields"]
            assert pieces[-1][1] == as_pairs(record["last_history"])
            continue
        given = history if "turn2" in title else record.get("history", [])
        before = copy.deepcopy(given)
        length = record.get("max_length", 8192)
        response, grown = model.chat(
            tokenizer, record["query"], given, do_sample=False, max_length=length
        )
        assert response == record["response"]
        assert grown == as_pairs(record["new_history"])
        assert given == before
        history = grown
    past, history = None, []
    for record in golden["stream_chat_cache_reuse"]:
        there = len(past.ids) if past else 0
        reused = model._model().stats().reused_tokens
        steps = list(
            model.stream_chat(
                tokenizer,
                record["query"],
                history,
                past_key_values=past,
                return_past_key_values=True,
                do_sample=False,
                max_length=record["max_length"],
            )
        )
        _, history, past = steps[-1]
        assert [text for text, _, _ in steps] == record["yields"]
        assert history == as_pairs(record["history"])
        assert past is not None
        assert len(past.ids) == record["past_len_after"]
        # All of the turns before but their last token, which nothing was computed from.
        assert model._model().stats().reused_tokens - reused >= there - 2
    model.close()


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("precision", ["float", "half"])
def test_quantize_gives_what_is_published_quantised(
    tmp_path: Path, bits: Any, precision: str
) -> None:
    config = chatglm_tiny.config(_name_or_path="THUDM/chatglm2-6b")
    weights = chatglm_tiny.weights(config)
    full = chatglm_tiny.save(tmp_path / "full", config, weights)
    made = chatglm_tiny.quantised(weights, bits)  # by a formula of the tests' own
    published = chatglm_tiny.save(tmp_path / "q", config | {"quantization_bit": bits}, made)
    prompt = chatglm_tiny.ids(30, below=chatglm_tiny.PIECES)
    logits = []
    for model in (
        AutoModel.from_pretrained(str(full), trust_remote_code=True).quantize(bits),
        AutoModel.from_pretrained(str(published), trust_remote_code=True),
    ):
        getattr(model, precision)().eval()
        logits.append(model._model().logits(prompt))
        model.close()
    assert torch.equal(logits[0], logits[1])


def test_a_folder_that_is_not_there_is_said_at_once() -> None:
    with pytest.raises(ModelMissing):
        AutoModel.from_pretrained("no such folder", trust_remote_code=True)


def test_any_chat_model_talks_in_pairs(tmp_path: Path) -> None:
    tiny.make(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(str(tmp_path), trust_remote_code=True)
    assert tokenizer.decode(tokenizer.encode("你好")) == "你好"
    model = AutoModel.from_pretrained(str(tmp_path), trust_remote_code=True).float().eval()
    asked = {"do_sample": False, "max_length": 60}
    first, history = model.chat(tokenizer, "hi", history=[], **asked)
    assert history == [("hi", first)]
    nearly_greedy = {"min_p": 1.0, "typical_p": 1.0, "top_p": 1.0, "max_length": 60}
    assert model.chat(tokenizer, "hi", **nearly_greedy)[0] == first
    with pytest.raises(InvalidParameter, match="typical_p"):
        model.chat(tokenizer, "hi", typical_p=0.0)
    *_, (last, grown) = model.stream_chat(
        tokenizer, "more", history, do_sample=False, max_length=200
    )
    assert history == [("hi", first)]
    assert grown == [("hi", first), ("more", last)]
    for bits in (8, 4):
        response, _ = model.quantize(bits).eval().chat(tokenizer, "hi", **asked)
        assert isinstance(response, str)
    with pytest.raises(InvalidParameter):
        model.quantize(3)  # type: ignore[arg-type]
    with pytest.raises(InvalidParameter):
        model.chat(tokenizer, "hi", max_length=3)
    with pytest.raises(InvalidParameter):
        model.chat(tokenizer, "hi", num_beams=4)
    with pytest.raises(InvalidParameter, match=r"no_repeat_ngram_size is 3.*repetition_penalty"):
        model.chat(tokenizer, "hi", no_repeat_ngram_size=3)
    with pytest.raises(InvalidParameter, match="role"):  # only ChatGLM3 knows others
        model.chat(tokenizer, "hi", role="observation")
    model.close()


def test_keywords_of_the_authors_scripts_are_taken(tmp_path: Path) -> None:
    tiny.make(tmp_path)
    folder = str(tmp_path)
    meaningless = {"trust_remote_code": True, "revision": "v1.0", "cache_dir": "x", "config": None}
    AutoTokenizer.from_pretrained(folder, use_fast=False, **meaningless)
    model = AutoModel.from_pretrained(
        folder,
        torch_dtype=torch.bfloat16,
        device_map="auto",
        empty_init=False,
        low_cpu_mem_usage=True,
        **meaningless,
    )
    assert (model._plan.dtype, model._plan.device) == ("bfloat16", "auto")
    assert model.to("cpu").to(torch.float32).eval()._model().quantization == "none"
    assert model._loaded is not None
    assert (model._loaded._model.dtype, str(model._loaded._model.device)) == (torch.float32, "cpu")
    model.close()
    for moved in (
        model.cuda(1),
        model.cuda("cuda:1"),
        model.to(torch.device("cuda", 1)),
        model.to("cuda:1", torch.float16),
        model.to(device="cuda:1", dtype="float16"),
    ):
        assert moved._plan.device == "cuda:1"
    assert model._plan.dtype == "float16"
    assert model.cuda()._plan.device == "cuda"


def test_what_cannot_be_honoured_is_refused_by_its_name(tmp_path: Path) -> None:
    tiny.make(tmp_path)
    folder = str(tmp_path)
    for name, value in {
        "config": object(),
        "load_in_8bit": True,
        "torch_dtype": torch.int8,
        "device_map": {"": 0},
        "device": "mps",
    }.items():
        with pytest.raises(InvalidParameter, match=f"^{name} is "):
            AutoModel.from_pretrained(folder, **{name: value})
    with pytest.raises(InvalidParameter, match=r"revision is 'v1\.0'"):
        AutoTokenizer.from_pretrained("THUDM/no-such-repository", revision="v1.0")
    with pytest.raises(InvalidParameter, match=r"device is 'mps'.*cpu"):
        AutoModel.from_pretrained(folder).to("mps")


def test_a_folder_that_does_not_say_its_family_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = chatglm_tiny.config(rope_ratio=50)
    del config["_name_or_path"]
    folder = str(chatglm_tiny.save(tmp_path / "x", config, chatglm_tiny.weights(config)))
    with pytest.raises(ModelUnsupported, match='family="chatglm2"'):
        AutoTokenizer.from_pretrained(folder)
    for family in ("chatglm2", "chatglm3"):
        AutoTokenizer.from_pretrained(folder, family=family)
        model = AutoModel.from_pretrained(folder, family=family).eval()
        assert model._model().family == family
        model.close()
    monkeypatch.setenv("GLM_FAMILY", "chatglm3")
    AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder)
    assert model._model().family == "chatglm3"
    model.close()


@pytest.mark.parametrize("family", ["chatglm2", "chatglm3"])
def test_options_of_a_question_are_those_of_the_originals(tmp_path: Path, family: str) -> None:
    config = chatglm_tiny.config(_name_or_path=f"THUDM/{family}-6b")
    folder = str(chatglm_tiny.save(tmp_path, config, chatglm_tiny.weights(config)))
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)
    role = ["user"] if family == "chatglm3" else []
    prompt = len(model._model().prompt_ids([{"role": "user", "content": "hi"}]))
    named = model.chat(tokenizer, "hi", do_sample=False, max_length=prompt + 9)
    assert model.chat(tokenizer, "hi", [], *role, prompt + 9, 1, False) == named
    assert model.chat(tokenizer, "hi", do_sample=False, max_new_tokens=9) == named
    assert model.chat(tokenizer, "hi", do_sample=False, max_new_tokens=9, max_length=900) == named
    *_, streamed = model.stream_chat(tokenizer, "hi", [], *role, None, prompt + 9, False)
    assert streamed == named
    for wrong in ({"stop": ("a",)}, {"logprobs": 2}):
        with pytest.raises(InvalidParameter, match="must be left out"):
            model.chat(tokenizer, "hi", **wrong)
    with pytest.raises(InvalidParameter, match="max_length"):
        model.chat(tokenizer, "hi", [], *role, 100, max_length=100)
    with pytest.raises(InvalidParameter, match="must be at most one each of"):
        model.chat(tokenizer, "hi", [], *role, 100, 1, True, 0.8, 0.8, None, "more")
    model.close()


@recorded
def test_what_a_tool_gave_is_told_in_its_role() -> None:
    folder = str(FIXTURES / "chatglm3")
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    model = AutoModel.from_pretrained(folder, trust_remote_code=True).float().eval()
    asked = [{"role": "user", "content": "1+1"}, {"role": "assistant", "content": "call"}]
    given = {"do_sample": False, "max_length": 120}
    _, history = model.chat(tokenizer, "2", history=asked, role="observation", **given)
    assert history[2] == {"role": "observation", "content": "2"}
    last = model._model().prompt_ids(history[:3])
    assert last == model._prompt(model._model(), history[2], asked, None)
    model.close()
