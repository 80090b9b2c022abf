"""From tokens to text: stop strings, and pieces that are certain."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from glm_backend.completion import StopStrings, Text, TokenCompletion, TokenLogprob
from glm_backend.engine.request import Finished, Generation, SamplingParams, Token

LETTERS = st.text("ab<|>", max_size=30)


@given(st.lists(LETTERS), st.lists(st.text("ab<|>", min_size=1, max_size=4), max_size=4))
def test_text_is_let_through_up_to_the_first_stop_string(
    pieces: list[str], stops: list[str]
) -> None:
    watch = StopStrings(stops)
    out = ""
    for piece in pieces:
        out += watch.push(piece)
        if watch.found:
            break
    else:
        out += watch.finish()
    whole = "".join(pieces)
    if watch.found:
        assert whole.startswith(out)
        assert any(whole[len(out) :].startswith(stop) for stop in stops)
        assert not any(stop in out for stop in stops)
    else:
        assert out == whole
        assert not any(stop in whole for stop in stops)


class Letters:
    """A tokenizer's detokeniser in which token n is the n-th letter."""

    def push(self, token_id: int) -> str:
        return chr(ord("a") + token_id)

    def finish(self) -> str:
        return "!"


def letters(ids: Sequence[int]) -> str:
    return "".join(map(Letters().push, ids))


def events_of(
    tokens: list[Token], stop: tuple[str, ...] = ()
) -> tuple[list[Text], Finished, Generation]:
    generation = Generation(
        [1], SamplingParams(stop=stop), max_new_tokens=100, stop_ids=frozenset()
    )
    completion = TokenCompletion(generation, Letters(), letters)
    for token in tokens:
        generation.push(token)
    generation.finish("length")
    *pieces, end = list(completion.events())
    assert isinstance(end, Finished)
    return [piece for piece in pieces if isinstance(piece, Text)], end, generation


def completion_of(tokens: list[int], stop: tuple[str, ...] = ()) -> tuple[str, Finished, bool]:
    pieces, end, generation = events_of([Token(token) for token in tokens], stop)
    return "".join(piece.text for piece in pieces), end, generation.cancelled


def test_every_token_is_told_with_its_log_probability_once() -> None:
    tokens = [Token(n, -float(n), ((n, -float(n)), (9, -7.0))) for n in range(4)]
    pieces, _, _ = events_of(tokens, stop=("cx",))
    assert [(p.text, len(p.logprobs)) for p in pieces] == [
        ("a", 1),
        ("b", 1),
        ("", 1),  # it may begin the stop string
        ("cd", 1),
        ("!", 0),
    ]
    assert [told for piece in pieces for told in piece.logprobs] == [
        TokenLogprob(letter, -n, ((letter, -n), ("j", -7.0))) for n, letter in enumerate("abcd")
    ]


def test_nothing_is_told_of_tokens_behind_a_stop_string() -> None:
    pieces, end, _ = events_of([Token(n, -1.0) for n in range(5)], stop=("cd",))
    assert "".join(t.text for piece in pieces for t in piece.logprobs) == "abcd"
    assert end.reason == "stop"


def test_what_the_detokeniser_held_back_comes_at_the_end() -> None:
    assert completion_of([0, 1, 2])[0] == "abc!"


def test_a_stop_string_ends_the_answer_and_the_request() -> None:
    text, end, cancelled = completion_of([0, 1, 2, 3, 4], stop=("cd",))
    assert (text, end.reason, cancelled) == ("ab", "stop", True)


def test_the_beginning_of_a_stop_string_is_shown_when_nothing_follows() -> None:
    assert completion_of([0, 1, 2], stop=("cd",))[0] == "abc!"
