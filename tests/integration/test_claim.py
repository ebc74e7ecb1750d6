"""What one claim brings."""

import secrets
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection

from zodworker_compat.database import queue

SCHEMA = "graphile_worker"
POOL = "pool-ours"
MEGABYTE = 1_000_000


@pytest.fixture
async def connection(database: str) -> AsyncIterator[AsyncConnection[Any]]:
    async with await AsyncConnection.connect(database, autocommit=True) as connection:
        yield connection


async def tasks(connection: AsyncConnection[Any]) -> list[int]:
    return list(await queue.resolve_tasks(connection, SCHEMA, ["task"]))


async def add(
    connection: AsyncConnection[Any], jobs: int, payload: str = "{}", queue_name: str | None = None
) -> None:
    for _ in range(jobs):
        await connection.execute(
            "select graphile_worker.add_job('task', %s::json, queue_name => %s)",
            (payload, queue_name),
        )


async def test_large_payloads_come_in_several_claims(connection) -> None:
    ids = await tasks(connection)
    # Hexadecimal digits: PostgreSQL stores what compresses in less, and that is what counts.
    await add(connection, 12, f'{{"text": "{secrets.token_hex(MEGABYTE)}"}}')
    first = await queue.claim(connection, SCHEMA, POOL, ids, 100)
    assert 0 < len(first.jobs) < 12
    assert sum(len(job.payload) for job in first.jobs) <= 4 * queue.MOST_BYTES
    assert first.more
    rest = 12 - len(first.jobs)
    while rest:
        batch = await queue.claim(connection, SCHEMA, POOL, ids, 100)
        assert batch.jobs
        rest -= len(batch.jobs)
    assert not batch.more


async def test_one_payload_may_be_larger_than_all_together(connection, monkeypatch) -> None:
    monkeypatch.setattr(queue, "MOST_BYTES", 10)
    ids = await tasks(connection)
    await add(connection, 2, f'{{"text": "{secrets.token_hex(100)}"}}')
    for more in (True, False):
        batch = await queue.claim(connection, SCHEMA, POOL, ids, 100)
        assert (len(batch.jobs), batch.more) == (1, more)


async def test_a_claim_may_leave_named_queues_out(connection) -> None:
    ids = await tasks(connection)
    await add(connection, 2, queue_name="a")
    await add(connection, 1)
    batch = await queue.claim(connection, SCHEMA, POOL, ids, 100, None, False)
    assert [job.queue_name for job in batch.jobs] == [None]
    batch = await queue.claim(connection, SCHEMA, POOL, ids, 100)
    assert [job.queue_name for job in batch.jobs] == ["a"]


async def test_a_full_batch_tells_of_jobs_in_queues_of_others(connection) -> None:
    ids = await tasks(connection)
    await add(connection, 1, queue_name="a")
    await add(connection, 3)
    await connection.execute(
        "update graphile_worker._private_job_queues set locked_by = 'pool-other', locked_at = now()"
    )
    for _ in range(3):
        batch = await queue.claim(connection, SCHEMA, POOL, ids, 1)
        assert (len(batch.jobs), batch.blocked) == (1, True)
    assert not (await queue.claim(connection, SCHEMA, "pool-other", ids, 1)).blocked


async def test_a_claim_does_not_depend_on_statistics(connection) -> None:
    """The plan of an empty table, made once for all values, is right for a full one."""
    await connection.set_autocommit(True)
    connection.prepare_threshold = 1
    await connection.execute("set plan_cache_mode to force_generic_plan")
    ids = await tasks(connection)
    for _ in range(3):
        assert not (await queue.claim(connection, SCHEMA, POOL, ids, 100)).jobs
    await connection.execute(
        "insert into graphile_worker._private_job_queues (queue_name)"
        " select 'q' || n from generate_series(1, 300) n"
    )
    await connection.execute(
        psycopg.sql.SQL(
            "insert into graphile_worker._private_jobs (task_id, job_queue_id) select {}, queue.id"
            " from graphile_worker._private_job_queues as queue, generate_series(1, 10)"
        ).format(ids[0])
    )
    batch = await queue.claim(connection, SCHEMA, POOL, ids, 200)
    assert len({job.job_queue_id for job in batch.jobs}) == len(batch.jobs) > 0
