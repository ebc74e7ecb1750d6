"""What a runner tells about its life and its jobs, and when."""

import asyncio
import logging

import psycopg
import pytest

from zodworker_compat import Events, RunnerOptions, ZodWorker
from zodworker_compat.events import EVENTS
from zodworker_compat.runner.pool import Intervals


@pytest.fixture
def log():
    """(events, list of (name, event)): an emitter that notes all it is told."""
    events, seen = Events(), []
    for name in EVENTS:
        events.on(name, lambda event, name=name: seen.append((name, event)))
    return events, seen


async def handler(payload) -> None:
    if payload.get("fail"):
        raise ValueError("boom")


async def test_the_events_of_two_jobs_in_their_order(jobs, make_runner, log) -> None:
    events, seen = log
    ok = await jobs.add(payload={"n": 1})
    bad = await jobs.add(payload={"fail": True}, max_attempts=1)
    runner = make_runner(handler, events=events, concurrency=1)
    await runner.run_once()
    of_jobs = [(name, event.job.id) for name, event in seen if name.startswith("job:")]
    assert [name for name, job_id in of_jobs if job_id == str(ok)] == [
        "job:start",
        "job:success",
        "job:complete",
    ]
    assert [name for name, job_id in of_jobs if job_id == str(bad)] == [
        "job:start",
        "job:error",
        "job:failed",
        "job:complete",
    ]
    names = [name for name, _ in seen]
    assert names[0] == "pool:create"
    assert names[-4:] == [
        "stop",
        "pool:gracefulShutdown",
        "pool:gracefulShutdown:complete",
        "pool:release",
    ]
    assert names.index("worker:getJob:start") < names.index("localQueue:getJobs:complete")
    assert "worker:getJob:empty" in names
    assert all(isinstance(event, EVENTS[name]) for name, event in seen)
    assert {event.pool_id for _, event in seen} == {runner.pool_id}
    completed = {event.job.id: event.error for name, event in seen if name == "job:complete"}
    assert completed[str(ok)] is None
    assert isinstance(completed[str(bad)], ValueError)


async def test_a_job_is_complete_when_its_result_is_written(database, jobs, make_runner) -> None:
    events, left = Events(), []

    @events.on("job:complete")
    def look(event) -> None:
        with psycopg.connect(database) as connection:
            row = connection.execute(
                "select last_error from graphile_worker._private_jobs where id = %s",
                [event.job.id],
            ).fetchone()
        left.append((event.job.payload, row))

    await jobs.add(payload={"n": 1})
    await jobs.add(payload={"fail": True})
    await make_runner(handler, events=events).run_once()
    assert sorted(left, key=str) == [({"fail": True}, ("ValueError: boom",)), ({"n": 1}, None)]


async def test_async_listeners_are_waited_for_and_failing_ones_harm_nobody(
    jobs, make_runner, caplog
) -> None:
    events, seen = Events(), []

    @events.on("job:start")
    def broken(event) -> None:
        raise RuntimeError("sync")

    @events.on("job:start")
    async def broken_later(event) -> None:
        raise RuntimeError("async")

    @events.on("job:complete")
    async def slow(event) -> None:
        await asyncio.sleep(0.02)
        seen.append(event.job.payload)

    await jobs.add(payload={"n": 1})
    await make_runner(handler, events=events).run_once()
    assert seen == [{"n": 1}]
    assert await jobs.empty()
    failed = [r for r in caplog.records if r.message.endswith("failed; the worker goes on")]
    assert sorted(str(record.exc_info[1]) for record in failed) == ["async", "sync"]


async def test_a_lost_job_is_told_and_not_complete(jobs, make_runner, eventually, log) -> None:
    events, seen = log
    release = asyncio.Event()

    async def wait(payload) -> None:
        await release.wait()

    job_id = await jobs.add()
    runner = make_runner(wait, events=events)
    await runner.start()
    await eventually(jobs.locked)
    await jobs.sql("update graphile_worker._private_jobs set locked_by = 'pool-other'")
    release.set()
    await runner.stop()
    names = [name for name, event in seen if name.startswith("job:")]
    assert names == ["job:start", "job:success", "job:lost"]
    assert dict(seen)["job:lost"].job.id == str(job_id)


async def test_jobs_given_back_are_told(jobs, make_runner, eventually, log) -> None:
    events, seen = log

    async def wait(payload) -> None:
        await asyncio.Event().wait()

    job_id = await jobs.add()
    runner = make_runner(wait, events=events, shutdown_timeout=0.05)
    await runner.start()
    await eventually(jobs.locked)
    await runner.stop()
    (given_back,) = [event for name, event in seen if name == "localQueue:returnJobs"]
    assert [job.id for job in given_back.jobs] == [str(job_id)]
    assert "job:complete" not in dict(seen)


async def test_the_listen_connection_and_the_sweep_are_told(
    jobs, make_runner, eventually, log
) -> None:
    events, seen = log
    often = Intervals(sweep_first=0, sweep_least=0.01, sweep_most=0.01)
    runner = make_runner(handler, events=events, intervals=often)
    await runner.start()
    names = [name for name, _ in seen if name.startswith("pool:listen")]
    assert names == ["pool:listen:connecting", "pool:listen:success"]
    await jobs.add()
    await eventually(lambda: "pool:listen:notification" in dict(seen))
    assert dict(seen)["pool:listen:notification"].channel == "jobs:insert"
    await eventually(lambda: "resetLocked:success" in dict(seen))
    assert dict(seen)["resetLocked:success"].delay.total_seconds() == pytest.approx(0.01)
    await jobs.sql(
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where application_name = 'zodworker:test'"
    )
    await eventually(lambda: "pool:listen:error" in dict(seen))
    await eventually(lambda: [n for n, _ in seen].count("pool:listen:success") == 2)
    await runner.stop()


async def test_a_failing_claim_and_sweep_are_told(
    jobs, make_runner, eventually, log, caplog
) -> None:
    events, seen = log
    caplog.set_level(logging.CRITICAL)
    often = Intervals(sweep_first=0, sweep_least=0.01, sweep_most=0.01)
    runner = make_runner(handler, events=events, intervals=often, poll_interval=0.05)
    await runner.start()
    await jobs.sql("alter table graphile_worker._private_jobs rename to away")
    await eventually(lambda: {"worker:getJob:error", "resetLocked:failure"} <= dict(seen).keys())
    await jobs.sql("alter table graphile_worker.away rename to _private_jobs")
    assert isinstance(dict(seen)["worker:getJob:error"].error, psycopg.errors.UndefinedTable)


async def test_a_breaking_migration_is_fatal_and_told(jobs, make_runner, eventually, log) -> None:
    events, seen = log
    runner = make_runner(handler, events=events)
    await runner.start()
    await jobs.sql(
        "select pg_notify('worker:migrate', '{\"migrationNumber\":99,\"breaking\":true}')"
    )
    await eventually(lambda: "pool:release" in dict(seen))
    fatal = dict(seen)["pool:fatalError"]
    assert (fatal.action, type(fatal.error).__name__) == ("listen", "MigrationError")


async def test_a_listener_may_stop_the_worker(database) -> None:
    worker = ZodWorker(name="test", runner_options=RunnerOptions(connection_string=database))
    seen = []

    @worker.task("t", schema=True)
    async def run(payload) -> None: ...

    @worker.events.on("job:complete")
    async def stop(event) -> None:
        seen.append(event.job.task_identifier)
        await worker.stop()

    await worker.enqueue("t")
    async with asyncio.timeout(8):  # less than a listener that hangs may take
        await worker.run_until_stopped()
    assert seen == ["t"]
