"""D-1 to D-15, where 0.16.6 differs from 0.13 and no row of the list says so yet.

D-2 and D-12 stand with the key modes; D-3 is P-23, D-4 P-33, D-10 and D-11 P-54 and P-55, D-14
P-12, P-13, P-23, P-37 and P-42; D-15 is not ours: no migration of ours touches a schema below 18.
"""

import json
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from zodworker_compat import OptionError, UnknownTaskError


async def test_d01_a_handlers_job_has_the_ids_and_the_identifier(make_worker, table) -> None:
    jobs = []

    async def handler(payload, job) -> None:
        jobs.append(job)

    worker = make_worker({"handler": handler})
    await worker.enqueue("t", queue_name="q")
    row = await table.row()
    await worker.run_once()
    [job] = jobs
    assert (job.task_id, job.job_queue_id) == (row["task_id"], row["job_queue_id"])
    assert (job.task_identifier, job.queue_name, job.is_available) == ("t", "q", False)


@pytest.mark.parametrize(
    ("arguments", "sqlstate"),
    [
        (f"'{'i' * 129}'", "23514"),
        (f"'t', queue_name => '{'q' * 129}'", "23514"),
        (f"'t', job_key => '{'k' * 513}'", "23514"),
        ("'t', job_key => ''", "23514"),
        ("'t', max_attempts => 0", "23514"),
        ("'t', max_attempts => 32768", "22003"),
        ("'t', priority => 32768", "22003"),
    ],
)
async def test_d05_the_database_refuses_what_a_column_cannot_hold(
    table, arguments, sqlstate
) -> None:
    with pytest.raises(psycopg.errors.lookup(sqlstate)):
        await table.sql(f"select graphile_worker.add_job({arguments})")
    assert await table.empty()


@pytest.mark.parametrize(
    "option",
    [
        {"queue_name": "q" * 129},
        {"job_key": "k" * 513},
        {"max_attempts": 32768},
        {"priority": 32768},
    ],
)
async def test_d05_it_is_refused_before_any_sql_departure_12(make_worker, nowhere, option) -> None:
    # The caller's transaction survives.
    with pytest.raises(OptionError):
        await make_worker(runner_options=nowhere).enqueue("t", **option)
    with pytest.raises(UnknownTaskError):
        await make_worker(runner_options=nowhere).enqueue("i" * 129)


async def test_d06_jobs_is_a_view_without_payloads(make_worker, table) -> None:
    await make_worker().enqueue("t", queue_name="q")
    [row] = await table.sql("select * from graphile_worker.jobs")
    assert "payload" not in row
    assert (row["task_identifier"], row["queue_name"]) == ("t", "q")


async def test_d07_jobs_run_by_priority_and_then_by_time(make_worker) -> None:
    seen = []
    worker = make_worker({"handler": seen.append})
    worker.configure(concurrency=1)
    now = datetime.now(UTC)
    for payload, priority, minutes in [("d", 9, 9), ("b", 0, 5), ("c", 0, 1), ("a", -1, 0)]:
        run_at = now - timedelta(minutes=minutes)
        await worker.enqueue("t", payload, priority=priority, run_at=run_at)
    await worker.run_once()
    assert seen == ["a", "b", "c", "d"]


async def test_d08_a_fetch_leaves_old_locks_to_the_sweep(make_worker, table) -> None:
    seen = []
    worker = make_worker({"handler": seen.append})
    await worker.enqueue("t")
    await table.set("locked_at = now() - interval '5 hours', locked_by = 'gone'")
    before = await table.row()
    await worker.run_once()
    assert (seen, before["is_available"]) == ([], False)
    assert await table.row() == before


async def test_d09_a_queue_outlives_its_jobs_and_is_unlocked(make_worker, table) -> None:
    worker = make_worker({"handler": print})
    await worker.enqueue("t", queue_name="q")
    await worker.run_once()
    [queue] = await table.sql("select * from graphile_worker._private_job_queues")
    assert (queue["queue_name"], queue["locked_at"], queue["is_available"]) == ("q", None, True)


async def test_d13_a_new_job_is_announced_with_its_count(make_worker, database) -> None:
    worker = make_worker()
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as listener:
        await listener.execute('listen "jobs:insert"')
        await worker.enqueue("t")
        await worker.enqueue_many([("t", 1), ("t", 2)])
        told = [note.payload async for note in listener.notifies(timeout=60, stop_after=2)]
    assert [json.loads(each)["count"] for each in told] == [1, 2]
    assert all(set(json.loads(each)) == {"r", "count"} for each in told)
