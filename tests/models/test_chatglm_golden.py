"""Every published form against the authors' own numbers, through our own engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from glm_backend.engine.batch import Stretch
from glm_backend.engine.request import SamplingParams, Token
from glm_backend.language_model import LanguageModel, load_model
from tests.models import golden
from tests.models.golden import FIXTURES, Run

pytestmark = golden.needs_fixtures

FULL = ["chatglm2", "chatglm3", "chatglm2-32k", "chatglm3-32k", "chatglm-6b", "chatglm2-ptuning"]
QUANTISED = ["chatglm2-int4", "chatglm2-int8"]
FAMILY = {"chatglm3": "chatglm3", "chatglm3-32k": "chatglm3", "chatglm-6b": "chatglm"}


@pytest.fixture(scope="module", params=[*FULL, *QUANTISED])
def folder(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def model(folder: str) -> Iterator[LanguageModel]:
    model = load_model(str(FIXTURES / folder))
    yield model
    model.close()


def tolerance(folder: str) -> float:
    return 2e-2 if folder in QUANTISED else 2e-4


def difference(model: LanguageModel, run: Run) -> float:
    """The largest, over the prompt and the recorded answer."""
    logits = model.logits(run.prompt + run.greedy[:-1])[:, run.columns]
    return float(np.abs(logits.numpy() - run.logits).max())


def together(model: LanguageModel, runs: list[Run]) -> list[list[int]]:
    params = [SamplingParams(temperature=0, max_new_tokens=len(run.greedy)) for run in runs]
    generations = [
        model.submit(run.prompt, param, ignore_eos=True)
        for run, param in zip(runs, params, strict=True)
    ]
    return [[e.token_id for e in g.events() if isinstance(e, Token)] for g in generations]


def test_each_form_is_recognised(model: LanguageModel, folder: str) -> None:
    assert model.family == FAMILY.get(folder, "chatglm2")
    assert model.recognised
    limits = {"chatglm-6b": 2048, "chatglm3": 8192, "chatglm3-32k": 8192}
    assert model.context_length == limits.get(folder, 32_768)
    assert model.quantization == {"chatglm2-int4": "int4", "chatglm2-int8": "int8"}.get(
        folder, "none"
    )


def test_logits_are_the_authors(model: LanguageModel, folder: str) -> None:
    for run in golden.runs(folder):
        assert difference(model, run) < tolerance(folder), run.name


def test_logits_are_the_authors_in_a_batch_too(model: LanguageModel, folder: str) -> None:
    runs, runner = golden.runs(folder), model._runner
    batch = [Stretch(slot, 0, run.prompt) for slot, run in enumerate(runs)]
    for run, logits in zip(runs, runner.forward(batch), strict=True):
        recorded = run.logits[len(run.prompt) - 1]
        off = np.abs(logits[run.columns].numpy() - recorded).max()
        assert off < tolerance(folder), run.name


def test_greedy_answers_are_the_authors_alone_and_in_company(
    model: LanguageModel, folder: str
) -> None:
    runs = golden.runs(folder)
    expected = [run.greedy for run in runs]
    alone = [model.generate_ids(run.prompt, 24, ignore_eos=True) for run in runs]
    assert alone == expected
    assert together(model, runs) == expected


def test_a_batch_that_they_padded_needs_no_padding_here(model: LanguageModel, folder: str) -> None:
    if folder in ("chatglm-6b", "chatglm2-ptuning"):
        pytest.skip("no batch was recorded")
    runs = golden.padded_batch(folder)
    assert all(difference(model, run) < tolerance(folder) for run in runs)
    assert together(model, runs) == [run.greedy for run in runs]


def test_a_trained_prefix() -> None:
    folder = FIXTURES / "chatglm2-ptuning"
    runs = golden.runs("chatglm2-ptuning", ptuning=True)
    model = load_model(str(folder), ptuning=folder / "ptuning")
    assert all(difference(model, run) < 2e-4 for run in runs)
    assert together(model, runs) == [run.greedy for run in runs]
    model.close()


@pytest.mark.parametrize(("folder", "ratio"), [("chatglm2-32k", 4), ("chatglm3-32k", 50)])
def test_the_other_meaning_of_rope_ratio_gives_other_numbers(folder: str, ratio: int) -> None:
    other = "chatglm3" if folder == "chatglm2-32k" else "chatglm2"
    model = load_model(str(FIXTURES / folder), family=other)
    assert "said on loading" in model.recognised
    assert max(difference(model, run) for run in golden.runs(folder)) > 1
    model.close()


@pytest.mark.parametrize(
    ("folder", "file"),
    [("chatglm2-int4", "pytorch_model.bin"), ("chatglm2-int8", "pytorch_model.bin")],
)
def test_published_integers_are_read_and_made_as_the_authors_do(folder: str, file: str) -> None:
    from glm_backend.models.row_quantization import published_weight, quantized_by_rows

    arrays = np.load(FIXTURES / folder / "golden.npz")
    stored = torch.load(FIXTURES / folder / file, weights_only=True)
    name = "transformer.encoder.layers.0.self_attention.query_key_value.weight"
    bits = 4 if folder.endswith("int4") else 8
    published = published_weight(stored[name], stored[f"{name}_scale"], bits)  # type: ignore[arg-type]
    expected = torch.from_numpy(arrays["dequant.layer0.query_key_value.weight"])
    assert torch.equal(published.dense(slice(None)), expected)
    weight = torch.from_numpy(arrays["unquantised_fp16.layer0.query_key_value.weight"])
    q, scale = quantized_by_rows(weight.half(), bits)  # type: ignore[arg-type]
    assert torch.equal(q, stored[name])
    assert torch.equal(scale, stored[f"{name}_scale"])


def test_a_folder_of_ids_says_what_it_lacks_when_asked_for_text() -> None:
    from glm_backend.errors import ModelUnsupported

    model = load_model(str(FIXTURES / "chatglm3-32k"))
    assert model.tokenizer is None
    with pytest.raises(ModelUnsupported, match=r"tokenizer\.model"):
        model.prompt_ids([{"role": "user", "content": "你好"}])
    model.close()


def test_the_fixtures_stay_as_they_are() -> None:
    assert not (Path(FIXTURES) / "chatglm2" / "model.safetensors").exists()
