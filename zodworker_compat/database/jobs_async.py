"""Jobs added and removed on one connection: by plain statements where possible, else by the functions.

A plain statement takes half the time of graphile-worker's `add_job` and `add_jobs`. It does the same
if all names are known, the job of the key is available or not there, and no trigger sees to it.
"""

from collections.abc import Collection, Sequence
from typing import Any, TypeGuard

from psycopg import AsyncConnection

from zodworker_compat.database.batch import (
    added_jobs,
    assign,
    batch_parameters,
    document,
)
from zodworker_compat.database.rows_async import cursor_of, job_of
from zodworker_compat.database.statements import statement
from zodworker_compat.errors import EnqueueError
from zodworker_compat.garbage import no_collection
from zodworker_compat.job import Job
from zodworker_compat.options import JobSpec, as_dict

# Each retry needs another worker to take the same key's job in a window of microseconds.
MOST_TRIES = 100


async def add_job(connection: AsyncConnection[Any], schema: str, spec: JobSpec) -> Job:
    """Add a job as graphile-worker's `add_job` does, and return it.

    Raises:
        psycopg.Error: what PostgreSQL refuses; the caller's transaction is aborted then.
    """
    if not (spec.job_key and spec.job_key_mode == "unsafe_dedupe"):
        parameters = as_dict(spec)
        parameters["preserve_run_at"] = spec.job_key_mode == "preserve_run_at"
        async with cursor_of(connection) as cursor:
            await cursor.execute(_insertion("insert_job", schema, spec.job_key), parameters)
            [job] = added_jobs([spec], cursor)
        if job:
            return job
    return await _call_add_job(connection, schema, spec)


async def _call_add_job(connection: AsyncConnection[Any], schema: str, spec: JobSpec) -> Job:
    """Call graphile-worker's `add_job`.

    An all-NULL row means that a worker was locking the job of the same key and nothing was
    scheduled (graphile-worker #580, trap T5): by now that lock is visible, so the call is made
    again (departure 2).
    """
    parameters = as_dict(spec)
    for _ in range(MOST_TRIES):
        async with cursor_of(connection) as cursor:
            await cursor.execute(statement("add_job", schema), parameters)
            row = await cursor.fetchone()
        if row and row["id"] is not None:
            return job_of(row)
    raise EnqueueError(
        f"The job with key {spec.job_key!r} was being locked by a worker {MOST_TRIES} times in a row; "
        "nothing was enqueued. Try again."
    )


async def insert_jobs(
    connection: AsyncConnection[Any], schema: str, specs: Sequence[JobSpec]
) -> list[Job | None]:
    """Add jobs whose keys, if any, have one mode other than `unsafe_dedupe`, in one statement.

    Returns:
        The jobs in the order of `specs`; None for those that `add_jobs` must add. Without keys
        these are all or none.
    """
    key = next((spec.job_key for spec in specs if spec.job_key), None)
    async with cursor_of(connection) as cursor:
        query = _insertion("insert_jobs", schema, key)
        await cursor.execute(query, batch_parameters(specs))
        with no_collection():
            return added_jobs(specs, cursor)


def _insertion(name: str, schema: str, job_key: str | None) -> bytes:
    """Return a statement; without a key also without its clause, which costs a WAL record per row."""
    return statement(name, schema, without=None if job_key else "keyed")


def is_complete(added: list[Job | None]) -> TypeGuard[list[Job]]:
    """Whether every job was added."""
    return not any(job is None for job in added)


async def add_jobs(
    connection: AsyncConnection[Any], schema: str, specs: Sequence[JobSpec]
) -> list[Job]:
    """Add all jobs and return them in the order of `specs`; call it inside a transaction.

    Jobs whose keys share one of the modes `replace` and `preserve_run_at` go in one statement;
    others are added one by one, because `add_jobs` knows one mode for the whole batch.

    Raises:
        psycopg.Error: what PostgreSQL refuses; nothing is enqueued once the transaction ends.
    """
    modes = {spec.job_key_mode or "replace" for spec in specs if spec.job_key}
    if len(modes) > 1 or "unsafe_dedupe" in modes:
        # In the order of the keys: batches that share some do not wait for each other in a circle.
        order = sorted(range(len(specs)), key=lambda index: specs[index].job_key or "")
        added = {index: await add_job(connection, schema, specs[index]) for index in order}
        return [added[index] for index in range(len(specs))]
    jobs = await insert_jobs(connection, schema, specs)
    left = [spec for spec, job in zip(specs, jobs, strict=True) if job is None]
    rest = iter(await _call_add_jobs(connection, schema, left, modes) if left else ())
    return [next(rest) if job is None else job for job in jobs]


async def _call_add_jobs(
    connection: AsyncConnection[Any], schema: str, specs: Sequence[JobSpec], modes: Collection[str]
) -> list[Job]:
    """Call graphile-worker's `add_jobs`."""
    async with cursor_of(connection) as cursor:
        await cursor.execute(
            statement("add_jobs", schema),
            {"specs": document(specs), "preserve_run_at": "preserve_run_at" in modes},
        )
        rows = await cursor.fetchall()
        await cursor.execute(
            statement("names_of", schema),
            {
                "task_ids": list({row["task_id"] for row in rows}),
                "queue_ids": list({row["job_queue_id"] for row in rows} - {None}),
            },
        )
        names = {(name["kind"], name["id"]): name["name"] for name in await cursor.fetchall()}
    for row in rows:
        row["task_identifier"] = names["task", row["task_id"]]
        row["queue_name"] = names.get(("queue", row["job_queue_id"]))
    return [
        job_of(row) if row else await _add_missing(connection, schema, spec)
        for spec, row in zip(specs, assign(specs, rows), strict=True)
    ]


async def _add_missing(connection: AsyncConnection[Any], schema: str, spec: JobSpec) -> Job:
    if spec.job_key is None:
        raise EnqueueError(
            f"PostgreSQL did not store a job of {spec.identifier!r}: a trigger on _private_jobs "
            "must have dropped it. Roll the transaction back; nothing else explains it."
        )
    return await _call_add_job(connection, schema, spec)  # its row was being locked, trap T5


async def remove_job(connection: AsyncConnection[Any], schema: str, job_key: str) -> Job | None:
    """Call graphile-worker's `remove_job`; None if no job has that key (P-35)."""
    async with cursor_of(connection) as cursor:
        await cursor.execute(statement("remove_job", schema), {"job_key": job_key})
        row = await cursor.fetchone()
    return job_of(row) if row and row["id"] is not None else None
