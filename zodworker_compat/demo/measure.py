"""What the workers of the demo do, counted and timed while they do it."""

import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Unpack

from attrs import define, field, frozen

from zodworker_compat.client.prepare import UNDEFINED, Options
from zodworker_compat.demo.outcome import WORKER_OF, Counts
from zodworker_compat.handlers import payload_type_of
from zodworker_compat.job import Job
from zodworker_compat.runner.task import positional_count
from zodworker_compat.worker import Handler, ZodWorker


@frozen
class Attempt:
    """One call of a handler; times in seconds."""

    wait: float
    """From the moment it was due until it began."""
    run: float
    ended_at: float
    """On the monotonic clock."""
    error: bool
    last: bool
    """The job ended with it, well or not."""


@define
class Measurements:
    """Every enqueue and every attempt of a demo."""

    clock_ahead: float = 0.0
    """Seconds by which this machine's clock is ahead of the database's."""
    enqueues: int = 0
    jobs: dict[str, set[str]] = field(factory=lambda: defaultdict(set))
    """Ids of the jobs, by task identifier."""
    attempts: dict[str, list[Attempt]] = field(factory=lambda: defaultdict(list))
    """By task identifier."""

    def enqueued(self, job: Job) -> None:
        """Note what an enqueue gave."""
        self.enqueues += 1
        self.jobs[job.task_identifier].add(job.id)

    def counts(self) -> dict[str, Counts]:
        """Return the counts of every task of the flow."""
        return {identifier: self._counts(identifier) for identifier in WORKER_OF}

    def _counts(self, identifier: str) -> Counts:
        attempts = self.attempts[identifier]
        return Counts(
            enqueued=len(self.jobs[identifier]),
            done=sum(not attempt.error for attempt in attempts),
            retried=sum(attempt.error and not attempt.last for attempt in attempts),
            failed=sum(attempt.error and attempt.last for attempt in attempts),
        )

    @property
    def debounced(self) -> int:
        """Enqueues that replaced a waiting job."""
        return self.enqueues - sum(map(len, self.jobs.values()))

    @property
    def done(self) -> int:
        """Jobs that ended, well or not."""
        return sum(attempt.last for attempts in self.attempts.values() for attempt in attempts)

    async def time(self, handler: Callable[..., Any], *arguments: Any) -> None:
        """Call a handler, whose second argument is the job, and note how it went."""
        job: Job = arguments[1]
        due = job.run_at.timestamp() + self.clock_ahead
        wait = max(0.0, datetime.now(UTC).timestamp() - due)
        started, error = time.monotonic(), True
        try:
            await handler(*arguments[: positional_count(handler)])
            error = False
        finally:
            ended = time.monotonic()
            last = not error or job.is_last_attempt
            attempt = Attempt(wait, ended - started, ended, error, last)
            self.attempts[job.task_identifier].append(attempt)


class MeasuredWorker(ZodWorker):
    """A ZodWorker that notes what it does."""

    def __init__(self, measurements: Measurements, **options: Any) -> None:
        super().__init__(**options)
        self._measurements = measurements

    async def enqueue(
        self,
        identifier: str,
        payload: Any = UNDEFINED,
        *,
        tx: object = None,
        **options: Unpack[Options],
    ) -> Job:
        """Add a job and note it."""
        job = await super().enqueue(identifier, payload, tx=tx, **options)
        self._measurements.enqueued(job)
        return job

    def task(
        self,
        identifier: str,
        *,
        schema: Mapping[str, Any] | bool | None = None,
        payload_type: Any = None,
        **options: Any,
    ) -> Callable[[Handler], Handler]:
        """Register a handler whose calls are timed."""

        def register(handler: Handler) -> Handler:
            async def timed(payload: Any, job: Job, helpers: Any) -> None:
                await self._measurements.time(handler, payload, job, helpers)

            typed = payload_type or payload_type_of(handler)
            super(MeasuredWorker, self).task(
                identifier, schema=schema, payload_type=typed, **options
            )(timed)
            return handler

        return register
