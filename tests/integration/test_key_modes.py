"""The key-mode matrix of graphile-worker 0.16.6, through `enqueue`, and the keyed race."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from zodworker_compat import EnqueueError, Job, WorkerCatalog, ZodWorker

CATALOG = WorkerCatalog.of(name="test", schema={"t1": True, "t2": True}, tasks={"t1": {}, "t2": {}})
R1 = datetime(2030, 1, 1, tzinfo=UTC)
R2 = datetime(2031, 1, 1, tzinfo=UTC)
OLD = {"task_identifier": "t1", "payload": {"a": 1}, "priority": 7, "max_attempts": 5, "run_at": R1}
NEW = {
    "task_identifier": "t2",
    "payload": {"b": 2},
    "priority": 0,
    "max_attempts": 25,
    "run_at": R2,
}

STATES = {
    "waiting": "attempts = 0",
    "retrying": "attempts = 2, last_error = 'e'",
    "locked": "attempts = 1, locked_at = now(), locked_by = 'w'",
    "locked long ago": "attempts = 1, locked_at = now() - interval '5 hours', locked_by = 'w'",
    "failed": "attempts = 5, last_error = 'e'",
    "failed and locked": "attempts = 5, last_error = 'e', locked_at = now(), locked_by = 'w'",
}


@pytest.fixture
async def connection(database: str) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    async with await psycopg.AsyncConnection.connect(
        database, autocommit=True, row_factory=dict_row
    ) as connection:
        yield connection


async def old_job(worker: ZodWorker, connection: psycopg.AsyncConnection[Any], state: str) -> Job:
    job = await worker.enqueue(
        "t1",
        {"a": 1},
        job_key="k",
        queue_name="q1",
        priority=7,
        max_attempts=5,
        flags=["f1"],
        run_at=R1,
    )
    await connection.execute(f"update graphile_worker._private_jobs set {STATES[state]}")
    return job


async def rows(connection: psycopg.AsyncConnection[Any]) -> list[dict[str, Any]]:
    cursor = await connection.execute("select * from graphile_worker._private_jobs order by id")
    return await cursor.fetchall()


def said(job: Job) -> dict[str, Any]:
    return {name: getattr(job, name) for name in NEW}


@pytest.mark.parametrize("mode", [None, "replace", "preserve_run_at"])
@pytest.mark.parametrize("state", ["waiting", "retrying"])
async def test_a_waiting_job_is_updated(
    worker: ZodWorker, connection: psycopg.AsyncConnection[Any], mode: Any, state: str
) -> None:
    old = await old_job(worker, connection, state)
    new = await worker.enqueue("t2", {"b": 2}, job_key="k", run_at=R2, job_key_mode=mode)

    assert new.id == old.id
    keeps = mode == "preserve_run_at" and state == "waiting"
    assert said(new) == {**NEW, "run_at": R1 if keeps else R2}
    assert (new.attempts, new.last_error, new.revision, new.flags, new.queue_name) == (
        0,
        None,
        1,
        None,
        None,
    )
    assert new.created_at == old.created_at
    assert new.updated_at > old.updated_at


@pytest.mark.parametrize("mode", [None, "replace", "preserve_run_at"])
@pytest.mark.parametrize("state", ["locked", "locked long ago", "failed", "failed and locked"])
async def test_a_job_that_cannot_be_updated_loses_its_key_to_a_new_one(
    worker: ZodWorker, connection: psycopg.AsyncConnection[Any], mode: Any, state: str
) -> None:
    old = await old_job(worker, connection, state)
    new = await worker.enqueue("t2", {"b": 2}, job_key="k", run_at=R2, job_key_mode=mode)

    assert new.id != old.id
    assert said(new) == NEW
    assert (new.key, new.revision, new.attempts) == ("k", 0, 0)
    [left, _] = await rows(connection)
    assert (left["key"], left["attempts"], left["max_attempts"]) == (None, 5, 5)
    assert (left["locked_by"] is not None) == ("locked" in state)
    assert left["payload"] == {"a": 1}


@pytest.mark.parametrize("state", STATES)
async def test_unsafe_dedupe_only_counts(
    worker: ZodWorker, connection: psycopg.AsyncConnection[Any], state: str
) -> None:
    old = await old_job(worker, connection, state)
    [before] = await rows(connection)
    new = await worker.enqueue("t2", {"b": 2}, job_key="k", run_at=R2, job_key_mode="unsafe_dedupe")

    assert new.id == old.id
    assert said(new) == OLD
    assert new.queue_name == "q1"
    [after] = await rows(connection)
    assert after == {**before, "revision": 1, "updated_at": after["updated_at"]}


@pytest.mark.parametrize("mode", [None, "replace", "preserve_run_at", "unsafe_dedupe"])
async def test_a_new_key_is_a_new_job(worker: ZodWorker, mode: Any) -> None:
    new = await worker.enqueue("t2", {"b": 2}, job_key="k", run_at=R2, job_key_mode=mode)
    assert said(new) == NEW
    assert new.revision == 0


@pytest.mark.parametrize(
    ("old", "new", "mode", "stored"),
    [
        ([1], [2, 3], "replace", [1, 2, 3]),
        ([1], [2, 3], "preserve_run_at", [1, 2, 3]),
        ([1], [2, 3], "unsafe_dedupe", [1]),
        ([1], {"a": 1}, "replace", {"a": 1}),
        ({"a": 1}, [1], "replace", [1]),
    ],
)
async def test_array_payloads_are_joined(
    worker: ZodWorker, old: Any, new: Any, mode: Any, stored: Any
) -> None:
    await worker.enqueue("t1", old, job_key="k")
    job = await worker.enqueue("t1", new, job_key="k", job_key_mode=mode)
    assert job.payload == stored


# graphile-worker's own add_job, at the moment of #580: the row is being locked by a worker, so
# the call schedules nothing and returns a row of NULLs. Ours never does, so the function that a
# Node installation has is played by one that does so `nulls` times.
RACE = """
create sequence calls;
create schema original;
alter function graphile_worker.add_job set schema original;
create function graphile_worker.add_job(
    identifier text, payload json = null, queue_name text = null, run_at timestamptz = null,
    max_attempts integer = null, job_key text = null, priority integer = null,
    flags text[] = null, job_key_mode text = 'replace'
) returns graphile_worker._private_jobs language plpgsql as $$
begin
    if nextval('calls') <= {nulls} then return null; end if;
    return original.add_job(
        identifier, payload, queue_name, run_at, max_attempts, job_key, priority, flags, job_key_mode);
