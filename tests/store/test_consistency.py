"""Whatever is done in whatever order: what is searched and counted is what is there."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from glm_backend.store import AnswerUpdate, ConversationFilter, Message, Store
from glm_backend.store.tokens import shows
from tests.store.talk import ANSWER, Clock, finished

WORDS = ("red", "green", "blue", "天气", "晴", "C++")

_text = st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map(" ".join)
_which = st.integers(0, 5)
_deed = st.one_of(
    st.tuples(st.just("ask"), _which, _text),
    st.tuples(st.just("grow"), _which, _text),
    st.tuples(st.just("end"), _which, _text),
    st.tuples(st.just("interrupt"), _which, _text),
    st.tuples(st.just("rename"), _which, _text),
    st.tuples(st.just("fork"), _which, _text),
    st.tuples(st.just("rate"), _which, _text),
    st.tuples(st.just("delete"), _which, _text),
    st.tuples(st.just("restore"), _which, _text),
    st.tuples(st.just("erase"), _which, _text),
)


class _Life:
    """One user's conversations, and what has been done to them."""

    def __init__(self, store: Store, user_id: str) -> None:
        self.store = store
        self.user = user_id
        self.ids = [store.create_conversation(user_id).id]
        self.answers: dict[str, list[Message]] = {self.ids[0]: []}
        self.copied: set[str] = set()  # messages that a fork began with

    def do(self, what: str, which: int, text: str) -> None:
        conversation = self.ids[which % len(self.ids)]
        here = self.store.select_conversations(self.user)
        if what in ("ask", "rename", "fork", "rate") and conversation not in here:
            return
        getattr(self, f"_{what}")(conversation, which, text)

    def _ask(self, conversation: str, which: int, text: str) -> None:
        _, answer = self.store.begin_turn(self.user, conversation, None, text, ANSWER, "me")
        self.answers[conversation].append(answer)
        if which == 0:
            new = self.store.create_conversation(self.user, title=text).id
            self.ids.append(new)
            self.answers[new] = []

    def _written(self, conversation: str, which: int) -> Message | None:
        answers = self.answers[conversation]
        return answers[which % len(answers)] if answers else None

    def _grow(self, conversation: str, which: int, text: str) -> None:
        if answer := self._written(conversation, which):
            self.store.write_answers([AnswerUpdate(answer.id, text)])

    def _end(self, conversation: str, which: int, text: str) -> None:
        if answer := self._written(conversation, which):
            self.store.write_answers([finished(answer, text)])

    def _interrupt(self, conversation: str, which: int, text: str) -> None:
        self.store.mark_interrupted(lambda owner: which > 2, self.store.now())

    def _rename(self, conversation: str, which: int, text: str) -> None:
        self.store.rename(self.user, conversation, text)

    def _fork(self, conversation: str, which: int, text: str) -> None:
        path = self.store.path(self.user, conversation)
        if path and path[-1].status != "generating":
            fork = self.store.fork_conversation(self.user, conversation, path[-1].id).id
            self.ids.append(fork)
            self.answers[fork] = []
            self.copied.update(message.id for message in self.store.path(self.user, fork))

    def _rate(self, conversation: str, which: int, text: str) -> None:
        if answer := self._written(conversation, which):
            rating: Any = (1, -1, None)[which % 3]
            self.store.rate(self.user, conversation, answer.id, rating, text)

    def _delete(self, conversation: str, which: int, text: str) -> None:
        self.store.delete(self.user, [conversation])

    def _restore(self, conversation: str, which: int, text: str) -> None:
        self.store.restore(self.user, [conversation])

    def _erase(self, conversation: str, which: int, text: str) -> None:
        self.store.erase(self.user, [conversation])


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@example(
    deeds=[
        ("ask", 0, "red"),
        ("ask", 0, "red"),
        ("end", 3, "red"),
        ("fork", 0, "red"),
        ("ask", 3, "red"),  # in the fork, whose own questions count
        ("interrupt", 5, "red"),
    ]
)
@given(deeds=st.lists(_deed, max_size=14))
def test_the_search_finds_what_is_there_and_the_sums_are_those_of_the_messages(
    store: Store, clock: Clock, deeds: list[tuple[str, int, str]]
) -> None:
    user = store.ensure_user(f"user {clock()}")
    life = _Life(store, user)
    for deed in deeds:
        life.do(*deed)
    erased = [i for i in life.ids if not store.restore(user, [i]) and not _there(store, user, i)]
    texts = {i: _texts(store, user, i) for i in life.ids if i not in erased}
    for word in WORDS:
        found = store.select_conversations(user, None, ConversationFilter(text=word))
        assert set(found) == {i for i, its in texts.items() if any(shows(t, word) for t in its)}
    used = store.usage(user)
    if used and not erased:
        mine = [m for i in life.ids for m in _ended(store, user, i) if m.id not in life.copied]
        answers = [m for m in mine if m.role == "assistant"]
        assert used[0].answers == len(answers)
        assert used[0].completion_tokens == sum(m.completion_tokens or 0 for m in answers)
        assert used[0].rated_good == sum(m.rating == 1 for m in answers)
        assert used[0].rated_bad == sum(m.rating == -1 for m in answers)


def _there(store: Store, user: str, conversation: str) -> bool:
    return conversation in store.select_conversations(user)


def _ended(store: Store, user: str, conversation: str) -> list[Message]:
    leaves = store.versions(user, conversation)
    ids = [i for children in leaves.values() for i in children]
    all_messages = [store.path(user, conversation, i)[-1] for i in ids]
    return [m for m in all_messages if m.status != "generating"]


def _texts(store: Store, user: str, conversation: str) -> list[str]:
    title = store.conversation(user, conversation).title
    return [title, *(m.content for m in _ended(store, user, conversation))]
