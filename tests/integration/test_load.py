"""A worker's memory is bounded, whatever the payloads."""

from typing import Any

import pytest

from zodworker_compat.database import queue

RANDOM = "(select string_agg(md5(i::text), '') from generate_series(1, 31250) i)"
REPEATED = "repeat('a', 1000000)"
PAYLOADS = pytest.mark.parametrize(
    ("text", "count", "most"), [(RANDOM, 30, 10), (REPEATED, 100, 90)]
)
"""Of 1 MB each, as SQL; how many; how many MB may be held. PostgreSQL stores the second in 12 kB."""


async def add_large(jobs, text: str, count: int) -> None:
    """Enqueue jobs of "large"."""
    await jobs.sql("insert into graphile_worker._private_tasks (identifier) values ('large')")
    await jobs.sql(
        "insert into graphile_worker._private_jobs (task_id, payload)"
        f" select id, json_build_object('text', {text}) from graphile_worker._private_tasks,"
        f" generate_series(1, {count}) where identifier = 'large'"
    )


async def count_of(jobs, condition: str) -> int:
    [row] = await jobs.sql(
        "select count(*) from graphile_worker._private_jobs job join graphile_worker._private_tasks"
        f" task on task.id = task_id where {condition}"
    )
    return row["count"]


@PAYLOADS
async def test_a_claim_is_cut_where_its_payloads_are_enough(jobs, text, count, most) -> None:
    await add_large(jobs, text, count)
    [task] = await jobs.sql("select id from graphile_worker._private_tasks")
    claimed = 0
    while claimed < count:
        batch = await queue.claim(jobs.connection, "graphile_worker", "pool-x", [task["id"]], 1000)
        assert 1 <= len(batch.jobs) <= most
        claimed += len(batch.jobs)
        assert batch.more == (claimed < count)


@PAYLOADS
async def test_large_jobs_behind_small_ones_are_not_all_claimed_ahead(
    jobs, make_runner, eventually, text, count, most
) -> None:
    """The small ones make the worker claim thousands ahead."""
    held = []

    async def large(_payload: Any) -> None:
        held.append(await count_of(jobs, "identifier = 'large' and locked_at is not null"))

    async def small(_payload: Any) -> None: ...

    await jobs.add_many(2000)
    await add_large(jobs, text, count)
    await make_runner({"large": large, "task": small}, concurrency=2).start()

    async def are_done() -> bool:
        return not await count_of(jobs, "true")

    await eventually(are_done, timeout=60)
    assert len(held) == count
    assert max(held) <= most + 2
