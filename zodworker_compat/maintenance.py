"""The two recurring tasks that ZodWorker brings along: `__cleanupOldJobs` and `__reporter`."""

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any, Final, TypeAlias

from attrs import Attribute, field, frozen

from zodworker_compat.client.client_async import AsyncClient
from zodworker_compat.cron import CronOptions
from zodworker_compat.database import maintenance
from zodworker_compat.errors import ConfigurationError
from zodworker_compat.recurring import CronRun
from zodworker_compat.runner.task import is_async
from zodworker_compat.runner_options import as_timedelta

logger = logging.getLogger(__name__)

CLEANUP: Final = "__cleanupOldJobs"
REPORTER: Final = "__reporter"
REPORTER_MATCH: Final = "50 * * * *"
METRICS_PERIOD: Final = timedelta(hours=1)

Reporter: TypeAlias = Callable[[str, dict[str, Any]], Any]
"""(event, properties), sync or async; a sync one runs in a thread. Times are datetimes in UTC.

- `cleanup_stats`, after each clean-up: `found` and `deleted` (numbers of jobs), `expirationDate`,
  `ts` (the scheduled minute);
- `queue_metrics`, at `50 * * * *`: `addedCount`, jobs added in the hour before `ts` that are still
  in the table; `totalCount`, all jobs in the table; `ts`.

If it raises, the job that called it fails and is retried; nothing else is harmed.
"""


def _positive(_instance: object, attribute: "Attribute[Any]", value: Any) -> None:
    zero = timedelta(0) if isinstance(value, timedelta) else 0
    if isinstance(value, bool) or value <= zero:
        raise ConfigurationError(
            f"{attribute.name} of cleanup must be greater than zero, got {value!r}"
        )


@frozen(kw_only=True)
class CleanupOptions:
    """Deletes jobs that have failed for good; ZodWorker's `cleanup`.

    Each run deletes, oldest first, unlocked jobs that have no attempts left and whose `run_at` is
    more than `ttl` before the scheduled minute.
    """

    frequency_expression: str
    """Five cron fields, UTC unless `task_options` say otherwise."""
    ttl: timedelta = field(converter=as_timedelta, validator=_positive)
    """A bare number is seconds (ZodWorker counts milliseconds)."""
    max_count: int = field(validator=_positive)
    """How many jobs one run deletes at most."""
    task_options: CronOptions | Mapping[str, Any] = field(factory=CronOptions)
    """Options of the recurring task itself."""


def cleanup_handler(
    client: AsyncClient, options: CleanupOptions, reporter: Reporter | None
) -> Callable[[CronRun], Awaitable[None]]:
    """Return the handler of `__cleanupOldJobs`."""

    async def clean_up(run: CronRun) -> None:
        logger.debug("Received cleanup task", extra={"ts": run.ts})
        expiration = run.ts - options.ttl
        logger.debug("Cleaning up old jobs", extra={"expiration_date": expiration})
        async with client.transaction() as tx:
            found = await maintenance.lock_expired_jobs(
                tx.connection, client.graphile_worker_schema, expiration, options.max_count
            )
            deleted = await client.complete_jobs(found, tx=tx.connection)
        stats = {"found": len(found), "deleted": len(deleted)}
        logger.debug("Cleaned up old jobs", extra=stats)
        if reporter is not None:
            await _report(
                reporter, "cleanup_stats", {**stats, "expirationDate": expiration, "ts": run.ts}
            )

    return clean_up


def reporter_handler(
    client: AsyncClient, reporter: Reporter
) -> Callable[[CronRun], Awaitable[None]]:
    """Return the handler of `__reporter`."""

    async def report(run: CronRun) -> None:
        logger.debug("Received reporter task", extra={"ts": run.ts})
        async with client.transaction() as tx:
            added, total = await maintenance.count_jobs(
                tx.connection, client.graphile_worker_schema, run.ts - METRICS_PERIOD, run.ts
            )
        metrics = {"addedCount": added, "totalCount": total}
        logger.debug("Calculated metrics about the jobs table", extra=metrics)
        await _report(reporter, "queue_metrics", {**metrics, "ts": run.ts})

    return report


async def _report(reporter: Reporter, event: str, properties: dict[str, Any]) -> None:
    call = reporter if is_async(reporter) else _in_thread(reporter)
    result = await call(event, properties)
    if inspect.isawaitable(result):  # a sync wrapper around an async function
        await result


def _in_thread(reporter: Reporter) -> Callable[[str, dict[str, Any]], Awaitable[Any]]:
    return lambda event, properties: asyncio.to_thread(reporter, event, properties)
