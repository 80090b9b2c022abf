"""Text as markdown that is shown and never obeyed."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ui.safe_markdown import plain, safe_markdown

J = "\N{WORD JOINER}"


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("![a](http://x/y.png)", "[a](http://x/y.png)"),
        ("![](http://x/y.png)", "[image](http://x/y.png)"),
        ("![a][ref]", "[a][ref]"),
        ("\\\\![a](u)", "\\\\[a](u)"),
        ("\\![a](u)", "\\![a](u)"),
        ("\\`![a](u)`", "\\`[a](u)`"),
    ],
)
def test_images_become_links(written: str, shown: str) -> None:
    assert safe_markdown(written) == shown


@pytest.mark.parametrize(
    "code",
    [
        "`![a](u) $x :red[y] :tada:`",
        "```python\nprint('![a](u) $5 :tada:')\n```",
        "~~~\n:material/x: \\(x\\)\n~~~",
        "- item\n  ```js\n  `${a}`\n  ```",
        "````\n```\n![a](u)\n````",
        "auto f = `[](int x)`;",
    ],
)
def test_code_stays_as_it_is(code: str) -> None:
    assert safe_markdown(code) == code


def test_code_that_is_not_closed_yet_is_code_already() -> None:
    assert safe_markdown("```py\nx = '![a](u) $5'") == "```py\nx = '![a](u) $5'"


def test_four_spaces_before_a_fence_do_not_smuggle_an_image_through() -> None:
    assert "![" not in safe_markdown("    ```\n\n![a](http://x/y.png)")


def test_diagrams_are_shown_as_their_text() -> None:
    assert safe_markdown("```mermaid\ngraph TD\n```") == "```text\ngraph TD\n```"


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("\\(x^2\\)", "$x^2$"),
        ("see \\[ a\nb \\] there", "see $$a b$$ there"),
        ("\\[\n\\int x\n\\]", "$$\n\\int x\n$$\n"),
        ("  \\[x\\]", "  $$\n  x\n  $$\n"),
        ("$x$ and $$y$$", "$x$ and $$y$$"),
        ("$f(x)$, $a, b$, $n-1$", "$f(x)$, $a, b$, $n-1$"),
        ("\\(not closed", "\\(not closed"),
    ],
)
def test_formulas_are_written_as_streamlit_reads_them(written: str, shown: str) -> None:
    assert safe_markdown(written) == shown


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("$5 and $10", "\\$5 and \\$10"),
        ("costs $20 and he paid 30$", "costs \\$20 and he paid 30\\$"),
        ("$HOME:$PATH", "\\$HOME:\\$PATH"),
        ("already \\$5", "already \\$5"),
        ("$$ not closed", "\\$\\$ not closed"),
    ],
)
def test_prices_are_no_formulas(written: str, shown: str) -> None:
    assert safe_markdown(written) == shown


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        (":material/delete:", f":{J}material/delete:"),
        (":tada:", f":{J}tada:"),
        (":streamlit:", f":{J}streamlit:"),
        (":red[x]", "\\:red[x]"),
        ("note:small", "note\\:small"),
        ("at 12:30:45", "at 12:30:45"),
        ("http://a.b:c/d:e", "http://a.b:c/d:e"),
        ("中文：好", "中文：好"),
    ],
)
def test_streamlits_marks_stay_text(written: str, shown: str) -> None:
    assert safe_markdown(written) == shown


def test_line_ends_are_kept_where_people_type_them() -> None:
    assert safe_markdown("a\nb\n\nc", keep_lines=True) == "a  \nb\n\nc"
    assert safe_markdown("```\na\nb\n```", keep_lines=True) == "```\na\nb\n```"


def test_a_label_is_one_line_without_marks() -> None:
    assert plain("a *b*\n![c](d) :tada:") == f"a \\*b\\* \\!\\[c\\]\\(d\\) \\:{J}tada\\:"


@example("$![$")
@example("$$![$$")
@example("\\(![\\)")
@example("!![a](b)")
@example("!![](b)")
@example("!`:`[")  # what stands around code does not touch
@given(st.text(alphabet="ab `~!$[]()\\\n:>-", max_size=60))
def test_no_unescaped_image_outside_code(text: str) -> None:
    without_code = re.sub(r"(?s)(`+)(?!`).*?(?<!`)\1(?!`)|(```|~~~).*", "x", safe_markdown(text))
    assert re.search(r"(?<!\\)(\\\\)*!\[", without_code) is None


@pytest.mark.parametrize("unit", ["\\[", "\\(", "$a", "$$", "`", "![", ":a", "~~~\n", "a"])
def test_texts_of_one_mark_come_to_an_end(unit: str) -> None:
    """Patterns whose time grows with the square would take minutes here."""
    assert safe_markdown(":" + unit * 100_000)
