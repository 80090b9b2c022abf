"""Conversations as rows: what was said, by which model and how, safe on disk before it is shown.

This room knows no model, no wire form and no Streamlit.
"""

from glm_backend.store.search import ConversationFilter
from glm_backend.store.store import Store
from glm_backend.store.values import (
    AnswerParameters,
    AnswerUpdate,
    Conversation,
    ConversationRow,
    Message,
    Preset,
)

__all__ = [
    "AnswerParameters",
    "AnswerUpdate",
    "Conversation",
    "ConversationFilter",
    "ConversationRow",
    "Message",
    "Preset",
    "Store",
]
