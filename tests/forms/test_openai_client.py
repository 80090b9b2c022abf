"""OpenAI's own client against the starter model, over a socket, unchanged."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from glm_backend.api.server import make_app
from glm_backend.models.manager import ModelFacts
from glm_backend.services import Services
from glm_backend.settings import Settings
from tests.forms.servers import served

pytestmark = pytest.mark.starter

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def client(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    data_dir = tmp_path_factory.mktemp("data")
    services = Services(Settings(data_dir=data_dir, model_dir=model_dir))
    services.load_default_model()
    facts = services.models.wait(120).model
    assert isinstance(facts, ModelFacts)
    with (
        served(make_app(lambda: services)) as address,
        openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client,
    ):
        yield client
    services.close()


def test_models_are_listed(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["smollm2-135m"]


def test_an_answer_in_one_piece_and_as_a_stream_is_the_same(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(
        model="smollm2-135m",
        messages=QUESTION,  # type: ignore[arg-type]
        temperature=0,
        max_tokens=12,
        extra_body={"top_k": 40, "repetition_penalty": 1.0},
    )
    assert whole.usage is not None
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
    text = whole.choices[0].message.content
    assert text
    assert "Paris" in text
    stream = client.chat.completions.create(
        model="smollm2-135m",
        messages=QUESTION,  # type: ignore[arg-type]
        temperature=0,
        max_completion_tokens=12,
        stream=True,
        stream_options={"include_usage": True},
    )
    *chunks, last = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == text
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    assert last.usage == whole.usage


def test_a_seed_repeats_an_answer_and_a_stop_text_ends_it(client: openai.OpenAI) -> None:
    def answer(stop: str | None = None) -> str:
        completion = client.chat.completions.create(
            model="any",
            messages=QUESTION,  # type: ignore[arg-type]
            temperature=1.5,
            seed=11,
            max_tokens=10,
            stop=stop,
        )
        assert completion.choices[0].message.content is not None
        return completion.choices[0].message.content

    text = answer()
    assert answer() == text
    stop = text[len(text) // 2 :][:3]
    assert answer(stop=stop) == text[: text.index(stop)]


def test_the_clients_errors_are_the_right_ones(client: openai.OpenAI) -> None:
    with pytest.raises(openai.UnprocessableEntityError) as refused:
        client.chat.completions.create(model="m", messages=QUESTION, n=2)  # type: ignore[arg-type]
    assert refused.value.param == "n"
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="m", messages=[{"role": "assistant", "content": "b"}])


def test_a_stream_that_is_closed_early_leaves_the_model_free(client: openai.OpenAI) -> None:
    with client.chat.completions.create(
        model="m",
        messages=QUESTION,  # type: ignore[arg-type]
        stream=True,
        temperature=1,
    ) as stream:
        next(iter(stream))
    done = client.chat.completions.create(
        model="m",
        messages=QUESTION,  # type: ignore[arg-type]
        max_tokens=2,
    )
    assert done.choices[0].finish_reason == "length"
