"""What the parts of one runner share."""

import asyncio
import logging
import secrets
import threading
from collections.abc import Mapping
from datetime import timedelta

from attrs import Factory, field, frozen

from zodworker_compat.database.queue import Claimed
from zodworker_compat.database.sessions import Session
from zodworker_compat.job import Job
from zodworker_compat.runner.task import RunnableTask
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


@frozen(kw_only=True)
class Pool:
    """Who we are in `locked_by`, what we run and how we connect."""

    name: str
    conninfo: str = field(repr=False)
    options: RunnerOptions
    tasks: Mapping[str, RunnableTask]
    shutdown_timeout: timedelta
    delete_failed_jobs: bool
    intervals: Intervals
    id: str = Factory(new_pool_id)
    identifiers: dict[int, str] = Factory(dict)
    """Task id -> identifier, as last resolved."""
    abort: asyncio.Event = Factory(asyncio.Event)
    """Set when the shutdown deadline has come, for async handlers."""
    abort_threads: threading.Event = Factory(threading.Event)
    """The same for sync handlers."""

    def session(self, *, fast: bool = False) -> Session:
        """Return a connection of the worker's own, not yet open."""
        return Session(
            self.conninfo,
            application_name=f"zodworker:{self.name}",
            prepared=self.options.prepared_statements,
            fast=fast,
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
            flags=claimed.flags,
            job_queue_id=claimed.job_queue_id,
            task_id=claimed.task_id,
            is_available=False,
        )
