"""Concurrency limits per flag, kept in the queue's own database."""

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from time import monotonic
from typing import Any, Final, TypeAlias

import psycopg
from psycopg import AsyncConnection

from zodworker_compat.database import limiter as slots
from zodworker_compat.database.own_tables_async import ensure_own_tables
from zodworker_compat.database.pool_async import AsyncDatabase
from zodworker_compat.errors import ConfigurationError, ZodworkerError
from zodworker_compat.job import Job
from zodworker_compat.limiter.protocol import Reschedule, Task
from zodworker_compat.runner_options import RunnerOptions, as_timedelta

logger = logging.getLogger(__name__)

Limits: TypeAlias = Mapping[str, int] | Callable[[str], int | Awaitable[int | None] | None]
"""How many jobs of a flag may run; a flag it does not know (None) gets the default."""

REFUSED_FOR: Final = 0.25
"""Seconds that a flag which was full is left alone: else its jobs would be put back in a circle."""
ERROR_DELAY: Final = 1.0
"""Seconds a job waits that could not ask for its slots: else it would come back at once."""


class PostgresRateLimiter:
    """Lets at most so many jobs of one flag run at a time, in all workers that use it.

    What trigger.dev's RedisRunExecutionRateLimiter gave, without Redis: a job holds a slot of each
    of its flags that begin with `prefix`; if one is full, paused or cannot be asked, the job is put
    back. A flag is forbidden from the moment its last slot is taken, so that such jobs are not even
    claimed. Jobs without such a flag are left alone.

    A slot is free again when its job ends, when its job's lock is taken away from a crashed worker,
    and in any case after `window`, which a living worker renews.

    Its tables `zodworker_limiter_slots` and `zodworker_paused_flags` are made at the first use. A
    Node worker does not know them and runs jobs without asking.

    Args:
        limits: jobs at a time by flag: a mapping, or a function, sync or async. Asked when a job
            starts; if it raises, the flag counts as full.
        default: the limit of a flag that `limits` does not know.
        prefix: of the flags that are limited.
        window: how long a slot outlives a worker that crashed without losing its locks, by the
            database clock; a bare number is seconds.
        runner_options: the database and schema, to pause and resume without a worker. Default: the
            worker's.
    """

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        default: int = 10,
        prefix: str = "rl:",
        window: timedelta | float = timedelta(minutes=15),
        runner_options: RunnerOptions | None = None,
    ) -> None:
        self._limits = {} if limits is None else limits
        _check_limits(self._limits, prefix)
        self._default = default
        self._prefix = prefix
        self._window = as_timedelta(window)
        if self._window <= timedelta(0):
            raise ConfigurationError(f"window must be greater than zero, got {window!r}")
        self._given = runner_options
        self._options: RunnerOptions | None = None
        self._database: AsyncDatabase | None = None
        self._has_tables = False
        self._users = 0
        self._held: set[tuple[int, str]] = set()
        self._takes: set[asyncio.Future[None]] = set()
        self._closed_flags: set[str] = set()
        """Refused for want of a limit above zero: no slot tells the database so."""
        self._refused: dict[str, float] = {}
        """Flags that were full when a job of ours asked; until when they are not claimed. The table
        knows a flag's size from who took a slot last: under a lowered limit it says "free"."""
        self._renewal: asyncio.Task[None] | None = None
        if runner_options is not None:
            self._use(runner_options)

    def _use(self, options: RunnerOptions) -> None:
        self._options, self._database = options, AsyncDatabase(options)
        self._has_tables = False

    async def open(self, options: RunnerOptions) -> None:
        """Use the worker's database, unless given one; keep the slots of long jobs from now on.

        Several workers may share a limiter, if their database is the same.
        """
        self._users += 1
        if self._users > 1:
            return
        if self._given is None:
            self._use(options)
        self._renewal = asyncio.create_task(self._renew(), name="zodworker:limiter:renew")

    async def close(self) -> None:
        """Close the connections with the last worker; they are opened again if they are needed."""
        self._users = max(0, self._users - 1)
        if self._users:
            return
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.wait([self._renewal])
            self._renewal = None
        if self._database is not None:
            await self._database.close()

    async def forbidden_flags(self) -> Collection[str]:
        """Return the flags that are full or paused.

        Raises:
            ZodworkerError: the database cannot be reached, or the tables not be made.
            psycopg.Error: what PostgreSQL refused.
        """
        if self._takes:  # jobs that were claimed just now may take the last slot
            await asyncio.wait(self._takes)
        async with self._connection() as (connection, schema):
            found = await slots.forbidden(connection, schema, self._window)
        for flag in list(self._closed_flags):
            if await self._limit(flag) > 0:
                self._closed_flags.discard(flag)
        now = monotonic()
        self._refused = {flag: until for flag, until in self._refused.items() if until > now}
        return found | self._closed_flags | self._refused.keys()

    def wrap_task(self, task: Task, reschedule: Reschedule) -> Task:
        """Return a task that holds its slots while it runs, or is put back."""

        async def limited(payload: Any, job: Job, helpers: Any) -> None:
            flags = sorted(flag for flag in job.flags or () if flag.startswith(self._prefix))
            if not flags:
                await task(payload, job, helpers)
            elif not await self._take_or_wait(job, flags):
                await reschedule(payload, job)
            else:
                holder = _holder(job)
                self._held.add(holder)
                try:
                    await task(payload, job, helpers)
                finally:
                    self._held.discard(holder)
                    await self._release(holder, flags)

        return limited

    async def pause(self, flag: str) -> None:
        """Let no more jobs of a flag start, in any worker; those that run go on. Idempotent.

        Raises:
            ConfigurationError: there is no worker, and no `runner_options` were given.
            ZodworkerError: the database cannot be reached, or the tables not be made.
        """
        async with self._connection() as (connection, schema):
            await slots.pause(connection, schema, flag)

    async def resume(self, flag: str) -> None:
        """Let jobs of a paused flag start again; raises as `pause`. Idempotent."""
        async with self._connection() as (connection, schema):
            await slots.resume(connection, schema, flag)

    async def _take_or_wait(self, job: Job, flags: list[str]) -> bool:
        taking = asyncio.get_running_loop().create_future()
        self._takes.add(taking)
        try:
            return await self._take(job, flags)
        except (psycopg.Error, ZodworkerError) as error:
            logger.warning(
                "Cannot ask for the slots of job %s, so it does not run now: %s", job.id, error
            )
        finally:
            self._takes.discard(taking)
            taking.set_result(None)
        await asyncio.sleep(ERROR_DELAY)
        return False

    async def _take(self, job: Job, flags: list[str]) -> bool:
        sizes = {flag: await self._limit(flag) for flag in flags}
        if closed := {flag for flag, size in sizes.items() if size <= 0}:
            self._closed_flags |= closed
            return False
        async with self._connection() as (connection, schema):
            refused = await slots.take(connection, schema, _holder(job), sizes, self._window)
        self._refused |= dict.fromkeys(refused, monotonic() + REFUSED_FOR)
        return not refused

    async def _limit(self, flag: str) -> int:
        try:
            if isinstance(self._limits, Mapping):
                return self._limits.get(flag, self._default)
            found = self._limits(flag)
            limit = await found if inspect.isawaitable(found) else found
            return self._default if limit is None else int(limit)
        except Exception:
            if flag not in self._closed_flags:
                logger.exception("Cannot tell the limit of %r, so its jobs do not run now", flag)
            return 0

    async def _release(self, holder: tuple[int, str], flags: list[str]) -> None:
        try:
            async with self._connection() as (connection, schema):
                await slots.release(connection, schema, holder[0], flags, self._window)
        except (psycopg.Error, ZodworkerError) as error:
            logger.warning(
                "Cannot give the slots of job %d back, they are free when it is settled: %s",
                holder[0],
                error,
            )

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._window.total_seconds() / 4)
            if self._held:
                try:
                    async with self._connection() as (connection, schema):
                        await slots.renew(connection, schema, self._held)
                except (psycopg.Error, ZodworkerError) as error:
                    logger.warning("Cannot renew the slots of running jobs: %s", error)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[tuple[AsyncConnection[Any], str]]:
        if self._database is None or self._options is None:
            raise ConfigurationError(
                "The limiter has no database yet: initialize its worker, or give it runner_options."
            )
        async with self._database.connection() as connection:
            if not self._has_tables:
                await ensure_own_tables(connection, self._options.schema, "limiter")
                self._has_tables = True
            yield connection, self._options.schema


def _holder(job: Job) -> tuple[int, str]:
    return int(job.id), job.locked_by or ""


def _check_limits(limits: object, prefix: str) -> None:
    if callable(limits):
        return
    if not isinstance(limits, Mapping):
        raise ConfigurationError(
            f"limits must be a mapping of flags to numbers, or a function, got {limits!r}"
        )
    for flag, limit in limits.items():
        if not str(flag).startswith(prefix):
            raise ConfigurationError(
                f"The flag {flag!r} does not begin with the prefix {prefix!r}, so nothing would be "
                f"limited; write {prefix + str(flag)!r}, in the jobs' flags too, or set prefix"
            )
        if isinstance(limit, bool) or not isinstance(limit, int):
            raise ConfigurationError(f"The limit of {flag!r} must be a whole number, got {limit!r}")
