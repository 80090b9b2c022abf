"""Self-hosted chat for ChatGLM-class models: the public names.

They are imported when they are first used, so that `import glm_backend` costs nothing: torch and
transformers alone take seconds.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from glm_backend.threads import settle_kernels

if TYPE_CHECKING:
    from glm_backend.chat import ChatService as ChatService
    from glm_backend.drop_in import AutoModel as AutoModel
    from glm_backend.drop_in import AutoTokenizer as AutoTokenizer
    from glm_backend.language_model import LanguageModel as LanguageModel
    from glm_backend.language_model import load_model as load_model
    from glm_backend.services import Services as Services
    from glm_backend.settings import Settings as Settings

_HOME = {
    "AutoModel": "drop_in",
    "AutoTokenizer": "drop_in",
    "ChatService": "chat",
    "LanguageModel": "language_model",
    "load_model": "language_model",
    "Services": "services",
    "Settings": "settings",
}

__all__ = [
    "AutoModel",
    "AutoTokenizer",
    "ChatService",
    "LanguageModel",
    "Services",
    "Settings",
    "load_model",
]

settle_kernels()  # here, as every way in comes by, and before any of them imports torch


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
