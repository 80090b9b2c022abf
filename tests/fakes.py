"""Services around a fake model, for tests of the pages and of the routes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from glm_backend.engine.request import SamplingParams
from glm_backend.errors import ModelLoading, ModelNotReady, UpstreamError
from glm_backend.models.manager import ModelFacts, ModelRequest, ModelStatus
from glm_backend.models.memory import MemoryEstimate
from glm_backend.models.model import Message
from glm_backend.services import Services
from glm_backend.settings import Settings
from glm_backend.testing import FakeCompletion, FakeModel, question_of

_SAY = re.compile(
    r"say (?P<words>\d+) words(?: every (?P<pause>\d+) ms)?(?: after (?P<delay>\d+) ms)?"
)


@dataclass
class ScriptedModel(FakeModel):
    """A fake model that does what the question says.

    "say 20 words every 50 ms after 300 ms" does; "then fail" ends it with an error. Anything else
    is said back.
    """

    def complete(
        self, messages: Sequence[Message], params: SamplingParams, *, client: str = ""
    ) -> FakeCompletion:
        question = question_of(messages)
        script = _SAY.search(question)
        if script is None:
            words = re.findall(r"\S*\s+|\S+", question)
            return FakeModel(words).complete(messages, params, client=client)
        count, pause, delay = (int(value or 0) for value in script.groups())
        failing = UpstreamError(host="fake", reason="as asked") if "then fail" in question else None
        model = replace(
            self,
            words=[f"w{i} " for i in range(count)],
            pause_s=pause / 1000,
            delay_s=delay / 1000,
            error=failing,
        )
        return FakeModel.complete(model, messages, params, client=client)


@dataclass
class FakeModels:
    """A model manager whose loads are over at once; `fail_with` is what they end with."""

    model: FakeModel
    present: ModelStatus = field(default_factory=ModelStatus)
    asked: list[ModelRequest] = field(default_factory=list)
    free_bytes: int = 8 * 10**9

    def status(self) -> ModelStatus:
        return self.present

    def current(self) -> FakeModel:
        if self.present.model is None:
            raise ModelLoading if self.present.state == "loading" else ModelNotReady
        return self.model

    def load(self, request: ModelRequest) -> None:
        self.asked.append(request)
        facts = ModelFacts(
            id=request.model,
            name=self.model.name,
            family=self.model.family,
            context_length=self.model.context_length,
            quantization=request.quantization,
            dtype="float32",
            device="cpu",
            memory_bytes=540_000_000,
            english_first=True,
            load_seconds=1.2,
        )
        version = self.present.version + 1
        self.present = ModelStatus("ready", request, model=facts, version=version)

    def cancel(self) -> None:
        self.present = ModelStatus("empty", version=self.present.version + 1)

    def unload(self) -> None:
        self.present = ModelStatus("empty", version=self.present.version + 1)

    def forget_error(self) -> None:
        self.present = replace(self.present, error=None)

    def close(self) -> None:
        """Nothing to give back."""

    def estimate(self, request: ModelRequest) -> MemoryEstimate:
        bytes_per_weight = {"none": 4.0, "int8": 1.0, "int4": 0.6}[request.quantization]
        weights = 134_000_000 if "smol" in request.model else 6_200_000_000
        return MemoryEstimate.compare(int(weights * bytes_per_weight), self.free_bytes)


def fake_services(data_dir: Path, model: FakeModel, *, loaded: bool = True) -> Services:
    """Services with a real store and a fake model."""
    services = Services(Settings(data_dir=data_dir))
    models = FakeModels(model)
    services.models = models  # type: ignore[assignment]
    if loaded:
        models.load(services.default_request)
    return services
