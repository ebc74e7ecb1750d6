# Generated from admin_async.py by tools/async_to_sync.py: edit that file and run `make sync`.
"""graphile-worker's admin functions, and its cleanup, on one connection."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias

from psycopg import Connection

from zodworker_compat.database.cleanup import CleanupTask
from zodworker_compat.database.job_filter import JobFilter
from zodworker_compat.database.rows import cursor_of, job_of
from zodworker_compat.database.statements import statement
from zodworker_compat.job import Job

_DELETES: Final[Mapping[CleanupTask, str]] = {
    "DELETE_PERMAFAILED_JOBS": "admin_delete_failed",
    "GC_TASK_IDENTIFIERS": "admin_delete_tasks",
    "GC_JOB_QUEUES": "admin_delete_queues",
}

Act: TypeAlias = Literal["complete", "fail", "reschedule"]

BATCH: Final = 1000
"""Jobs changed in one transaction: 10 to 40 ms, so that workers never wait long for a row."""


def complete_jobs(connection: Connection[Any], schema: str, ids: Sequence[int]) -> list[Job]:
    """Call graphile-worker's `complete_jobs`: delete the jobs that no worker holds."""
    return _changed(connection, "admin_complete", schema, {"ids": ids})


def permanently_fail_jobs(
    connection: Connection[Any], schema: str, ids: Sequence[int], reason: str | None
) -> list[Job]:
    """Call graphile-worker's `permanently_fail_jobs`; a reason of None is its default text."""
    return _changed(connection, "admin_fail", schema, {"ids": ids, "reason": reason})


def reschedule_jobs(
    connection: Connection[Any], schema: str, ids: Sequence[int], changes: Mapping[str, Any]
) -> list[Job]:
    """Call graphile-worker's `reschedule_jobs`.

    Args:
        connection: where the statement runs.
        schema: the queue's schema.
        ids: the jobs.
        changes: `run_at`, `priority`, `attempts` and `max_attempts`; None leaves a column.
    """
    return _changed(connection, "admin_reschedule", schema, {"ids": ids, **changes})


def force_unlock_workers(
    connection: Connection[Any], schema: str, worker_ids: Sequence[str]
) -> None:
    """Call graphile-worker's `force_unlock_workers`."""
    connection.execute(statement("admin_unlock", schema), {"worker_ids": worker_ids})


def act_on(
    connection: Connection[Any],
    schema: str,
    act: Act,
    where: JobFilter,
    changes: Mapping[str, Any] | None = None,
) -> Iterator[list[int]]:
    """Do the same to all jobs that a filter finds, batch by batch, each in its own transaction.

    Jobs that a worker has held for less than four hours are stepped over, as by graphile-worker's
    functions, and so are rows that an open transaction holds. Jobs that are added meanwhile are
    left alone.

    Args:
        connection: in autocommit.
        schema: the queue's schema.
        act: `complete`, `fail` (changes: `reason`), `reschedule` (changes: `run_now` or `run_at`,
            `priority`, `attempts`, `max_attempts`).
        where: which jobs; it is checked again as each row is locked.
        changes: what the act sets.

    Yields:
        The ids of each batch, when it is committed.
    """
    with cursor_of(connection) as cursor:
        cursor.execute(statement("admin_last_id", schema), {})
        row = cursor.fetchone()
        parameters = {
            **where.parameters(),
            **(changes or {}),
            "limit": BATCH,
            "last_id": row["id"] if row else 0,
            "after_id": -1,
        }
        while parameters["after_id"] is not None:
            # Not prepared: the plan must be for these values, see `job_filter.sql`.
            cursor.execute(statement(f"admin_{act}_where", schema), parameters, prepare=False)
            row = cursor.fetchone()
            parameters["after_id"] = row["last"] if row else None
            if row and row["ids"]:
                yield row["ids"]


def cleanup(
    connection: Connection[Any], schema: str, task: CleanupTask, keep: Collection[str]
) -> int:
    """Run one cleanup task and return how many rows it deleted; call it inside a transaction.

    Raises:
        psycopg.errors.LockNotAvailable: a transaction that may have added jobs stays open.
        psycopg.errors.InvalidTransactionState: the isolation level is not READ COMMITTED.
    """
    if task != "DELETE_PERMAFAILED_JOBS":
        connection.execute(statement("admin_lock_names", schema), {})
    cursor = connection.execute(statement(_DELETES[task], schema), {"keep": list(keep)})
    return cursor.rowcount


def _changed(
    connection: Connection[Any], name: str, schema: str, parameters: Mapping[str, Any]
) -> list[Job]:
    with cursor_of(connection) as cursor:
        cursor.execute(statement(name, schema), parameters)
        return [job_of(row) for row in cursor.fetchall()]
