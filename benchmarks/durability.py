"""What must hold: two hundred deaths in the middle of writing, and a crowd for a minute."""

from __future__ import annotations

import tempfile
from concurrent.futures import ProcessPoolExecutor
from itertools import chain
from multiprocessing import get_context
from pathlib import Path

from benchmarks.report import Row
from glm_backend.store import Store
from tests.chat.killed import CONVERSATIONS, Death, Killed
from tests.postgres import PostgresServer
from tests.store.crowd import gather, lost

DEATHS = 200
DEATHS_A_DATABASE = 25
CROWD_S = 60


def rows() -> list[Row]:
    """About five minutes. Every death is checked; a check that fails ends the benchmark."""
    return [_deaths(), *_crowds()]


def _deaths() -> Row:
    # Two at a time, which leaves the writers less than a machine of their own.
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as processes:
        deaths = [*chain.from_iterable(processes.map(_die, range(DEATHS // DEATHS_A_DATABASE)))]
    behind = sorted(death.behind_s * 1000 for death in deaths)
    questions = sum(death.questions for death in deaths)
    return Row(
        f"{DEATHS} times SIGKILL while {CONVERSATIONS} conversations stream",
        f"at most {behind[-1]:.0f} ms of an answer lost (median {behind[len(behind) // 2]:.0f})",
        f"{questions:,} questions, none lost; {sum(d.answers for d in deaths):,} answers cut off, "
        "all marked; every integrity check clean",
        "<= 200 ms",
        behind[-1] <= 200,
    )


def _die(seed: int) -> list[Death]:
    with tempfile.TemporaryDirectory() as folder:
        killed = Killed(Path(folder), seed)
        return [killed.run() for _ in range(DEATHS_A_DATABASE)]


def _crowds() -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        found = [_crowd("SQLite", f"sqlite:///{Path(folder) / 'crowd.sqlite3'}")]
    server = PostgresServer().start()
    found.append(_crowd("PostgreSQL", server.new_database()))
    server.stop()
    return found


def _crowd(database: str, url: str) -> Row:
    store = Store.open(url)
    user = store.ensure_user("local")
    crowd = gather(store, user, seconds=CROWD_S)
    missing = lost(store, user, crowd)
    store.close()
    return Row(
        f"50 writers and 50 readers for {CROWD_S} s, {database}",
        f"{len(crowd.errors)} errors, {missing} texts lost",
        f"{crowd.writes:,} writes, {crowd.reads:,} reads; "
        f"the longest of three in a row took {crowd.longest_s:.1f} s",
        "0 and 0",
        not crowd.errors and not missing,
    )
