"""Files that are damaged, or made to do damage."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glm_backend.store import Store
from tests.store.talk import ask
from tests.transfer.generated import conversations
from tests.transfer.imported import exported, imported, tree

_ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(st.characters())
    | st.sampled_from(["1", "q", "a", "root", "user", "assistant", "system", "2024-01-01", ""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def _own(**fields: object) -> dict[str, Any]:
    (made,) = conversations(random.Random(1), 1)
    assert made["messages"]
    return {"format": "glm-chat", "version": 1, **made, **fields}


def _nodes(*links: tuple[str, str | None]) -> dict[str, Any]:
    """A chat of Open WebUI with these messages, by id and parent; sides take turns by id."""
    messages = {
        its_id: {"parentId": parent_id, "role": "user" if its_id < "n" else "assistant",
                 "content": its_id}
        for its_id, parent_id in links
    }  # fmt: skip
    return {"title": "t", "history": {"messages": messages, "currentId": links[-1][0]}}


_CHATGPT = {
    "title": "t",
    "current_node": "a",
    "mapping": {
        "root": {"id": "root", "parent": None, "message": None},
        "q": {"id": "q", "parent": "root", "message": {
            "author": {"role": "user"}, "content": {"content_type": "text", "parts": ["q"]}}},
        "a": {"id": "a", "parent": "q", "message": {
            "author": {"role": "assistant"}, "create_time": 1, "metadata": {"model_slug": "m"},
            "content": {"content_type": "text", "parts": ["a", {"content_type": "x"}]}}},
    },
}  # fmt: skip
_LIBRECHAT = {
    "conversationId": "x",
    "title": "t",
    "options": {"model": "m"},
    "messagesTree": [{"messageId": "q", "isCreatedByUser": True, "text": "q", "children": [
        {"messageId": "a", "content": [{"type": "text", "text": "a"}]}]}],
}  # fmt: skip
_VALID: list[Any] = [
    _own(),
    _nodes(("a", None), ("z", "a")),
    _CHATGPT,
    _LIBRECHAT,
    {"id": "s", "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
    {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": ["a"]}]},
    {"history": [["q", "a"]]},
]


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if not isinstance(value, dict | list):
        return [path]
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    return [path, *(place for key, v in inner for place in _places(v, (*path, key)))]


def _with(value: Any, path: tuple[Any, ...], other: Any) -> Any:
    if not path:
        return other
    changed = copy.deepcopy(value)
    at = changed
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = other
    return changed


@settings(max_examples=300, deadline=None, suppress_health_check=[*HealthCheck])
@given(data=st.data(), valid=st.sampled_from(_VALID), other=_ANYTHING)
def test_one_wrong_value_anywhere_is_taken_or_refused_and_the_rest_is_taken(
    store: Store, user_id: str, data: st.DataObject, valid: Any, other: Any
) -> None:
    hurt = _with(valid, data.draw(st.sampled_from(_places(valid))), other)
    after = {"conversations": [{"from": "human", "value": "after"}]}
    report = imported(store, user_id, [{"id": 0}, hurt, after])
    outcomes = {entry.position: entry.outcome for entry in report.entries}
    assert outcomes[1] == "refused"
    assert outcomes[3] in ("imported", "known")
    for entry in report.entries:
        assert (entry.outcome == "refused") == (entry.error is not None)
        assert getattr(entry.error, "code", "") != "InternalError", entry.error
    assert exported(store, user_id)


@pytest.mark.parametrize("name", [*_own(), "head_id"])
@pytest.mark.parametrize("wrong", [5, "x", [1], {"a": 1}, None, -1.5, 1e400, True], ids=repr)
def test_a_wrong_field_of_our_own_form_is_named(
    store: Store, user_id: str, name: str, wrong: object
) -> None:
    report = imported(store, user_id, [_own(**{name: wrong})])
    (entry,) = report.entries
    assert entry.position == 1
    if entry.outcome == "refused":
        assert entry.error is not None
        assert entry.error.code in ("InvalidParameter", "ConversationUnreadable")
        assert store.count_conversations(user_id) == 0


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("role", "system"),
        ("status", "done"),
        ("content", None),
        ("content", 5),
        ("temperature", "hot"),
        ("top_k", 1.5),
        ("seed", 2**63),
        ("seed", -3),
        ("top_k", -1),
        ("prompt_tokens", -500),
        ("tokens_per_s", 1.7e308),
        ("duration_ms", -1.0),
        ("quantization", "x" * 201),
        ("max_new_tokens", 2**31),
        ("ttft_ms", 10**400),
        ("stop", "x"),
        ("stop", [1]),
        ("rating", 5),
        ("created_at", "yesterday"),
        ("created_at", "2026-11-24T01:50:00"),
        ("created_at", "0001-01-01T00:00:00+14:00"),
        ("parent_id", "f" * 32),
        ("message_id", 5),
        ("model", {}),
    ],
)
def test_a_wrong_field_of_a_message_refuses_its_conversation_and_says_which(
    store: Store, user_id: str, name: str, wrong: object
) -> None:
    hurt = _own(title="hurt")
    hurt["messages"][0][name] = wrong
    report = imported(store, user_id, [hurt, _own(id="0" * 32, messages=[], head_id=None)])
    refused, taken = report.entries
    assert (refused.position, refused.title, refused.outcome) == (1, "hurt", "refused")
    assert ("id" if name == "message_id" else name) in str(refused.error)
    assert taken.outcome == "imported"


def test_a_number_beyond_every_float_is_refused(store: Store, user_id: str) -> None:
    hurt = _own(title="hurt")
    hurt["messages"][0]["ttft_ms"] = "enormous"
    text = json.dumps([hurt]).replace('"enormous"', "1e999")
    report = imported(store, user_id, text.encode())
    assert "ttft_ms is inf; it must be a finite number" in str(report.entries[0].error)


def test_numbers_that_are_none_count_as_missing(store: Store, user_id: str) -> None:
    hurt = _own()
    hurt["messages"][0]["temperature"] = float("nan")
    hurt["messages"][0]["top_p"] = float("-inf")
    assert b"NaN" in json.dumps(hurt).encode()
    assert imported(store, user_id, [hurt]).counts["imported"] == 1
    message = exported(store, user_id)[0]["messages"][0]
    assert message["temperature"] is None
    assert message["top_p"] is None


def test_nothing_that_is_another_users_is_touched_or_told(store: Store, user_id: str) -> None:
    """CVE-2026-45349: a foreign chat id accepted."""
    theirs = store.ensure_user("other")
    conversation = store.create_conversation(theirs, title="secret")
    question, _ = ask(store, theirs, conversation.id, "secret question")
    before = exported(store, theirs)
    hurt = _own(id=conversation.id, title="mine", head_id=question.id)
    hurt["messages"] = hurt["messages"][:1]
    hurt["messages"][0] |= {"message_id": question.id, "parent_id": None}
    report = imported(store, user_id, [hurt])
    assert report.counts["imported"] == 1
    assert exported(store, theirs) == before
    (mine,) = exported(store, user_id)
    assert mine["id"] not in (conversation.id, before[0]["id"])
    assert mine["messages"][0]["message_id"] != question.id
    assert "secret" not in json.dumps(mine) + json.dumps(report.values())
    assert dict(imported(store, user_id, [hurt]).counts) == {"known": 1}


def test_a_message_whose_parent_is_missing_begins_a_branch(store: Store, user_id: str) -> None:
    report = imported(store, user_id, [_nodes(("a", None), ("z", "a"), ("b", "gone"), ("y", "b"))])
    assert tree(exported(store, user_id)[0]) == [
        "0 > u: a",
        "1 > a: z",
        "0 > u: b",
        "3 > a: y *",
    ]
    assert [str(n) for n in report.entries[0].notes] == ["1 messages whose parent is missing"]


def test_a_circle_is_opened_and_keeps_every_text(store: Store, user_id: str) -> None:
    report = imported(store, user_id, [_nodes(("x", "a"), ("a", "z"), ("z", "a"), ("b", "z"))])
    texts = tree(exported(store, user_id)[0])
    assert sorted(line.split(": ")[1].removesuffix(" *") for line in texts) == ["a", "b", "x", "z"]
    assert [str(n) for n in report.entries[0].notes] == ["1 circles of messages, opened"]
    imported(store, user_id, [_nodes(("a", "a"))])
    assert store.count_conversations(user_id) == 2


def test_two_messages_of_one_id_are_both_kept(store: Store, user_id: str) -> None:
    same = [{"messageId": "x", "isCreatedByUser": True, "text": text} for text in ("one", "two")]
    imported(store, user_id, {"conversationId": "c", "messages": same})
    assert tree(exported(store, user_id)[0]) == ["0 > u: one", "0 > u: two *"]


def test_characters_that_no_text_may_have_are_replaced_and_reported(
    store: Store, user_id: str
) -> None:
    turns = [["a\0b", "half \ud83d of a pair, \U0001f600 whole"]]
    report = imported(store, user_id, turns)
    assert tree(exported(store, user_id)[0]) == [
        "0 > u: a␀b",
        "1 > a: half \ufffd of a pair, \U0001f600 whole *",
    ]
    notes = [str(note) for note in report.entries[0].notes]
    assert notes == ["2 texts had characters that cannot be kept"]
    raw = b'[["q","\xed\xa0\xbd"]]'  # a lone half as no UTF-8 should have it
    imported(store, user_id, raw)
    assert "1 > a: \ufffd *" in [line for c in exported(store, user_id) for line in tree(c)]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b'[{"title":"x","messages":[}]', "its line is cut short|in the middle|no JSON"),
        (b'[{"title":"x","messages":[{"role":"user","content":"\xff"}]}]', "no UTF-8"),
        (b'[{"title":"x","a":' + b"9" * 5000 + b"}]", "no JSON"),
        (b'[{"title":"x","a":' + b"[" * 100_000 + b"]" * 100_000 + b"}]", "nested too deeply"),
        (b'[{"title":"x","a":' + b'{"a":' * 50_000 + b"1" + b"}" * 50_000 + b"}]", "nested"),
        (b'[{"title":"x","a":1 "b"}]', "no JSON"),
        (b'[{"title":"x","format":"glm-chat","version":2}]', "version '2'"),
        (b'[{"title":"x","mapping":{}}]', "it holds no messages"),
        (b'[{"title":"x","messages":[{"role":"user"}]}]', "it holds no messages"),
    ],
)
def test_what_cannot_be_read_is_refused_by_its_place_and_title(
    store: Store, user_id: str, text: bytes, reason: str
) -> None:
    report = imported(store, user_id, b'[["q","a"]]\n' + text)
    refused = [entry for entry in report.entries if entry.outcome == "refused"]
    assert [(entry.position, entry.title) for entry in refused] == [(2, "x")]
    assert any(part in str(refused[0].error) for part in reason.split("|"))
    assert report.counts["imported"] == 1
    assert not report.failed


@pytest.mark.parametrize(
    "value",
    [1e300, -1e300, 1e15, 10**400, float("nan"), float("inf"), "", "x", "9999-12-31", [], True],
    ids=lambda value: repr(value)[:20],
)
def test_times_that_no_calendar_has_are_done_without(
    store: Store, user_id: str, value: object
) -> None:
    chat = _nodes(("a", None), ("z", "a"))
    chat["history"]["messages"]["z"]["timestamp"] = value
    report = imported(store, user_id, [{"chat": chat, "created_at": value, "updated_at": value}])
    assert report.counts["imported"] == 1
    conversation = exported(store, user_id)[0]
    assert conversation["created_at"] <= conversation["updated_at"]


def test_a_small_file_that_would_become_a_large_one_is_refused(store: Store, user_id: str) -> None:
    """Each question has an answer and goes on as well: every branch would repeat all before."""
    messages: dict[str, Any] = {}
    for n in range(20_000):
        parent_id = f"q{n - 1}" if n else None
        messages[f"q{n}"] = {"role": "user", "content": "x" * 50, "parentId": parent_id}
        messages[f"a{n}"] = {"role": "assistant", "content": "y", "parentId": f"q{n}"}
    report = imported(store, user_id, [{"chat": {"history": {"messages": messages}}}])
    assert report.counts["refused"] == 1
    assert "repeat their texts" in str(report.entries[0].error)
    prompts = [{"role": "system", "content": "x" * 50}] * 20_000
    report = imported(store, user_id, {"messages": [*prompts, {"role": "user", "content": "q"}]})
    assert report.counts["refused"] == 1


def test_a_long_chain_is_no_trouble(store: Store, user_id: str) -> None:
    turns = [[f"q{n}", f"a{n}"] for n in range(20_000)]
    report = imported(store, user_id, turns)
    assert (report.counts["imported"], report.messages) == (1, 40_000)


def test_what_one_side_said_in_a_row_is_one_message(store: Store, user_id: str) -> None:
    chat = _nodes(("a", None), ("b", "a"), ("y", "b"), ("z", "y"), ("c", "y"), ("x", "b"))
    imported(store, user_id, [chat])
    assert tree(exported(store, user_id)[0]) == [
        "0 > u: a\n\nb",
        "1 > a: y",
        "1 > a: y\n\nz",
        "2 > u: c",
        "1 > a: x *",
    ]


def test_a_file_of_something_else_is_refused_and_says_so(store: Store, user_id: str) -> None:
    for text in (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), b"just words", b"5", b'"x"'):
        report = imported(store, user_id, text)
        assert report.failed
        assert store.count_conversations(user_id) == 0


def test_half_a_character_in_the_title_of_what_is_damaged_does_not_break_the_report(
    store: Store, user_id: str
) -> None:
    report = imported(store, user_id, b'{"title": "Birthday \\ud83d", "messages": [{"role": "us')
    assert [entry.title for entry in report.entries] == ["Birthday \ufffd"]


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"])
def test_a_time_that_not_every_clock_can_show_counts_as_missing(
    store: Store, user_id: str, time: str
) -> None:
    chat = _nodes(("a", None), ("z", "a"))
    imported(store, user_id, [{"chat": chat, "created_at": time, "updated_at": time}])
    assert exported(store, user_id)[0]["created_at"].startswith("2026-11-24")


def test_an_empty_file_imports_nothing(store: Store, user_id: str) -> None:
    report = imported(store, user_id, b"")
    assert report.counts.total() == 0
    assert not report.failed
