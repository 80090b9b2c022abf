"""Fixtures that several rooms share: the real starter model, loaded once a run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from glm_backend.models.loader import load
from glm_backend.models.model import LoadedModel

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def model_dir() -> Path:
    """Where converted models are kept between runs."""
    return ROOT / ".cache" / "models"


@pytest.fixture(scope="session")
def starter(model_dir: Path) -> LoadedModel:
    """SmolLM2-135M-Instruct in float32."""
    torch.set_num_threads(1)  # two would wait for each other beside a browser
    return load("smollm2-135m", model_dir=model_dir)
