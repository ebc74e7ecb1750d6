"""Starting, hearing of jobs, losing the database, sweeping, and stopping with nothing locked."""

import asyncio
import threading
from time import monotonic

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from zodworker_compat.database import queue
from zodworker_compat.errors import (
    ConfigurationError,
    DatabaseUnavailableError,
    MigrationError,
)
from zodworker_compat.runner.pool import Intervals

SESSIONS = (
    "select pid from pg_stat_activity where application_name = 'zodworker:test'"
    " and datname = current_database()"
)


async def nothing(payload) -> None: ...


async def no_session(jobs) -> bool:
    return not await jobs.sql(SESSIONS)


async def kill_sessions(jobs) -> int:
    return len(await jobs.sql(SESSIONS.replace("pid", "pg_terminate_backend(pid)", 1)))


async def test_a_new_job_starts_at_once(jobs, make_runner, eventually) -> None:
    runner = make_runner(nothing, poll_interval=600)
    await runner.start()
    start = monotonic()
    await jobs.add()
    await eventually(jobs.empty)
    assert monotonic() - start < 5


async def test_a_due_job_is_found_by_polling(jobs, make_runner, eventually) -> None:
    job_id = await jobs.add(run_at="infinity")
    runner = make_runner(nothing, poll_interval=0.05)
    await runner.start()
    await jobs.sql(  # sends no notification
        "update graphile_worker._private_jobs set run_at = now() where id = %s", job_id
    )
    await eventually(jobs.empty)


async def test_a_job_in_a_queue_that_node_is_looking_at_does_not_wait_for_the_poll(
    database, jobs, make_runner, eventually
) -> None:
    await jobs.add("theirs", queue_name="a")
    runner = make_runner(nothing, poll_interval=600)
    await runner.start()
    async with await psycopg.AsyncConnection.connect(database) as node:
        await node.execute("select 1 from graphile_worker._private_job_queues for update")
        job_id = await jobs.add(queue_name="a")

        async def claimed_in_vain() -> bool:
            rows = await jobs.sql(
                "select 1 from pg_stat_activity, graphile_worker._private_jobs"
                " where application_name = 'zodworker:test' and query like 'with unqueued%%'"
                " and query_start > created_at and id = %s",
                job_id,
            )
            return bool(rows)

        await eventually(claimed_in_vain)
        await node.rollback()

    async def only_theirs() -> bool:
        return await jobs.count() == 1

    await eventually(only_theirs)


async def test_task_ids_replaced_by_a_cleanup_are_found_again(
    jobs, make_runner, eventually
) -> None:
    runner = make_runner(nothing, poll_interval=0.05)
    await runner.start()
    await jobs.sql("delete from graphile_worker._private_tasks")  # GC_TASK_IDENTIFIERS
    await jobs.add()

    async def done() -> bool:
        await jobs.sql("select pg_notify('jobs:insert', '')")
        return await jobs.empty()

    await eventually(done)


async def test_two_runners_share_the_work_of_one_process(jobs, make_runner, eventually) -> None:
    runners = [make_runner(nothing), make_runner(nothing)]
    for runner in runners:
        await runner.start()
    await jobs.add_many(200)
    await eventually(jobs.empty)


async def test_jobs_behind_slow_ones_are_given_back_to_other_workers(
    jobs, make_runner, eventually
) -> None:
    release = asyncio.Event()

    async def handler(payload) -> None:
        if payload.get("slow"):
            await release.wait()

    runner = make_runner(handler, concurrency=1, intervals=Intervals(hold=0.1), poll_interval=0.1)
    await runner.start()
    await jobs.add_many(200)  # teaches the runner that its handler is fast
    await eventually(jobs.empty)
    async with jobs.connection.transaction():
        await jobs.add(payload={"slow": True})
        await jobs.add_many(50)

    async def only_the_slow_one_is_held() -> bool:
        rows = await jobs.all()
        return len(rows) == 51 and await jobs.locked() == 1

    await eventually(only_the_slow_one_is_held)
    assert {row["attempts"] for row in await jobs.all()} == {0, 1}
    release.set()
    await eventually(jobs.empty)


async def test_without_a_database_start_says_where_it_looked(make_runner) -> None:
    conninfo = make_conninfo(
        "", host="127.0.0.1", port=1, dbname="orders", user="me", password="hunter2"
    )
    runner = make_runner(nothing, conninfo=conninfo)
    with pytest.raises(
        DatabaseUnavailableError, match=r"127\.0\.0\.1, port 1, database orders"
    ) as info:
        await runner.start()
    assert "hunter2" not in str(info.value)


async def test_a_worker_without_handlers_is_refused(make_runner) -> None:
    with pytest.raises(ConfigurationError, match="no handlers"):
        make_runner({})


