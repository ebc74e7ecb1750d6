"""What a handler gets as its third argument."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, LiteralString, TypeAlias

import psycopg
from attrs import field, frozen
from psycopg import AsyncConnection, Connection, sql
from psycopg.abc import Params
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from zodworker_compat.database.pool_async import spare_pooler
from zodworker_compat.job import Job
from zodworker_compat.runner.pool import Pool, logger

Logger: TypeAlias = "logging.LoggerAdapter[logging.Logger]"
Abort: TypeAlias = asyncio.Event | threading.Event
"""What `abort_signal` is for async and for sync handlers."""
Statement: TypeAlias = LiteralString | sql.SQL | sql.Composed
MakeHelpers: TypeAlias = Callable[[Job, Abort], "JobHelpers | SyncJobHelpers"]


@frozen(kw_only=True)
class JobHelpers:
    """Tools of an async handler, for one run of one job."""

    job: Job
    logger: Logger
    """Adds `job_id`, `task_identifier` and `attempt` to each record."""
    abort_signal: asyncio.Event
    """Set at the task's `timeout`, and 5 s after a shutdown began (or after half of its
    `shutdown_timeout`, if that is less): a handler that listens has the rest to finish, then it is
    cancelled. What it has reached when it returns counts, also within a second of that."""
    _enqueuer: Any = field(repr=False)
    _connections: "Connections" = field(repr=False)

    @property
    def queue_name(self) -> str | None:
        """The named queue of the job: `helpers.getQueueName()`, without a look-up."""
        return self.job.queue_name

    async def enqueue(self, *args: Any, **kwargs: Any) -> Any:
        """Enqueue a job, as `ZodWorker.enqueue`."""
        return await self._enqueuer.enqueue(*args, **kwargs)

    async def enqueue_tx(self, *args: Any, **kwargs: Any) -> Any:
        """Enqueue a job in a transaction of yours, as `ZodWorker.enqueue_tx`."""
        return await self._enqueuer.enqueue_tx(*args, **kwargs)

    async def enqueue_many(self, *args: Any, **kwargs: Any) -> Any:
        """Enqueue jobs, all or none, as `ZodWorker.enqueue_many`."""
        return await self._enqueuer.enqueue_many(*args, **kwargs)

    async def dequeue(self, *args: Any, **kwargs: Any) -> Any:
        """Remove a job by its key, as `ZodWorker.dequeue`."""
        return await self._enqueuer.dequeue(*args, **kwargs)

    @asynccontextmanager
    async def with_connection(self) -> AsyncIterator[AsyncConnection[Any]]:
        """Lend a connection of the worker's pool; committed at the end, rolled back on an error."""
        async with (await self._connections.pool()).connection() as connection:
            yield connection

    async def query(
        self, statement: Statement, parameters: Params | None = None
    ) -> list[dict[str, Any]]:
        """Run one SQL statement in a transaction of its own; return its rows, if it has any."""
        async with self.with_connection() as connection:
            cursor = connection.cursor(row_factory=dict_row)
            await cursor.execute(statement, parameters)
            return await cursor.fetchall() if cursor.description is not None else []


@frozen(kw_only=True)
class SyncJobHelpers:
    """The same tools for a sync handler: each call blocks its thread until it is done."""

    job: Job
    logger: Logger
    abort_signal: threading.Event
    """Set as the one of an async handler. A thread cannot be cancelled, so look at it and return: at
    the deadline the job has failed or is given back, and nothing changes that."""
    _enqueuer: Any = field(repr=False)
    _connections: "Connections" = field(repr=False)
    _loop: asyncio.AbstractEventLoop = field(repr=False)

    def _blocking(self, call: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(call, self._loop).result()

    @property
    def queue_name(self) -> str | None:
        """The named queue of the job: `helpers.getQueueName()`, without a look-up."""
        return self.job.queue_name

    def enqueue(self, *args: Any, **kwargs: Any) -> Any:
        """Enqueue a job, as `ZodWorker.enqueue`."""
        return self._blocking(self._enqueuer.enqueue(*args, **kwargs))

    def enqueue_tx(self, *args: Any, **kwargs: Any) -> Any:
        """Enqueue a job in a sync transaction of yours, as `ZodWorker.sync.enqueue_tx`."""
        return self._enqueuer.sync.enqueue_tx(*args, **kwargs)

    def enqueue_many(self, *args: Any, **kwargs: Any) -> Any:
        """Enqueue jobs, all or none, as `ZodWorker.enqueue_many`."""
        return self._blocking(self._enqueuer.enqueue_many(*args, **kwargs))

    def dequeue(self, *args: Any, **kwargs: Any) -> Any:
        """Remove a job by its key, as `ZodWorker.dequeue`."""
        return self._blocking(self._enqueuer.dequeue(*args, **kwargs))

    @contextmanager
    def with_connection(self) -> Iterator[Connection[Any]]:
        """Open a connection; committed at the end, rolled back on an error, and closed."""
        # No prepared statements, which would outlive it behind a pooler.
        with psycopg.connect(self._connections.conninfo, prepare_threshold=None) as connection:
            yield connection

    def query(self, statement: Statement, parameters: Params | None = None) -> list[dict[str, Any]]:
        """Run one SQL statement in a transaction of its own; return its rows, if it has any."""
        with self.with_connection() as connection:
            cursor = connection.cursor(row_factory=dict_row)
            cursor.execute(statement, parameters)
            return cursor.fetchall() if cursor.description is not None else []


class Connections:
    """The connections that handlers borrow: the application's pool, or a small one of our own."""

    def __init__(self, pool: Pool) -> None:
        self.conninfo = pool.conninfo
        given = pool.options.pool
        self._given = given if isinstance(given, AsyncConnectionPool) else None
        self._prepare_threshold = 5 if pool.options.prepared_statements else None
        self._largest = pool.options.max_pool_size or 4
        self._own: AsyncConnectionPool[Any] | None = None

    async def pool(self) -> AsyncConnectionPool[Any]:
        """Return the pool, opened at its first use."""
        if self._given is not None:
            return self._given
        if self._own is None:
            self._own = AsyncConnectionPool(
                self.conninfo,
                kwargs={"prepare_threshold": self._prepare_threshold},
                configure=spare_pooler,
                min_size=0,
                max_size=self._largest,
                open=False,
            )
            await self._own.open()
        return self._own

    async def close(self) -> None:
        """Close our own pool."""
        if self._own is not None:
            await self._own.close()


def helpers_factory(enqueuer: Any, connections: Connections) -> MakeHelpers:
    """Return the function (job, abort signal of an async or a sync handler) -> helpers."""
    loop = asyncio.get_running_loop()

    def make(job: Job, abort: Abort) -> JobHelpers | SyncJobHelpers:
        extra = {
            "job_id": job.id,
            "task_identifier": job.task_identifier,
            "attempt": job.attempts,
        }
        adapter = logging.LoggerAdapter(logger, extra)
        if isinstance(abort, asyncio.Event):
            return JobHelpers(
                job=job,
                logger=adapter,
                abort_signal=abort,
                enqueuer=enqueuer,
                connections=connections,
            )
        return SyncJobHelpers(
            job=job,
            logger=adapter,
            abort_signal=abort,
            enqueuer=enqueuer,
            connections=connections,
            loop=loop,
        )

    return make
