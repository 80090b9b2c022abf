"""Tokenizer and prompt format of a ChatGLM folder, and the ids that end an answer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from glm_backend.errors import CheckpointDamaged, Phrase
from glm_backend.models.chatglm import PublishedChatGLM
from glm_backend.models.chatglm_prompts import ChatGLM1Prompt, ChatGLM2Prompt, ChatGLM3Prompt
from glm_backend.models.ice_tokenizer import FILE as ICE_FILE
from glm_backend.models.ice_tokenizer import IceTokenizer
from glm_backend.models.model import PromptFormat, TextTokenizer
from glm_backend.models.sentencepiece_tokenizer import FILE, SentencePieceTokenizer

_SPECIALS = ("[MASK]", "[gMASK]", "[sMASK]", "sop", "eop")
_ROLE_TOKENS = ("<|system|>", "<|user|>", "<|assistant|>", "<|observation|>")
#: ChatGLM3 ends an answer with the role that speaks next.
_ENDS = ("<|user|>", "<|observation|>")
#: Rows that a vocabulary is filled up with to a round size; 65,024 has 226 more than are used.
_MOST_PADDING = 1024


def open_tokenizer(path: Path, family: str) -> SentencePieceTokenizer:
    """The tokenizer.model of ChatGLM2 or ChatGLM3; raises CheckpointDamaged when it is none."""
    third = family == "chatglm3"
    specials = (*_SPECIALS, *_ROLE_TOKENS) if third else _SPECIALS
    return SentencePieceTokenizer.open(path, specials, specials_have_text=third)


Language = tuple[TextTokenizer | None, PromptFormat | None, frozenset[int]]


def open_folder(checkpoint: PublishedChatGLM, *, vocab_size: int, name: str) -> Language:
    """Reads tokenizer.model or ice_text.model; (None, None, no ids) where the folder has none.

    Raises CheckpointDamaged for a file that is no tokenizer, or that of another model.
    """
    first = checkpoint.family == "chatglm"
    path = checkpoint.folder / (ICE_FILE if first else FILE)
    if not path.is_file():
        return None, None, frozenset()
    if first:
        return _first(path, checkpoint.config, name)
    tokenizer = open_tokenizer(path, checkpoint.family)
    if not tokenizer.pieces + len(_SPECIALS) <= vocab_size <= tokenizer.size + _MOST_PADDING:
        reason = Phrase(
            "it belongs to another model: it has {tokens} tokens, the weights have {rows}",
            tokens=tokenizer.size,
            rows=vocab_size,
        )
        raise CheckpointDamaged(file=str(path), reason=reason)
    if checkpoint.family == "chatglm3":
        ends = frozenset(tokenizer.special_ids[end] for end in _ENDS)
        return tokenizer, ChatGLM3Prompt(tokenizer, name), ends
    return tokenizer, ChatGLM2Prompt(tokenizer, name), frozenset()


def _first(path: Path, config: Mapping[str, Any], name: str) -> Language:
    tokenizer = IceTokenizer.open(path, config)
    return tokenizer, ChatGLM1Prompt(tokenizer, name), frozenset()
