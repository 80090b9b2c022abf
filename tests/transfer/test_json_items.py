"""Cutting a stream of JSON into conversations."""

from __future__ import annotations

import io
import json
import tracemalloc
from typing import Any, BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm_backend.transfer import json_items
from glm_backend.transfer.json_items import Item, JsonItems
from glm_backend.transfer.turns import is_turn

_LOST = "it is no conversation"
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)


class _Slow(io.BytesIO):
    """A stream that gives one byte at a time, as a socket may."""

    def read(self, size: int | None = -1) -> bytes:
        return super().read(1 if size else 0)


def _items(text: bytes, stream: type[BinaryIO] = io.BytesIO) -> list[str]:  # type: ignore[type-abstract]
    return [_shown(item) for item in JsonItems(stream(text), is_turn)]  # type: ignore[call-arg]


def _shown(item: Item) -> str:
    text = item.text.decode()
    return text if item.trouble is None else f"{text}: {item.trouble}"


@pytest.mark.parametrize(
    ("text", "items"),
    [
        (b"", []),
        (b" \n", []),
        (b"[]", []),
        (b"{}", ["{}"]),
        (b'[{"a":1},\n {"b":[1,{"c":"]"}]}]', ['{"a":1}', '{"b":[1,{"c":"]"}]}']),
        (b'\xef\xbb\xbf[{"a":1}]', ['{"a":1}']),
        (
            b'{"a":1}\n{"b":1}\n{"c":[{}]}\n\n{"d":1}',
            ['{"a":1}', '{"b":1}', '{"c":[{}]}', '{"d":1}'],
        ),
        (b'{"a":1}\r\n{"b":1}\r\n', ['{"a":1}', '{"b":1}']),
        (b'{"a":1}\n{"b":\n1}\n{"c":1}', ['{"a":1}', '{"b":\n1}', '{"c":1}']),
        (b'{"a":1}\n{"b":"\\"}\\\\"}\n', ['{"a":1}', '{"b":"\\"}\\\\"}']),
        (b'{"a":1} {"b":2}', ['{"a":1}', '{"b":2}']),
        (b'{\n "a": [\n  {"b": 1}\n ]\n}', ['{\n "a": [\n  {"b": 1}\n ]\n}']),
        (b'[{"a":1}]\n[{"b":2}]', ['{"a":1}', '{"b":2}']),
    ],
    ids=repr,
)
def test_elements_of_a_list_and_values_by_themselves(text: bytes, items: list[str]) -> None:
    assert _items(text) == items
    assert _items(text, _Slow) == items


@pytest.mark.parametrize(
    ("text", "items"),
    [
        (b'{"format":"glm-chat","version":1,"conversations":[\n{"id":"x"},\n{"id":"y"}\n]}', 2),
        (b'{"conversations":[{"created_at":"x"},{"id":"y"}],"format":"glm-chat"}', 2),
        (b'{"format":"glm-chat","conversations":[]}', 0),
        (b'{"conversations":[{"from":"human","value":"x"},{"from":"gpt","value":"y"}]}', 1),
        (b'{"id":"]","conversations":[{"from":"human","value":"x"}]}', 1),
        (b'{"conversations":[{"role":"user","content":"x"},{"role":"assistant"}]}', 1),
        (b'{"conversations":[{"id":1, "at":"2026", "from":"human"},{"from":"gpt"}]}', 1),
        (b'{"conversations":[{"id":"x","title":"role","tags":["role"]},{"id":"y"}]}', 2),
        (b'{"format":"glm-chat","id":"x","tags":["conversations"],"messages":[]}\n', 1),
    ],
    ids=repr,
)
def test_a_document_of_ours_is_opened_and_nothing_else(text: bytes, items: int) -> None:
    assert len(_items(text)) == items
    assert all(": it" not in item for item in _items(text))


