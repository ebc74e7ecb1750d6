"""The one PostgreSQL that everything runs on, and what every measurement does with it."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg
from attrs import define, field, frozen

from benchmarks.process import BenchmarkError, Process, cpu_seconds, wait_until
from benchmarks.systems import ROOT, System, environ
from benchmarks.tables import TABLES, TRIVIAL
from zodworker_compat.embedded import EmbeddedPostgres

SETTINGS = {
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",  # no checkpoint in the middle of a measurement
    "checkpoint_timeout": "30min",
}


def on_disk() -> dict[str, str]:
    """Return the environment in which the server's directory is on a disk: /tmp may be in memory."""
    return {**os.environ, "TMPDIR": "/var/tmp"}  # noqa: S108 - the server makes a folder in it


@define
class Stage:
    """A running server with a database for each system that has tables of its own."""

    server: EmbeddedPostgres
    _connections: dict[str, psycopg.Connection] = field(factory=dict)
    _enqueuers: dict[System, Process] = field(factory=dict)
    _stack: ExitStack = field(factory=ExitStack)

    def url(self, system: System) -> str:
        """Return the URL of a system's database."""
        return self.server.dsn(system.database)

    def connection(self, system: System) -> psycopg.Connection:
        """Return the harness's own connection; the first use installs the system's tables."""
        if system.database not in self._connections:
            with psycopg.connect(self.server.dsn(), autocommit=True) as connection:
                connection.execute(f'create database "{system.database}"')
            command = system.command("install", self.url(system))
            result = subprocess.run(
                command, env=environ(), cwd=ROOT, capture_output=True, text=True, check=False
            )
            if result.returncode:
                raise BenchmarkError(
                    f"{system.name} could not install its tables:\n{result.stderr}"
                )
            self._connections[system.database] = self._stack.enter_context(
                psycopg.connect(self.url(system), autocommit=True, prepare_threshold=None)
            )
        return self._connections[system.database]

    def close(self) -> None:
        """End the enqueuers and close the harness's connections."""
        self._stack.close()

    def empty(self, system: System) -> None:
        """Remove all jobs, and write out what earlier measurements left in memory."""
        connection = self.connection(system)
        connection.execute(TABLES[system.tables].empty)
        connection.execute("checkpoint")

    def fill(
        self,
        system: System,
        jobs: int,
        *,
        task: str = "trivial",
        payload: str = TRIVIAL,
        queues: int = 0,
    ) -> None:
        """Add jobs in bulk, and notify the workers, in the transaction that is open or in its own."""
        text = TABLES[system.tables].fill
        for name, value in {
            "jobs": jobs,
            "task": task,
            "payload": payload,
            "queues": queues,
        }.items():
            text = text.replace(f":{name}", str(value))
        with self.connection(system).transaction():
            self.connection(system).execute(text)

    def commit_at_once(
        self, system: System, fill: Callable[[], None], *, checkpoint: bool = False
    ) -> "Begin":
        """Empty the table, let `fill` fill it, and show the workers all of it in one moment.

        What could wait is done before: the table is analysed, and its WAL is on disk, so that the
        commit itself takes no time. The lock keeps idle workers from reading rows they cannot see.
        """
        connection, jobs = self.connection(system), TABLES[system.tables].jobs
        self.empty(system)
        with connection.transaction():
            connection.execute(f"lock table {jobs} in access exclusive mode")
            connection.execute("set local synchronous_commit to off")
            fill()
            connection.execute(f"analyze {TABLES[system.tables].analyze}")
            if checkpoint:
                connection.execute("checkpoint")
            with psycopg.connect(self.server.dsn()) as other:
                other.execute("select pg_logical_emit_message(true, 'flush', '')")
            return Begin(now(), self.postgres_cpu())

    def is_done(self, system: System, left: str | None = None) -> bool:
        """Whether no job is left that fulfils the condition; default: all that are not settled."""
        tables = TABLES[system.tables]
        query = f"select exists (select from {tables.jobs} as job where {left or tables.left})"
        row = self.connection(system).execute(query).fetchone()
        return row is not None and not row[0]

    @contextmanager
    def workers(self, system: System, processes: int = 1) -> Iterator["Workers"]:
        """Start worker processes; they are ready, and have run some jobs to warm up."""
        self.empty(system)
        command = system.command("work", self.url(system))
        with ExitStack() as stack:
            workers = Workers(
                [stack.enter_context(Process(command, environ(), ROOT)) for _ in range(processes)]
            )
            for process in workers.processes:
                process.answer(f"{system.name} did not start")
            warm_up = max(50, system.speed // 10)
            self.fill(system, warm_up)
            workers.wait(warm_up)
            wait_until(lambda: self.is_done(system), f"{system.name} had settled {warm_up} jobs")
            yield workers

    def enqueuer(self, system: System) -> Process:
        """Return a process that adds jobs; it has connected and has added some.

        It is kept for later rounds: it costs nothing while it is not asked.
        """
        if system not in self._enqueuers:
            self.connection(system)
            command = system.command("enqueue", self.url(system))
            process = self._stack.enter_context(Process(command, environ(), ROOT))
            process.answer(f"{system.name} did not start")
            process.ask(do="one", jobs=20)
            self._enqueuers[system] = process
        self.empty(system)
        return self._enqueuers[system]

    def postgres_cpu(self) -> dict[str, float]:
        """Return the CPU seconds of each server process that lives now."""
        postmaster = (self.server.directory / "data" / "postmaster.pid").read_text().split()[0]
        children = Path("/proc", postmaster, "task", postmaster, "children").read_text().split()
        return {child: cpu_seconds(Path("/proc", child)) for child in children}

    def postgres_cpu_since(self, begin: "Begin") -> float:
        """Return the CPU seconds of the server since then; of processes that ended, nothing."""
        now_used = self.postgres_cpu()
        return sum(used - begin.postgres_cpu.get(pid, 0) for pid, used in now_used.items())


@frozen
class Begin:
    """The moment before the commit."""

    at: float
    postgres_cpu: dict[str, float]


@define
class Workers:
    """The worker processes of one system."""

    processes: Sequence[Process]

    @property
    def count(self) -> int:
        """Jobs whose handler has run, in all processes."""
        return sum(process.count for process in self.processes)

    def wait(self, jobs: int) -> None:
        """Wait until that many handlers have run since the start."""
        if len(self.processes) == 1:
            what = f"fewer than {jobs} jobs ran"
            self.processes[0].wait_for(lambda: self.count >= jobs, what)
        else:
            wait_until(lambda: self.count >= jobs, f"{jobs} jobs had run")

    def cpu(self) -> float:
        """Return their CPU seconds."""
        return sum(process.usage().cpu for process in self.processes)


def now() -> float:
    """Return seconds of the clock that every process shares."""
    return time.monotonic()
