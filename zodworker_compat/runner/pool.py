"""What the parts of one runner share."""

import asyncio
import logging
import random
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from attrs import Factory, define, field, frozen

from zodworker_compat.database.queue import Claimed
from zodworker_compat.database.sessions import Session
from zodworker_compat.events import EVENTS, Events
from zodworker_compat.job import Job
from zodworker_compat.payload.stored import payload_or_none, read_flags
from zodworker_compat.runner.task import RunnableTask
from zodworker_compat.runner.vigil import Vigil
from zodworker_compat.runner_options import RunnerOptions

logger = logging.getLogger("zodworker_compat.runner")


def new_pool_id() -> str:
    """Return "pool-" and 18 hexadecimal digits, as graphile-worker 0.17."""
    return f"pool-{secrets.token_hex(9)}"


@frozen(kw_only=True)
class Intervals:
    """Times that only tests change; all in seconds."""

    sweep_first: float = 60.0
    """The first sweep comes after a random part of this."""
    sweep_least: float = 480.0
    sweep_most: float = 600.0
    resolve: float = 30.0
    """Age at which task ids are looked up again: Node's clean-up may replace them (§ GC)."""
    hold: float = 1.0
    """Age at which jobs that wait in the local buffer are given back to the others."""
    refresh: float = 600.0
    """Time between two looks for locks of our own that are older than an hour."""

    def first_sweep(self) -> float:
        """Return the time to the first sweep."""
        return random.uniform(0, self.sweep_first)  # noqa: S311 - not a secret

    def sweep(self) -> float:
        """Return the time to the next one."""
        return random.uniform(self.sweep_least, self.sweep_most)  # noqa: S311 - not a secret


def _vigil(pool: "Pool") -> Vigil:
    return Vigil(pool.options.dead_after.total_seconds())


@define(kw_only=True, eq=False)
class Pool:
    """Who we are in `locked_by`, what we run and how we connect."""

    name: str
    conninfo: str = field(repr=False)
    options: RunnerOptions
    tasks: Mapping[str, RunnableTask]
    shutdown_timeout: timedelta
    delete_failed_jobs: bool
    intervals: Intervals
    events: Events = Factory(Events)
    on_error: Callable[[Job, BaseException], Any] | None = None
    """Called after a failure is written; sync or async."""
    id: str = Factory(new_pool_id)
    """Another one after the others have declared the pool dead."""
    vigil: Vigil = Factory(_vigil, takes_self=True)
    """Whether it may claim."""
    identifiers: dict[int, str] = Factory(dict)
    """Task id -> identifier, as last resolved."""
    retaking: asyncio.Lock = Factory(asyncio.Lock)
    """Held while jobs are locked again: who tries beside that takes the row for another's."""
    abort: asyncio.Event = Factory(asyncio.Event)
    """Set when the shutdown deadline has come, for async handlers."""
    abort_threads: threading.Event = Factory(threading.Event)
    """The same for sync handlers."""

    def session(
        self, *, fast: bool = False, impatient: bool = False, is_local: bool = False
    ) -> Session:
        """Return a connection of the worker's own, not yet open."""
        return Session(
            self.conninfo,
            application_name=f"zodworker:{self.name}",
            prepared=self.options.prepared_statements,
            fast=fast,
            impatient=impatient,
            is_local=is_local,
        )

    def job(self, claimed: Claimed, payload: object) -> Job:
        """Return the `Job` that a handler sees."""
        return Job(
            id=claimed.id,
            task_identifier=self.identifiers[claimed.task_id],
            queue_name=claimed.queue_name,
            payload=payload,
            priority=claimed.priority,
            run_at=claimed.run_at,
            attempts=claimed.attempts,
            max_attempts=claimed.max_attempts,
            last_error=claimed.last_error,
            created_at=claimed.created_at,
            updated_at=claimed.updated_at,
            key=claimed.key,
            locked_at=claimed.locked_at,
            locked_by=self.id,
            revision=claimed.revision,
            flags=read_flags(claimed.flags),
            job_queue_id=claimed.job_queue_id,
            task_id=claimed.task_id,
            is_available=False,
        )

    def job_of(self, claimed: Claimed) -> Job:
        """Return a claimed job for events and policies; `payload` is None if it is unreadable."""
        return self.job(claimed, payload_or_none(claimed.payload))

    def log_fields(self, claimed: Claimed) -> dict[str, object]:
        """Return what log records say about a job."""
        return {
            "job_id": claimed.id,
            "task_identifier": self.identifiers[claimed.task_id],
            "attempt": claimed.attempts,
            "queue_name": claimed.queue_name,
            "worker": self.name,
        }

    def emit(self, name: str, /, **fields: Any) -> None:
        """Tell the listeners of event `name`, if there are any."""
        if name in self.events.heard:
            self.events.emit(name, EVENTS[name](**{"pool_id": self.id, **fields}))

    def emit_job(self, name: str, claimed: Claimed, **fields: Any) -> None:
        """Tell the listeners of an event about a job, which is made for them only."""
        if name in self.events.heard:
            self.emit(name, job=self.job_of(claimed), **fields)

    def emit_jobs(self, name: str, claimed: Sequence[Claimed]) -> None:
        """The same for an event about several jobs; none for no job."""
        if claimed and name in self.events.heard:
            self.emit(name, jobs=[self.job_of(job) for job in claimed])
