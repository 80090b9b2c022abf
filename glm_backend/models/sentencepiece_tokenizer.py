"""ChatGLM's own tokenizer.model: SentencePiece for text -> ids, pieces joined here for ids -> text.

The sentencepiece library reads and cuts as the authors' program does (no mismatch in any recorded
string, where transformers' conversions of the same file have thousands). Decoding is done piece by
piece, so that a stream and a whole text come from the same few lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import sentencepiece

from glm_backend.errors import CheckpointDamaged, Phrase

FILE = "tokenizer.model"
_SPACE = "\u2581"  # how SentencePiece writes a space inside a piece
_REPLACEMENT = "\ufffd"


class PieceDecoder:
    """The way from ids to text. surfaces: what each id stands for, as `PieceStream` takes it."""

    def __init__(self, surfaces: Sequence[str | int]) -> None:
        self._surfaces = surfaces

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids`; ids beyond the vocabulary have none."""
        stream = self.detokenizer()
        return "".join([*(stream.push(i) for i in ids), stream.finish()])

    def detokenizer(self) -> PieceStream:
        """A new stream; each answer has its own."""
        return PieceStream(self._surfaces)


class SentencePieceTokenizer(PieceDecoder):
    """Special tokens follow the pieces of the file, in the order of `specials`.

    They are never parsed out of text. specials_have_text: whether decoding shows them (ChatGLM3)
    or drops them (ChatGLM2). Safe to share between threads: nothing in it changes.
    """

    def __init__(
        self,
        processor: sentencepiece.SentencePieceProcessor,
        specials: Sequence[str],
        *,
        specials_have_text: bool,
    ) -> None:
        self._processor = processor
        self.pieces = processor.get_piece_size()
        self.special_ids = {name: self.pieces + i for i, name in enumerate(specials)}
        shown = specials if specials_have_text else [""] * len(specials)
        super().__init__([*(surface(processor, i) for i in range(self.pieces)), *shown])

    @classmethod
    def open(
        cls, path: Path, specials: Sequence[str], *, specials_have_text: bool
    ) -> SentencePieceTokenizer:
        """Reads tokenizer.model; raises CheckpointDamaged when it is not one."""
        return cls(read_model(path), specials, specials_have_text=specials_have_text)

    @property
    def size(self) -> int:
        """Ids that mean something: pieces and specials."""
        return len(self._surfaces)

    def encode(self, text: str) -> list[int]:
        """Ids of `text`; lone surrogates, which are no characters, become "?"."""
        clean = text.encode("utf-8", "replace").decode("utf-8")
        ids: list[int] = self._processor.encode(clean)
        return ids


def read_model(path: Path) -> sentencepiece.SentencePieceProcessor:
    """SentencePiece over a file of its own form; raises CheckpointDamaged for any other."""
    processor = sentencepiece.SentencePieceProcessor()
    try:
        processor.LoadFromSerializedProto(path.read_bytes())
    except (OSError, RuntimeError) as error:
        reason = Phrase("it is no SentencePiece model")
        raise CheckpointDamaged(file=str(path), reason=reason) from error
    return processor


def surface(processor: sentencepiece.SentencePieceProcessor, piece_id: int) -> str | int:
    """What a piece stands for: text, or one byte of a character that has no piece."""
    piece: str = processor.id_to_piece(piece_id)
    if processor.is_byte(piece_id):
        return int(piece[3:5], 16)  # <0x41>
    if processor.is_control(piece_id) or processor.is_unknown(piece_id):
        return ""
    return piece.replace(_SPACE, " ")


class PieceStream:
    """Joins pieces as SentencePiece does, one at a time, in constant time each.

    The space that stands before the first piece is dropped. Bytes wait until they make a
    character; those that cannot make one become U+FFFD each.
    """

    def __init__(self, surfaces: Sequence[str | int]) -> None:
        self._surfaces = surfaces
        self._bytes = b""
        self._at_start = True

    def push(self, token_id: int) -> str:
        """The text that this token finished."""
        surface = self._surfaces[token_id] if 0 <= token_id < len(self._surfaces) else ""
        if isinstance(surface, int):
            self._at_start = False
            self._bytes += bytes([surface])
            return self._characters()
        if surface and self._at_start:
            self._at_start = False
            surface = surface.removeprefix(" ")
        return self._broken() + surface

    def finish(self) -> str:
        """What was held back. The stream starts afresh after it."""
        rest = self._broken()
        self._at_start = True
        return rest

    def _characters(self) -> str:
        """The characters that the waiting bytes complete, U+FFFD for bytes that never will."""
        out = ""
        while self._bytes:
            try:
                out += self._bytes.decode("utf-8")
                self._bytes = b""
            except UnicodeDecodeError as error:
                out += self._bytes[: error.start].decode("utf-8")
                self._bytes = self._bytes[error.start :]
                if error.reason == "unexpected end of data":  # the next byte may complete it
                    break
                out += _REPLACEMENT
                self._bytes = self._bytes[1:]
        return out

    def _broken(self) -> str:
        """Waiting bytes that no byte follows."""
        lost, self._bytes = _REPLACEMENT * len(self._bytes), b""
        return lost
