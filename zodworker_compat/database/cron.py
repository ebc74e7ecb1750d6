"""What recurring tasks write: who is known since when, and the jobs of one minute."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection

from zodworker_compat.cron import KnownCrontab
from zodworker_compat.database.jobs_async import add_job
from zodworker_compat.database.rows_async import cursor_of
from zodworker_compat.database.statements import statement
from zodworker_compat.options import JobSpec, as_dict


async def register(
    connection: AsyncConnection[Any], schema: str, identifiers: Sequence[str], start: datetime
) -> dict[str, KnownCrontab]:
    """Make cron items known since `start` unless they are known already; return all of them."""
    async with cursor_of(connection) as cursor:
        await cursor.execute(
            statement("cron_register", schema), {"identifiers": identifiers, "start": start}
        )
        await cursor.execute(statement("cron_known", schema), {"identifiers": identifiers})
        return {row["identifier"]: KnownCrontab(**row) for row in await cursor.fetchall()}


async def schedule(
    connection: AsyncConnection[Any],
    schema: str,
    minute: datetime,
    jobs: Sequence[tuple[JobSpec, str]],
) -> list[str]:
    """Enqueue the jobs of one minute that nobody has enqueued yet, in one transaction.

    Args:
        connection: outside a transaction.
        schema: the queue's schema.
        minute: what `last_execution` becomes.
        jobs: (job, identifier of its cron item); no identifier twice.

    Returns:
        The identifiers whose jobs were enqueued here.
    """
    document = [
        {
            **as_dict(spec),
            "position": position,
            "cron_identifier": identifier,
            "run_at": spec.run_at and spec.run_at.isoformat(),
        }
        for position, (spec, identifier) in enumerate(jobs)
    ]
    parameters = {"specs": json.dumps(document), "minute": minute}
    async with connection.transaction(), cursor_of(connection) as cursor:
        await cursor.execute(statement("cron_schedule", schema), parameters)
        rows = await cursor.fetchall()
        for row in rows:
            if row["id"] is None:  # a job of its key was being locked: nothing was added (T5)
                await add_job(connection, schema, jobs[row["position"]][0])
    return [jobs[row["position"]][1] for row in rows]
