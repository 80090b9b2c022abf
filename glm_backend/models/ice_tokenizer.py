"""The first ChatGLM-6B's tokenizer, ice_text.model: SentencePiece whose file names its controls.

Line ends, tabs and runs of spaces are pieces of their own. The file itself was not at hand; what
is known of it is public (docs/models.md), and it must agree with config.json on the ids of the
controls, so a file of another model is found at once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import sentencepiece

from glm_backend.errors import CheckpointDamaged, Phrase
from glm_backend.models.sentencepiece_tokenizer import PieceDecoder, read_model, surface

FILE = "ice_text.model"
_LINE_END = "<n>"
_LONGEST_BLANK = 80
_BLANKS = {f"<|blank_{n}|>": " " * n for n in range(2, _LONGEST_BLANK + 1)}
#: Piece -> what it stands for.
_WRITTEN = {_LINE_END: "\n", "<|tab|>": "\t"} | _BLANKS
_CONTROLS = ("[MASK]", "[gMASK]", "[sMASK]", "<unused_0>", "<sop>", "<eop>", "<ENC>", "<dBLOCK>")
#: A place inside the name of a control, where typed text is cut so that it stays text.
_INSIDE_CONTROL = re.compile(rf"(?<=[\[<])(?={'|'.join(re.escape(c[1:]) for c in _CONTROLS)})")
#: Control -> the key of ChatGLM1Config that holds its id.
_KNOWN = {
    "[MASK]": "mask_token_id",
    "[gMASK]": "gmask_token_id",
    "<sop>": "bos_token_id",
    "<eop>": "eos_token_id",
}


class IceTokenizer(PieceDecoder):
    """Ids are those of the pieces plus an offset (0; 20,000 in the earliest files).

    Controls are never parsed out of text, and have none. Safe to share between threads.
    """

    def __init__(self, processor: sentencepiece.SentencePieceProcessor, offset: int) -> None:
        self._processor = processor
        self._offset = offset
        self._line_end: int = processor.piece_to_id(_LINE_END)
        self.special_ids = {name: processor.piece_to_id(name) + offset for name in _CONTROLS}
        self._controls = frozenset(self.special_ids.values())
        pieces = [_text(processor, i) for i in range(processor.get_piece_size())]
        super().__init__([*[""] * offset, *pieces])

    @classmethod
    def open(cls, path: Path, config: Mapping[str, Any]) -> IceTokenizer:
        """Reads ice_text.model; raises CheckpointDamaged for a file that does not fit `config`."""
        processor = read_model(path)
        unknown = processor.unk_id()
        ids = {name: processor.piece_to_id(name) for name in (*_KNOWN, _LINE_END)}
        offsets = {config[key] - ids[name] for name, key in _KNOWN.items()}
        offset = offsets.pop()
        size = processor.get_piece_size() + offset
        if offsets or offset < 0 or unknown in ids.values() or size > config["vocab_size"]:
            reason = Phrase("its controls do not have the ids that config.json gives them")
            raise CheckpointDamaged(file=str(path), reason=reason)
        return cls(processor, offset)

    def encode(self, text: str) -> list[int]:
        """Ids of `text`; lone surrogates, which are no characters, become "?"."""
        clean = text.encode("utf-8", "replace").decode("utf-8")
        first, *more = _INSIDE_CONTROL.split(clean)
        ids = self._pieces(_spelled(first))
        for part in more:
            ids += self._continued(_spelled(part))
        return ids

    def _continued(self, text: str) -> list[int]:
        """Ids of text within a text: without the space that SentencePiece begins with."""
        ids = self._pieces(_LINE_END + text)
        return ids[ids.index(self._line_end + self._offset) + 1 :]

    def _pieces(self, text: str) -> list[int]:
        return [piece + self._offset for piece in self._processor.encode(text)]


def _spelled(text: str) -> str:
    """Line ends, tabs and runs of spaces by the names of their pieces, the longest runs first."""
    text = text.replace("\n", _LINE_END).replace("\t", "<|tab|>")
    return re.sub(rf" {{2,{_LONGEST_BLANK}}}", lambda run: f"<|blank_{len(run[0])}|>", text)


def _text(processor: sentencepiece.SentencePieceProcessor, piece_id: int) -> str | int:
    piece: str = processor.id_to_piece(piece_id)
    if piece in _CONTROLS:
        return ""
    return _WRITTEN.get(piece) or surface(processor, piece_id)
