"""GET /metrics: how busy the process is, in the text form of Prometheus.

https://prometheus.io/docs/instrumenting/exposition_formats/. The figures are the engine's own, read
at each request; they begin anew with each model that is loaded, as counters may.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from glm_backend.api.answering import Guard, Open
from glm_backend.api.answers import answers_errors
from glm_backend.engine.stats import EngineStats, Histogram
from glm_backend.services import Services

#: Name, what it is, and where it stands in the engine's figures.
_GAUGES = (
    ("glm_requests_running", "Requests being answered", "running"),
    ("glm_requests_waiting", "Requests in line", "waiting"),
    ("glm_requests_running_limit", "Requests that can be answered at once", "max_running"),
    ("glm_kv_tokens", "Tokens whose keys and values are kept or promised", "kv_tokens"),
    ("glm_kv_tokens_limit", "Tokens whose keys and values there is room for", "kv_limit"),
    ("glm_kept_conversations", "Conversations kept for their next turn", "kept"),
    ("glm_threads", "Threads of the kernels", "threads"),
)
_COUNTERS = (
    ("glm_prompt_tokens", "Prompt tokens read", "prompt_tokens"),
    ("glm_prompt_tokens_reused", "Prompt tokens that were there already", "reused_tokens"),
    ("glm_prefix_hits", "Prompts that began like something that was there", "reuses"),
    ("glm_completion_tokens", "Tokens written", "completion_tokens"),
    ("glm_guessed_tokens", "Tokens guessed by prompt lookup", "guessed_tokens"),
    ("glm_guessed_tokens_right", "Guessed tokens that were right", "guessed_right"),
)
_HISTOGRAMS = (
    ("glm_time_to_first_token_seconds", "From asking to the first token", "first_token"),
    ("glm_step_seconds", "A pass of the model for all requests at once", "steps"),
)


def metrics_route(services: Open, *, guard: Guard) -> Route:
    """GET /metrics; `guard` is asked first, at every request."""
    registry = CollectorRegistry()
    registry.register(_Figures(services))
    ProcessCollector(registry=registry)

    async def metrics(request: Request) -> Response:
        guard(request)
        await run_in_threadpool(services)  # raises while the database cannot be opened
        encode, media_type = choose_encoder(request.headers.get("accept", ""))
        text = await run_in_threadpool(encode, registry)
        return Response(text, headers={"content-type": media_type})

    return Route("/metrics", answers_errors(metrics))


class _Figures(Collector):
    """What is known now of the model and its engine."""

    def __init__(self, services: Open) -> None:
        self._services = services

    def collect(self) -> Iterator[Metric]:
        services = self._services()
        yield _gauge("glm_chat_answers_running", "Answers of chats", services.chat.running())
        stats = services.engine_stats()
        yield _gauge("glm_model_loaded", "1 while a model is loaded here", int(stats is not None))
        if stats is not None:
            yield from _of_model(services)
            yield from _of_engine(stats)


def _of_model(services: Services) -> Iterator[Metric]:
    if (model := services.models.status().model) is not None:
        labels = {
            "name": model.name,
            "family": model.family,
            "quantization": model.quantization,
            "device": model.device,
        }
        yield InfoMetricFamily("glm_model", "The model that answers", value=labels)


def _of_engine(stats: EngineStats) -> Iterator[Metric]:
    for name, what, field in _GAUGES:
        yield _gauge(name, what, getattr(stats, field))
    for name, what, field in _COUNTERS:
        yield CounterMetricFamily(name, what, value=getattr(stats, field))
    ends = CounterMetricFamily("glm_requests", "Requests by how they ended", labels=["end"])
    for end in ("stop", "length", "cancelled", "failed", "refused"):
        ends.add_metric([end], stats.ends.get(end, 0))
    yield ends
    for name, what, field in _HISTOGRAMS:
        yield _histogram(name, what, getattr(stats, field))


def _gauge(name: str, what: str, value: float) -> Metric:
    return GaugeMetricFamily(name, what, value=value)


def _histogram(name: str, what: str, found: Histogram) -> Metric:
    """Prometheus counts up: each bound has all that lies below it."""
    bounds = [*(str(bound) for bound in found.bounds_s), "+Inf"]
    buckets = list(zip(bounds, accumulate(found.counts), strict=True))
    return HistogramMetricFamily(name, what, buckets=buckets, sum_value=found.sum_s)
