"""Cuts a stream of JSON into conversations without parsing them.

Only brackets and strings are looked at: an item is cut out whole however large the file is, a
damaged one costs itself and not the rest, and deep nesting costs nothing.

What is an item: the elements of a list, the elements of "conversations" in a document of ours,
and every other value that stands by itself (JSON Lines). A list of turns is one item.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from glm_backend.errors import Phrase

_READ_BYTES = 256 * 1024
_LARGE_READ_BYTES = 16 * 1024 * 1024
_HEAD_BYTES = 64 * 1024
#: So large may one conversation be.
MOST_BYTES = 256 * 1024 * 1024

_Pattern = Callable[[bytes, int], "re.Match[bytes] | None"]

#: JSON has no line end in a string: a quote that nothing closes on its line is a mistake.
_STRING = rb'"(?:[^"\\\n]++|\\[^\n])*+"'
_SCALARS = rb'[^"\[\]{}]++|' + _STRING
#: What neither opens nor closes anything.
_plain = re.compile(rb"(?:%b)*+" % _SCALARS).match
#: Within an item, lists and objects that hold no others are passed in one go, and objects with such
#: lists: most messages are. Those that begin a line are not, which may be the next item.
_LIST = rb"(?<!\n)\[(?:%b)*+\]" % _SCALARS
_OBJECT = rb"(?<!\n)\{(?:%b|%b)*+\}" % (_SCALARS, _LIST)
_flat = re.compile(rb"(?:%b|%b|%b)*+" % (_SCALARS, _LIST, _OBJECT)).match
_string_goes_on = re.compile(rb'(?:[^"\\\n]++|\\[^\n])*+').match
#: A key with a value that is no list or object, and the comma behind it.
_MEMBER = rb'\s*+ " %b [^"\\\n]*+ " \s*+ : \s*+ (?: ' + _STRING + rb" | [\w.+-]++ ) \s*+ ,"
#: What the elements of a list of turns have, under one of these names.
_OF_A_TURN = rb'(?:from|value|role|content)"'
#: A list of conversations, not of turns.
_own_document = re.compile(
    rb"""\s*+ \{ (?: %b )*+ \s*+ "conversations" \s*+ : \s*+ \[
    (?= \s*+ (?: \] | \{ (?! (?: %b )*+ \s*+ " %b ) ) )"""
    % (_MEMBER % b'(?!conversations")', _MEMBER % (b"(?!%b)" % _OF_A_TURN), _OF_A_TURN),
    re.VERBOSE,
).match
_OPEN = b"[{"
_GOES_ON = b",:[{"  # after these a value continues on the next line
_BLANK = b" \t\r\n,"
_BLANKS_AT_MOST = 100  # between the end of one line and the bracket that begins the next


@dataclass(frozen=True, slots=True)
class Item:
    """One conversation's text; `trouble` is why it is known already to be unreadable."""

    text: bytes
    trouble: Phrase | None = None


class JsonItems:
    """The items of one stream.

    is_turn: says of an element of a list, parsed, whether it is a turn of one conversation.
    """

    def __init__(self, stream: BinaryIO, is_turn: Callable[[object], bool]) -> None:
        self._stream = stream
        self._is_turn = is_turn
        self._buffer = b""
        self._begins = self._ends = 0  # the offsets in the stream between which the buffer stands
        self._at = 0  # the offset up to which it has been looked at
        self._kept = 0  # the offset from which it is still needed
        self._run_begins = self._run_ends = 0  # offsets of what stood before the last bracket
        self._dropped = False  # what was needed became too long
        self._open_string = False  # a string did not end on its line

    def __iter__(self) -> Iterator[Item]:
        while self._ends < _HEAD_BYTES and self._read(_HEAD_BYTES):
            pass
        if self._buffer.startswith(b"\xef\xbb\xbf"):
            self._at = 3
        document = _own_document(self._buffer, self._at)
        if document:
            self._at = document.end()
            yield from self._elements(None)
        while (bracket := self._next_bracket()) is not None:
            if not document:  # behind the conversations of one there may be other fields
                yield from self._between()
            if bracket == b"[":
                yield from self._elements(self._at - 1)
            elif bracket == b"{":
                yield self._item(self._at - 1, by_lines=True)
                yield from self._lines()
        if not document:
            yield from self._between()

    def _lines(self) -> Iterator[Item]:
        """The lines that follow, as far as each is an object: nothing in them is looked at."""
        while (line := self._line()).startswith(b"\n{") and line.rstrip().endswith(b"}"):
            self._at += len(line)
            yield Item(line[1:])

    def _line(self) -> bytes:
        """What stands from here, where a line ends, to where the next one does; "" if too long."""
        self._kept = self._at
        end = self._buffer.find(b"\n", self._at + 1 - self._begins)
        while end < 0:
            searched = self._ends - self._at
            if searched > MOST_BYTES:
                return b""
            if not self._read(_READ_BYTES):
                return self._buffer[self._at - self._begins :]
            end = self._buffer.find(b"\n", max(searched, 1))
        return self._buffer[self._at - self._begins : end]

    def _elements(self, list_begins: int | None) -> Iterator[Item]:
        """The elements of a list whose bracket was just read; all of it where they are turns."""
        first = list_begins is not None
        while (bracket := self._next_bracket(keep=list_begins if first else None)) is not None:
            yield from self._between()
            if bracket == b"]":
                return
            if bracket == b"}":
                continue
            item = self._item(self._at - 1, keep=list_begins if first else None)
            if first and self._is_turn(_parsed(item)):
                assert list_begins is not None
                yield self._item(list_begins)
                return
            first = False
            yield item

    def _item(self, begins: int, *, keep: int | None = None, by_lines: bool = False) -> Item:
        """From `begins` to the bracket that closes the one last read.

        by_lines: a line that begins with a bracket where nothing can continue is the next item.
        """
        keep = begins if keep is None else keep
        self._open_string = False
        depth = 1
        while depth:
            bracket = self._next_bracket(keep=keep, over=_flat)
            if bracket is None:
                return self._cut(begins, Phrase("the file ends in the middle of it"))
            if by_lines and bracket in _OPEN and self._begins_a_line():
                self._at -= 1
                return self._cut(begins, Phrase("its line is cut short"))
            depth += 1 if bracket in _OPEN else -1
        return self._cut(begins)

    def _next_bracket(self, *, keep: int | None = None, over: _Pattern = _plain) -> bytes | None:
        """Goes on behind the next bracket that stands in no string; None at the end.

        keep: the offset from which the text is still needed; None for what is read from now on.
        over: what is passed on the way.
        """
        self._run_begins = self._at
        self._kept = self._at if keep is None else keep
        while True:
            self._at = self._begins + _matched(over, self._buffer, self._at - self._begins)
            self._run_ends, found = self._at, self._here()
            if found == b'"':
                self._pass_string()
            elif found:
                self._at += 1
                return found
            elif not self._read(_READ_BYTES):
                return None

    def _pass_string(self) -> None:
        """Goes on behind a string that the buffer, or its line, ends in the middle of."""
        self._at += 1
        while True:
            self._at = self._begins + _matched(
                _string_goes_on, self._buffer, self._at - self._begins
            )
            found = self._here()
            if found == b'"':
                self._at += 1
                return
            here = self._at - self._begins
            if b"\n" in self._buffer[here : here + 2]:
                self._at, self._open_string = self._at + 1, True
                return
            if not self._read(_READ_BYTES):
                self._at = self._ends
                return

    def _here(self) -> bytes:
        return self._buffer[self._at - self._begins : self._at - self._begins + 1]

    def _begins_a_line(self) -> bool:
        """Whether the bracket last read begins a line that does not continue the one before."""
        here = self._at - 1 - self._begins
        if self._buffer[here - 1 : here] != b"\n":
            return False
        before = self._buffer[max(here - _BLANKS_AT_MOST, 0) : here].rstrip()
        return self._open_string or before[-1:] not in _GOES_ON

    def _between(self) -> Iterator[Item]:
        """What stands between two items and is no separator."""
        run = self._buffer[self._run_begins - self._begins : self._run_ends - self._begins]
        if self._run_begins < self._begins or run.strip(_BLANK):
            yield Item(b"", Phrase("it is no conversation"))

    def _cut(self, begins: int, trouble: Phrase | None = None) -> Item:
        text = self._buffer[max(begins - self._begins, 0) : self._at - self._begins]
        if not self._dropped:
            return Item(text, trouble)
        self._dropped = False
        return Item(b"", Phrase("it is longer than {limit} MB", limit=MOST_BYTES // 2**20))

    def _read(self, size: int) -> bool:
        """Reads on and lets go of what is not needed; False at the end of the stream."""
        keep = max(self._kept, self._begins)
        if self._ends - keep > MOST_BYTES:
            self._dropped = True
        if self._dropped:
            keep = self._at
        held = self._buffer[keep - self._begins :]
        # More when more is held: so a long item is not copied again for every small portion of it.
        more = self._stream.read(max(size, min(len(held), _LARGE_READ_BYTES)))
        self._ends += len(more)
        self._buffer, self._begins = held + more, keep
        return bool(more)


def _matched(pattern: _Pattern, text: bytes, at: int) -> int:
    found = pattern(text, at)
    assert found is not None, "it matches nothing, too"
    return found.end()


def _parsed(item: Item) -> object:
    try:
        return json.loads(item.text)
    except (ValueError, RecursionError):
        return None
