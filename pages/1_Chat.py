"""One conversation: asked, answered, looked at in its versions."""

from __future__ import annotations

import time

import streamlit as st

from glm_backend.errors import GLMError, InvalidParameter, StoreError, UnknownConversation
from glm_backend.services import Services
from ui.chat_actions import ChatActions, ListActions
from ui.chat_head import draw_head
from ui.chat_view import ChatView, context_use, read_chat, read_from_memory
from ui.frame import draw_refusal, open_page, plain_error, saying_errors
from ui.labels import t
from ui.messages import Growing, draw_message, follow
from ui.model_panel import draw_model_panel, is_answering
from ui.pages import CHAT, HISTORY
from ui.ratings import RatingActions
from ui.sidebar import draw_sidebar
from ui.slots import clear_leftover

#: So many messages at first, and so many more at each "show earlier".
SHOWN = 30
#: How often a page looks whether another one, or the end of an answer, changed what it shows.
WATCH_S = 2.0


def draw_chat(services: Services, conversation_id: str | None) -> None:
    """The whole page. What takes time, an answer that grows, comes last."""
    actions = ChatActions(services, conversation_id)
    view = None
    if conversation_id is not None:
        shown = st.session_state.get(f"shown_{conversation_id}", SHOWN)
        view = read_view(services, conversation_id, last=shown)
    draw_head(services, view)
    with st.empty():
        if view is not None and view.away is not None:
            st.warning(t("chat.away", reason=plain_error(view.away)))
    # A placeholder, so that the welcome is gone as soon as there is something to read.
    top = st.empty()
    if view is None or not view.messages:
        with top.container(key="welcome"):
            draw_welcome(services, actions)
    place = draw_messages(services, view, actions) if view else None
    draw_input(services, view, actions)
    if view is None:
        return
    watch(services, view)
    if view.running and view.live is not None:
        if place is not None:
            follow(view.live, place)
        else:
            wait_for_end(view)
        st.rerun()


def read_view(services: Services, conversation_id: str, *, last: int) -> ChatView:
    """The conversation; while the store is away, what this page read of it before."""
    try:
        view = read_chat(services, conversation_id, last=last)
    except StoreError as error:
        view = st.session_state.get("last_view")
        if view is None or view.conversation.id != conversation_id:
            raise
        view = read_from_memory(services, view, error)
    st.session_state["last_view"] = view
    return view


def draw_messages(services: Services, view: ChatView, actions: ChatActions) -> Growing | None:
    """The messages; returns the place of the answer that is being written."""
    ratings = RatingActions(services, view.conversation.id, actions.place)
    with st.empty():
        if view.earlier:
            st.button(
                t("chat.show_earlier", count=min(SHOWN, view.earlier)),
                key="chat_earlier",
                on_click=actions.show_earlier,
                args=(SHOWN,),
            )
    place = None
    with st.container(key="messages"):
        for message in view.messages:
            its_place = draw_message(message, view, actions, ratings)
            if view.live is not None and view.live.message_id == message.id:
                place = its_place
        clear_leftover("messages", len(view.messages))
    return place


def draw_welcome(services: Services, actions: ChatActions) -> None:
    """An empty conversation: what one may ask, and whether anything can answer."""
    st.header(t("chat.welcome"), anchor=False)
    draw_model_panel(services)
    if is_answering(services):
        with st.container(key="suggestions", horizontal=True):
            for name in ("explain", "write", "code"):
                text = t(f"suggestion.{name}")
                st.button(text, key=f"suggest_{name}", on_click=actions.send, args=(text,))


def draw_input(services: Services, view: ChatView | None, actions: ChatActions) -> None:
    """The box, Stop beside it while an answer runs, and how full the context is.

    Above it, where it is in sight wherever one reads, what keeps a question from being answered.
    """
    with st.bottom:
        with st.empty():
            draw_refusal(actions.place)
        with st.empty():
            if view is not None and view.messages and not is_answering(services):
                with st.container(key="no_model"):
                    draw_model_panel(services)
    with (
        st.bottom,
        st.container(key="chat_state", horizontal=True, vertical_alignment="center", gap="small"),
    ):
        draw_context_meter(services, view)
        if view is not None and view.running:
            st.button(
                t("chat.stop"),
                key="chat_stop",
                icon=":material/stop_circle:",
                on_click=actions.stop,
            )
    actions.restore_draft()
    # Not inside st.bottom, although it goes there: only so does Streamlit keep to the newest text.
    text = st.chat_input(t("chat.placeholder"), key="chat_input", on_submit=actions.submit)
    actions.submit_late(text)


def draw_context_meter(services: Services, view: ChatView | None) -> None:
    """Tokens used of the model's context, and what the next question will leave out."""
    model = None if services.is_remote else services.models.status().model
    if model is None:
        return
    try:
        params = services.chat.parameters(services.user_id, view and view.conversation.id)
    except (InvalidParameter, StoreError):
        return  # the question itself will say so
    limits = params.limits(model.family, model.context_length)
    use = context_use(view.messages if view else (), limits.together, limits.reserved)
    if use is None:
        return
    key = "context.overflows" if use.overflows else "context.use"
    text = t(key, used=use.used, length=use.length)
    if use.length < model.context_length:
        text += " " + t("context.limited", context=model.context_length)
    st.progress(use.fraction, text=text)


def watch(services: Services, view: ChatView) -> None:
    """Draws the page anew when something changed that it did not do itself."""
    drawn_at = time.monotonic()

    @st.fragment(run_every=WATCH_S)
    def look() -> None:
        changed = services.chat.version(view.conversation.id) != view.version
        old = time.monotonic() - drawn_at > WATCH_S / 2
        if changed or (old and (view.orphaned or view.away is not None)):
            st.rerun()

    look()


def wait_for_end(view: ChatView) -> None:
    """An answer is being written in a version that is not shown."""
    if view.live is not None:
        for _ in view.live.tail(2, poll=lambda: "chat_input" in st.session_state):
            pass


def draw_unknown(services: Services, conversation_id: str, error: GLMError) -> None:
    """The link leads nowhere, or into the trash; nothing is made for it."""
    st.warning(plain_error(error))
    actions = ListActions(services, conversation_id)
    draw_refusal(actions.place)
    with st.container(horizontal=True):
        if services.store.is_trashed(services.user_id, conversation_id):
            st.button(t("do.restore"), key="chat_restore", on_click=actions.restore, type="primary")
        st.page_link(CHAT, label=t("chat.start_new"), icon=":material/edit_square:")
        st.page_link(HISTORY, label=t("chat.all_conversations"), icon=":material/history:")


services = open_page()
conversation_id = st.query_params.get("c")
with saying_errors():
    try:
        draw_sidebar(services, conversation_id)
        draw_chat(services, conversation_id)
    except UnknownConversation as error:
        draw_unknown(services, str(conversation_id), error)
