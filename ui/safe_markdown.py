"""What people and models write, as markdown that Streamlit shows and never obeys.

Code and formulas stay as they are. Everywhere else images become links, Streamlit's own marks
(`:material/…:`, `:red[…]`, emoji shortcodes) stay the text that they are, LaTeX in \\( \\) and
\\[ \\] becomes what Streamlit reads, and a dollar sign that is a price is no formula. HTML needs
nothing: Streamlit shows it as text. The security headers hold, too, that nothing is fetched.
"""

from __future__ import annotations

import re

from glm_backend.store import highlights

#: A message longer than this is shown up to here; the whole of it is kept and exported.
SHOWN_CHARACTERS = 30_000

#: Between a colon and a name, invisible: the only way to keep `:tada:` from becoming a picture.
_WORD_JOINER = "\N{WORD JOINER}"

_TOKEN = re.compile(
    r"""
      (?P<fence>   ^(?P<indent>[ \t>]*)(?P<mark>`{3,}|~{3,})(?P<info>[^\n`]*)
                   (?P<body>\n.*?)?
                   (?:^[ \t>]*(?P=mark)[`~]*[ \t]*$ | \Z) )
    | (?P<escape>  \\[^\s()\[\]] )
    | (?P<code>    (?<!`)(?P<tick>`++)[^\n]+?(?<!`)(?P=tick)(?!`) )
    | (?P<display> (?P<lead>^[ \t]*)?\\\[(?P<formula>(?:(?!\\[\[\]]|\n[ \t]*\n|\$).){1,4000})\\\] )
    | (?P<inline>  \\\((?P<term>(?:(?!\\[()]|\n[ \t]*\n|\$).){1,1000})\\\) )
    | (?P<block>   \$\$(?:(?!\$\$).){1,4000}\$\$ )
    | (?P<math>    \$(?![\s$])(?P<inner>[^$\n]{0,1000}?(?<![\s\\]))\$(?![\d$A-Z]) )
    | (?P<dollar>  \$ )
    | (?P<url>     (?:https?|ftp)://[^\s<>()\[\]`]+ )
    | (?P<unnamed> !+\[\s*\](?=\() )
    | (?P<image>   !+(?=\[) )
    | (?P<mark_of> :(?=(?:material/)?[\w+-]{1,60}:)(?=[\w+-]*[A-Za-z+]) )
    | (?P<colon>   :(?=[A-Za-z]) )
    | (?P<line>    (?<=[^\s])\n(?=[^\s]) )
    # Whatever begins none of them, in one go: all of the above is tried at each place otherwise.
    | (?P<others>  (?:[^\n`\\$:!hf]++|h(?!ttp)|f(?!tp))++ )
    """,
    re.VERBOSE | re.MULTILINE | re.DOTALL,
)
_SHORTCODE = re.compile(r":(?=(?:material/)?[\w+-]{1,60}:)(?=[\w+-]*[A-Za-z+])")
_MARK = re.compile(r"[\\`*_{}\[\]()#+\-.!|<>~$:]")
_looks_like_formula = re.compile(r"[\\^_={}<>+*/|]|^[^\s]{1,12}$|^\w(,\s?\w)*$")
_plain_words = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}\s+[A-Za-z]{2,}")


def safe_markdown(text: str, *, keep_lines: bool = False) -> str:
    """`text` for st.markdown. `keep_lines`: a line end is a line end, as people type it."""

    def shown(match: re.Match[str]) -> str:
        if keep_lines and match["line"]:
            return "  \n"
        rewrite = _REWRITTEN.get(match.lastgroup or "")
        return rewrite(match) if rewrite else match[0]

    return _TOKEN.sub(shown, text)


def clipped(text: str) -> tuple[str, bool]:
    """The beginning of a text that is too long to be drawn, and whether anything was cut off."""
    return text[:SHOWN_CHARACTERS], len(text) > SHOWN_CHARACTERS


def plain(text: str) -> str:
    """One line of text for labels and titles, where every mark stands for itself."""
    return _literal(" ".join(text.split()))


def words(text: str) -> list[str]:
    """Its words, for names that screen readers read as they are: every other mark would need a
    backslash."""
    return re.findall(r"\w+", text)


def highlighted(text: str, query: str) -> str:
    """One line of text like `plain`, with what `query` finds in it marked."""
    line = " ".join(text.split())
    shown, end = "", 0
    for start, stop in highlights(line, query):
        # A colon before the mark would be taken for a part of it.
        joint = _WORD_JOINER if line[:start].endswith(":") else ""
        shown += (
            f"{_literal(line[end:start])}{joint}:yellow-background[{_literal(line[start:stop])}]"
        )
        end = stop
    return shown + _literal(line[end:])


def _literal(line: str) -> str:
    return _MARK.sub(r"\\\g<0>", _SHORTCODE.sub(f":{_WORD_JOINER}", line))


def _fence(match: re.Match[str]) -> str:
    text = match[0]
    if match["info"].strip().lower().startswith("mermaid"):
        # A diagram is drawn anew at every piece of a stream, and fails until it is whole.
        text = text.replace(match["info"], "text", 1)
    if len(match["indent"].expandtabs().replace(">", "")) > 3:
        # Perhaps no fence at all (four spaces are code by themselves): keep images out of it too.
        text = text.replace("![", f"!{_WORD_JOINER}[")
    return text


def _display(match: re.Match[str]) -> str:
    formula = _formula(match["formula"])
    if match["lead"] is None:
        return f"$${formula}$$"
    lead = match["lead"]
    return f"{lead}$$\n{lead}{formula}\n{lead}$$\n"


def _inline(match: re.Match[str]) -> str:
    return f"${_formula(match['term'])}$"


def _formula(text: str) -> str:
    """One line. A space means nothing in a formula, and where it is none keeps out an image."""
    return " ".join(text.split()).replace("![", "! [")


def _math(match: re.Match[str]) -> str:
    inner = match["inner"]
    if _looks_like_formula.search(inner) and not _plain_words.search(inner):
        return f"${_formula(inner)}$"
    return f"\\${safe_markdown(inner)}\\$"


_REWRITTEN = {
    "fence": _fence,
    "display": _display,
    "inline": _inline,
    "math": _math,
    "block": lambda match: match[0].replace("![", "! ["),
    "dollar": lambda _: "\\$",
    "unnamed": lambda _: "[image]",
    "image": lambda _: "",
    "mark_of": lambda _: f":{_WORD_JOINER}",
    "colon": lambda _: "\\:",
}