async def test_losing_every_connection_loses_no_job(jobs, make_runner, eventually, caplog) -> None:
    seen = []
    runner = make_runner(lambda payload: seen.append(payload["n"]), poll_interval=0.1)
    await runner.start()
    for _ in range(3):
        assert await kill_sessions(jobs)
        await jobs.add_many(20)
        await eventually(jobs.empty)
    assert sorted(seen) == sorted([*range(1, 21)] * 3)
    assert sum("Cannot claim" in message for message in caplog.messages) <= 3


async def test_a_result_is_written_after_the_connection_was_lost(
    jobs, make_runner, eventually
) -> None:
    release = asyncio.Event()

    async def handler(payload) -> None:
        await release.wait()
        if payload["n"] == 2:
            raise ValueError("late")

    await jobs.add_many(3)
    runner = make_runner(handler)
    await runner.start()
    await eventually(jobs.locked)
    await kill_sessions(jobs)
    release.set()
    await runner.stop()
    (row,) = await jobs.all()
    assert (row["last_error"], row["locked_by"]) == ("ValueError: late", None)


async def test_a_lost_listener_is_replaced_without_a_poll(jobs, make_runner, eventually) -> None:
    runner = make_runner(nothing, poll_interval=600)
    await runner.start()
    listeners = SESSIONS + " and query ilike 'listen%%'"
    (lost,) = await jobs.sql(listeners)
    await jobs.sql("select pg_terminate_backend(%s)", lost["pid"])

    async def replaced() -> bool:
        rows = await jobs.sql(listeners)
        return bool(rows) and lost not in rows

    await eventually(replaced)
    await jobs.add()
    await eventually(jobs.empty)


async def test_stale_locks_are_swept_and_fresh_ones_are_not(jobs, make_runner, eventually) -> None:
    await jobs.add("theirs", queue_name="a")
    await jobs.add("theirs", queue_name="b")
    for table in ("_private_jobs", "_private_job_queues"):
        await jobs.sql(
            f"update graphile_worker.{table} set locked_by = 'worker-dead',"
            " locked_at = now() - case id when 1 then interval '4 hours 1 minute'"
            " else interval '3 hours 59 minutes' end"
        )
    runner = make_runner(nothing, intervals=Intervals(sweep_first=0.01))
    await runner.start()

    async def swept() -> bool:
        return await jobs.locked() == 2

    await eventually(swept)
    first, second = await jobs.all()
    assert (first["locked_by"], second["locked_by"]) == (None, "worker-dead")
    assert first["attempts"] == 0


async def test_a_breaking_migration_stops_the_runner(jobs, make_runner, eventually) -> None:
    runner = make_runner(nothing)
    await runner.start()
    await jobs.sql(
        """select pg_notify('worker:migrate', '{"migrationNumber":19,"breaking":true}'),
                  pg_notify('worker:migrate', '{"migrationNumber":20,"breaking":true}')"""
    )
    with pytest.raises(MigrationError, match="breaking migration 20"):
        await asyncio.wait_for(runner.wait(), 10)
    await eventually(lambda: no_session(jobs))


async def test_stop_waits_for_what_runs_and_gives_back_what_does_not(
    jobs, make_runner, eventually
) -> None:
    release = asyncio.Event()
    started = []

    async def handler(payload) -> None:
        started.append(payload["n"])
        if payload["n"] > 300:
            await release.wait()

    runner = make_runner(handler, concurrency=2)
    await runner.start()
    await jobs.add_many(400)
    await eventually(lambda: len(started) == 302)
    stop = asyncio.create_task(runner.stop())
    again = asyncio.create_task(runner.stop())
    await eventually(lambda: runner._buffer.closed)
    release.set()
    await asyncio.gather(stop, again)
    await runner.wait()
    rows = await jobs.all()
    assert len(rows) == 98
    assert {row["attempts"] for row in rows} == {0}
    assert await jobs.locked() == 0
    await eventually(lambda: no_session(jobs))


@pytest.mark.parametrize("stubborn", [False, True])
async def test_the_deadline_cancels_and_gives_back(jobs, make_runner, eventually, stubborn) -> None:
    told = []

    async def handler(payload, job, helpers) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            told.append(helpers.abort_signal.is_set())
            if stubborn:
                await asyncio.sleep(2)
            raise

    job_id = await jobs.add(queue_name="a")
    run_at = (await jobs.row(job_id))["run_at"]
    runner = make_runner(handler, shutdown_timeout=0.05)
    await runner.start()
    await eventually(jobs.locked)
    await runner.stop()
    assert told == [True]
    row = await jobs.row(job_id)
    assert (row["attempts"], row["run_at"]) == (0, run_at)
    assert row["last_error"].startswith("Worker shutdown: still running")
    assert await jobs.locked() == 0
    if stubborn:
        await asyncio.sleep(1.5)


