"""Puts the rate limiter between the claim and the handlers."""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import Any

from zodworker_compat.database import queue
from zodworker_compat.errors import RateLimiterError
from zodworker_compat.job import Job
from zodworker_compat.limiter import RateLimiter, Task
from zodworker_compat.observability.logs import job_fields
from zodworker_compat.payload.stringify import stringify
from zodworker_compat.runner.helpers import Connections
from zodworker_compat.runner.pool import Pool, logger

Call = Callable[[Any], Awaitable[None]]
"""Decodes a stored payload and calls the handler of one claimed job."""


class RescheduledError(Exception):
    """The limiter has put the job back: there is nothing left to settle."""


class Throttle:
    """The limiter of one runner: asks it before each claim, and runs its wrapped tasks."""

    def __init__(self, pool: Pool, limiter: RateLimiter, connections: Connections) -> None:
        self._pool = pool
        self._limiter = limiter
        self._connections = connections
        self._calls: dict[str, Call] = {}
        self._rescheduled: set[str] = set()
        self._wrapped: dict[str, Task] = {
            identifier: limiter.wrap_task(self._call, self._reschedule)
            for identifier, task in pool.tasks.items()
            if task.is_limited
        }

    async def forbidden_flags(self) -> list[str]:
        """Return the flags whose jobs must not be claimed.

        Raises:
            RateLimiterError: the limiter raised, or did not answer with strings.
        """
        await asyncio.sleep(0)  # the jobs claimed before start first: they may take the last slot
        try:
            return _strings(await self._limiter.forbidden_flags())
        except Exception as error:
            raise RateLimiterError(
                f"The rate limiter cannot name the forbidden flags, so no job is claimed: "
                f"{type(error).__name__}: {error}"
            ) from error

    def wraps(self, identifier: str) -> bool:
        """Whether jobs of a task go through the limiter."""
        return identifier in self._wrapped

    async def run(self, payload: Any, job: Job, helpers: Any, call: Call) -> None:
        """Run a job through the limiter.

        Args:
            payload: the stored JSON value.
            job: the job.
            helpers: for the limiter.
            call: what runs if the limiter lets it.

        Raises:
            RescheduledError: the limiter has put it back, whatever else happened.
            Exception: what the limiter or the handler raised.
        """
        self._calls[job.id] = call
        try:
            await self._wrapped[job.task_identifier](payload, job, helpers)
        finally:
            self._calls.pop(job.id, None)  # another run of the same job may have been here
            if job.id in self._rescheduled:
                self._rescheduled.discard(job.id)
                raise RescheduledError

    async def _call(self, payload: Any, job: Job, _helpers: Any) -> None:
        await self._calls[job.id](payload)

    async def _reschedule(self, payload: Any, job: Job) -> None:
        extra = {**job_fields(job), "worker": self._pool.name}
        logger.debug("[worker][%s] Rescheduling task", self._pool.name, extra=extra)
        pool = await self._connections.pool()
        async with pool.connection() as connection:
            added = await queue.reschedule(
                connection,
                self._pool.options.schema,
                self._pool.id,
                int(job.id),
                stringify(payload),
            )
        self._rescheduled.add(job.id)
        if added is None:
            logger.warning(
                "Job %s was not ours any more when the limiter put it back",
                job.id,
                extra=extra,
            )


def _strings(flags: Collection[str] | None) -> list[str]:
    found = [] if flags is None else list(flags)
    if isinstance(flags, str) or not all(isinstance(flag, str) for flag in found):
        raise TypeError(f"expected a collection of strings, got {flags!r}")
    return found
