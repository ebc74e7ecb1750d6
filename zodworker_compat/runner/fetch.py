"""Claims jobs whenever there is room for them."""

import asyncio
import math
from collections.abc import Callable, Iterable, Sequence
from time import monotonic
from typing import Any, Final, NamedTuple

import psycopg
from psycopg import AsyncConnection

from zodworker_compat.database import queue
from zodworker_compat.database.queue import Claimed
from zodworker_compat.errors import DatabaseUnavailableError, RateLimiterError
from zodworker_compat.runner.alarm import Alarm
from zodworker_compat.runner.buffer import Buffer
from zodworker_compat.runner.limits import Limits
from zodworker_compat.runner.outage import Outage
from zodworker_compat.runner.pool import Pool, logger
from zodworker_compat.runner.settle import LARGEST_BACKLOG, Settler
from zodworker_compat.runner.throttle import Throttle

CONTENDED_DELAY: Final = 0.01
"""Seconds until a claim is repeated whose queues others held; doubled each time in a row, up to the
poll interval: a fetch holds them for a millisecond, a job for as long as it runs, a forgotten
transaction for hours. So a queue stands idle no longer than it was held before."""

LONG_LOOK: Final = 0.01
"""Seconds; a claim that takes longer and brings little has passed many jobs in queues of others."""
PATIENCE: Final = 30.0
"""Seconds that a claim may take; longer, and its server process hangs or waits for the lock of a table."""
READING: Final = 600.0
"""Seconds that reading the whole table may take."""
LATEST_CHECK: Final = 600.0
"""Seconds after a claim without an answer in which it may still come through; checked after 1, 2, 4, …"""
QUEUE_SHARE: Final = 0.2
"""Part of the time in which such queues are looked at: 100,000 jobs in them take 20 ms to pass."""


class Found(NamedTuple):
    """What came of a claim."""

    jobs: int = 0
    """How many are ours now."""
    more: bool = False
    """There are others that this claim could not see or get."""
    blocked: bool = False
    """Others wait in named queues that other pools hold; nobody tells when Node frees one."""
    later: float = 0.0
    """Seconds until named queues are to be looked at, which this claim left out; else 0."""


