"""Text from people and models, with every character in a form that can be stored and seen."""

from __future__ import annotations


def storable(text: str) -> str:
    """The text with what no database keeps replaced: NUL by U+2400, lone surrogates by U+FFFD."""
    text = text.replace("\0", "\N{SYMBOL FOR NULL}")
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def readable(text: str) -> str:
    """The text with every character storable and visible, none dropped.

    Control characters (but tab and line ends) become their Unicode pictures, U+2400 to U+2421;
    lone surrogates, which are no characters, become U+FFFD.
    """
    return storable(text.replace("\r\n", "\n").replace("\r", "\n").translate(_CONTROL_PICTURES))


_CONTROL_PICTURES = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\t\n"}
_CONTROL_PICTURES[0x7F] = 0x2421
