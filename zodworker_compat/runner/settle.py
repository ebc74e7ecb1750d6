"""Writes what became of the jobs: in batches, owner-checked, until it is written."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, Final, NamedTuple, Protocol

import psycopg
from attrs import define, evolve, field
from psycopg import AsyncConnection

from zodworker_compat.database import queue
from zodworker_compat.database.queue import Claimed, Unsettled
from zodworker_compat.database.refusals import is_about_rows
from zodworker_compat.errors import DatabaseUnavailableError
from zodworker_compat.observability.logs import milliseconds
from zodworker_compat.runner.alarm import Alarm
from zodworker_compat.runner.failure import Failure, plain_failure
from zodworker_compat.runner.outage import Outage
from zodworker_compat.runner.pool import Pool, logger

LAST_RESORT: Final = 6
"""Tries, over a minute, after which a job whose row PostgreSQL does not let us delete is failed."""
LONGEST_REFUSAL: Final = 60.0
"""Seconds between two tries to write what PostgreSQL refuses."""
BUSY_DELAY: Final = 0.25
"""Seconds until a job is tried again whose row an open transaction holds."""
PATIENCE: Final = 30.0
"""Seconds that a statement may take; longer, and its server process hangs, or it is tried in halves."""
LARGEST_BACKLOG = 2000
"""Results that may wait for the database before no more jobs are claimed."""


class Result(NamedTuple):
    """What became of one job."""

    job: Claimed
    seconds: float | None = None
    """How long the run took, if it succeeded."""
    failure: Failure | None = None
    message: str | None = None
    """The `last_error` to write."""
    refused: int = 0
    """How many times PostgreSQL has refused to write it."""


class _Write(Protocol):
    async def __call__(
        self, connection: AsyncConnection[Any], results: Sequence[Result], *, careful: bool
    ) -> list[Unsettled]: ...


@define
class Results:
    """What waits to be written."""

    done: list[Result] = field(factory=list)
    """Jobs to be deleted."""
    failed: list[Result] = field(factory=list)
    """Jobs to be postponed."""
    returned: list[Result] = field(factory=list)
    """Jobs to be given back uncounted."""

    def clear(self) -> None:
        """Forget all."""
        self.done, self.failed, self.returned = [], [], []

    def __len__(self) -> int:
        return len(self.done) + len(self.failed) + len(self.returned)

    def queues(self) -> set[int]:
        """The named queues that writing them frees."""
        results = [*self.done, *self.failed, *self.returned]
        return {queue for result in results if (queue := result.job.job_queue_id) is not None}


class Settler:
    """Collects results while a statement runs, and writes all of them with the next.

    So nothing is held longer than one round trip, and batches grow with the load.
    """

    def __init__(
        self, pool: Pool, on_settled: Callable[[set[int]], None], on_doubt: Callable[[], None]
    ) -> None:
        """Nothing is connected yet.

        Args:
            pool: whose jobs it settles.
            on_settled: called with the named queues that were freed.
            on_doubt: called when a job was not the pool's any more, or the connection was lost.
        """
        self._pool = pool
        self._on_settled = on_settled
        self._on_doubt = on_doubt
        self._session = pool.session(fast=True, impatient=True)
        self._waiting = Results()
        self._writing = Results()
        self._busy = Results()  # rows that an open transaction of somebody's holds
        self._refused = Results()  # rows that PostgreSQL does not let us change
        self._alarm = Alarm()
        self._outage = Outage(logger, "settle jobs")
        self._tried_busy = 0.0
        self._refused_at = 0.0
        self._left: set[int] = set()
        self._deadline: float | None = None

    def ids(self) -> set[int]:
        """The jobs whose results are not written yet, or never will be."""
        waiting = {
            result.job.id
            for results in (self._waiting, self._writing, self._busy, self._refused)
            for part in (results.done, results.failed, results.returned)
            for result in part
        }
        return waiting | self._left

    def jobs(self) -> list[Claimed]:
        """The jobs that have run, and whose results are not written yet."""
        return [
            result.job
            for results in (self._waiting, self._writing, self._busy, self._refused)
            for part in (results.done, results.failed)
            for result in part
        ]

    @property
    def backlog(self) -> int:
        """How many results are not written yet, without those that are refused."""
        return len(self._waiting) + len(self._writing) + len(self._busy)

    def complete(self, job: Claimed, seconds: float) -> None:
        """Have a finished job deleted."""
        self._waiting.done.append(Result(job, seconds))
        self._alarm.pulse()

    def fail(self, job: Claimed, failure: Failure) -> None:
        """Have a failed job postponed, or deleted if its failure says so."""
        waiting = self._waiting.done if failure.is_deleted else self._waiting.failed
        waiting.append(Result(job, failure=failure, message=failure.message))
        self._alarm.pulse()

    def give_back(self, jobs: Sequence[Claimed], message: str | None = None) -> None:
        """Have jobs unlocked as if they had not been claimed."""
        if not jobs:
            return
        self._waiting.returned.extend(Result(job, message=message) for job in jobs)
        self._alarm.pulse()
        self._pool.emit_jobs("localQueue:returnJobs", jobs)

    async def connect(self) -> None:
        """Open the connection.

        Raises:
            DatabaseUnavailableError: PostgreSQL cannot be reached.
        """
        await self._session.connection()

    async def disconnect(self) -> None:
        """Close the connection."""
        await self._session.close()

    async def run(self) -> None:
        """Write until closed and empty."""
        try:
            while self.backlog or self._refused or self._deadline is None:
                if not self._waiting:
                    await self._alarm.wait(self._rest())
                if self._deadline is not None and self._busy and monotonic() > self._deadline:
                    self._give_up(self._busy)
                self._waiting, self._writing = Results(), self._waiting
                freed = self._writing.queues()
                await self._write(careful=False)
                if self._busy and monotonic() - self._tried_busy >= BUSY_DELAY:
                    self._writing, self._busy = self._busy, Results()
                    self._tried_busy = monotonic()
                    freed |= self._writing.queues()
                    await self._write(careful=True)
                if self._refused and (self._deadline or monotonic() >= self._refused_at):
                    freed |= await self._write_refused()
                self._on_settled(freed)
        finally:
            await self._session.close()

    def _rest(self) -> float | None:
        if self._deadline is not None and self._refused:
            return 0
        if self._busy:
            return BUSY_DELAY
        return max(0, self._refused_at - monotonic()) if self._refused else None

    async def _write_refused(self) -> set[int]:
        """Try again what was refused; return the queues that this may have freed."""
        refused, self._refused = self._refused, Results()
        hopeless = [
            each
            for each in refused.done
            if each.refused >= LAST_RESORT or self._deadline is not None
        ]
        refused.done = [each for each in refused.done if each not in hopeless]
        refused.failed += [self._undeletable(each) for each in hopeless]
        self._writing = refused
        queues = refused.queues()
        await self._write(careful=True)
        if self._deadline is not None and self._refused:
            self._give_up(self._refused)
        return queues

    def _undeletable(self, result: Result) -> Result:
        """Return the result that leaves the job to another attempt, if there is one left."""
        failure = result.failure
        if failure is None:
            error = RuntimeError("the run succeeded, but PostgreSQL refused to delete its job")
            failure = plain_failure(self._pool.job_of(result.job), error, delete_last=False)
        failure = evolve(failure, is_deleted=False)
        return result._replace(seconds=None, failure=failure, message=failure.message)

    def abandon(self) -> None:
        """Forget all that is not being written: the pool has lost its jobs."""
        for results in (self._waiting, self._busy, self._refused):
            for result in (*results.done, *results.failed):
                self.report_lost(result.job)
            results.clear()

    def close(self, seconds: float) -> None:
        """Let `run` return when all is written; give up after `seconds`."""
        self._deadline = monotonic() + seconds
        self._alarm.pulse()

    def report_lost(self, job: Claimed) -> None:
        """Tell that the result of a run changes nothing: somebody took the job's lock away."""
        logger.warning(
            "Job %d was not ours any more: its lock was taken away, it may run again elsewhere; "
            "the result of its run here changes nothing",
            job.id,
            extra=self._pool.log_fields(job),
        )
        self._pool.emit_job("job:lost", job)

    async def _write(self, *, careful: bool) -> None:
        retried = False
        while self._writing:
            try:
                await self._write_once(retried=retried, careful=careful)
                self._outage.worked()
            except (psycopg.Error, DatabaseUnavailableError) as error:
                delay = self._outage.failed(error)
                self._on_doubt()
                retried = retried or not isinstance(error, DatabaseUnavailableError)
                await self._session.close()
                if self._deadline is not None and monotonic() + delay > self._deadline:
                    self._give_up(self._writing)
                    return
                await asyncio.sleep(delay)

    def _give_up(self, results: Results) -> None:
        logger.error(
            "Gave up settling %d jobs; they stay locked by %s until they are recovered",
            len(results),
            self._pool.id,
        )
        self._left |= {
            result.job.id for result in (*results.done, *results.failed, *results.returned)
        }
        results.clear()

    async def _write_once(self, *, retried: bool, careful: bool) -> None:
        await self._write_all("done", self._complete, retried=retried, careful=careful)
        await self._write_all("failed", self._fail, retried=retried, careful=careful)
        await self._write_all("returned", self._return, retried=retried, careful=careful)

    async def _write_all(self, kind: str, write: _Write, *, retried: bool, careful: bool) -> None:
        """Write one kind of results and empty it; one row that is refused or held up harms no other."""
        results: list[Result] = getattr(self._writing, kind)
        size = len(results)
        while results:
            part = results[:size]
            began = monotonic()
            try:
                with self._session.patience(PATIENCE):
                    async with self._session.settings() as connection:
                        unsettled = await write(connection, part, careful=careful)
                        ours = await self._retake(connection, kind, part, unsettled)
            except psycopg.errors.LockNotAvailable:
                if careful:
                    raise
                careful = True
                continue
            except psycopg.Error as error:
                is_too_long = isinstance(error, psycopg.errors.QueryCanceled) and len(part) > 1
                if not (is_too_long or is_about_rows(error)):
                    raise
                size = self._cut_down(kind, results, len(part), error)
                continue
            self._wrote(monotonic() - began)
            results[: len(part)] = [result for result in part if result.job.id in ours]
            part = [result for result in part if result.job.id not in ours]
            size *= 2
            held = {each.id for each in unsettled if each.is_busy}
            getattr(self._busy, kind).extend(result for result in part if result.job.id in held)
            lost = {each.id for each in unsettled} - held - ours
            self._report(
                [result for result in part if result.job.id not in held], lost, retried=retried
            )

    def _cut_down(self, kind: str, results: list[Result], size: int, error: psycopg.Error) -> int:
        """Change or set apart the first `size` results, which were refused; return how many to try next."""
        ascii_only = [result._replace(message=_ascii(result.message)) for result in results[:size]]
        if isinstance(error, psycopg.DataError) and ascii_only != results[:size]:
            results[:size] = ascii_only  # the database's encoding is not UTF-8
        elif size > 1:
            return size // 2
        else:
            self._refuse(kind, results.pop(0), error)
        return size

    async def _retake(
        self,
        connection: AsyncConnection[Any],
        kind: str,
        results: Sequence[Result],
        unsettled: Sequence[Unsettled],
    ) -> set[int]:
        """Return which lost jobs are the pool's again: a server that crashed had forgotten their locks.

        The queues of the others are freed: the row of a job may have been deleted under it.
        """
        ids = {each.id for each in unsettled if not each.is_busy}
        lost = [result.job for result in results if result.job.id in ids]
        if not lost or kind == "returned":
            return set()
        self._on_doubt()
        schema, pool_id = self._pool.options.schema, self._pool.id
        try:
            async with self._pool.retaking, connection.transaction():
                ours = await queue.retake(connection, schema, pool_id, lost)
                others = [job for job in lost if job.id not in ours]
                await queue.free_queues(connection, schema, pool_id, others)
        except psycopg.Error as error:
            if not is_about_rows(error):
                raise
            return set()
        return ours

    async def _complete(
        self, connection: AsyncConnection[Any], results: Sequence[Result], *, careful: bool
    ) -> list[Unsettled]:
        return await queue.complete(
            connection, self._pool.options.schema, self._pool.id, _ids(results), careful=careful
        )

    async def _fail(
        self, connection: AsyncConnection[Any], results: Sequence[Result], *, careful: bool
    ) -> list[Unsettled]:
        failures = [result.failure for result in results if result.failure is not None]
        return await queue.fail(
            connection,
            self._pool.options.schema,
            self._pool.id,
            _ids(results),
            [result.job.locked_at for result in results],
            [result.message for result in results],
            [failure.delay for failure in failures],
            [failure.is_permanent for failure in failures],
            careful=careful,
        )

    async def _return(
        self, connection: AsyncConnection[Any], results: Sequence[Result], *, careful: bool
    ) -> list[Unsettled]:
        return await queue.return_jobs(
            connection,
            self._pool.options.schema,
            self._pool.id,
            _ids(results),
            [result.job.locked_at for result in results],
            [result.message for result in results],
            careful=careful,
        )

    def _report(self, results: Sequence[Result], lost: set[int], *, retried: bool) -> None:
        is_told = logger.isEnabledFor(logging.INFO)
        is_heard = "job:complete" in self._pool.events.heard
        meters = self._pool.events.meters
        for result in results:
            if result.job.id in lost and not retried:
                self.report_lost(result.job)
            elif result.job.id in lost:
                logger.info(
                    "Job %d was settled before the connection was lost, or not ours", result.job.id
                )
            elif result.failure is not None and result.failure.is_deleted:
                logger.error(
                    "Job failed after max attempts",
                    extra={**self._pool.log_fields(result.job), "error": result.message},
                )
            elif is_told and result.seconds is not None:
                self._tell_completed(result.job, result.seconds)
            is_written = retried or result.job.id not in lost
            if is_written and meters:
                self._count(result)
            if result.failure is not None:
                self._after_failure(result.failure, is_written=is_written)
            elif is_heard and result.seconds is not None and is_written:
                self._pool.emit_job("job:complete", result.job, error=None)

    def _wrote(self, seconds: float) -> None:
        for meter in self._pool.events.meters:
            meter.wrote(seconds)

    def _count(self, result: Result) -> None:
        failure = result.failure
        if failure is None and result.seconds is None:  # given back
            return
        for meter in self._pool.events.meters:
            meter.settled(
                self._pool.identifiers[result.job.task_id],
                failed=failure is not None,
                is_last=failure is not None and failure.is_last,
            )

    def _after_failure(self, failure: Failure, *, is_written: bool) -> None:
        if is_written:
            self._pool.emit("job:complete", job=failure.job, error=failure.error)
        if self._pool.on_error is not None:
            self._pool.events.call(self._pool.on_error, failure.job, failure.error)

    def _tell_completed(self, job: Claimed, seconds: float) -> None:
        logger.info(
            "Completed job %d (%s, %.2f ms, attempt %d of %d)",
            job.id,
            self._pool.identifiers[job.task_id],
            seconds * 1000,
            job.attempts,
            job.max_attempts,
            extra={**self._pool.log_fields(job), "duration_ms": milliseconds(seconds)},
        )

    def _refuse(self, kind: str, result: Result, error: psycopg.Error) -> None:
        """Put a result aside for another try: an operator may mend what refuses it."""
        delay = min(LONGEST_REFUSAL, 2.0**result.refused)
        is_first = not self._refused
        getattr(self._refused, kind).append(result._replace(refused=result.refused + 1))
        due = monotonic() + delay
        self._refused_at = due if is_first else min(due, self._refused_at)
        logger.error(
            "PostgreSQL refuses to settle job %d, which stays locked; next try in %g s: %s: %s",
            result.job.id,
            delay,
            type(error).__name__,
            error,
            extra=self._pool.log_fields(result.job),
        )
        self._pool.emit_job("job:refused", result.job, error=error)


def _ids(results: Sequence[Result]) -> list[int]:
    return [result.job.id for result in results]


def _ascii(message: str | None) -> str | None:
    return message and message.encode("ascii", "backslashreplace").decode()
