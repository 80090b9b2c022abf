"""The rule for characters that no text may have here: NUL becomes ␀, a lone surrogate becomes �.

PostgreSQL cannot hold a NUL, and a lone surrogate is no character at all. Everything else stays
as it is.
"""

from __future__ import annotations

from typing import Any

_NUL = {0: "\N{SYMBOL FOR NULL}"}


def storable(text: str) -> str:
    """The text by that rule; the same object where nothing was to be done."""
    if "\0" in text:
        text = text.translate(_NUL)
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def storable_values(value: Any) -> tuple[Any, int]:
    """A value of JSON with every text in it by that rule, and how many texts were changed."""
    if isinstance(value, str):
        kept = storable(value)
        return kept, kept is not value
    if isinstance(value, list):
        pairs = [storable_values(element) for element in value]
        return [kept for kept, _ in pairs], sum(changed for _, changed in pairs)
    if isinstance(value, dict):
        items = {storable(name): storable_values(inner) for name, inner in value.items()}
        return {n: kept for n, (kept, _) in items.items()}, sum(c for _, c in items.values())
    return value, 0
