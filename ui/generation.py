"""The generation parameters as a form: what is stored, what is typed, and whether it may be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isnan

from glm_backend.chat_parameters import MAX_LENGTH_LIMITS, ChatParameters
from glm_backend.engine.request import LIMITS, SamplingParams
from glm_backend.errors import InvalidParameter, Phrase

DEFAULTS = ChatParameters().values()

#: Parameters of the form, in its order; `stop` has no field and stays as it is.
NUMBERS = (
    "temperature", "top_p", "top_k", "min_p", "typical_p", "repetition_penalty", "max_new_tokens",
    "max_length",
)  # fmt: skip
FIELDS = (*NUMBERS, "seed", "system_prompt")


@dataclass(frozen=True, slots=True)
class Correction:
    """A stored value that may not be, and what stands in its place."""

    name: str
    stored: object
    used: object


def readable_values(
    stored: Mapping[str, object],
) -> tuple[dict[str, object], list[Correction]]:
    """All fields of the form from what is stored, each within its limits.

    An old database, or another program, may have written anything.
    """
    values = {name: stored.get(name, DEFAULTS[name]) for name in FIELDS}
    corrections = []
    for name, value in values.items():
        used = nearest(name, value)
        if used != value or type(used) is not type(value):
            values[name] = used
            if used != value:
                corrections.append(Correction(name, value, used))
    return values, corrections


def limits(name: str) -> tuple[float, float]:
    """The lowest and the highest value that this parameter may have."""
    return MAX_LENGTH_LIMITS if name == "max_length" else LIMITS[name]


def nearest(name: str, value: object) -> object:
    """The allowed value of this parameter that is nearest to `value`."""
    if name == "system_prompt":
        return value if isinstance(value, str) else ""
    if name == "seed" and value is None:
        return None
    low, high = limits(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or isnan(value):
        return DEFAULTS[name]
    bounded = min(max(value, low), high)
    return int(bounded) if isinstance(low, int) else float(bounded)


def read_seed(text: str) -> int | None:
    """A typed seed; empty is none. Raises InvalidParameter."""
    if not text.strip():
        return None
    low, high = LIMITS["seed"]
    allowed = Phrase("a whole number from {low} to {high}, or empty", low=low, high=high)
    if not text.strip().isdecimal():
        raise InvalidParameter(name=Phrase("seed"), value=repr(text.strip()[:30]), allowed=allowed)
    seed = int(text.strip())
    return SamplingParams(seed=seed).seed


def checked(values: Mapping[str, object]) -> dict[str, object]:
    """The values as they are stored; raises InvalidParameter for what may not be."""
    ChatParameters.from_values(values)
    return dict(values)
