"""Conversations as rows: what was said, by which model and how, safe on disk before it is shown.

This room knows no model, no wire form and no Streamlit.
"""

from glm_backend.store.search import ConversationFilter, FoundConversations
from glm_backend.store.store import Store
from glm_backend.store.tokens import highlights
from glm_backend.store.values import (
    AnswerParameters,
    AnswerUpdate,
    Conversation,
    ConversationRow,
    Everybody,
    ImportedConversation,
    ImportedMessage,
    ImportOutcome,
    Message,
    Preset,
    Reader,
)

__all__ = [
    "AnswerParameters",
    "AnswerUpdate",
    "Conversation",
    "ConversationFilter",
    "ConversationRow",
    "Everybody",
    "FoundConversations",
    "ImportOutcome",
    "ImportedConversation",
    "ImportedMessage",
    "Message",
    "Preset",
    "Reader",
    "Store",
    "highlights",
]
