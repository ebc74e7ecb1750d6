"""What a handler gets as its third argument."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeAlias

import psycopg
from attrs import field, frozen
from psycopg import AsyncConnection, Connection
from psycopg_pool import AsyncConnectionPool

from zodworker_compat.job import Job
from zodworker_compat.runner.pool import Pool, logger

Logger: TypeAlias = "logging.LoggerAdapter[logging.Logger]"


@frozen(kw_only=True)
class JobHelpers:
    """Tools of an async handler, for one run of one job."""

    job: Job
    logger: Logger
    """Adds `job_id`, `task_identifier` and `attempt` to each record."""
    abort_signal: asyncio.Event
    """Set when the shutdown deadline has come; the handler is cancelled at the same time."""
    _enqueuer: Any = field(repr=False)
    _connections: "Connections" = field(repr=False)

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


@frozen(kw_only=True)
class SyncJobHelpers:
    """The same tools for a sync handler: each call blocks its thread until it is done."""

    job: Job
    logger: Logger
    abort_signal: threading.Event
    """Set when the shutdown deadline has come: a thread cannot be cancelled, so look at it."""
    _enqueuer: Any = field(repr=False)
    _connections: "Connections" = field(repr=False)
    _loop: asyncio.AbstractEventLoop = field(repr=False)

    def _blocking(self, call: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(call, self._loop).result()

    def enqueue(self, *args: Any, **kwargs: Any) -> Any:
        """Enqueue a job, as `ZodWorker.enqueue`."""
        return self._blocking(self._enqueuer.enqueue(*args, **kwargs))

    def enqueue_many(self, *args: Any, **kwargs: Any) -> Any:
        """Enqueue jobs, all or none, as `ZodWorker.enqueue_many`."""
        return self._blocking(self._enqueuer.enqueue_many(*args, **kwargs))

    def dequeue(self, *args: Any, **kwargs: Any) -> Any:
        """Remove a job by its key, as `ZodWorker.dequeue`."""
        return self._blocking(self._enqueuer.dequeue(*args, **kwargs))

    @contextmanager
    def with_connection(self) -> Iterator[Connection[Any]]:
        """Open a connection; committed at the end, rolled back on an error, and closed."""
        with psycopg.connect(self._connections.conninfo) as connection:
            yield connection


class Connections:
    """The connections that handlers borrow: the application's pool, or a small one of our own."""

    def __init__(self, pool: Pool) -> None:
        self.conninfo = pool.conninfo
        given = pool.options.pool
        self._given = given if isinstance(given, AsyncConnectionPool) else None
        self._largest = pool.options.max_pool_size or 4
        self._own: AsyncConnectionPool[Any] | None = None

    async def pool(self) -> AsyncConnectionPool[Any]:
        """Return the pool, opened at its first use."""
        if self._given is not None:
            return self._given
        if self._own is None:
            self._own = AsyncConnectionPool(
                self.conninfo, min_size=0, max_size=self._largest, open=False
            )
            await self._own.open()
        return self._own

    async def close(self) -> None:
        """Close our own pool."""
        if self._own is not None:
            await self._own.close()


def helpers_factory(
    pool: Pool, enqueuer: Any, connections: Connections
) -> Callable[[Job, bool], JobHelpers | SyncJobHelpers]:
    """Return the function (job, is_async) -> helpers."""
    loop = asyncio.get_running_loop()

    def make(job: Job, is_async: bool) -> JobHelpers | SyncJobHelpers:
        extra = {
            "job_id": job.id,
            "task_identifier": job.task_identifier,
            "attempt": job.attempts,
        }
        adapter = logging.LoggerAdapter(logger, extra)
        if is_async:
            return JobHelpers(
                job=job,
                logger=adapter,
                abort_signal=pool.abort,
                enqueuer=enqueuer,
                connections=connections,
            )
        return SyncJobHelpers(
            job=job,
            logger=adapter,
            abort_signal=pool.abort_threads,
            enqueuer=enqueuer,
            connections=connections,
            loop=loop,
        )

    return make