@pytest.mark.parametrize(
    ("text", "items"),
    [
        (b'[["q","a"],["q2","a2"]]', 1),
        (b'[["q",null]]', 1),
        (b'[["q","a"]]\n[["q2","a2"]]\n', 2),
        (b'[[["q","a"]],[["q2","a2"]]]', 2),
        (b'[{"role":"user","content":"q"},{"role":"assistant","content":"a"}]', 1),
        (b'[{"messages":[{"role":"user","content":"q"}]}]', 1),
    ],
    ids=repr,
)
def test_a_list_of_turns_is_one_conversation(text: bytes, items: int) -> None:
    assert len(_items(text)) == items
    assert _items(text) == _items(text, _Slow)


@pytest.mark.parametrize(
    ("text", "items"),
    [
        (b'[1, null, {"a":1}, "x", {"b":2} 5]',
            [f": {_LOST}", '{"a":1}', f": {_LOST}", '{"b":2}', f": {_LOST}"]),
        (b'not json\n{"a":1}\n', [f": {_LOST}", '{"a":1}']),
        (b'{"a":[1}\n{"b":2}\n', ['{"a":[1}\n: its line is cut short', '{"b":2}']),
        (b'{"a":"x, "b":[1}\n{"b":2}\n', ['{"a":"x, "b":[1}\n: its line is cut short', '{"b":2}']),
        (b'[{"a":1 "b"},{"c":2}]', ['{"a":1 "b"}', '{"c":2}']),
        (b'[{"a":1}},{"b":2}]', ['{"a":1}', '{"b":2}']),
        (b'[{"a":1},{"b":', ['{"a":1}', '{"b":: the file ends in the middle of it']),
        (b'{"format":"glm-chat","conversations":[{"id":1}},{"id":2}]}', ['{"id":1}', '{"id":2}']),
        (b"}]", []),
        (b'"abc', [f": {_LOST}"]),
        (b"5", [f": {_LOST}"]),
    ],
    ids=repr,
)  # fmt: skip
def test_damage_costs_the_damaged_item(text: bytes, items: list[str]) -> None:
    assert _items(text) == items
    assert _items(text, _Slow) == items


@given(st.lists(st.dictionaries(st.text(), _JSON, max_size=3), max_size=5), st.booleans())
def test_what_is_cut_is_what_was_put_together(values: list[Any], escaped: bool) -> None:
    lines = [json.dumps(value, ensure_ascii=escaped) for value in values]
    for text in ("\n".join(lines), "[" + ",\n".join(lines) + "]"):
        items = list(JsonItems(io.BytesIO(text.encode("utf-8", "surrogatepass")), lambda _: False))
        assert [json.loads(i.text.decode("utf-8", "surrogatepass")) for i in items] == values
        assert not any(item.trouble for item in items)


@given(st.binary(max_size=200) | st.text('[]{}",:\\\n a1', max_size=60).map(str.encode))
def test_no_bytes_end_it(text: bytes) -> None:
    assert _items_of(text, io.BytesIO) == _items_of(text, _Slow)


def _items_of(text: bytes, stream: type[io.BytesIO]) -> list[Item]:
    return list(JsonItems(stream(text), is_turn))


def test_nesting_without_end_costs_nothing() -> None:
    deep = b"[" * 1_000_000
    (item,) = JsonItems(io.BytesIO(b'{"a":' + deep), is_turn)
    assert str(item.trouble) == "the file ends in the middle of it"
    closed = b'{"a":' + deep + b"]" * 1_000_000 + b'}\n{"b":1}'
    assert len(list(JsonItems(io.BytesIO(closed), is_turn))) == 2


def test_an_item_that_is_too_long_is_left_out_and_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_items, "MOST_BYTES", 2**20)
    many = b"[" + b'"' + b"x" * 90 + b'"' + b"],"
    fillings = [b'"' + b"x" * 9_000_000 + b'"', many * 90_000]
    lists = [b'[{"a":1},{"b":[' + filling + b']},{"c":3}]' for filling in fillings]
    lines = [b'{"a":1}\n{"b":[' + filling + b']}\n{"c":3}' for filling in fillings]
    for text in (*lists, *lines):
        stream = io.BytesIO(text)
        tracemalloc.start()
        items = [_shown(item) for item in JsonItems(stream, is_turn)]
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert items == ['{"a":1}', ": it is longer than 1 MB", '{"c":3}']
        assert peak < 6 * 2**20