async def test_a_sync_job_is_given_back_at_the_deadline_though_its_thread_goes_on(
    jobs, make_runner, eventually, caplog
) -> None:
    ended = threading.Event()
    hang = threading.Event()

    def handler(payload, job, helpers) -> None:
        helpers.abort_signal.wait(60)
        hang.wait(60)
        ended.set()

    job_id = await jobs.add()
    runner = make_runner(handler, shutdown_timeout=0.05)
    await runner.start()
    await eventually(jobs.locked)
    await runner.stop()
    assert (await jobs.row(job_id))["attempts"] == 0
    assert await jobs.locked() == 0
    assert "its thread cannot be cancelled" in caplog.text
    hang.set()
    await eventually(ended.is_set)
    assert await jobs.count() == 1


async def test_stop_in_the_middle_of_full_speed_loses_nothing(
    jobs, make_runner, eventually
) -> None:
    seen = []

    async def handler(payload) -> None:
        seen.append(payload["n"])

    await jobs.add_many(20_000)
    runner = make_runner(handler, concurrency=24)
    await runner.start()
    await eventually(lambda: len(seen) > 1000)
    await runner.stop()
    rows = await jobs.sql(
        "select (payload->>'n')::int as n, attempts, locked_by from graphile_worker._private_jobs"
    )
    assert rows
    assert sorted([*seen, *(row["n"] for row in rows)]) == list(range(1, 20_001))
    assert {(row["attempts"], row["locked_by"]) for row in rows} == {(0, None)}
    assert await jobs.locked() == 0


async def test_stop_without_start_is_harmless(make_runner) -> None:
    await make_runner(nothing).stop()


async def test_a_claim_whose_answer_is_lost_is_given_back(
    jobs, make_runner, eventually, monkeypatch
) -> None:
    """The claim commits, the connection breaks before its answer: nobody else would free the jobs."""
    claim, lost = queue.claim, []

    async def claim_without_answer(connection, *arguments):
        batch = await claim(connection, *arguments)
        if batch.jobs and not lost:
            lost.extend(batch.jobs)
            raise psycopg.OperationalError("the connection is lost")
        return batch

    monkeypatch.setattr(queue, "claim", claim_without_answer)
    for queue_name in ("a", None, None):
        await jobs.add(queue_name=queue_name)
    ran: list[int] = []

    async def handler(payload, job) -> None:
        ran.append(job.attempts)

    runner = make_runner(handler, poll_interval=0.05)
    await runner.start()
    await eventually(jobs.empty)
    assert lost
    assert ran == [1, 1, 1]  # what nobody ran was not counted


async def test_a_lost_claim_is_given_back_at_the_stop(
    jobs, make_runner, eventually, monkeypatch
) -> None:
    claim, lost = queue.claim, asyncio.Event()

    async def claim_without_answer(connection, *arguments):
        await claim(connection, *arguments)
        lost.set()
        raise psycopg.OperationalError("the connection is lost")

    monkeypatch.setattr(queue, "claim", claim_without_answer)
    await jobs.add(queue_name="a")
    runner = make_runner(nothing)
    await runner.start()
    await asyncio.wait_for(lost.wait(), 10)
    await runner.stop()
    assert await jobs.locked() == 0
    assert await jobs.count() == 1


async def test_a_stop_while_run_once_claims_leaves_nothing_locked(
    database, jobs, make_runner, eventually
) -> None:
    for _ in range(3):
        await jobs.add()
    runner = make_runner(nothing)
    async with await psycopg.AsyncConnection.connect(database) as blocker:
        await blocker.execute("lock table graphile_worker._private_jobs")
        running = asyncio.create_task(runner.run_once())

        async def the_claim_waits() -> bool:
            rows = await jobs.sql(
                "select 1 from pg_stat_activity where datname = current_database()"
                " and wait_event_type = 'Lock' and query like 'with unqueued%%'"
            )
            return bool(rows)

        await eventually(the_claim_waits)
        runner.begin_stop()
        await blocker.rollback()
    await asyncio.wait_for(running, 60)
    assert await jobs.locked() == 0
    assert await jobs.count() in {0, 3}


@pytest.mark.parametrize("kind", ["async", "thread"])
async def test_a_handler_that_listens_to_the_abort_signal_can_finish(
    jobs, make_runner, kind
) -> None:
    """The signal comes after half of a short shutdown timeout; the rest is the handler's."""
    started = threading.Event()

    async def listens(payload, job, helpers) -> None:
        started.set()
        await helpers.abort_signal.wait()

    def listens_in_a_thread(payload, job, helpers) -> None:
        started.set()
        assert helpers.abort_signal.wait(60)

    runner = make_runner(
        listens if kind == "async" else listens_in_a_thread, shutdown_timeout=4, enqueuer=object()
    )
    await jobs.add()
    await runner.start()
    assert await asyncio.to_thread(started.wait, 60)
    await runner.stop()
    assert await jobs.empty()
    assert runner.is_clean
