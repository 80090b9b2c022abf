"""Text cut for searching: what an index holds of it, what a query asks for, what is highlighted.

A unit is a word, or one character of a script that is written without spaces, or one symbol. A
token is a unit together with the unit that touches it: "C++ 数据库" gives "c+", "++", "+", "数据",
"据库", "库". So one rule finds words by their beginning, Chinese from one character on, and code
as it is written. What a query has between quotation marks is one phrase: these words, whole and in
this order. The tokens know only its words, so the text itself must be looked at. Knows no database.
"""

from __future__ import annotations

import re
import unicodedata
from operator import add
from typing import NamedTuple

#: Scripts without spaces between words: Thai to Burmese, Khmer, kana and Han, Hangul.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u312f\u31a0-\u31ff\u3400-\u4dbf"
    "\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
)
_LETTER = rf"[^\W_{_UNSPACED}]"
_LONGEST_UNIT = 40  # what is longer (encoded data) is cut into units that touch
_letter = re.compile(_LETTER)
_unit = re.compile(rf"{_LETTER}{{1,{_LONGEST_UNIT}}}|\S")
_MOST_QUERY_TOKENS = 32
_QUOTES = str.maketrans(dict.fromkeys("“”„「」『』", '"'))
#: What NFKC makes of the marks in nearly every Chinese text. Without them it has mostly nothing to
#: do there, and sees that ten times as fast.
_WIDE_MARKS = tuple(zip("，：；！？（）", ",:;!?()", strict=True))


def tokens(text: str) -> set[str]:
    """Every token of `text`, each once."""
    found: set[str] = set()
    for part in set(normalised(text).split()):
        if len(part) <= _LONGEST_UNIT and part.isascii() and part.isalpha():
            found.add(part)  # as most words are, and quicker so
        elif _letter.search(part) is None:
            found.update(map(add, part, part[1:]))  # each character is a unit
            found.add(part[-1])
        else:
            found.update(_pairs(part))
    return found


def _pairs(part: str) -> list[str]:
    """The tokens of a text without spaces, in their order."""
    units = _unit.findall(part)
    return [*map(add, units, units[1:]), *units[-1:]]


def query_tokens(query: str) -> tuple[list[str], list[str]]:
    """What a text must hold to be found: whole tokens, and beginnings of tokens.

    Every part between spaces ends with a beginning, so that words are found while they are typed.
    Both are empty for a query of spaces. What is very long is cut.
    """
    whole: list[str] = []
    beginnings: list[str] = []
    words, phrases = _asked(query)
    for part in [*words, *(word for phrase in phrases for word in phrase.split())]:
        *pairs, last = _pairs(part)
        # The last unit is the beginning of its own token, and of the pair that ends with it.
        whole += pairs[:-1]
        beginnings.append(pairs[-1] if pairs else last)
    return whole[:_MOST_QUERY_TOKENS], beginnings[:_MOST_QUERY_TOKENS]


def has_phrases(query: str) -> bool:
    """Whether something in it stands between quotation marks."""
    return bool(_asked(query).phrases)


def shows(text: str, query: str) -> bool:
    """True when every word of `query` stands somewhere in `text`, from the beginning of a unit,
    and every phrase."""
    searched = normalised(text)
    return all(re.search(pattern, searched) for pattern in _patterns(query))


def highlights(text: str, query: str) -> list[tuple[int, int]]:
    """Where `text` shows what `query` asks for: (start, end) of characters, in their order."""
    patterns = _patterns(query)
    if not patterns:
        return []
    searched, places = _with_places(text)
    wanted = re.compile("|".join(patterns))
    return [(places[m.start()], places[m.end() - 1] + 1) for m in wanted.finditer(searched)]


def excerpt(text: str, query: str, length: int) -> str:
    """`length` characters of `text` around the first place that `query` finds, in one line."""
    found = highlights(text, query)
    start = max(0, (found[0][0] if found else 0) - length // 4)
    cut = " ".join(text[start : start + length].split())
    return f"…{cut}" if start else cut


def normalised(text: str) -> str:
    """`text` with the differences gone that nobody means: case, width, composed letters."""
    if text.isascii():
        return text.lower()
    for wide, narrow in _WIDE_MARKS:
        text = text.replace(wide, narrow)
    # U+180E is no space any more since Unicode 6.3; to SQLite's tokenizer it still is one.
    return unicodedata.normalize("NFKC", text).casefold().replace("\u180e", " ")


class _Asked(NamedTuple):
    """A query: its words, and its phrases with one space between their words."""

    words: list[str]
    phrases: list[str]


def _asked(query: str) -> _Asked:
    pieces = normalised(query).translate(_QUOTES).split('"')
    if len(pieces) % 2 == 0:  # the last mark opens nothing, or is yet to be closed
        pieces[-2:] = [" ".join(pieces[-2:])]
    words = " ".join(pieces[::2]).split()
    return _Asked(words, [" ".join(piece.split()) for piece in pieces[1::2] if piece.strip()])


def _patterns(query: str) -> list[str]:
    """What each word and each phrase looks like in a normalised text, the longest first."""
    words, phrases = _asked(query)
    patterns = {(word, _at_a_beginning(word)) for word in words}
    patterns |= {(phrase, _phrase(phrase)) for phrase in phrases}
    return [pattern for _, pattern in sorted(patterns, key=lambda asked: -len(asked[0]))]


def _phrase(phrase: str) -> str:
    ends = rf"(?!{_LETTER})" if _letter.match(phrase[-1]) else ""
    return _at_a_beginning(phrase).replace(r"\ ", r"\s+") + ends


def _at_a_beginning(part: str) -> str:
    return (rf"(?<!{_LETTER})" if _letter.match(part) else "") + re.escape(part)


def _with_places(text: str) -> tuple[str, list[int] | range]:
    """The normalised text, and for each of its characters the place it comes from."""
    whole = normalised(text)
    if len(whole) == len(text):
        return whole, range(len(text))
    pieces = [(normalised(character), place) for place, character in enumerate(text)]
    return "".join(piece for piece, _ in pieces), [p for piece, p in pieces for _ in piece]
