"""Enqueues the jobs of recurring tasks, each minute's once, whoever else runs the same crontab."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final, Protocol

import psycopg
from attrs import evolve

from zodworker_compat.cron import (
    CronItem,
    Digest,
    Pattern,
    Schedule,
    Tick,
    backfill,
    job_of,
    plan_tick,
    schedule,
    time_until,
)
from zodworker_compat.cron.clock import MINUTE, ceil_minute
from zodworker_compat.database import cron as database
from zodworker_compat.errors import DatabaseUnavailableError, EnqueueError
from zodworker_compat.options import JobSpec
from zodworker_compat.runner.outage import Outage
from zodworker_compat.runner.pool import Pool, logger

LONG: Final = timedelta(hours=1)
"""A gap that is not searched in the event loop: a year of minutes takes half a second an item."""


class Clock(Protocol):
    """The time by which recurring tasks fire: the process's, as graphile-worker's."""

    def now(self) -> datetime:
        """Return the time, an aware datetime."""

    async def sleep(self, seconds: float) -> None:
        """Wait. The time is looked at afterwards, so it may be too short or too long."""


class SystemClock:
    """The real one."""

    def now(self) -> datetime:
        """Return the time in UTC."""
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)


class Cron:
    """The loop of one runner: makes up for what was missed before it started, then ticks.

    While PostgreSQL is away it tries again and again, and then goes through the minutes that have
    passed as after a late timer. Nothing is enqueued twice: the database refuses what is not later
    than an item's last execution.
    """

    def __init__(self, pool: Pool, items: Sequence[CronItem], clock: Clock | None = None) -> None:
        self._pool = pool
        self._items = [_harmless(item) for item in items]
        self._clock = clock or SystemClock()
        self._session = pool.session()
        self._outage = Outage(logger, "enqueue recurring tasks")
        self._expected = datetime.min.replace(tzinfo=UTC)
        """The first minute that has not been gone through."""

    async def run(self) -> None:
        """Enqueue until cancelled."""
        start = self._clock.now()
        self._expected = ceil_minute(start)
        self._pool.emit("cron:starting", start=start)
        await self._until_it_works(partial(self._backfill, start))
        self._pool.emit("cron:started", start=start)
        while True:
            await self._until_it_works(self._tick)

    async def _until_it_works(self, step: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await step()
            except (psycopg.Error, DatabaseUnavailableError, EnqueueError) as error:
                self._outage.failed(error)
            else:
                self._outage.worked()
                return
            finally:
                await self._session.close()
            await self._clock.sleep(restart_delay(self._outage.failures - 1, random.random()))  # noqa: S311

    async def _backfill(self, start: datetime) -> None:
        connection = await self._session.connection()
        known = await database.register(
            connection,
            self._pool.options.schema,
            [item.identifier for item in self._items],
            start,
        )
        for row in known.values():
            if row.last_execution and row.last_execution > start + MINUTE:
                logger.warning(
                    "Recurring task %r will not be enqueued before %s: that is its last execution, "
                    "by a process whose clock was ahead, or this one's is behind",
                    row.identifier,
                    row.last_execution,
                )
        pairs = [(item, known[item.identifier]) for item in self._items if item.identifier in known]
        for minute, items in await asyncio.to_thread(backfill, pairs, start):
            self._pool.emit(
                "cron:backfill",
                items_to_backfill=[(item, known[item.identifier]) for item in items],
                timestamp=minute,
            )
            await self._enqueue(minute, _jobs_of(items, minute, backfilled=True))

    async def _tick(self) -> None:
        """Wait for the next minute and go through it; if it was late, through all that have passed."""
        await self._clock.sleep(time_until(self._expected, self._clock.now()).total_seconds())
        tick = plan_tick(self._expected, now := self._clock.now())
        if tick.state != "on time":
            self._pool.emit(
                "cron:prematureTimer" if tick.state == "premature" else "cron:overdueTimer",
                current_timestamp=tick.current,
                expected_timestamp=tick.expected,
            )
        if tick.expected - now > MINUTE:
            logger.warning("The clock was set back from %s to %s", tick.expected, now)
            self._expected = ceil_minute(now)
            return
        for minute, items in await self._schedule(tick):
            jobs = _jobs_of(items, minute, backfilled=False)
            self._pool.emit("cron:schedule", timestamp=minute, jobs_and_identifiers=jobs)
            await self._enqueue(minute, jobs)
            self._expected = minute + MINUTE
            self._pool.emit("cron:scheduled", timestamp=minute, jobs_and_identifiers=jobs)
        self._expected = tick.next_expected

    async def _schedule(self, tick: Tick) -> Schedule:
        if tick.current - tick.expected > LONG:
            return await asyncio.to_thread(schedule, self._items, tick)
        return schedule(self._items, tick)

    async def _enqueue(self, minute: datetime, jobs: Sequence[tuple[JobSpec, str]]) -> None:
        connection = await self._session.connection()
        enqueued = await database.schedule(connection, self._pool.options.schema, minute, jobs)
        logger.debug("Enqueued recurring tasks of %s: %s", minute, ", ".join(enqueued) or "none")


def restart_delay(failures: int, jitter: float) -> float:
    """Return seconds until the next try, as graphile-worker 0.17: 200 ms * 1.5^n, at most 60 s.

    Args:
        failures: before this one, in a row.
        jitter: 0 to 1; spreads the delay from half to one and a half of it.
    """
    return min(60.0, 0.2 * 1.5 ** min(failures, 20)) * (0.5 + jitter)


def _jobs_of(
    items: Sequence[CronItem], minute: datetime, *, backfilled: bool
) -> list[tuple[JobSpec, str]]:
    return [(job_of(item, minute, backfilled=backfilled), item.identifier) for item in items]


def _harmless(item: CronItem) -> CronItem:
    """Return an item whose function, if it raises, does not match, instead of stopping the others."""
    given = item.match
    if isinstance(given, Pattern):
        return item

    def match(digest: Digest) -> bool:
        try:
            return bool(given(digest))
        except Exception:  # noqa: BLE001 - a function of the application's
            logger.exception("The match function of recurring task %r failed", item.identifier)
            return False

    return evolve(item, match=match)
