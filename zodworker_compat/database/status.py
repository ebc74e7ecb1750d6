"""What is in the queue: jobs by state, task, queue and worker."""

from datetime import datetime, timedelta
from typing import Any

from attrs import field, frozen
from psycopg import AsyncConnection
from psycopg.rows import dict_row

from zodworker_compat.database.statements import statement
from zodworker_compat.errors import MigrationError


@frozen(kw_only=True)
class Counts:
    """Jobs by state. The states exclude each other: every job is counted once."""

    ready: int = 0
    """Due, and waiting for a worker (or for its named queue)."""
    scheduled: int = 0
    """To run later: postponed by their caller, or waiting for a retry."""
    running: int = 0
    """Locked by a worker, dead or alive."""
    failed: int = 0
    """Out of attempts: they stay until somebody retries or removes them."""
    oldest_ready: timedelta | None = None
    """How long the job that was due first has been due."""
    total: int = field(init=False)

    @total.default
    def _sum(self) -> int:
        return self.ready + self.scheduled + self.running + self.failed


@frozen(kw_only=True)
class TaskCounts(Counts):
    """Jobs of one task; only tasks that have any."""

    identifier: str


@frozen(kw_only=True)
class QueueCounts(Counts):
    """Jobs of one named queue; only queues that have any."""

    queue_name: str
    locked_by: str | None
    """The worker that runs a job of it now."""


@frozen(kw_only=True)
class WorkerLocks:
    """What one worker holds; Node's workers and Python's alike, under the names they lock with."""

    locked_by: str
    jobs: int
    queues: int
    since: datetime | None
    """When it took the oldest of them, by the database's clock."""


@frozen(kw_only=True)
class Status:
    """One snapshot of a queue."""

    database: str
    schema: str
    revision: int | None
    jobs: Counts
    tasks: list[TaskCounts]
    queues: list[QueueCounts]
    workers: list[WorkerLocks]
    hidden_from: str | None
    """The role, if row level security keeps jobs from it: then the numbers may be too small."""
    owner: str
    """The role that sees every job."""


async def read_status(connection: AsyncConnection[Any], schema: str) -> Status:
    """Read a queue's status: one pass over its jobs, without locks.

    Raises:
        MigrationError: the schema holds no queue.
        psycopg.Error: the role may not read it.
    """
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(statement("status_schema", schema), {"schema": schema})
        about = await cursor.fetchone()
        if about is None:
            raise MigrationError(f"The schema {schema!r} has no table _private_jobs.")
        await cursor.execute(statement("status_counts", schema), {})
        rows: dict[str, list[dict[str, Any]]] = {"all": [], "task": [], "queue": [], "worker": []}
        for row in await cursor.fetchall():
            rows[row.pop("kind")].append(row)
    return Status(
        database=about["database"],
        schema=schema,
        revision=about["revision"],
        jobs=Counts(**_states(rows["all"][0])),
        tasks=[TaskCounts(identifier=row["name"], **_states(row)) for row in rows["task"]],
        queues=[
            QueueCounts(queue_name=row["name"], locked_by=row["locked_by"], **_states(row))
            for row in rows["queue"]
        ],
        workers=[
            WorkerLocks(
                locked_by=row["name"],
                jobs=row["running"],
                queues=row["queues"],
                since=row["since"],
            )
            for row in rows["worker"]
        ],
        hidden_from=about["role"] if about["row_security"] else None,
        owner=about["owner"],
    )


def _states(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in ("ready", "scheduled", "running", "failed", "oldest_ready")}
