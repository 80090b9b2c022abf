"""English sentences of the backend that were kept as text, told in Chinese.

What is kept of a failed answer is what its error said. Its template is found again by the words
that stand in it, and so are the phrases in its place-holders.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from string import Formatter
from typing import NamedTuple

from glm_backend.errors import GLMError
from ui.labels.zh_errors import ERRORS
from ui.labels.zh_phrases import PHRASES

#: What is longer is not looked at: words of another server may fit a template in very many ways.
_LONGEST = 1000


def retold(text: str) -> str:
    """`text` in Chinese; as it is where it was made of no template that is known."""
    for sentence in _sentences() if len(text) <= _LONGEST else ():
        if found := sentence.english.fullmatch(text):
            values = {name: retold(value) for name, value in found.groupdict().items()}
            return "".join(words + values.get(name or "", "") for words, name in sentence.chinese)
    return text


class _Sentence(NamedTuple):
    """chinese: the words of its template, and behind each the name of what comes next, if any."""

    english: re.Pattern[str]
    chinese: list[tuple[str, str | None]]


@functools.cache
def _sentences() -> list[_Sentence]:
    """Those with the most words first: a short one may fit what a longer one was meant for."""
    pairs = [
        *((kind.template, ERRORS[kind.__name__]) for kind in _kinds(GLMError)),
        *PHRASES.items(),
    ]
    words = {english: sum(len(word) for word, *_ in _parts(english)) for english, _ in pairs}
    pairs.sort(key=lambda pair: -words[pair[0]])
    return [_sentence(english, chinese) for english, chinese in pairs if words[english]]


def _kinds(kind: type[GLMError]) -> Iterator[type[GLMError]]:
    yield kind
    for each in kind.__subclasses__():
        yield from _kinds(each)


def _sentence(english: str, chinese: str) -> _Sentence:
    pattern, known = "", set[str]()
    for words, name in _parts(english):
        pattern += re.escape(words)
        if name:
            pattern += f"(?P={name})" if name in known else f"(?P<{name}>.*?)"
            known.add(name)
    return _Sentence(re.compile(pattern, re.DOTALL), _parts(chinese))


def _parts(template: str) -> list[tuple[str, str | None]]:
    return [(words, name) for words, name, _, _ in Formatter().parse(template)]
