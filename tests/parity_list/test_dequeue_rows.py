"""P-31 to P-36: what `dequeue` removes and returns."""

import asyncio

import psycopg
import pytest

LOCKED = "locked_by = 'other', attempts = 1, locked_at = now() - interval"


async def test_p31_a_waiting_job_is_deleted_and_returned(make_worker, table) -> None:
    worker = make_worker()
    job = await worker.enqueue("t", {"a": 1}, job_key="k")
    assert await worker.dequeue("k") == job
    assert await table.empty()


async def test_p32_a_running_job_stays_without_its_key_and_is_returned(make_worker, table) -> None:
    started, released = asyncio.Event(), asyncio.Event()

    async def handler(payload) -> None:
        started.set()
        await released.wait()

    worker = make_worker({"handler": handler, "maxAttempts": 3})
    await worker.enqueue("t", job_key="k")
    running = asyncio.create_task(worker.run_once())
    await started.wait()
    gone = await worker.dequeue("k")
    row = await table.row()
    assert (row["key"], row["attempts"], row["locked_at"] is None) == (None, 3, False)
    assert (gone.id, gone.key, gone.attempts) == (str(row["id"]), None, 3)
    assert gone.locked_at == row["locked_at"]
    released.set()
    await running
    assert await table.empty()


async def test_p33_a_job_locked_for_more_than_four_hours_is_deleted(make_worker, table) -> None:
    worker = make_worker()
    await worker.enqueue("t", job_key="k")
    await table.set(f"{LOCKED} '3 hours 59 minutes'")
    assert (await worker.dequeue("k")).key is None
    assert (await table.row())["locked_by"] == "other"

    job = await worker.enqueue("t", job_key="k")
    await table.set(f"{LOCKED} '4 hours 1 minute'", where=f"id = {job.id}")
    gone = await worker.dequeue("k")
    assert (gone.id, gone.key, gone.locked_by) == (job.id, "k", "other")
    assert (await table.row())["id"] != int(job.id)


async def test_p34_a_job_that_has_failed_for_good_is_deleted(make_worker, table) -> None:
    def handler(payload) -> None:
        raise ValueError("h")

    worker = make_worker({"handler": handler, "maxAttempts": 1})
    job = await worker.enqueue("t", job_key="k")
    await worker.run_once()
    assert (await table.row())["last_error"] == "ValueError: h"
    assert (await worker.dequeue("k")).id == job.id
    assert await table.empty()


async def test_p35_an_unknown_key_or_none_removes_nothing(make_worker, table) -> None:
    worker = make_worker()
    await worker.enqueue("t", job_key="k")
    await worker.enqueue("t")
    before = await table.rows()
    for key in ("K", "", None):
        assert await worker.dequeue(key) is None
    assert await table.rows() == before


async def test_p36_a_job_is_removed_in_the_callers_transaction(
    make_worker, table, database
) -> None:
    worker = make_worker()
    job = await worker.enqueue("t", job_key="k")
    async with await psycopg.AsyncConnection.connect(database) as tx:
        assert (await worker.dequeue("k", tx=tx)).id == job.id
        await tx.rollback()
        assert (await table.row())["key"] == "k"
        await worker.dequeue("k", tx=tx)
    assert await table.empty()


async def test_p36_the_databases_error_is_not_reworded_departure(make_worker, table) -> None:
    # ZodWorker raises an Error whose text ends in a stray brace, and hides the SQLSTATE.
    await table.sql(
        "create or replace function graphile_worker.remove_job(job_key text)"
        " returns graphile_worker._private_jobs language plpgsql as"
        " $$ begin raise division_by_zero using message = 'no'; end $$"
    )
    with pytest.raises(psycopg.errors.DivisionByZero, match=r"^no\n"):
        await make_worker().dequeue("k")
