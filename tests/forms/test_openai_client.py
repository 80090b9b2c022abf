"""OpenAI's own client against the starter model, over a socket, unchanged."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
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
    for figure in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert getattr(last.usage, figure) == getattr(whole.usage, figure)


def test_log_probabilities_of_tokens_and_of_those_that_could_have_come(
    client: openai.OpenAI,
) -> None:
    options: dict[str, Any] = {
        "model": "any",
        "messages": QUESTION,
        "temperature": 0,
        "max_tokens": 8,
        "logprobs": True,
        "top_logprobs": 3,
    }
    whole = client.chat.completions.create(**options)
    (choice,) = whole.choices
    assert whole.usage is not None
    assert choice.logprobs is not None
    tokens = choice.logprobs.content
    assert tokens is not None
    assert len(tokens) == whole.usage.completion_tokens
    assert "".join(token.token for token in tokens).strip() == choice.message.content
    for token in tokens:
        likeliest = token.top_logprobs
        assert (likeliest[0].token, likeliest[0].logprob) == (token.token, token.logprob)
        assert 0 >= likeliest[0].logprob >= likeliest[1].logprob >= likeliest[2].logprob
        assert bytes(token.bytes or ()).decode() == token.token
    streamed = [
        token
        for chunk in client.chat.completions.create(stream=True, **options)
        for token in chunk.choices[0].logprobs.content or ()
    ]
    assert [token.token for token in streamed] == [token.token for token in tokens]


def test_what_was_read_before_is_told_as_cached(client: openai.OpenAI) -> None:
    def cached(question: str) -> int:
        usage = client.chat.completions.create(
            model="any",
            messages=[{"role": "user", "content": question}],
            max_tokens=1,
            extra_body={"min_p": 0.1, "typical_p": 0.9},
        ).usage
        assert usage is not None
        assert usage.prompt_tokens_details is not None
        assert usage.prompt_tokens_details.cached_tokens is not None
        return usage.prompt_tokens_details.cached_tokens

    before = cached("Once upon a time there was a miller who had three sons, and then")
    assert cached("Once upon a time there was a miller who had three sons, and one day") > before


def metric(client: openai.OpenAI, name: str) -> float:
    root = str(client.base_url).removesuffix("/v1/")
    lines = httpx2.get(f"{root}/metrics").text.splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith(name))


def test_hanging_up_frees_the_place_and_is_counted(client: openai.OpenAI) -> None:
    cancelled = 'glm_requests_total{end="cancelled"}'
    before = metric(client, cancelled)
    stream = client.chat.completions.create(
        model="any",
        messages=[{"role": "user", "content": "Count from one to a thousand."}],
        max_tokens=4000,
        temperature=1.5,
        stream=True,
    )
    next(iter(stream))
    stream.close()
    for _ in range(500):
        if metric(client, cancelled) == before + 1:
            break
        time.sleep(0.02)
    assert metric(client, cancelled) == before + 1
    assert metric(client, "glm_requests_running ") == 0
    assert metric(client, "glm_step_seconds_count") > 0
    assert metric(client, "glm_threads") > 0


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
