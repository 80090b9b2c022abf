"""What pages compute before they draw."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args
from zoneinfo import ZoneInfo

import pytest
import streamlit_chat

from glm_backend.engine.request import Usage
from glm_backend.errors import InvalidParameter
from glm_backend.live_answer import LiveAnswer
from glm_backend.store.values import Message, Status
from ui import generation
from ui.chat_view import context_use, with_live
from ui.messages import figures, shown_text
from ui.times import short_time
from ui.transcript import bubble_text
from ui.usage import daily

ROOT = Path(__file__).resolve().parents[2]


def _message(content: str = "", **values: object) -> Message:
    fields: dict[str, object] = {
        "id": "m",
        "conversation_id": "c",
        "parent_id": None,
        "seq": 1,
        "turn": 1,
        "branch": 1,
        "role": "assistant",
        "content": content,
        "status": "complete",
        "created_at": datetime(2026, 1, 1, tzinfo=UTC),
    }
    return Message(**{**fields, **values})  # type: ignore[arg-type]


def test_a_message_shows_what_memory_holds_ahead_of_the_database() -> None:
    live = LiveAnswer("m", "c", max_new_tokens=10)
    live.append("new text", 2)
    stored = _message("new", status="generating")
    assert with_live(stored, live).content == "new text"
    live.finish("stop", Usage(3, 2, 0.1, 0.2))
    assert with_live(stored, live).status == "complete"
    assert with_live(stored, live).prompt_tokens == 3
    assert with_live(_message("x", id="other"), live).content == "x"
    assert with_live(stored, None) is stored


@pytest.mark.parametrize("zone", ["Asia/Shanghai", "America/New_York"])
def test_the_first_and_the_last_moment_of_the_calendar_are_shown_in_every_zone(
    monkeypatch: pytest.MonkeyPatch, zone: str
) -> None:
    monkeypatch.setattr("ui.times.reader_zone", lambda: ZoneInfo(zone))
    assert "-01-01 0" in short_time(datetime.min.replace(tzinfo=UTC))
    assert short_time(datetime.max.replace(tzinfo=UTC)).startswith("9999-12-31")


def test_the_beginning_of_a_character_at_the_end_of_a_cut_answer_is_not_shown() -> None:
    assert shown_text(_message("巴黎\ufffd", finish_reason="length")) == "巴黎"
    assert shown_text(_message("巴黎\ufffd", finish_reason="stop")) == "巴黎\ufffd"


def test_the_context_in_use_comes_from_the_last_answer_that_knows() -> None:
    old = _message(prompt_tokens=10, completion_tokens=5)
    unknown = _message(prompt_tokens=None)
    use = context_use([old, unknown], 100, 20)
    assert use is not None
    assert (use.used, use.reserved, use.overflows) == (15, 20, False)
    full = context_use([_message(prompt_tokens=85, completion_tokens=None)], 100, 80)
    assert full is not None
    assert (full.reserved, full.overflows) == (50, True)
    assert context_use([unknown], 100, 20) is None
    empty = context_use([], 32_768, 8192)
    assert empty is not None
    assert (empty.used, empty.length, empty.overflows) == (0, 32_768, False)


@pytest.mark.parametrize(
    ("name", "stored", "used"),
    [
        ("temperature", 9, 2.0),
        ("temperature", -1, 0.0),
        ("temperature", "hot", 0.8),
        ("temperature", float("nan"), 0.8),
        ("temperature", True, 0.8),
        ("top_k", 5000, 1000),
        ("top_k", 3.7, 3),
        ("max_new_tokens", 0, 1),
        ("seed", -3, 0),
        ("seed", None, None),
        ("system_prompt", 5, ""),
    ],
)
def test_the_nearest_allowed_value_stands_in(name: str, stored: object, used: object) -> None:
    values, corrections = generation.readable_values({name: stored})
    assert values[name] == used
    assert [c.name for c in corrections] == ([] if stored == used else [name])
    generation.checked(values)


@pytest.mark.parametrize("text", ["-1", "1e5", "０x1", "9" * 40])
def test_a_seed_is_a_whole_number_within_limits(text: str) -> None:
    with pytest.raises(InvalidParameter):
        generation.read_seed(text)
    assert generation.read_seed("  ") is None
    assert generation.read_seed(" 7 ") == 7


@pytest.mark.parametrize(
    ("language", "shown"), [("vue", "text"), ("python", "python"), ("Python3", "text")]
)
def test_a_bubble_gets_only_languages_that_it_knows(language: str, shown: str) -> None:
    text = bubble_text(_message(f"```{language} title=x\ncode\n```"))
    assert text == f"```{shown}\ncode\n```"


def test_a_bubble_shows_as_much_as_the_chat_does_and_never_fetches() -> None:
    image = "![x](http://e.example/a.png) "
    whole = bubble_text(_message(image + "word " * 4000))
    assert whole == f"{image[1:]}{'word ' * 4000}"
    text = bubble_text(_message("word " * 8000))
    assert text.startswith("word " * 6000)
    assert text.endswith("*The first 30,000 of 40,000 characters. The export has all of them.*")


def test_the_page_of_a_bubble_loads_the_component_that_is_installed() -> None:
    page = (ROOT / "ui" / "bubble" / "index.html").read_text("utf-8")
    its_own = (Path(streamlit_chat.build_dir) / "index.html").read_text("utf-8")
    loaded = re.findall(r"streamlit_chat.streamlit_chat/(assets/[^\"]+)", page)
    assert sorted(loaded) == sorted(re.findall(r"\./(assets/[^\"]+)", its_own))


@pytest.mark.parametrize("status", get_args(Status))
@pytest.mark.parametrize("language", ["en", "zh"])
def test_an_answer_without_text_has_a_bubble(
    status: Status, language: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ui.labels._language", lambda: language)
    assert bubble_text(replace(_message(""), status=status)).strip("*")


@pytest.mark.parametrize(
    ("quantization", "shown"),
    [("int8", "m (INT8)"), ("remote", "m (another server)"), (None, "m"), ("*q*", "m (\\*q\\*)")],
)
def test_a_model_of_any_precision_is_named(quantization: str | None, shown: str) -> None:
    assert figures(replace(_message("x"), model="m", quantization=quantization)) == [shown]


def test_a_period_without_answers_has_charts_of_nothing() -> None:
    assert list(daily([])) == ["day", "model", "answers", "tokens", "speed", "good", "bad"]
