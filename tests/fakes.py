"""Services around a fake model, for tests of the pages and of the routes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from glm_backend.errors import ModelNotReady
from glm_backend.models.manager import ModelFacts, ModelRequest, ModelStatus
from glm_backend.models.memory import MemoryEstimate
from glm_backend.services import Services
from glm_backend.settings import Settings
from glm_backend.testing import FakeModel


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
            raise ModelNotReady(state=self.present.state)
        return self.model

    def load(self, request: ModelRequest) -> None:
        self.asked.append(request)
        facts = ModelFacts(
            id=request.model,
            name=self.model.name,
            family="fake",
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
