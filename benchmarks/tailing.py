"""What twenty open pages cost the engine: an answer alone, and the same with pages that follow it.

The pages are Streamlit's own sessions, without a browser: each connection runs the page's script,
which sends the growing text ten times a second.
"""

from __future__ import annotations

import itertools
import json
import statistics
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.sync.client import ClientConnection, connect

from benchmarks.report import Row
from tests.browser.dashboard import Dashboard

LAUNCHER = Path(__file__).parent / "talking_dashboard.py"
PAGES = 20
RUNS = 5
#: Tokens of an answer that pages have time to follow, once all are open.
_LONG = 1000


def rows() -> list[Row]:
    """Tokens a second of the same answers, without pages and with twenty."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        data.mkdir()
        dashboard = Dashboard(data, LAUNCHER).start()
        try:
            alone, followed = _answers(dashboard)
        finally:
            dashboard.stop()
    share = statistics.median(f / a for f, a in zip(followed, alone, strict=True))
    return [
        Row(
            f"starter, INT8, one answer followed by {PAGES} pages",
            f"{statistics.median(followed):.1f} tok/s",
            f"without pages {statistics.median(alone):.1f} tok/s: {share:.2f}",
            ">= 0.85",
            share >= 0.85,
        )
    ]


def _answers(dashboard: Dashboard) -> tuple[list[float], list[float]]:
    alone: list[float] = []
    followed: list[float] = []
    for number in itertools.count():
        tokens, without = _get(dashboard, f"ask?c={_get(dashboard, 'begin')}&n={number}")
        if tokens < _LONG:
            continue
        conversation_id = str(_get(dashboard, "begin"))
        with ExitStack() as stack:
            pages = [stack.enter_context(_connection(dashboard)) for _ in range(PAGES)]
            for page in pages:
                _run_page(page, conversation_id)
                _wait_for_end(page)
            asking = f"ask?c={conversation_id}&n={number}"  # the same answer, it has a seed
            answer = stack.enter_context(ThreadPoolExecutor()).submit(_get, dashboard, asking)
            time.sleep(0.1)
            for page in pages:  # as each browser does within two seconds
                _run_page(page, conversation_id)
            _, with_pages = answer.result()
            for page in pages:
                assert _received(page) > 10, "a page has not followed the answer"
        alone.append(without)
        followed.append(with_pages)
        if len(alone) > RUNS:  # the first warms up
            break
    return alone[1:], followed[1:]


def _get(dashboard: Dashboard, path: str) -> Any:
    with urllib.request.urlopen(f"{dashboard.url}/benchmark/{path}", timeout=300) as answer:
        return json.load(answer)


def _connection(dashboard: Dashboard) -> ClientConnection:
    address = dashboard.url.replace("http", "ws") + "/_stcore/stream"
    return connect(address, max_size=None, max_queue=None, origin=dashboard.url)  # type: ignore[arg-type]


def _run_page(connection: ClientConnection, conversation_id: str) -> None:
    message = BackMsg()
    message.rerun_script.query_string = f"c={conversation_id}"
    message.rerun_script.page_name = "chat"
    connection.send(message.SerializeToString())


def _wait_for_end(connection: ClientConnection) -> None:
    """Returns when the page's script is through."""
    while True:
        answer = ForwardMsg()
        answer.ParseFromString(connection.recv(timeout=60))  # type: ignore[arg-type]
        if answer.WhichOneof("type") == "script_finished":
            return


def _received(connection: ClientConnection) -> int:
    """How many messages a page was sent meanwhile."""
    messages = 0
    try:
        while connection.recv(timeout=0.05):
            messages += 1
    except TimeoutError:
        return messages
    return messages
