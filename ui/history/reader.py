"""One conversation on the history page: read in every version, put away, taken out."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from glm_backend.services import Services
from glm_backend.store.values import Conversation, Message
from ui.chat_actions import ChatActions, ListActions
from ui.chat_head import draw_export
from ui.frame import attempt, draw_refusal
from ui.history.changes import Change, Changes, draw_changes
from ui.history.paging import paged
from ui.labels import t, t_or
from ui.messages import draw_figures, draw_fork, draw_versions
from ui.pages import CHAT, HISTORY
from ui.ratings import RatingActions, draw_note, draw_thumbs
from ui.safe_markdown import plain
from ui.sidebar import draw_rename
from ui.times import short_time
from ui.transcript import draw_bubble

#: Every bubble is a frame of its own, which costs memory in the browser.
_PAGE = 10


def draw_reader(services: Services, conversation_id: str, hit_id: str | None) -> None:
    """The conversation as it is shown now. hit_id: the message that a search found in it.

    Raises UnknownConversation, StoreError.
    """
    store, user_id = services.store, services.user_id
    _draw_way_back()
    busy = draw_changes(services, conversation_id)  # first, as what it waits for is read below
    conversation = store.conversation(user_id, conversation_id)
    messages = store.path(user_id, conversation_id)
    actions = ChatActions(services, conversation_id)
    st.subheader(plain(conversation.title or t("chat.untitled")), anchor=False)
    _draw_facts(conversation, messages)
    draw_refusal(actions.place)
    _draw_bar(services, conversation, actions.place, busy=busy)
    if hit_id and hit_id not in [message.id for message in messages]:
        _draw_way_to_hit(hit_id, actions)
        hit_id = None
    _draw_messages(services, messages, actions, hit_id)


def _draw_way_back() -> None:
    """To the list, as it was left."""
    with st.container(key="history_back"):
        st.page_link(HISTORY, label=t("history.back"), icon=":material/arrow_back:")


def _draw_facts(conversation: Conversation, messages: Sequence[Message]) -> None:
    facts = [
        t("history.begun", time=short_time(conversation.created_at)),
        t("history.count", count=len(messages)),
    ]
    if conversation.source:
        source = conversation.source
        form = plain(t_or(f"form.{source.replace('-', '_')}", source))
        facts.append(t("history.from", form=form))
    if conversation.forked_from:
        facts.append(t("chat.forked"))
    st.caption(" · ".join(facts))


def _draw_bar(services: Services, conversation: Conversation, place: str, *, busy: bool) -> None:
    its_id = conversation.id
    titles = ListActions(services, its_id, place)
    with st.container(key="reader_bar", horizontal=True, vertical_alignment="center", gap="xsmall"):
        st.page_link(
            CHAT, label=t("history.open"), icon=":material/chat:", query_params={"c": its_id}
        )
        draw_export(services, its_id)
        st.button(
            t("do.rename"),
            key="reader_rename",
            type="tertiary",
            icon=":material/edit:",
            on_click=titles.begin_rename,
            args=(its_id,),
        )
        _draw_changing(services, conversation, busy=busy)
    if titles.is_renaming(its_id):
        draw_rename(its_id, conversation.title or t("chat.untitled"), titles)
    _draw_tags(services, conversation, place)


def _draw_changing(services: Services, conversation: Conversation, *, busy: bool) -> None:
    def put(name: str) -> None:
        Changes(services).begin(Change(name), [conversation.id])
        if name == "delete":  # it is read no more; the list has the way back
            st.query_params.clear()

    pin = "unpin" if conversation.pinned else "pin"
    archive = "archive" if conversation.archived_at is None else "unarchive"
    for name, icon in ((pin, "keep"), (archive, "inventory_2"), ("delete", "delete")):
        st.button(
            t(f"do.{name}"),
            key=f"reader_{name}",
            type="tertiary",
            icon=f":material/{icon}:",
            disabled=busy,
            on_click=put,
            args=(name,),
        )


def _draw_tags(services: Services, conversation: Conversation, place: str) -> None:
    key = f"tags_{conversation.id}"

    def set_tags() -> None:
        attempt(place, _set_tags, services, conversation, st.session_state[key])

    # Each time: another tab may have changed them, and what differs is taken for the reader's wish.
    st.session_state[key] = list(conversation.tags)
    st.multiselect(
        t("history.tags"),
        sorted({*services.store.tags_used(services.user_id), *conversation.tags}),
        key=key,
        accept_new_options=True,
        placeholder=t("history.tag_hint"),
        label_visibility="collapsed",
        on_change=set_tags,
    )


def _set_tags(services: Services, conversation: Conversation, wanted: Sequence[str]) -> None:
    store, user_id = services.store, services.user_id
    for tag in set(conversation.tags).difference(wanted):
        store.untag(user_id, [conversation.id], tag)
    for tag in set(wanted).difference(conversation.tags):
        store.tag(user_id, [conversation.id], tag)


def _draw_way_to_hit(hit_id: str, actions: ChatActions) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption(t("history.hit_elsewhere"), width="content")
        st.button(
            t("history.show_hit"), key="show_hit", on_click=actions.show_version, args=(hit_id,)
        )


def _draw_messages(
    services: Services, messages: Sequence[Message], actions: ChatActions, hit_id: str | None
) -> None:
    if not messages:
        st.caption(t("history.no_messages"))
        return
    its_id = messages[0].conversation_id
    versions = services.store.versions(services.user_id, its_id)
    ratings = RatingActions(services, its_id, actions.place)
    place = next((i for i, message in enumerate(messages) if message.id == hit_id), 0)
    pages, key = -(-len(messages) // _PAGE), f"reader_page_{its_id}_{hit_id or ''}"
    with paged(pages, key, first=place // _PAGE + 1) as page:
        for message in messages[(page - 1) * _PAGE : page * _PAGE]:
            _draw_message(message, versions.get(message.parent_id, ()), actions, ratings)


def _draw_message(
    message: Message, siblings: Sequence[str], actions: ChatActions, ratings: RatingActions
) -> None:
    user = message.role == "user"
    with st.container(key=f"read_{message.id}", gap="xsmall"):
        draw_bubble(message)
        with st.container(
            key=f"foot_{message.id}",
            horizontal=True,
            vertical_alignment="center",
            horizontal_alignment="right" if user else "left",
        ):
            draw_versions(message, siblings, actions)
            draw_fork(message, actions)
            if not user:
                draw_thumbs(message, ratings)
                draw_figures(message)
        if not user:
            draw_note(message, ratings)