class Claimer:
    """Fills the buffer: when a slot is free, on a notification, and at each poll interval."""

    def __init__(
        self,
        pool: Pool,
        buffer: Buffer,
        settler: Settler,
        alarm: Alarm,
        limits: Limits,
        throttle: Throttle | None,
        running: Callable[[], Iterable[Claimed]],
    ) -> None:
        """`running` returns the jobs that run in this process."""
        self._pool = pool
        self._buffer = buffer
        self._settler = settler
        self._alarm = alarm
        self._limits = limits
        self._throttle = throttle
        self._session = pool.session(fast=True)
        self._outage = Outage(logger, "claim jobs")
        self._poll = pool.options.poll_interval.total_seconds()
        self._task_ids: list[int] = []
        self._resolved_at = 0.0
        self._notified = False
        self._stopping = False
        self._in_vain = 0
        self._freed: set[int] = set()
        self._running = running
        self._check_at = math.inf
        self._check_pause = 0.0
        self._queues_at = 0.0
        """When named queues are looked at again."""
        self.is_sure = True
        """That what we hold in the table is what we know of."""

    async def connect(self) -> None:
        """Connect and look the task ids up.

        Raises:
            DatabaseUnavailableError: PostgreSQL cannot be reached.
        """
        await self._resolve()

    async def close(self) -> None:
        """Close the connection."""
        await self._session.close()

    def notified(self) -> None:
        """Look for jobs now: somebody says there are some."""
        self._notified = True
        self._alarm.pulse()

    def freed(self, queue_ids: set[int]) -> None:
        """Look for jobs now: we have freed these queues. What we do not take, others may."""
        self._freed |= queue_ids
        self._alarm.pulse()

    def doubt(self) -> None:
        """Check soon whether we still hold what we know of: the server may have crashed and forgotten."""
        self.is_sure = False
        self._alarm.pulse()

    def stop(self) -> None:
        """Let `run` return after the claim that is under way, whose jobs reach the buffer."""
        self._stopping = True
        self._alarm.pulse()

    async def run(self) -> None:
        """Claim until stopped."""
        try:
            while not self._stopping:
                self._release_held()
                await self._alarm.wait(await self._step())
        finally:
            await self._session.close()

    async def run_once(self) -> None:
        """Claim until no job is available and none runs.

        Raises:
            DatabaseUnavailableError: PostgreSQL cannot be reached.
            RateLimiterError: the limiter failed.
            psycopg.Error: the claim failed.
        """
        try:
            while not self._stopping:
                idle = self._buffer.is_idle and not self._settler.backlog
                found = await self._claim()
                if idle and not (found.jobs or found.more or found.later):
                    return
                if not found.jobs or not self._buffer.wanted():
                    self._release_held()
                    await self._alarm.wait(self._delay(found))
        finally:
            await self._session.close()

    async def _step(self) -> float:
        """Claim if there is room; return the seconds to wait, unless woken."""
        try:
            found = await self._claim()
        except (psycopg.Error, DatabaseUnavailableError, RateLimiterError) as error:
            await self._session.close()
            self._check_pause, self._check_at = 1.0, monotonic() + 1.0
            self.doubt()  # and what was notified is still there to be claimed
            await asyncio.sleep(self._outage.failed(error))
            return 0
        self._outage.worked()
        delay = self._delay(found)
        return min(delay, self._pool.intervals.hold) if self._buffer.stalled() else delay

    def _delay(self, found: Found) -> float:
        if found.later:
            return min(self._poll, found.later)
        is_contended = found.more or found.blocked
        if found.jobs or not is_contended:
            self._in_vain = 0
        if not is_contended:
            return self._poll
        if found.jobs and found.more:
            return 0
        self._in_vain = min(self._in_vain + 1, 16)
        return min(self._poll, CONTENDED_DELAY * 2.0 ** (self._in_vain - 1))

    async def _claim(self) -> Found:
        """Do what `_claim_if_room` does; tell if it fails."""
        try:
            return await self._claim_if_room()
        except (psycopg.Error, DatabaseUnavailableError, RateLimiterError) as error:
            self._pool.emit("worker:getJob:error", error=error)
            raise

    async def _claim_if_room(self) -> Found:
        """Claim if there is room; hand over what queues we leave."""
        if self._pool.vigil.is_fenced(monotonic()):
            with self._session.patience(PATIENCE):
                await queue.check(await self._session.connection())
            return Found(more=True)
        if monotonic() > self._check_at:
            self._check_pause *= 2
            is_last = self._check_pause > LATEST_CHECK
            self._check_at = math.inf if is_last else monotonic() + self._check_pause
            self.is_sure = False
        await self.check_locks()
        has_room = self._buffer.wanted() and self._settler.backlog <= LARGEST_BACKLOG
        found = await self._claim_jobs() if has_room else Found()
        await self.hand_over()
        return found

    async def _claim_jobs(self) -> Found:
        notified, self._notified = self._notified, False
        age = monotonic() - self._resolved_at
        if age > self._pool.intervals.resolve:
            await self._resolve()
        found = await self._claim_batch()
        # A notification without a job: perhaps of a task whose id Node's clean-up has replaced.
        if notified and not found.jobs and age > self._poll and await self._resolve():
            found = await self._claim_batch()
        return found

    async def _claim_batch(self) -> Found:
        """Claim once, as many jobs as may be held."""
        wanted = self._buffer.wanted()
        task_ids, limit = self._limits.plan(self._task_ids, wanted)
        if not task_ids:
            return Found()
        self._pool.emit("worker:getJob:start")
        forbidden = await self._throttle.forbidden_flags() if self._throttle else None
        await self.check_locks()
        connection = await self._session.connection()
        self.is_sure = False
        schema, pool_id = self._pool.options.schema, self._pool.id
        begin = monotonic()
        later = max(0.0, self._queues_at - begin)
        with self._session.patience(PATIENCE):
            async with self._session.settings():
                batch = await queue.claim(
                    connection, schema, pool_id, task_ids, limit, forbidden, not later
                )
        self.is_sure = True
        if pool_id != self._pool.id:  # it was declared dead meanwhile, and nobody expects this
            await self._return(connection, pool_id, batch.jobs)
            return Found(more=True)
        batch = await self._without_running(connection, batch)
        ended = monotonic()
        for meter in self._pool.events.meters:
            meter.claimed(batch.jobs[0].locked_at if batch.jobs else None, begin, ended)
        if not later:
            self._plan_look(batch, limit, ended - begin)
        self._freed.difference_update(job.job_queue_id for job in batch.jobs)
        if not batch.jobs:
            self._pool.emit("worker:getJob:empty")
        self._pool.emit_jobs("localQueue:getJobs:complete", batch.jobs)
        if self._buffer.closed:
            self._settler.give_back(batch.jobs)
            return Found()
        fitting, excess = self._limits.admit(batch.jobs, limit)
        self._settler.give_back(excess)
        self._buffer.put(fitting, is_more=batch.more or len(batch.jobs) == limit)
        # A full batch that left room was made small on purpose: there may be more.
        more = batch.more or (len(batch.jobs) == limit and len(fitting) < wanted)
        return Found(len(fitting), more, batch.blocked, later)

    def _plan_look(self, batch: queue.Batch, limit: int, seconds: float) -> None:
        """Leave named queues out for a while if it took long to find next to nothing in them."""
        queued = sum(job.job_queue_id is not None for job in batch.jobs)
        if seconds > LONG_LOOK and batch.blocked and queued < limit / 2:
            self._queues_at = monotonic() + seconds * (1 / QUEUE_SHARE - 1)

    async def hand_over(self) -> None:
        """Tell the others of jobs in queues that we freed and did not take again.

        In a statement of its own: one that was added while its queue was being freed was announced
        too early, and is seen by neither the worker who was told nor the statement that freed it.

        Raises:
            DatabaseUnavailableError: PostgreSQL cannot be reached.
            psycopg.Error: it refused; call again.
        """
        if freed := set(self._freed):
            with self._session.patience(PATIENCE):
                async with self._session.settings() as connection:
                    await queue.hand_over(connection, self._pool.options.schema, freed)
            self._freed -= freed

    async def check_locks(self) -> None:
        """Where there is doubt, compare what we hold in the table with what we know of.

        What a claim took whose answer never came is given back: nobody else would, as we live. What a
        server that crashed has forgotten is locked again, unless others were faster: then it does not
        start here, and a run that has begun is reported when it ends.

        Raises:
            DatabaseUnavailableError: PostgreSQL cannot be reached.
            psycopg.Error: it refused; call again.
        """
        if self.is_sure:
            return
        with self._session.patience(READING):
            connection = await self._session.connection()
            held = await queue.held_jobs(connection, self._pool.options.schema, self._pool.id)
            known, settling = self._known(), self._settler.ids()
            lost = [job for job in held if job.id not in known and job.id not in settling]
            if lost:
                logger.warning("Giving back %d jobs: their claim got no answer", len(lost))
                await self._return(connection, self._pool.id, lost)
            for job in held:
                known.pop(job.id, None)
            if known:
                await self._retake(connection, [*known.values()])
        self.is_sure = True

    def _known(self) -> dict[int, Claimed]:
        """The jobs that wait, run or have run here."""
        jobs = (*self._settler.jobs(), *self._buffer.jobs(), *self._running())
        return {job.id: job for job in jobs}

    async def _retake(self, connection: AsyncConnection[Any], jobs: Sequence[Claimed]) -> set[int]:
        """Lock jobs again; return which are ours, and drop those of the others that have not started."""
        async with self._pool.retaking:
            ours = await queue.retake(connection, self._pool.options.schema, self._pool.id, jobs)
        others = {job.id for job in jobs} - ours
        dropped = self._buffer.drop(others)
        self._limits.release(*dropped)
        logger.warning(
            "%d jobs were not locked by this worker any more: %d are locked again, %d of the others had "
            "not started and are dropped",
            len(jobs),
            len(ours),
            len(dropped),
        )
        return ours

    async def _without_running(
        self, connection: AsyncConnection[Any], batch: queue.Batch
    ) -> queue.Batch:
        """Leave out what waits or runs here already: the claim of it was forgotten behind our back."""
        known = self._known()
        again = [
            known[job.id]
            for job in batch.jobs
            if job.id in known and known[job.id].attempts == job.attempts
        ]
        if not again:
            return batch
        ours = await self._retake(connection, again)
        return batch._replace(jobs=[job for job in batch.jobs if job.id not in ours])

    async def _return(
        self,
        connection: AsyncConnection[Any],
        pool_id: str,
        jobs: Sequence[queue.Held | queue.Claimed],
    ) -> None:
        await queue.return_jobs(
            connection,
            self._pool.options.schema,
            pool_id,
            [job.id for job in jobs],
            [job.locked_at for job in jobs],
            [None for _ in jobs],
            careful=True,
        )

    async def _resolve(self) -> bool:
        """Look the task ids up; return whether they have changed."""
        connection = await self._session.connection()
        found = await queue.resolve_tasks(connection, self._pool.options.schema, self._pool.tasks)
        before, self._task_ids = self._task_ids, list(found)
        self._pool.identifiers.update(found)
        self._resolved_at = monotonic()
        return set(before) != set(found)

    def _release_held(self) -> None:
        """Give jobs back that wait too long: behind slow ones, or for a pool that gives no beat."""
        is_fenced = self._pool.vigil.is_fenced(monotonic())
        if is_fenced or self._buffer.stalled() > self._pool.intervals.hold:
            held = self._buffer.drain()
            self._limits.release(*held)
            self._settler.give_back(held)
