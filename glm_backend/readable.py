"""Text from people, models and files, with every character as it can be stored and seen."""

from __future__ import annotations


def paired(text: str) -> str:
    """The text with halves of a character put together; one by itself, which is none, is U+FFFD.

    The same object where nothing was to be done.
    """
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def storable(text: str) -> str:
    """The text without what no database keeps: NUL is U+2400, and see `paired`.

    The same object where nothing was to be done.
    """
    return paired(text.replace("\0", "\N{SYMBOL FOR NULL}") if "\0" in text else text)


def readable(text: str) -> str:
    """The text with every character storable and visible, none dropped.

    Control characters (but tab and line ends) become their Unicode pictures, U+2400 to U+2421;
    lone surrogates, which are no characters, become U+FFFD.
    """
    return paired(text.replace("\r\n", "\n").replace("\r", "\n").translate(_CONTROL_PICTURES))


_CONTROL_PICTURES = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\t\n"}
_CONTROL_PICTURES[0x7F] = 0x2421
