"""Which member of the ChatGLM family a folder holds.

All of them write "chatglm" as their model_type. The first generation has other weights. ChatGLM2
and ChatGLM3 have the same ones, but other prompts, other ends of an answer and, in their 32k
versions, two meanings of rope_ratio; a wrong guess there gives other numbers and no error. So each
answer says why it was given, and where it would be a guess with consequences there is none.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

from glm_backend.errors import ModelUnsupported, Phrase
from glm_backend.models.checkpoint import CONFIG_FILE, Checkpoint, read_json

MODEL_TYPE = "chatglm"
Family = Literal["chatglm", "chatglm2", "chatglm3"]
FAMILIES: tuple[Family, ...] = get_args(Family)

_NAME = re.compile(r"chatglm-?([23])(?!\d)", re.IGNORECASE)
_GLM4 = re.compile(r"(?<!chat)glm-?4(?!\d)", re.IGNORECASE)
#: The line in which the programs of the two 32k models differ.
_POSITIONS_DIVIDED = re.compile(r"/\s*(self\.)?rope_ratio")
_BASE_MULTIPLIED = re.compile(r"base\s*\*\s*(self\.)?rope_ratio")
_CHATGLM3_SEQ_LENGTH = 8192
_LONGEST_TEXT = 1_000_000
_REMEDY = Phrase(
    'Say which it is with family="chatglm2" or family="chatglm3", '
    "or let the folder's name contain one of the two."
)
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Recognition:
    """family, and in `why` what gave it away, as part of a sentence for people."""

    family: Family
    why: Phrase


def recognise(checkpoint: Checkpoint, *, model: str, family: str | None) -> Recognition:
    """The family of a checkpoint whose model_type is "chatglm".

    family: what the caller knows better. Raises ModelUnsupported for GLM-4 in its old form, for a
    `family` that cannot be, and where ChatGLM2 and ChatGLM3 would give different numbers and
    nothing tells which of them it is.
    """
    _refuse_glm4(checkpoint, model)
    first = any(name.startswith("transformer.layers.") for name in checkpoint.tensors)
    if family is not None:
        return _overridden(family, first=first, model=model)
    if first:
        return Recognition("chatglm", Phrase("its layers are those of the first ChatGLM-6B"))
    clues = list(_clues(checkpoint))
    if not clues:
        return _by_habit(checkpoint, model)
    found, where = clues[0]
    others = [place for other, place in clues if other != found]
    if not others:
        return Recognition(found, Phrase("{where} says so", where=where))
    why = Phrase(
        "{where} says so (though {other} speaks for another)", where=where, other=others[0]
    )
    _log.warning("%s: taken for %s because %s. %s", model, found, why, _REMEDY)
    return Recognition(found, why)


def _refuse_glm4(checkpoint: Checkpoint, model: str) -> None:
    raw = read_json(checkpoint.folder / CONFIG_FILE)
    if raw.get("padded_vocab_size") == 151_552 or _GLM4.search(str(raw.get("_name_or_path", ""))):
        raise ModelUnsupported(
            model=model,
            reason=Phrase("this is GLM-4 in its older form, which is not read"),
            remedy=Phrase("Take the same model in transformers' own form: its name ends in -hf."),
        )


def _overridden(family: str, *, first: bool, model: str) -> Recognition:
    if family not in FAMILIES or (family == "chatglm") != first:
        found = Phrase("the first ChatGLM-6B") if first else Phrase("ChatGLM2 or ChatGLM3")
        raise ModelUnsupported(
            model=model,
            reason=Phrase(
                "it cannot be {family!r}: its weights are those of {found}",
                family=family,
                found=found,
            ),
            remedy=Phrase("Leave family out, or take one of: {names}.", names=", ".join(FAMILIES)),
        )
    return Recognition(family, Phrase("it was said on loading"))


def _clues(checkpoint: Checkpoint) -> Iterator[tuple[Family, str]]:
    """What speaks for one of the two, strongest first, and where it stands."""
    folder = checkpoint.folder
    program = _text(folder / "modeling_chatglm.py")
    program_says = Phrase("modeling_chatglm.py (read as text)")
    if _POSITIONS_DIVIDED.search(program):
        yield "chatglm2", program_says
    elif _BASE_MULTIPLIED.search(program):
        yield "chatglm3", program_says
    tokenizer = _text(folder / "tokenizer_config.json")
    for text, where in (
        (str(read_json(folder / CONFIG_FILE).get("_name_or_path", "")), CONFIG_FILE),
        (tokenizer, "tokenizer_config.json"),
        (folder.resolve().name, Phrase("the folder's name")),
    ):
        if named := _NAME.search(text):
            yield cast(Family, f"chatglm{named[1]}"), where
    if "<|assistant|>" in tokenizer:
        yield "chatglm3", Phrase("the <|assistant|> in tokenizer_config.json")


def _text(path: Path) -> str:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(_LONGEST_TEXT)
    except OSError:
        return ""


def _by_habit(checkpoint: Checkpoint, model: str) -> Recognition:
    """No name anywhere. With rope_ratio 1 both compute the same; only the prompt is at stake."""
    if rope_ratio(checkpoint.config) != 1:
        raise ModelUnsupported(
            model=model,
            reason=Phrase(
                "ChatGLM2 and ChatGLM3 read its rope_ratio in different ways, "
                "and nothing in the folder tells which of them it is"
            ),
            remedy=_REMEDY,
        )
    short = checkpoint.config.get("seq_length") == _CHATGLM3_SEQ_LENGTH
    family: Family = "chatglm3" if short else "chatglm2"
    why = Phrase(
        "its seq_length is that of {family}; nothing else tells it from its sister "
        '(family="chatglm2" or family="chatglm3" would, or the folder\'s name)',
        family=family,
    )
    _log.warning("%s: taken for %s because %s", model, family, why)
    return Recognition(family, why)


def rope_ratio(config: Mapping[str, Any]) -> Any:
    """The key as it stands; absent is 1."""
    return config.get("rope_ratio", 1)
