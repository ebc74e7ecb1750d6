"""Writes what became of the jobs: in batches, owner-checked, until it is written."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from time import monotonic
from typing import NamedTuple

import psycopg
from attrs import define, field

from zodworker_compat.database import queue
from zodworker_compat.database.queue import Claimed
from zodworker_compat.errors import DatabaseUnavailableError
from zodworker_compat.runner.alarm import Alarm
from zodworker_compat.runner.outage import Outage
from zodworker_compat.runner.pool import Pool, logger

LARGEST_BACKLOG = 2000
"""Results that may wait for the database before no more jobs are claimed."""


class Done(NamedTuple):
    """A job to be deleted."""

    job: Claimed
    seconds: float
    error: str | None = None
    """Why it failed for good, if it is deleted for that."""


class Given(NamedTuple):
    """A job to be failed or given back, with its `last_error`."""

    job: Claimed
    message: str | None


@define
class Results:
    """What waits to be written."""

    done: list[Done] = field(factory=list)
    failed: list[Given] = field(factory=list)
    returned: list[Given] = field(factory=list)

    def __len__(self) -> int:
        return len(self.done) + len(self.failed) + len(self.returned)

    def in_named_queue(self) -> bool:
        """Whether writing them frees a named queue."""
        results: Sequence[Done | Given] = [*self.done, *self.failed, *self.returned]
        return any(result.job.job_queue_id is not None for result in results)


class Settler:
    """Collects results while a statement runs, and writes all of them with the next.

    So nothing is held longer than one round trip, and batches grow with the load.
    """

    def __init__(self, pool: Pool, on_settled: Callable[[bool], None]) -> None:
        self._pool = pool
        self._on_settled = on_settled
        self._session = pool.session(fast=True)
        self._waiting = Results()
        self._writing = Results()
        self._alarm = Alarm()
        self._outage = Outage(logger, "settle jobs")
        self._deadline: float | None = None

    @property
    def backlog(self) -> int:
        """How many results are not written yet."""
        return len(self._waiting) + len(self._writing)

    def complete(self, job: Claimed, seconds: float) -> None:
        """Have a finished job deleted."""
        self._waiting.done.append(Done(job, seconds))
        self._alarm.pulse()

    def fail(self, job: Claimed, message: str) -> None:
        """Have a failed job postponed."""
        self._waiting.failed.append(Given(job, message))
        self._alarm.pulse()

    def delete_failed(self, job: Claimed, message: str) -> None:
        """Have a job deleted that has failed for good."""
        self._waiting.done.append(Done(job, 0.0, message))
        self._alarm.pulse()

    def give_back(self, jobs: Sequence[Claimed], message: str | None = None) -> None:
        """Have jobs unlocked as if they had not been claimed."""
        self._waiting.returned.extend(Given(job, message) for job in jobs)
        self._alarm.pulse()

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
            while self._waiting or self._deadline is None:
                if not self._waiting:
                    await self._alarm.wait()
                self._waiting, self._writing = Results(), self._waiting
                freed = self._writing.in_named_queue()
                await self._write()
                self._on_settled(freed)
        finally:
            await self._session.close()

    def close(self, seconds: float) -> None:
        """Let `run` return when all is written; give up after `seconds`."""
        self._deadline = monotonic() + seconds
        self._alarm.pulse()

    async def _write(self) -> None:
        retried = False
        while self._writing:
            try:
                await self._write_once(retried=retried)
                self._outage.worked()
            except (psycopg.Error, DatabaseUnavailableError) as error:
                delay = self._outage.failed(error)
                retried = True
                await self._session.close()
                if self._deadline is not None and monotonic() + delay > self._deadline:
                    logger.error(
                        "Gave up settling %d jobs; they stay locked by %s until they are unlocked",
                        len(self._writing),
                        self._pool.id,
                    )
                    self._writing = Results()
                    return
                await asyncio.sleep(delay)

    async def _write_once(self, *, retried: bool) -> None:
        connection = await self._session.connection()
        schema, pool_id, batch = self._pool.options.schema, self._pool.id, self._writing
        if batch.done:
            ids = [result.job.id for result in batch.done]
            self._report_lost(await queue.complete(connection, schema, pool_id, ids), retried)
            self._report_done(batch.done)
            batch.done = []
        for results, write in (
            (batch.failed, queue.fail),
            (batch.returned, queue.return_jobs),
        ):
            if results:
                ids = [result.job.id for result in results]
                messages = [result.message for result in results]
                try:
                    lost = await write(connection, schema, pool_id, ids, messages)
                except psycopg.DataError:  # the database's encoding is not UTF-8
                    lost = await write(
                        connection, schema, pool_id, ids, list(map(_ascii, messages))
                    )
                self._report_lost(lost, retried)
                results.clear()

    def _report_done(self, results: Sequence[Done]) -> None:
        for job, seconds, error in results:
            if error is not None:
                logger.error(
                    "Job failed after max attempts", extra={**self._extra(job), "error": error}
                )
            elif logger.isEnabledFor(logging.INFO):
                identifier = self._pool.identifiers[job.task_id]
                logger.info(
                    "Completed job %d (%s, %.2f ms, attempt %d of %d)",
                    job.id,
                    identifier,
                    seconds * 1000,
                    job.attempts,
                    job.max_attempts,
                    extra=self._extra(job),
                )

    def _report_lost(self, lost: Sequence[int], retried: bool) -> None:
        for job_id in lost:
            if retried:
                logger.info(
                    "Job %d was settled before the connection was lost, or not ours", job_id
                )
            else:
                logger.warning(
                    "Job %d was not ours any more when it ended: its lock was taken away, "
                    "it may run again elsewhere; its result here changed nothing",
                    job_id,
                    extra={"job_id": job_id},
                )

    def _extra(self, job: Claimed) -> dict[str, object]:
        return {
            "job_id": job.id,
            "task_identifier": self._pool.identifiers[job.task_id],
            "attempt": job.attempts,
        }


def _ascii(message: str | None) -> str | None:
    return message and message.encode("ascii", "backslashreplace").decode()
