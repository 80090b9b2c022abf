"""Text <-> token ids through the folder's own tokenizer.json.

The file alone says how text is cut: no class that a folder names is looked up. Knows nothing of
chat templates or models.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from tokenizers import Tokenizer

from glm_backend.errors import CheckpointDamaged, Phrase

TOKENIZER_FILE = "tokenizer.json"

_REPLACEMENT = "\ufffd"


class FastTokenizer:
    """A `tokenizers.Tokenizer` that treats special tokens in text as ordinary text.

    Safe to share between threads: nothing in it changes after it was made.
    """

    def __init__(self, backend: Tokenizer) -> None:
        # A copy: the setting below belongs to the object, and a prompt must parse its specials.
        self._backend = Tokenizer.from_str(backend.to_str())
        self._backend.encode_special_tokens = True
        self._backend.no_padding()
        self._backend.no_truncation()

    @classmethod
    def open(cls, folder: Path) -> FastTokenizer:
        """Reads `folder`/tokenizer.json; raises CheckpointDamaged when it is not one."""
        path = folder / TOKENIZER_FILE
        try:
            return cls(Tokenizer.from_file(str(path)))
        except Exception as error:  # tokenizers raises bare Exception
            reason = Phrase("it makes no tokenizer ({error})", error=str(error))
            raise CheckpointDamaged(file=str(path), reason=reason) from error

    def encode(self, text: str) -> list[int]:
        """Ids of `text`; lone surrogates, which are no characters, become "?"."""
        clean = text.encode("utf-8", "replace").decode("utf-8")
        ids: list[int] = self._backend.encode(clean, add_special_tokens=False).ids
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids`; special ids have none."""
        text: str = self._backend.decode(list(ids), skip_special_tokens=True)
        return text

    def detokenizer(self) -> WindowDetokenizer:
        """A new stream; each answer has its own."""
        return WindowDetokenizer(self.decode)


class WindowDetokenizer:
    """Decodes a stream by looking at the last few tokens only, never at the whole text again.

    The window holds the tokens since the piece before the last one that ended on a whole
    character: decoders that strip a leading space then see what stands before it.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._window: list[int] = []
        self._read = 0  # tokens of the window whose text is out
        self._shown = 0  # characters of the window's text that are out

    def push(self, token_id: int) -> str:
        """The text that this token finished, without U+FFFD for a character half there."""
        self._window.append(token_id)
        text = self._decode(self._window)
        if text.endswith(_REPLACEMENT):  # half a character, or a real U+FFFD: the next one tells
            return ""
        return self._advance(text)

    def finish(self) -> str:
        """What was held back. The stream starts afresh after it."""
        new = self._decode(self._window)[self._shown :]
        self._window, self._read, self._shown = [], 0, 0
        return new

    def _advance(self, text: str) -> str:
        new = text[self._shown :]
        self._window = self._window[self._read :]
        self._read = len(self._window)
        self._shown = len(self._decode(self._window))
        return new