end $$
"""


async def test_an_all_null_row_is_retried_until_the_job_is_scheduled(
    worker: ZodWorker, connection: psycopg.AsyncConnection[Any]
) -> None:
    await connection.execute(RACE.format(nulls=3))
    job = await worker.enqueue("t2", {"b": 2}, job_key="k", run_at=R2)
    assert said(job) == NEW
    assert len(await rows(connection)) == 1


async def test_a_race_that_never_ends_is_an_error(
    worker: ZodWorker, connection: psycopg.AsyncConnection[Any]
) -> None:
    await connection.execute(RACE.format(nulls=10_000))
    with pytest.raises(EnqueueError, match="nothing was enqueued"):
        await worker.enqueue("t2", job_key="k")


async def waits_for_a_lock(connection: psycopg.AsyncConnection[Any]) -> bool:
    cursor = await connection.execute(
        "select count(*) as waiting from pg_stat_activity "
        "where datname = current_database() and wait_event_type = 'Lock'"
    )
    row = await cursor.fetchone()
    return row["waiting"] > 0


@pytest.mark.parametrize("many", [False, True])
async def test_a_fetch_that_locks_the_keyed_job_meanwhile_loses_nothing(
    worker: ZodWorker,
    connection: psycopg.AsyncConnection[Any],
    database: str,
    eventually: Callable[..., Any],
    many: bool,
) -> None:
    """The race itself: the fetch has locked the row and not committed when the key is enqueued."""
    old = await worker.enqueue("t1", {"a": 1}, job_key="k")
    async with await psycopg.AsyncConnection.connect(database) as fetcher:
        await fetcher.execute(
            "update graphile_worker._private_jobs set locked_at = now(), locked_by = 'w', attempts = 1"
        )
        if many:
            adding = asyncio.create_task(
                worker.enqueue_many([("t1", 0), ("t2", {"b": 2}, {"job_key": "k", "run_at": R2})])
            )
        else:
            adding = asyncio.create_task(worker.enqueue("t2", {"b": 2}, job_key="k", run_at=R2))
        await eventually(lambda: waits_for_a_lock(connection))
        await fetcher.commit()
    result = await adding
    new = result[-1] if many else result
    assert new.id != old.id
    assert said(new) == NEW
    running = next(row for row in await rows(connection) if row["id"] == int(old.id))
    assert (running["key"], running["locked_by"]) == (None, "w")
