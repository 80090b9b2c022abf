"""A conversation's own system prompt: a box below its title."""

from __future__ import annotations

import streamlit as st

from glm_backend.chat_parameters import ChatParameters
from glm_backend.services import Services
from glm_backend.store.values import Conversation
from ui.frame import attempt
from ui.labels import t, t_or
from ui.safe_markdown import plain


def draw_prompt(services: Services, conversation: Conversation) -> None:
    """The conversation's own system prompt, which goes before that of Settings.

    An imported conversation may have other settings of its own; they can be let go of.
    """
    actions = PromptActions(services, conversation)
    others = sorted(name for name in conversation.settings if name != "system_prompt")
    with st.popover(
        t("chat.prompt"), key="chat_prompt", type="tertiary", icon=":material/psychology:"
    ):
        st.caption(t("chat.prompt_help"))
        with st.form("chat_prompt_form", border=False):
            st.text_area(
                t("chat.prompt"),
                value=str(conversation.settings.get("system_prompt") or ""),
                key=actions.key,
                height=160,
                label_visibility="collapsed",
            )
            st.form_submit_button(t("chat.save"), type="primary", on_click=actions.save)
        if others:
            names = t("list.and").join(plain(t_or(f"settings.{name}", name)) for name in others)
            st.caption(t("chat.settings_own", names=names))
        if conversation.settings:
            st.button(t("chat.prompt_clear"), key="chat_prompt_clear", on_click=actions.clear)


class PromptActions:
    """What the buttons of the system prompt do."""

    def __init__(self, services: Services, conversation: Conversation) -> None:
        self._services = services
        self._conversation = conversation
        self._place = f"chat {conversation.id}"
        self.key = f"chat_prompt_{conversation.id}"

    def save(self) -> None:
        typed = st.session_state[self.key].strip()
        attempt(self._place, self._save, self._conversation.settings | {"system_prompt": typed})

    def clear(self) -> None:
        attempt(self._place, self._save, {})

    def _save(self, settings: dict[str, object]) -> None:
        kept = settings | {"system_prompt": ChatParameters.from_values(settings).system_prompt}
        if not kept["system_prompt"]:  # then it has none of its own
            del kept["system_prompt"]
        store, its_id = self._services.store, self._conversation.id
        store.set_conversation_settings(self._services.user_id, its_id, kept)
        self._services.chat.touch(its_id)
