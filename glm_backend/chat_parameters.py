"""How an answer is to be made, as a user's settings say it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import NamedTuple

from glm_backend.engine.request import SamplingParams
from glm_backend.errors import InvalidParameter, Phrase
from glm_backend.models.chatglm_family import FAMILIES
from glm_backend.readable import readable

MAX_SYSTEM_PROMPT_CHARACTERS = 100_000
#: As the sliders of ChatGLM's own pages have it.
MAX_LENGTH_LIMITS = (0, 32_768)
DEFAULT_MAX_LENGTH = 8192
#: Tokens kept for an answer where it shares its limit with the conversation.
_RESERVED = 1024


class Limits(NamedTuple):
    """Tokens: of conversation and answer together, of the answer, and kept for it at least."""

    together: int
    answer: int
    reserved: int


@dataclass(frozen=True, slots=True)
class ChatParameters:
    """How the next answer is made: sampling, and the system prompt (empty for none).

    max_length: tokens of conversation and answer together, the limit that users of ChatGLM know;
    it stands in the place of max_new_tokens there. 0 is all that the model can take.
    """

    sampling: SamplingParams = field(default_factory=SamplingParams)
    system_prompt: str = ""
    max_length: int = DEFAULT_MAX_LENGTH

    @classmethod
    def from_values(cls, values: Mapping[str, object]) -> ChatParameters:
        """Reads settings by name, others are ignored; raises InvalidParameter out of limits."""
        system_prompt = values.get("system_prompt", "")
        if not isinstance(system_prompt, str) or len(system_prompt) > MAX_SYSTEM_PROMPT_CHARACTERS:
            limit = MAX_SYSTEM_PROMPT_CHARACTERS
            allowed = Phrase("a text of at most {limit} characters", limit=limit)
            long = Phrase("too long")
            raise InvalidParameter(name="system_prompt", value=long, allowed=allowed)
        known = {name: values[name] for name in SamplingParams.names() if name in values}
        if isinstance(known.get("stop"), list):
            known["stop"] = tuple(known["stop"])  # type: ignore[arg-type]
        sampling = SamplingParams(**known)  # type: ignore[arg-type]
        max_length = values.get("max_length", DEFAULT_MAX_LENGTH)
        low, high = MAX_LENGTH_LIMITS
        if type(max_length) is not int or not low <= max_length <= high:
            allowed = Phrase("a whole number from {low} to {high}", low=low, high=high)
            raise InvalidParameter(name="max_length", value=repr(max_length), allowed=allowed)
        return cls(sampling, readable(system_prompt), max_length)

    def values(self) -> dict[str, object]:
        """The same as settings by name, ready for the store."""
        sampling = asdict(self.sampling)
        return {
            **sampling,
            "stop": list(self.sampling.stop),
            "system_prompt": self.system_prompt,
            "max_length": self.max_length,
        }

    def limits(self, family: str, context_length: int) -> Limits:
        """What the conversation and its next answer may take."""
        answer = self.sampling.max_new_tokens
        if family not in FAMILIES:
            return Limits(context_length, answer, answer)
        together = min(self.max_length or context_length, context_length)
        return Limits(together, min(together, MAX_LENGTH_LIMITS[1]), min(together // 2, _RESERVED))
