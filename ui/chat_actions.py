"""What the buttons of the chat page do. They run before the page is drawn anew."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from glm_backend.errors import EmptyMessage, GLMError
from glm_backend.services import Services
from ui.frame import attempt

NEW = "new"
#: What takes a conversation off the list, and what is said of it then.
_PUT_AWAY = {"delete": "deleted", "archive": "archived"}


class ChatActions:
    """The actions on one conversation, or on the one that the first question will make."""

    def __init__(self, services: Services, conversation_id: str | None) -> None:
        self._chat = services.chat
        self._services = services
        self._user_id = services.user_id
        self._id = conversation_id
        self.place = f"chat {conversation_id or NEW}"

    # --- asking

    def submit(self) -> None:
        """Sends what is in the input box."""
        st.session_state["submitted"] = True
        self.send(st.session_state["chat_input"] or "")

    def submit_late(self, text: str | None) -> None:
        """Sends what `submit` was not called for: the first click after a reconnection reaches a
        session that does not know the page's callbacks yet."""
        submitted = st.session_state.pop("submitted", False)
        if text and not submitted:
            self.send(text)
            st.rerun()

    def send(self, text: str) -> None:
        """Sends a question; what is refused goes back into the input box."""
        text = st.session_state.get("told", {}).get(text, text)
        if not self._try(self._send, text):
            st.session_state["draft"] = text

    @staticmethod
    def restore_draft() -> None:
        """Called before the input box is drawn, which is when its text can be set.

        A browser that was told a text does not set it again when it is told the same: what is
        refused twice would be gone. So it is told the text with a space more, which is not sent.
        """
        if "draft" in st.session_state:
            draft = st.session_state.pop("draft")
            told = draft + " " if draft in st.session_state.get("told", {}) else draft
            st.session_state["chat_input"], st.session_state["told"] = told, {told: draft}

    def _send(self, text: str) -> None:
        if self._id is not None:
            self._chat.send(self._user_id, self._id, text)
            return
        if not text.strip():
            raise EmptyMessage()
        self._services.model()  # what cannot be answered makes no conversation
        store = self._services.store
        conversation_id = store.create_conversation(self._user_id).id
        try:
            self._chat.send(self._user_id, conversation_id, text)
        except GLMError:
            store.delete(self._user_id, [conversation_id])
            store.erase(self._user_id, [conversation_id])  # nothing was ever in it
            raise
        st.query_params["c"] = conversation_id

    def regenerate(self, answer_id: str) -> None:
        self._try(self._chat.regenerate, self._user_id, self._id, answer_id)

    def carry_on(self, answer_id: str) -> None:
        """Goes on with an answer that was cut off."""
        self._try(self._chat.continue_answer, self._user_id, self._id, answer_id)

    def fork(self, message_id: str) -> None:
        """Begins a conversation of its own that is the same down to this message, and shows it."""
        self._try(self._fork, message_id)

    def _fork(self, message_id: str) -> None:
        store = self._services.store
        fork = store.fork_conversation(self._user_id, str(self._id), message_id)
        st.query_params.from_dict({"c": fork.id})

    def stop(self) -> None:
        if self._id is not None:
            self._chat.stop(self._id)

    # --- editing a question

    def begin_edit(self, question_id: str) -> None:
        st.session_state["editing"] = question_id

    def cancel_edit(self) -> None:
        st.session_state.pop("editing", None)

    def send_edit(self, question_id: str) -> None:
        """Asks in other words; a refused text stays in its box."""
        text = st.session_state[f"edit_text_{question_id}"]
        if self._try(self._chat.edit, self._user_id, self._id, question_id, text):
            self.cancel_edit()

    # --- looking around

    @staticmethod
    def begin_copy(answer_id: str) -> None:
        """Shows an answer as it was written, to be copied; or no longer."""
        shown = st.session_state.get("copying") == answer_id
        st.session_state["copying"] = None if shown else answer_id

    def show_version(self, message_id: str) -> None:
        if self._try(self._services.store.show_branch, self._user_id, self._id, message_id):
            self._chat.touch(str(self._id))

    def show_earlier(self, more: int) -> None:
        key = f"shown_{self._id}"
        st.session_state[key] = st.session_state.get(key, more) + more

    def _try(self, action: Callable[..., object], *args: object) -> bool:
        return attempt(self.place, action, *args)


class ListActions:
    """The actions of the list of conversations."""

    def __init__(self, services: Services, shown_id: str | None, place: str = "") -> None:
        self._services = services
        self._shown_id = shown_id
        self.place = place or f"chat {shown_id or NEW}"

    def choose(self, conversation_id: str, title: str) -> None:
        """One entry of a conversation's menu was taken."""
        choice = st.session_state.get(f"menu_{conversation_id}")
        st.session_state.pop("put_away", None)
        if choice == "rename":
            self.begin_rename(conversation_id)
        elif choice is not None:
            attempt(self.place, self._put, choice, conversation_id, title)

    @staticmethod
    def begin_rename(conversation_id: str) -> None:
        st.session_state["renaming"] = conversation_id

    @staticmethod
    def is_renaming(conversation_id: str) -> bool:
        return bool(st.session_state.get("renaming") == conversation_id)

    def rename(self, conversation_id: str) -> None:
        title = st.session_state[f"title_{conversation_id}"]
        if attempt(self.place, self._rename, conversation_id, title):
            st.session_state.pop("renaming", None)

    @staticmethod
    def cancel_rename() -> None:
        st.session_state.pop("renaming", None)

    def restore(self) -> None:
        """Takes the shown conversation out of the trash."""
        attempt(self.place, self._bring_back, _PUT_AWAY["delete"], self._shown_id)

    def undo(self) -> None:
        """Brings back what was put away last."""
        put_away = st.session_state.pop("put_away", None)
        if put_away is not None:
            attempt(self.place, self._bring_back, *put_away[:2])

    def _rename(self, conversation_id: str, title: str) -> None:
        self._services.store.rename(self._services.user_id, conversation_id, title)
        self._services.chat.touch(conversation_id)

    def _put(self, choice: str, conversation_id: str, title: str) -> None:
        if choice == "delete":
            self._services.chat.stop(conversation_id)
        getattr(self._services.store, choice)(self._services.user_id, [conversation_id])
        self._services.chat.touch(conversation_id)
        if choice in _PUT_AWAY:
            st.session_state["put_away"] = (_PUT_AWAY[choice], conversation_id, title)
        if choice == "delete" and conversation_id == self._shown_id:
            st.query_params.clear()

    def _bring_back(self, kind: str, conversation_id: str) -> None:
        store, ids = self._services.store, [conversation_id]
        if kind == _PUT_AWAY["archive"]:
            store.unarchive(self._services.user_id, ids)
        else:
            store.restore(self._services.user_id, ids)
            st.query_params["c"] = conversation_id
        self._services.chat.touch(conversation_id)
