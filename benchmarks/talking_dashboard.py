"""The dashboard with the starter model, and a route that has it answer and says how fast it was.

benchmarks/tailing.py opens pages on the conversation meanwhile.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import streamlit as st
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.questions import QUESTIONS  # noqa: E402
from glm_backend.models.manager import ModelRequest  # noqa: E402
from ui import application, resources  # noqa: E402


async def begin(request: Request) -> JSONResponse:
    """Makes a conversation, and loads the model if need be; gives its id."""
    return JSONResponse(await run_in_threadpool(_begin))


async def ask(request: Request) -> JSONResponse:
    """Has a question answered; gives tokens and tokens a second, see _ask."""
    number = int(request.query_params["n"])
    return JSONResponse(await run_in_threadpool(_ask, request.query_params["c"], number))


def _begin() -> str:
    services = resources.load_services()
    if services.models.status().state != "ready":
        services.models.load(ModelRequest("smollm2-135m", quantization="int8"))
    while services.models.status().state != "ready":
        time.sleep(0.1)
    return services.store.create_conversation(services.user_id).id


def _ask(conversation_id: str, number: int) -> tuple[int, float]:
    """The tokens of an answer, and tokens a second of its last two thirds.

    Of its first third some goes by while pages are opened, which is not what following costs.
    """
    services = resources.load_services()
    user, question = services.user_id, QUESTIONS[number % len(QUESTIONS)]
    parameters = {"temperature": 1.5, "max_new_tokens": 1500, "seed": number}
    text = f"{question} Answer at length, in ten parts."
    live = services.chat.send(user, conversation_id, text, parameters)
    noted = [(time.perf_counter(), 0)]
    for piece in live.tail(20):
        noted.append((time.perf_counter(), noted[-1][1] + len(piece)))
    live.wait_saved(120)
    answer = services.store.path(user, conversation_id)[-1]
    end, whole = noted[-1]
    begun, before = next(note for note in noted if note[1] >= whole / 3)
    tokens = answer.completion_tokens or 0
    return tokens, tokens * (whole - before) / whole / (end - begun)


app = st.App(
    application.ROUTER,
    lifespan=application.lifespan,
    routes=[
        *application.ROUTES,
        Route("/benchmark/begin", begin),
        Route("/benchmark/ask", ask),
    ],
    middleware=application.MIDDLEWARE,
)
