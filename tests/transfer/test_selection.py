"""What is chosen, said in words."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from glm_backend.errors import InvalidParameter
from glm_backend.store import ConversationFilter
from glm_backend.transfer import Selection


def test_nothing_said_is_everything() -> None:
    assert Selection.from_words({}) == Selection()


def test_every_word_is_understood() -> None:
    words = {
        "conversation": ["a", "b"],
        "branch": ["shown"],
        "text": ["你好"],
        "since": ["2026-11-24"],
        "until": ["2026-11-24T09:50:00+08:00"],
        "model": ["chatglm3-6b"],
        "quantization": ["int4"],
        "status": ["Failed"],
        "rating": ["-1"],
        "tag": ["work"],
        "pinned": ["true"],
        "archived": ["0"],
        "trash": ["1"],
    }
    assert Selection.from_words(words) == Selection(
        conversation_ids=["a", "b"],
        filter=ConversationFilter(
            text="你好",
            since=datetime(2026, 11, 24, tzinfo=UTC),
            until=datetime(2026, 11, 24, 1, 50, tzinfo=UTC),
            model="chatglm3-6b",
            quantization="int4",
            status="failed",
            rating=-1,
            tag="work",
            pinned=True,
            archived=False,
            trash=True,
        ),
        shown_only=True,
    )
    assert Selection.from_words({"branch": ["all"]}).shown_only is False


@pytest.mark.parametrize("text", ["2026-11-24T09:50:00 08:00", "2026-11-24 09:50:00.0 0800"])
def test_a_plus_that_became_a_space_on_the_way_is_one(text: str) -> None:
    since = Selection.from_words({"since": [text]}).filter.since
    assert since == datetime(2026, 11, 24, 1, 50, tzinfo=UTC)
    plain = Selection.from_words({"since": ["2026-11-24 09:50"]}).filter.since
    assert plain == datetime(2026, 11, 24, 9, 50, tzinfo=UTC)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"colour": ["red"]}, "parameter is 'colour'; it must be one of conversation, branch"),
        ({"since": ["yesterday"]}, "since is 'yesterday'; it must be a date or a time"),
        ({"until": ["0001-01-01T00:00:00+14:00"]}, "until is"),
        ({"rating": ["5"]}, "rating is '5'; it must be one of 1, -1"),
        ({"status": ["done"]}, "status is 'done'; it must be one of complete"),
        ({"pinned": ["perhaps"]}, "pinned is 'perhaps'"),
        ({"branch": ["main"]}, "branch is 'main'; it must be one of all, shown"),
        ({"tag": ["a", "b"]}, "tag is given 2 times; it must be given once"),
        ({"tag": []}, "tag is given 0 times"),
    ],
)
def test_what_is_not_understood_is_said(words: dict[str, list[str]], said: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        Selection.from_words(words)
    assert str(refused.value).startswith(said)
