"""The settings of one process: a frozen value, read once from a file and the environment.

Order: built-in defaults, then `glm.toml` (or the file that GLM_CONFIG names), then variables
GLM_*. A key that is not known is refused with the nearest one that is, so that a typing error
never means a silent default.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints
from urllib.parse import quote, urlsplit

from glm_backend.errors import Phrase, SettingsError

Quantization = Literal["none", "int8", "int4"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Family = Literal["", "chatglm", "chatglm2", "chatglm3"]
LogLevel = Literal["debug", "info", "warning", "error"]

#: Variables that are ours but no setting: where the file is.
_CONFIG_VARIABLE = "GLM_CONFIG"
_MIRROR_VARIABLE = "HF_ENDPOINT"
_RANGES = {"max_context": (0, 1_048_576), "max_concurrent": (1, 256), "trash_days": (0, 36_500)}


@dataclass(frozen=True, slots=True)
class Settings:
    """What the operator decides. Field `x` is `x` in the file and GLM_X in the environment.

    max_context: tokens, 0 takes the model's own limit. family: what a ChatGLM folder is taken for
    where it does not say. ptuning: folder of a prefix trained for the model.
    max_concurrent: answers written at once.
    hub_endpoint: a mirror of the model hub; HF_ENDPOINT, which other tools know, works too.
    trash_days: after so many days in the trash a conversation is erased; 0 keeps it for ever.
    """

    data_dir: Path = Path("data")
    database_url: str = field(default="", repr=False)  # may have a password in it
    model: str = "smollm2-135m"
    model_dir: Path | None = None
    quantization: Quantization = "none"
    device: str = "auto"
    dtype: Dtype = "auto"
    max_context: int = 0
    family: Family = ""
    ptuning: str = ""
    max_concurrent: int = 8
    upstream_url: str = ""
    upstream_api_key: str = field(default="", repr=False)
    hub_endpoint: str = ""
    trash_days: int = 30
    log_level: LogLevel = "info"

    @classmethod
    def load(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        """Reads file and environment; raises SettingsError naming the source and the remedy."""
        path = Path(environ.get(_CONFIG_VARIABLE, "glm.toml"))
        values = _from_file(path, required=_CONFIG_VARIABLE in environ)
        values.update(_from_environment(environ))
        return cls(**values)  # type: ignore[arg-type]

    @property
    def resolved_database_url(self) -> str:
        """The database to open: `database_url`, else a SQLite file in the data folder."""
        if self.database_url:
            return self.database_url
        # Quoted: SQLAlchemy reads a path in a URL as one, with "?" and "%" as marks.
        return f"sqlite:///{quote(str((self.data_dir / 'glm.sqlite3').resolve()))}"

    @property
    def resolved_model_dir(self) -> Path:
        """The folder that holds model folders."""
        return self.model_dir or self.data_dir / "models"

    def make_data_dir(self) -> None:
        """Creates the data folder, readable by its owner only."""
        try:
            self.data_dir.mkdir(parents=True, exist_ok=True)
            self.data_dir.chmod(0o700)
        except OSError as error:
            raise SettingsError(
                source="GLM_DATA_DIR",
                key="data_dir",
                value=str(self.data_dir),
                remedy=Phrase(
                    "It cannot be used as a folder ({error}); name one that can.",
                    error=error.strerror,
                ),
            ) from error


def _from_file(path: Path, *, required: bool) -> dict[str, object]:
    if not path.is_file():
        if required:
            raise SettingsError(
                source=_CONFIG_VARIABLE,
                key=Phrase("file"),
                value=str(path),
                remedy=Phrase("There is no such file."),
            )
        return {}
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise SettingsError(
            source=str(path),
            key=Phrase("file"),
            value=Phrase("not readable as TOML"),
            remedy=Phrase("Correct this: {error}.", error=str(error)),
        ) from error
    return {key: _checked(str(path), key, key, value) for key, value in raw.items()}


def _from_environment(environ: Mapping[str, str]) -> dict[str, object]:
    ours = {
        name[4:].lower(): _checked(Phrase("environment"), name, name[4:].lower(), text)
        for name, text in environ.items()
        if name.startswith("GLM_") and name != _CONFIG_VARIABLE
    }
    if mirror := environ.get(_MIRROR_VARIABLE):
        ours.setdefault("hub_endpoint", mirror)
    return ours


def _checked(source: str, shown: str, key: str, value: object) -> object:
    """The value in its field's type, or SettingsError."""
    hints = get_type_hints(Settings)
    if key not in hints:
        known = [f"GLM_{k.upper()}" if shown.startswith("GLM_") else k for k in hints]
        near = difflib.get_close_matches(shown, known, n=1, cutoff=0.5)
        meant = (
            Phrase("Did you mean {name}?", name=near[0])
            if near
            else Phrase("Known: {names}.", names=", ".join(known))
        )
        value = Phrase("not a known setting")
        raise SettingsError(source=source, key=shown, value=value, remedy=meant)
    try:
        return _converted(key, hints[key], value)
    except ValueError as error:
        secret = key.endswith("api_key") or "@" in str(value)  # a URL may have a password
        raise SettingsError(
            source=source,
            key=shown,
            value=Phrase("set to something secret") if secret else repr(value),
            remedy=Phrase("It must be {allowed}.", allowed=error.args[0]),
        ) from None


def _converted(key: str, kind: object, value: object) -> object:
    """The value, or ValueError with the Phrase that says what it must be."""
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            names = ", ".join(filter(None, get_args(kind)))
            raise ValueError(Phrase("one of {names}", names=names))
        return value
    if kind is int:
        low, high = _RANGES[key]
        try:
            number = int(str(value)) if not isinstance(value, bool) else None
        except ValueError:
            number = None
        if number is None or not low <= number <= high:
            raise ValueError(Phrase("a whole number from {low} to {high}", low=low, high=high))
        return number
    if not isinstance(value, str):
        raise ValueError(Phrase("a text in quotes"))
    if key == "device" and not is_device(value):
        raise ValueError(Phrase("auto, cpu, cuda or cuda:N"))
    if key == "upstream_url" and value and not _is_http(value):
        raise ValueError(Phrase("an address such as http://host:8000/v1"))
    if key == "upstream_api_key" and not re.fullmatch("[!-~]*", value):  # all a header can hold
        raise ValueError(Phrase("letters, digits and marks of ASCII, without spaces"))
    if key in ("data_dir", "model_dir"):
        if not value.strip():
            raise ValueError(Phrase("the path of a folder"))
        try:
            return Path(value).expanduser()
        except RuntimeError:  # the home of somebody who is not here
            raise ValueError(Phrase("the path of a folder")) from None
    return value


def is_device(text: str) -> bool:
    """Whether it is auto, or as torch names the devices that are used here."""
    kind, _, index = text.partition(":")
    return text in ("auto", "cpu", "cuda") or (kind == "cuda" and index.isdecimal())


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # no port, or half a bracket
        return False


def field_names() -> tuple[str, ...]:
    """All settings, for documentation and `doctor`."""
    return tuple(f.name for f in fields(Settings))
