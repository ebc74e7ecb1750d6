"""What every test may use: a PostgreSQL, databases on it, processes, and waiting."""

import asyncio
import inspect
import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote, urlsplit

import psycopg
import pytest
from hypothesis import settings
from psycopg import sql

from zodworker_compat.embedded import EmbeddedPostgres

settings.register_profile("default", deadline=None, print_blob=True)
# The same examples each time: what is found by chance is found by those who look for it.
settings.register_profile("ci", deadline=None, print_blob=True, derandomize=True)
settings.register_profile("fuzz", deadline=None, print_blob=True, max_examples=10_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


class Server(Protocol):
    """A running PostgreSQL."""

    def dsn(self, database: str = "postgres") -> str:
        """Return the URL of a database, for a user who may create databases."""


class GivenServer:
    """The server of `ZODWORKER_TEST_DATABASE_URL`."""

    def __init__(self, url: str) -> None:
        self._url = urlsplit(url)

    def dsn(self, database: str = "postgres") -> str:
        return self._url._replace(path=f"/{quote(database, safe='')}").geturl()


@pytest.fixture(scope="session")
def in_memory() -> dict[str, str]:
    """The environment that keeps a server's files in memory, where there is room.

    A database is 300 files: 8 ms in memory, 200 ms on a slow disk.
    """
    memory = Path("/dev/shm")  # noqa: S108 - the server makes a folder of its own in it
    if memory.is_dir() and shutil.disk_usage(memory).free > 2 * 2**30:
        return {"TMPDIR": str(memory)}
    return {}


@pytest.fixture(scope="session")
def server(in_memory: dict[str, str]) -> Iterator[Server]:
    """A running PostgreSQL: the given one, else our own, one per xdist worker."""
    if url := os.environ.get("ZODWORKER_TEST_DATABASE_URL"):
        yield GivenServer(url)
    else:
        with EmbeddedPostgres(environ={**os.environ, **in_memory}) as embedded:
            yield embedded


@contextmanager
def fresh_database(server: Server, template: str = "template0") -> Iterator[str]:
    """Create a database, yield its name, and drop it whoever is still connected."""
    name = f"test_{secrets.token_hex(6)}"
    create = sql.SQL("create database {} template {}")
    drop = sql.SQL("drop database if exists {} with (force)")
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute(create.format(sql.Identifier(name), sql.Identifier(template)))
    try:
        yield name
    finally:
        with psycopg.connect(server.dsn(), autocommit=True) as connection:
            connection.execute(drop.format(sql.Identifier(name)))


@pytest.fixture
def empty_database(server: Server) -> Iterator[str]:
    """The URL of a fresh, empty database."""
    with fresh_database(server) as name:
        yield server.dsn(name)


@pytest.fixture(scope="session")
def migrated_template(server: Server) -> Iterator[str]:
    """The name of a database with our schema at revision 18, to make others from."""
    from zodworker_compat.database.migrate_async import migrate

    async def install(url: str) -> None:
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            await migrate(connection, "graphile_worker", revision=18)

    # In a thread, because the loop of an async test may be running in this one.
    with fresh_database(server) as name, ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, install(server.dsn(name))).result()
        yield name


@pytest.fixture
def database(server: Server, migrated_template: str) -> Iterator[str]:
    """The URL of a fresh database whose schema graphile_worker is at revision 18."""
    with fresh_database(server, migrated_template) as name:
        yield server.dsn(name)


@pytest.fixture(scope="session")
def eventually() -> Callable[..., Any]:
    """`await eventually(condition, timeout=60)`: poll a condition until it is true.

    The condition is a function, sync or async, without arguments; its first true result is
    returned. The test fails if there is none within `timeout` seconds.
    """

    async def wait_for(condition: Callable[[], Any], timeout: float = 60) -> Any:  # noqa: ASYNC109
        deadline = time.monotonic() + timeout
        while True:
            result = condition()
            if inspect.isawaitable(result):
                result = await result
            if result:
                return result
            if time.monotonic() > deadline:
                what = getattr(condition, "__qualname__", repr(condition))
                pytest.fail(f"{what} was still {result!r} after {timeout} s")
            await asyncio.sleep(0.01)

    return wait_for


class Process:
    """A subprocess in a session of its own; what it prints can be read while it runs."""

    def __init__(self, arguments: Sequence[str | Path], folder: Path, **popen: Any) -> None:
        self._files = [folder / f"{secrets.token_hex(4)}.{name}" for name in ("out", "err")]
        with self._files[0].open("wb") as out, self._files[1].open("wb") as err:
            self.popen = subprocess.Popen(
                [os.fspath(argument) for argument in arguments],
                stdin=popen.pop("stdin", subprocess.DEVNULL),
                stdout=out,
                stderr=err,
                start_new_session=True,
                **popen,
            )
        self.pid = self.popen.pid

    @property
    def output(self) -> str:
        return self._files[0].read_text("utf-8", "replace")

    @property
    def errors(self) -> str:
        return self._files[1].read_text("utf-8", "replace")

    @property
    def running(self) -> bool:
        return self.popen.poll() is None

    def wait(self, timeout: float = 60) -> int:
        """Wait for its end; returns its exit status, negative for a signal."""
        try:
            return self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            pytest.fail(f"Still running after {timeout} s:\n{self.output}\n{self.errors}")

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process alone."""
        self.popen.send_signal(number)

    def send_to_group(self, number: signal.Signals) -> None:
        """Send a signal to its whole process group, as the terminal does for Ctrl-C."""
        os.killpg(self.pid, number)

    def end(self) -> None:
        """Kill what is left of it and of its process group."""
        with suppress(ProcessLookupError):
            self.send_to_group(signal.SIGKILL)
        self.popen.wait()
        if self.popen.stdin:
            self.popen.stdin.close()


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Start subprocesses: `process([program, ...], env={...})`; all are ended with the test.

    `env` is added to this process's environment; a value of None takes a variable away.
    """
    started: list[Process] = []

    def start(
        arguments: Sequence[str | Path], env: Mapping[str, str | None] | None = None, **popen: Any
    ) -> Process:
        merged = {**os.environ, **(env or {})}
        kept = {name: value for name, value in merged.items() if value is not None}
        started.append(Process(arguments, tmp_path, env=kept, **popen))
        return started[-1]

    yield start
    for one in started:
        one.end()
