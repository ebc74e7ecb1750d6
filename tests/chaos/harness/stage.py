"""A queue under load and its workers: what faults act upon."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import psycopg
from attrs import define, field
from harness.cluster import Cluster
from harness.ledger import Excuse, Ledger, Writer, now
from harness.load import Load
from harness.proxy import Proxy
from psycopg.rows import dict_row

PATIENCE = 120
"""Seconds until what must come is said not to come."""
SUITE = Path(__file__).parents[1]
OURS = ("PG", "DATABASE_URL", "ZODWORKER_", "GRAPHILE_WORKER_", "CHAOS_")


@define(eq=False)
class Worker:
    """A worker process."""

    name: str
    command: Sequence[str]
    env: Mapping[str, str] = field(repr=False)
    log: Path
    proxy: Proxy | None
    process: "subprocess.Popen[bytes]" = field(init=False)
    was_killed: bool = False

    def __attrs_post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Start the process."""
        with self.log.open("ab") as file:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                cwd=SUITE,
                env=self.env,
                start_new_session=True,
            )

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def said(self) -> str:
        """Return what it has logged."""
        return self.log.read_text("utf-8", "replace")


@define(kw_only=True, eq=False)
class Stage:
    """A cluster, its workers and the load."""

    folder: Path
    """For ledgers and logs."""
    cluster: Cluster
    url: str
    """How workers and enqueuers connect."""
    rng: random.Random
    load: Load
    loading: asyncio.Task[None]
    dead_after: float
    is_proxied: bool
    standby: Cluster | None = None
    workers: list[Worker] = field(factory=list)
    ledger: Ledger = field(factory=Ledger)
    closing: AsyncExitStack = field(factory=AsyncExitStack)
    """What faults leave to be undone at the end."""
    _taken: set[Worker] = field(factory=set)
    _number: int = 0

    async def ask(self, query: Any, *parameters: Any, database: str = "chaos") -> list[Any]:
        """Run a statement on a connection of its own; try again while the server is away."""
        url = self.url.replace("dbname=chaos", f"dbname={database}")
        url += " application_name=chaos options='-c default_transaction_read_only=off'"
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(
                    url, autocommit=True, row_factory=dict_row, connect_timeout=5
                ) as connection:
                    cursor = await connection.execute(query, parameters or None)
                    return await cursor.fetchall() if cursor.description else []
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.05)

    async def eventually(self, condition: Callable[[], Any], what: str) -> Any:
        """Return the first true result of an async function."""
        deadline = time.monotonic() + PATIENCE
        while not (result := await condition()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"Not in {PATIENCE} s: {what}")
            await asyncio.sleep(0.02)
        return result

    def start_worker(
        self,
        *,
        url: str | None = None,
        env: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
        is_taken: bool = False,
    ) -> Worker:
        """Start a worker, perhaps for one fault alone; it need not be ready when this returns."""
        self._number += 1
        name = f"worker-{self._number}"
        proxy = None
        if self.is_proxied and url is None:
            proxy = Proxy(self.cluster.port)
            self.closing.push_async_callback(proxy.stop)
            url = self.cluster.url(port=proxy.port)
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(OURS)}
        command = [
            *[*prefix, sys.executable, "-m", "zodworker_compat.cli", "run"],
            *["--app", "harness.app:worker", "--dead-after", str(self.dead_after)],
            *["--log-level", "warning"],
        ]
        own = {
            "DATABASE_URL": url or self.url,
            "CHAOS_LEDGER": str(self.folder),
            "CHAOS_WORKER": name,
        }
        worker = Worker(
            name, command, {**inherited, **own, **(env or {})}, self.folder / f"{name}.log", proxy
        )
        self.workers.append(worker)
        if is_taken:
            self._taken.add(worker)
        return worker

    async def until_it_runs(self, *workers: Worker) -> None:
        """Wait until each worker has run jobs.

        One that finds no server when it starts says so and ends; it is started again, as a process
        manager does.
        """
        for worker in workers:

            async def has_run(worker: Worker = worker) -> bool:
                status = worker.process.poll()
                if self._has_run(worker):
                    return True
                if status and "cannot be reached" in worker.said():
                    worker.start()
                elif status is not None:
                    raise RuntimeError(f"{worker.name} has ended:\n{worker.said()[-3000:]}")
                return False

            await self.eventually(has_run, f"{worker.name} runs jobs")

    def _has_run(self, worker: Worker) -> bool:
        path = self.folder / f"{worker.name}.ledger"
        return path.exists() and path.stat().st_size > 0

    async def until_ended(self, *workers: Worker) -> None:
        """Wait until processes have ended."""

        async def have_ended() -> bool:
            return all(worker.process.poll() is not None for worker in workers)

        await self.eventually(have_ended, f"{[worker.name for worker in workers]} end")

    async def until_dead(self, worker: Worker) -> None:
        """Wait until the others have declared a worker dead."""
        query = "select 1 from graphile_worker.zodworker_workers where name = %s and dead_at is not null"

        async def is_dead() -> bool:
            return bool(await self.ask(query, worker.name))

        await self.eventually(is_dead, f"{worker.name} is declared dead")

    async def take(self) -> Worker:
        """Return a worker that runs jobs; no other fault gets it until the end."""
        worker = self.rng.choice(self.free())
        self._taken.add(worker)
        await self.until_it_runs(worker)
        return worker

    def free(self) -> list[Worker]:
        """Return the running workers that no fault has taken."""
        return [each for each in self.workers if each not in self._taken and not each.was_killed]

    def kill(self, *workers: Worker, fault: str) -> None:
        """Kill workers, and see them dead."""
        since = now()
        for worker in workers:
            worker.was_killed = True
            worker.send(signal.SIGKILL)
        for worker in workers:
            assert worker.process.wait(PATIENCE) == -signal.SIGKILL
            self.ledger.deaths[worker.name] = now()
            self.excuse(fault, worker, since=since, until=now())

    def excuse(
        self, fault: str, worker: Worker | None, *, since: int, until: int, overlap: bool = False
    ) -> None:
        """Note that results were lost; None is those of all workers."""
        process = worker and worker.name
        excuse = Excuse(fault=fault, process=process, since=since, until=until, overlap=overlap)
        self.ledger.excuses.append(excuse)

    @contextmanager
    def excused(self, fault: str, worker: Worker | None, *, overlap: bool = False) -> Any:
        """Excuse what is lost during the block."""
        since = now()
        try:
            yield
        finally:
            self.excuse(fault, worker, since=since, until=now(), overlap=overlap)

    async def finish(self) -> Ledger:
        """Let the queue run empty, stop the workers, and return what happened."""
        self.load.stop()
        await asyncio.wait_for(self.loading, PATIENCE)
        with suppress(TimeoutError):
            await self.eventually(self._is_drained, "the queue is empty")
        unclean = await self._stop_workers()
        self.ledger.left = [*await self._left(), *unclean]
        self.ledger.read(self.folder)
        return self.ledger

    async def _is_drained(self) -> bool:
        rows = await self._jobs()
        return all(row["attempts"] >= row["max_attempts"] and not row["locked_by"] for row in rows)

    async def _jobs(self) -> list[dict[str, Any]]:
        return await self.ask(
            "select id, attempts, max_attempts, locked_by, locked_at, run_at, last_error, payload"
            " from graphile_worker._private_jobs limit 20"
        )

    async def _left(self) -> list[dict[str, Any]]:
        queues = "select * from graphile_worker._private_job_queues where locked_by is not null"
        workers = "select * from graphile_worker.zodworker_workers where dead_at is null"
        return [*await self._jobs(), *await self.ask(queues), *await self.ask(workers)]

    async def _stop_workers(self) -> list[dict[str, Any]]:
        """Stop the living gracefully; return those that did not end as they should."""
        living = [worker for worker in self.workers if worker.process.poll() is None]
        for worker in living:
            worker.send(signal.SIGTERM)
        with suppress(TimeoutError):
            await self.until_ended(*living)
        return [
            {"worker": worker.name, "exit": worker.process.poll(), "log": worker.said()[-3000:]}
            for worker in self.workers
            if worker.process.poll() != (-signal.SIGKILL if worker.was_killed else 0)
        ]

    def end(self) -> None:
        """Kill what is left."""
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.process.kill()
            worker.process.wait()

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        folder: Path,
        cluster: Cluster,
        *,
        rng: random.Random,
        dead_after: float,
        is_proxied: bool,
        standby: Cluster | None,
    ) -> AsyncIterator[Self]:
        """Start the load; all that was started is ended."""
        url = cluster.url()
        if standby is not None:
            url = cluster.url(
                "127.0.0.1,127.0.0.1",
                f"{cluster.port},{standby.port}",
                target_session_attrs="read-write",
            )
        load = Load(url, Writer(folder, "enqueuer"), rng)
        loading = asyncio.create_task(load.run())
        stage = cls(
            folder=folder,
            cluster=cluster,
            url=url,
            rng=rng,
            load=load,
            loading=loading,
            dead_after=dead_after,
            is_proxied=is_proxied,
            standby=standby,
        )
        try:
            async with stage.closing:
                try:
                    yield stage
                finally:
                    stage.end()
        finally:
            loading.cancel()
            await asyncio.wait([loading])
