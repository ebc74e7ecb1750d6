"""Workers that die, and those that are only taken for dead: what becomes of their jobs."""

import asyncio
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row

from zodworker_compat.database import heartbeat, queue, sessions
from zodworker_compat.database.heartbeat import WorkerRow
from zodworker_compat.errors import ConfigurationError
from zodworker_compat.events import EVENTS, Events
from zodworker_compat.runner import execute
from zodworker_compat.runner.pool import Intervals
from zodworker_compat.runner.task import RunnableTask, RunOptions
from zodworker_compat.runner_options import RunnerOptions

SCHEMA = "graphile_worker"
QUICK = {"dead_after": timedelta(seconds=2)}
WORKERS = "select * from graphile_worker.zodworker_workers order by started_at"


async def nothing(payload) -> None: ...


@pytest.fixture
async def die(jobs):
    """Lock jobs, and their queues, for a pool that has been silent for a minute."""

    async def killed(
        pool_id: str, *ids: int, concurrency: int = 10, beat: str = "-1 minute", more: str = ""
    ) -> None:
        row = WorkerRow(
            pool_id=pool_id,
            name="shop",
            host="host-a",
            pid=4711,
            version="1",
            concurrency=concurrency,
            tasks=["task"],
            dead_after=timedelta(seconds=1),
        )
        await heartbeat.register(jobs.connection, SCHEMA, row)
        await jobs.sql(
            "update graphile_worker.zodworker_workers set beat_at = now() + %s::interval"
            " where pool_id = %s",
            beat,
            pool_id,
        )
        await lock(jobs, pool_id, *ids)

    return killed


async def lock(jobs, pool_id: str, *ids: int) -> None:
    """Claim jobs in their order."""
    for job_id in ids:
        await jobs.sql(
            "with claimed as (update graphile_worker._private_jobs set locked_at = now(),"
            " locked_by = %s, attempts = attempts + 1 where id = %s returning job_queue_id)"
            " update graphile_worker._private_job_queues set locked_at = now(), locked_by = %s"
            " where id in (select job_queue_id from claimed)",
            pool_id,
            job_id,
            pool_id,
        )


async def recover(jobs, **more: Any) -> heartbeat.Recovery:
    """Declare the silent dead, as one who has watched for long; free what they hold."""
    await heartbeat.declare_dead(jobs.connection, SCHEMA, "judge", timedelta(hours=1), 1.0)
    return await heartbeat.recover(jobs.connection, SCHEMA, **more)


@pytest.fixture
async def jobs(jobs, eventually):
    """The server must have been up for longer than the dead were silent."""

    async def is_old_enough() -> bool:
        rows = await jobs.sql(
            "select now() - pg_postmaster_start_time() > interval '1.5 s' as it_is"
        )
        return rows[0]["it_is"]

    await eventually(is_old_enough)
    return jobs


@pytest.fixture
def told():
    """(events, what they told): every event's name."""
    events, names = Events(), []
    for name in EVENTS:
        events.on(name, lambda event, name=name: names.append((name, event)))
    return events, names


def names_of(told) -> Counter[str]:
    return Counter(name for name, _ in told[1])


async def test_a_living_worker_frees_what_a_dead_one_holds(
    jobs, die, make_runner, eventually, told
) -> None:
    in_queue = await jobs.add("theirs", queue_name="a", max_attempts=3)
    alone = await jobs.add("theirs", run_at="2020-01-01")
    nodes = await jobs.add("theirs", queue_name="b")
    await die("pool-dead", in_queue, alone)
    await lock(jobs, "worker-of-node", nodes)
    runner = make_runner(nothing, events=told[0], options=QUICK)
    await runner.start()

    async def freed() -> bool:
        return await jobs.locked() == 2

    await eventually(freed)
    row = await jobs.row(in_queue)
    assert (row["attempts"], row["is_available"]) == (1, True)
    assert row["last_error"].startswith(
        "WorkerDied: worker shop (host-a, process 4711, pool-dead) gave no sign of life for 6"
    )
    assert (await jobs.row(alone))["run_at"].year == 2020
    assert (await jobs.row(nodes))["locked_by"] == "worker-of-node"
    await eventually(lambda: names_of(told)["recovery:freed"])
    (dead,) = [event for name, event in told[1] if name == "recovery:dead"]
    assert (dead.dead_pool_id, dead.host, dead.silence > timedelta(minutes=1)) == (
        "pool-dead",
        "host-a",
        True,
    )
    (freed_event,) = [event for name, event in told[1] if name == "recovery:freed"]
    assert (sorted(freed_event.job_ids), freed_event.queues) == ([in_queue, alone], 1)


async def test_recovered_jobs_wake_workers_that_do_not_poll(
    jobs, die, make_runner, eventually
) -> None:
    await die("pool-dead", await jobs.add(queue_name="a"))
    runner = make_runner(nothing, poll_interval=600, options=QUICK)
    await runner.start()
    await eventually(jobs.empty)


async def test_any_number_of_recoverers_free_each_job_once(database, jobs, die) -> None:
    for number in range(20):
        ids = [await jobs.add(queue_name=f"q{number}{n}") for n in range(3)]
        await die(f"pool-{number}", *ids)

    async def recoverer() -> list[int]:
        async with await psycopg.AsyncConnection.connect(
            database, autocommit=True, row_factory=dict_row
        ) as connection:
            await heartbeat.declare_dead(connection, SCHEMA, "judge", timedelta(hours=1), 1.0)
            return list((await heartbeat.recover(connection, SCHEMA)).job_ids)

    found = await asyncio.gather(*(recoverer() for _ in range(8)))
    found.append(list((await recover(jobs)).job_ids))
    assert sorted(id_ for ids in found for id_ in ids) == list(range(1, 61))
    assert await jobs.locked() == 0
    assert {row["attempts"] for row in await jobs.all()} == {1}
    assert all(row["recovered_at"] for row in await jobs.sql(WORKERS))


async def test_a_living_worker_keeps_its_jobs(jobs, die) -> None:
    await die("pool-alive", await jobs.add(queue_name="a"), beat="0")
    assert not (await recover(jobs)).job_ids
    assert await jobs.locked() == 2


async def test_a_beat_that_comes_before_the_verdict_wins(database, jobs, die) -> None:
    await die("pool-late", await jobs.add())
    async with await psycopg.AsyncConnection.connect(database, row_factory=dict_row) as late:
        assert await heartbeat.beat(late, SCHEMA, "pool-late")
        await recover(jobs)
        await late.commit()
    assert await jobs.locked() == 1
    assert await heartbeat.beat(jobs.connection, SCHEMA, "pool-late")


async def test_who_has_not_watched_for_long_enough_judges_nobody(jobs, die) -> None:
    await die("pool-dead", await jobs.add())
    for watched, share in ((0.3, 1 / 3), (0.9, 1.0)):
        assert not await heartbeat.declare_dead(
            jobs.connection, SCHEMA, "judge", timedelta(seconds=watched), share
        )
    (dead,) = await heartbeat.declare_dead(
        jobs.connection, SCHEMA, "judge", timedelta(seconds=0.4), 1 / 3
    )
    assert dead.pool_id == "pool-dead"


async def test_a_last_beat_in_the_future_does_not_save(jobs, die) -> None:
    """The server's clock was an hour ahead, and has been set back."""
    await die("pool-dead", await jobs.add(), beat="1 hour")
    assert (await recover(jobs)).job_ids


async def test_the_dead_stay_dead(jobs, die) -> None:
    await die("pool-dead", await jobs.add())
    await recover(jobs)
    assert await heartbeat.beat(jobs.connection, SCHEMA, "pool-dead") is None


async def test_a_job_that_kills_its_worker_each_time_fails_for_good(jobs, die) -> None:
    job_id = await jobs.add(max_attempts=3, queue_name="a")
    delays = []
    for death in range(3):
        await die(f"pool-{death}", job_id, concurrency=1)
        await recover(jobs)
        row = await jobs.row(job_id)
        rows = await jobs.sql("select extract(epoch from %s - now()) as delay", row["run_at"])
        delays.append(rows[0]["delay"])
        assert (row["attempts"], row["locked_by"]) == (death + 1, None)
    assert "(3 in a row); no attempt is left" in row["last_error"]
    assert row["is_available"] is False
    # At once after the first death, then with graphile-worker's backoff: e^2 and e^3 seconds.
    assert delays[0] <= 0
    assert 5 < delays[1] <= 7.4
    assert 15 < delays[2] <= 20.1
    assert await jobs.locked() == 0


async def test_jobs_that_only_waited_lose_no_attempt(jobs, die) -> None:
    ids = [await jobs.add(max_attempts=1) for _ in range(5)]
    await die("pool-dead", *reversed(ids), concurrency=2)
    await recover(jobs)
    rows = await jobs.all()
    assert [row["attempts"] for row in rows] == [0, 0, 0, 1, 1]
    assert [row["is_available"] for row in rows] == [True, True, True, False, False]
    assert all(row["last_error"].startswith("WorkerDied: ") for row in rows)


async def test_a_job_is_spared_three_times_in_a_row_at_most(jobs, die) -> None:
    """Who ran is not known for sure: a job that is spared for ever might kill for ever."""
    first, second = await jobs.add(), await jobs.add()
    attempts = []
    for death in range(5):
        await die(f"pool-{death}", first, second, concurrency=1)
        await recover(jobs)
        attempts.append((await jobs.row(second))["attempts"])
    assert attempts == [0, 0, 0, 1, 2]


async def test_a_job_that_was_removed_while_it_waited_is_not_run(jobs, die) -> None:
    first, removed = await jobs.add(), await jobs.add(job_key="k")
    await die("pool-dead", first, removed, concurrency=1)
    await jobs.sql("select graphile_worker.remove_job('k')")
    await recover(jobs)
    assert (await jobs.row(removed))["is_available"] is False


async def test_a_row_that_somebody_holds_is_freed_when_he_lets_go(
    database, jobs, die, make_runner, eventually
) -> None:
    held, other = await jobs.add("theirs"), await jobs.add("theirs")
    await die("pool-dead", held, other)
    runner = make_runner(nothing, options=QUICK)
    async with await psycopg.AsyncConnection.connect(database) as somebody:
        await somebody.execute(
            "select 1 from graphile_worker._private_jobs where id = %s for update", [held]
        )
        await runner.start()

        async def one_is_free() -> bool:
            return await jobs.locked() == 1

        await eventually(one_is_free)
        assert (await jobs.row(held))["locked_by"] == "pool-dead"

    async def both_are_free() -> bool:
        return await jobs.locked() == 0

    await eventually(both_are_free)


async def test_a_row_that_cannot_be_freed_harms_no_other(jobs, die) -> None:
    ids = [await jobs.add() for _ in range(9)]
    await jobs.sql(
        "create function refuse() returns trigger language plpgsql as"
        " $$ begin raise exception 'audit refuses job %%', old.id; end $$"
    )
    await die("pool-dead", *ids)
    await jobs.sql(
        "create trigger refuse before update on graphile_worker._private_jobs"
        " for each row when (old.id = 4) execute function refuse()"
    )
    recovery = await recover(jobs)
    assert recovery.refused == [4]
    assert "audit refuses job 4" in str(recovery.error)
    assert await jobs.locked() == 1
    await jobs.sql("drop trigger refuse on graphile_worker._private_jobs")
    assert (await recover(jobs, again=True)).job_ids == [4]


async def test_a_claim_that_comes_after_the_recovery_is_found(
    jobs, die, make_runner, eventually
) -> None:
    await die("pool-dead")
    await recover(jobs)
    await lock(jobs, "pool-dead", await jobs.add(queue_name="a"))
    runner = make_runner(nothing, intervals=Intervals(sweep_first=0.01), options=QUICK)
    await runner.start()
    await eventually(jobs.empty)


async def test_old_rows_of_the_dead_are_cleared_away(jobs, die) -> None:
    await die("pool-old")
    await die("pool-new")
    await recover(jobs)
    await jobs.sql(
        "update graphile_worker.zodworker_workers set dead_at = now() - interval '25 hours'"
        " where pool_id = 'pool-old'"
    )
    await recover(jobs, again=True)
    assert [row["pool_id"] for row in await jobs.sql(WORKERS)] == ["pool-new"]


@pytest.mark.parametrize("prepared", [True, False])
async def test_a_worker_is_listed_while_it_lives(jobs, make_runner, eventually, prepared) -> None:
    runner = make_runner(
        {"b": nothing, "a": nothing},
        concurrency=7,
        options={**QUICK, "prepared_statements": prepared},
    )
    await runner.start()
    (row,) = await jobs.sql(WORKERS)
    assert (row["pool_id"], row["name"], row["concurrency"]) == (runner.pool_id, "test", 7)
    assert (row["tasks"], row["dead_after"]) == (["a", "b"], timedelta(seconds=2))

    async def beats() -> bool:
        rows = await jobs.sql(WORKERS)
        return rows[0]["beat_at"] > row["beat_at"]

    await eventually(beats)
    await runner.stop()
    assert await jobs.sql(WORKERS) == []


async def test_run_once_is_listed_too(jobs, make_runner) -> None:
    listed = []

    async def handler(payload) -> None:
        listed.extend(await jobs.sql(WORKERS))

    await jobs.add()
    runner = make_runner(handler)
    await runner.run_once()
    assert [row["pool_id"] for row in listed] == [runner.pool_id]
    assert await jobs.sql(WORKERS) == []


async def test_a_role_that_may_not_have_the_table_is_warned_and_works(
    database, jobs, make_runner, eventually, caplog
) -> None:
    role = f"role_of_{jobs.connection.info.dbname}"
    name = sql.Identifier(role)
    await jobs.connection.execute(sql.SQL("create role {} login").format(name))
    try:
        for kind in ("table", "sequence"):
            relkind = {"table": "r", "sequence": "S"}[kind]
            for row in await jobs.sql(
                "select relname from pg_class where relnamespace = 'graphile_worker'::regnamespace"
                " and relkind = %s and relname not like '%%migrations%%'",
                relkind,
            ):
                table = sql.Identifier(SCHEMA, row["relname"])
                if kind == "table":
                    await jobs.connection.execute(
                        sql.SQL("alter table {} owner to {}").format(table, name)
                    )
        await jobs.connection.execute(
            sql.SQL("grant usage on schema graphile_worker to {}").format(name)
        )
        await jobs.add()
        runner = make_runner(
            nothing, conninfo=psycopg.conninfo.make_conninfo(database, options=f"-c role={role}")
        )
        await runner.start()
        await eventually(jobs.empty)
        await runner.stop()
    finally:
        await jobs.connection.execute(sql.SQL("reassign owned by {} to current_user").format(name))
        await jobs.connection.execute(sql.SQL("drop owned by {}").format(name))
        await jobs.connection.execute(sql.SQL("drop role {}").format(name))
    assert "are not given back before four hours" in caplog.text


@pytest.mark.parametrize(
    "verdict",
    [
        "update graphile_worker.zodworker_workers set dead_at = now()",
        "delete from graphile_worker.zodworker_workers",
    ],
)
async def test_a_worker_that_was_declared_dead_drops_its_jobs_and_goes_on(
    jobs, make_runner, eventually, told, verdict
) -> None:
    """Both its runs, the one in a thread too, change nothing; both jobs run again."""
    runs: Counter[str] = Counter()
    ended: list[str] = []
    aborted = threading.Event()
    release = asyncio.Event()

    async def in_loop(payload) -> None:
        runs["in_loop"] += 1
        try:
            if runs["in_loop"] == 1:
                await asyncio.Event().wait()
            await release.wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    def in_thread(payload, job, helpers) -> None:
        runs["in_thread"] += 1
        if runs["in_thread"] == 1:
            if helpers.abort_signal.wait(60):
                aborted.set()
            raise ValueError("too late")

    first = await jobs.add("in_loop", queue_name="a")
    second = await jobs.add("in_thread")
    runner = make_runner(
        {"in_loop": in_loop, "in_thread": in_thread},
        options=QUICK,
        events=told[0],
        enqueuer=object(),
    )
    await runner.start()
    await eventually(lambda: len(runs) == 2)
    dead = runner.pool_id
    await jobs.sql(verdict)

    await eventually(lambda: runs["in_loop"] == 2)
    assert runner.pool_id != dead
    assert ended == ["cancelled"]
    row = await jobs.row(first)
    assert (row["locked_by"], row["attempts"]) == (runner.pool_id, 2)
    assert row["last_error"].startswith("WorkerDied: ")
    release.set()
    await eventually(jobs.empty)
    await eventually(aborted.is_set)
    lost = {event.job.id for name, event in told[1] if name == "job:lost"}
    assert lost == {str(first), str(second)}
    (event,) = [event for name, event in told[1] if name == "pool:declaredDead"]
    assert (event.pool_id, event.new_pool_id) == (dead, runner.pool_id)
    assert names_of(told)["job:failed"] == names_of(told)["job:error"] == 0
    await runner.stop()
    assert [row["pool_id"] for row in await jobs.sql(WORKERS)] == [dead]


async def test_a_worker_whose_beats_are_not_answered_claims_nothing(
    database, jobs, make_runner, eventually
) -> None:
    claimed = []

    async def handler(payload, job) -> None:
        claimed.append(job.locked_at)

    runner = make_runner(handler, options=QUICK, poll_interval=0.05)
    await runner.start()
    async with await psycopg.AsyncConnection.connect(database) as blocker:
        await blocker.execute("lock table graphile_worker.zodworker_workers")
        await eventually(lambda: runner._pool.vigil.is_fenced(time.monotonic()))
        await jobs.add()
        asked = runner._claimer._in_vain
        await eventually(lambda: runner._claimer._in_vain >= min(16, asked + 3))
        (row,) = await jobs.sql("select clock_timestamp() as now")
        assert await jobs.locked() == 0
        await blocker.rollback()
    await eventually(jobs.empty)
    assert claimed[0] > row["now"]


async def test_an_outage_for_all_kills_nobody(
    server, database, jobs, make_runner, eventually, told
) -> None:
    """The database is away for longer than `dead_after`; who is back first does not judge the rest."""
    release = asyncio.Event()
    runs: list[int] = []

    async def handler(payload, job) -> None:
        runs.append(job.attempts)
        await release.wait()

    await jobs.add_many(6)
    runners = [
        make_runner(handler, concurrency=2, options=QUICK, events=told[0], poll_interval=0.05)
        for _ in range(3)
    ]
    for runner in runners:
        await runner.start()
    await eventually(lambda: len(runs) == 6)
    name = jobs.connection.info.dbname
    async with await psycopg.AsyncConnection.connect(server.dsn(), autocommit=True) as admin:
        allow = sql.SQL("alter database {} allow_connections {}")
        await admin.execute(allow.format(sql.Identifier(name), sql.Literal(False)))
        await admin.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", [name]
        )
        await eventually(
            lambda: all(runner._pool.vigil.is_fenced(time.monotonic() - 1) for runner in runners),
        )
        await admin.execute(allow.format(sql.Identifier(name), sql.Literal(True)))
    async with await psycopg.AsyncConnection.connect(
        database, autocommit=True, row_factory=dict_row
    ) as connection:
        jobs.connection = connection
        await eventually(lambda: all(runner._pool.vigil.watch()[0] > 2.5 for runner in runners))
        assert [row["dead_at"] for row in await jobs.sql(WORKERS)] == [None] * 3
        release.set()
        await eventually(jobs.empty)
    assert runs == [1] * 6
    assert names_of(told)["pool:heartbeat:error"] >= 3
    assert names_of(told)["pool:declaredDead"] == names_of(told)["job:lost"] == 0


async def test_a_blocked_event_loop_is_not_dead(jobs, make_runner, eventually) -> None:
    judge = make_runner({"theirs": nothing}, options=QUICK)
    await judge.start()
    runs = []

    def blocked() -> None:
        async def handler(payload, job) -> None:
            runs.append(job.attempts)
            time.sleep(3)  # noqa: ASYNC251 - that is the test

        async def work() -> None:
            runner = make_runner(handler, options=QUICK)
            await runner.run_once()

        asyncio.run(work())

    await jobs.add(queue_name="a")
    await asyncio.to_thread(blocked)
    assert runs == [1]
    assert await jobs.empty()


@pytest.mark.parametrize("fails", [False, True])
async def test_a_job_that_runs_for_hours_keeps_its_locks(
    jobs, make_runner, eventually, fails
) -> None:
    release = asyncio.Event()

    async def handler(payload) -> None:
        await release.wait()
        if fails:
            raise ValueError("after hours")

    job_id = await jobs.add(queue_name="a")
    runner = make_runner(handler, options=QUICK, intervals=Intervals(refresh=0.1))
    await runner.start()
    await eventually(jobs.locked)
    for table in ("_private_jobs", "_private_job_queues"):
        await jobs.sql(
            f"update graphile_worker.{table} set locked_at = locked_at - interval '7 hours'"
        )

    async def is_fresh() -> bool:
        rows = await jobs.sql(
            "select 1 from graphile_worker._private_jobs, graphile_worker._private_job_queues q"
            " where _private_jobs.locked_at > now() - interval '1 hour'"
            " and q.locked_at > now() - interval '1 hour'"
        )
        return bool(rows)

    await eventually(is_fresh)
    release.set()
    await runner.stop()
    assert await jobs.locked() == 0
    if fails:
        assert (await jobs.row(job_id))["last_error"] == "ValueError: after hours"
    else:
        assert await jobs.empty()


async def test_locks_that_a_stop_cannot_take_back_are_recovered_at_once(
    jobs, make_runner, eventually, monkeypatch
) -> None:
    """The row that the stopped worker could not settle is left to the others, with a dead pool."""
    await jobs.sql(
        "create function refuse() returns trigger language plpgsql as"
        " $$ begin raise exception 'audit refuses job %%', old.id; end $$"
    )
    await jobs.add(max_attempts=2)
    started = asyncio.Event()

    async def handler(payload) -> None:
        started.set()

    runner = make_runner(handler, options=QUICK)
    await jobs.sql(
        "create trigger refuse before update or delete on graphile_worker._private_jobs for each"
        " row when (old.locked_by is not null) execute function refuse()"
    )
    await runner.start()
    await started.wait()
    await runner.stop()
    (row,) = await jobs.sql(WORKERS)
    assert row["dead_at"] is not None
    await jobs.sql("drop trigger refuse on graphile_worker._private_jobs")
    assert (await heartbeat.recover(jobs.connection, SCHEMA)).job_ids
    (job,) = await jobs.all()
    assert job["last_error"].endswith("stopped without giving the job back")
    assert job["is_available"]


async def test_a_refused_result_is_written_when_it_is_not_refused_any_more(
    jobs, make_runner, eventually, told, monkeypatch
) -> None:
    monkeypatch.setattr("zodworker_compat.runner.settle.LONGEST_REFUSAL", 0.1)
    await jobs.sql(
        "create function refuse() returns trigger language plpgsql as"
        " $$ begin raise exception 'audit refuses job %%', old.id; end $$"
    )
    await jobs.sql(
        "create trigger refuse before delete on graphile_worker._private_jobs"
        " for each row execute function refuse()"
    )
    runs = []

    async def handler(payload, job) -> None:
        runs.append(job.attempts)

    await jobs.add(queue_name="a")
    runner = make_runner(handler, events=told[0])
    await runner.start()
    await eventually(lambda: names_of(told)["job:refused"] >= 2)
    await jobs.sql("drop trigger refuse on graphile_worker._private_jobs")
    await eventually(jobs.empty)
    assert runs == [1]
    assert names_of(told)["job:complete"] == 1
    assert await jobs.locked() == 0


async def test_a_job_that_can_never_be_deleted_fails_with_the_reason(
    jobs, make_runner, eventually, monkeypatch
) -> None:
    monkeypatch.setattr("zodworker_compat.runner.settle.LAST_RESORT", 1)
    monkeypatch.setattr("zodworker_compat.runner.settle.LONGEST_REFUSAL", 0.1)
    await jobs.sql(
        "create function refuse() returns trigger language plpgsql as"
        " $$ begin raise exception 'audit refuses job %%', old.id; end $$"
    )
    await jobs.sql(
        "create trigger refuse before delete on graphile_worker._private_jobs"
        " for each row execute function refuse()"
    )
    job_id = await jobs.add(queue_name="a")
    runner = make_runner(nothing)
    await runner.start()

    async def failed() -> bool:
        return (await jobs.row(job_id))["last_error"] is not None

    await eventually(failed)
    assert "PostgreSQL refused to delete its job" in (await jobs.row(job_id))["last_error"]
    assert await jobs.locked() == 0


async def test_a_handler_that_stops_its_worker_does_not_wait_for_itself(
    jobs, make_runner, eventually
) -> None:
    made: list[Any] = []
    ended = []

    async def handler(payload) -> None:
        await made[0].stop()
        ended.append(True)

    await jobs.add()
    made.append(make_runner(handler, shutdown_timeout=600))
    await made[0].start()
    await asyncio.wait_for(made[0].wait(), 60)
    assert ended
    assert await jobs.empty()


async def test_a_swallowed_cancellation_does_not_keep_a_job_alive(
    jobs, make_runner, eventually, monkeypatch
) -> None:
    """As `asyncio.wait_for` does before Python 3.12, if its timeout comes at the same moment."""
    monkeypatch.setattr(execute, "CANCEL_AGAIN", 0.1)
    cancelled = []

    async def handler(payload) -> None:
        while len(cancelled) < 3:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(True)
        await asyncio.Event().wait()

    job_id = await jobs.add()
    options = RunOptions(timeout=timedelta(seconds=0.05))
    runner = make_runner({"task": RunnableTask("task", lambda payload: payload, handler, options)})
    await runner.start()

    async def failed() -> bool:
        return (await jobs.row(job_id))["last_error"] is not None

    await eventually(failed)
    assert (await jobs.row(job_id))["last_error"].startswith("TimeoutError: the run took longer")
    assert len(cancelled) == 3


@pytest.mark.parametrize("wrong", [0, 0.9, -5, 3601, "soon"])
def test_a_limit_that_makes_no_sense_is_refused(wrong) -> None:
    with pytest.raises(ConfigurationError, match=r"dead_after|timedelta"):
        RunnerOptions(dead_after=wrong)


async def test_a_claim_that_outlives_its_pool_is_given_back(
    jobs, make_runner, eventually, monkeypatch
) -> None:
    claim, pools = queue.claim, []

    async def claim_until_dead(connection, schema, pool_id, *arguments):
        batch = await claim(connection, schema, pool_id, *arguments)
        if batch.jobs and not pools:
            pools.append(pool_id)
            await jobs.sql("update graphile_worker.zodworker_workers set dead_at = now()")
            await eventually(lambda: runner.pool_id != pool_id)
        return batch

    monkeypatch.setattr(queue, "claim", claim_until_dead)

    async def handler(payload, job) -> None:
        pools.append(job.locked_by)

    await jobs.add(queue_name="a")
    runner = make_runner(handler, options=QUICK, poll_interval=0.05)
    await runner.start()
    await eventually(jobs.empty)
    assert pools[1:] == [runner.pool_id]
    assert pools[0] != pools[1]
    assert await jobs.locked() == 0


async def test_what_was_claimed_before_a_silence_does_not_start_after_it(
    jobs, make_runner, eventually
) -> None:
    """The pool was frozen between claim and start: the job may be another's by now."""
    events, runs = Events(), []
    claims: Counter[str] = Counter()

    def freeze(event) -> None:
        claims["all"] += 1
        if claims["all"] == 1:
            runner._pool.vigil.fence = 0

    events.on("localQueue:getJobs:complete", freeze)

    async def handler(payload, job) -> None:
        runs.append((claims["all"], job.attempts))

    await jobs.add()
    runner = make_runner(handler, options=QUICK, events=events, poll_interval=0.05)
    await runner.start()
    await eventually(jobs.empty)
    assert runs == [(2, 1)]


async def test_a_table_that_was_dropped_is_made_again(jobs, make_runner, eventually) -> None:
    runner = make_runner(nothing, options=QUICK)
    await runner.start()
    await jobs.sql("drop table graphile_worker.zodworker_workers")
    await jobs.sql("delete from graphile_worker.zodworker_migrations where name like '002%%'")

    async def is_listed() -> bool:
        found = await jobs.sql("select to_regclass('graphile_worker.zodworker_workers') as there")
        return bool(found[0]["there"] and await jobs.sql(WORKERS))

    await eventually(is_listed)
    await jobs.add()
    await eventually(jobs.empty)


async def test_without_a_table_that_cannot_be_made_again_it_works_on(
    jobs, make_runner, eventually, caplog
) -> None:
    """Our own ledger says that it is there. Nobody can take this worker for dead."""
    runner = make_runner(nothing, options=QUICK)
    await runner.start()
    await jobs.sql("drop table graphile_worker.zodworker_workers")
    await eventually(lambda: "are not given back before four hours" in caplog.text)
    await jobs.add()
    await eventually(jobs.empty)
    await runner.stop()
    assert await jobs.locked() == 0


FORGET = {
    "_private_jobs": "attempts = attempts - 1, locked_at = null, locked_by = null",
    "_private_job_queues": "locked_at = null, locked_by = null",
}


async def forget_claims(jobs) -> None:
    """Do what a crash of the server does to claims: nobody waits until they are on the disk."""
    for table, change in FORGET.items():
        await jobs.sql(f"update graphile_worker.{table} set {change} where locked_at is not null")


async def end_connections(jobs) -> None:
    """End all connections to the database but the test's."""
    await jobs.sql(
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where datname = current_database() and pid <> pg_backend_pid()"
    )


async def test_what_a_crash_forgot_is_locked_again(jobs, make_runner, eventually) -> None:
    """Though no slot is free, so that there is no claim to find it out."""
    release = asyncio.Event()
    runs: list[int] = []

    async def handler(payload, job) -> None:
        runs.append(job.attempts)
        await release.wait()

    for queue_name in ("a", None):
        await jobs.add(queue_name=queue_name)
    runner = make_runner(handler, concurrency=2, options=QUICK)
    await runner.start()
    await eventually(lambda: len(runs) == 2)
    before = await jobs.all()

    await forget_claims(jobs)
    assert await jobs.locked() == 0
    await end_connections(jobs)

    async def are_locked() -> bool:
        return await jobs.locked() == 3

    await eventually(are_locked)
    assert await jobs.all() == before
    release.set()
    await eventually(jobs.empty)
    await runner.stop()
    assert runs == [1, 1]
    assert await jobs.locked() == 0


async def test_the_result_of_a_run_whose_claim_a_crash_forgot_is_written(
    jobs, make_runner, eventually, told
) -> None:
    """The job is free when its run ends, and its worker could claim it."""
    runs: Counter[str] = Counter()

    async def handler(payload, job) -> None:
        runs[f"{job.id}.{job.attempts}"] += 1
        if job.attempts == 1:
            await forget_claims(jobs)
            await end_connections(jobs)
            if payload["fails"]:
                raise ValueError("no")

    done = await jobs.add(payload={"fails": False}, queue_name="a")
    runner = make_runner(handler, concurrency=1, poll_interval=600, events=told[0])
    await runner.start()
    await eventually(jobs.empty)
    failing = await jobs.add(payload={"fails": True}, queue_name="a")

    async def has_failed() -> bool:
        return (await jobs.row(failing))["last_error"] == "ValueError: no"

    await eventually(has_failed)
    assert await jobs.locked() == 0
    assert runs == {f"{done}.1": 1, f"{failing}.1": 1}
    assert names_of(told)["job:lost"] == 0


async def test_a_forgotten_claim_that_is_made_again_does_not_run_twice(
    jobs, make_runner, eventually
) -> None:
    """The worker finds its own running job free, as after a crash behind a pooler."""
    release = asyncio.Event()
    runs: list[int] = []

    async def handler(payload, job) -> None:
        runs.append(payload["n"])
        await release.wait()

    await jobs.add(payload={"n": 1}, queue_name="a")
    runner = make_runner(handler, concurrency=3, poll_interval=0.05)
    await runner.start()
    await eventually(lambda: runs)
    await forget_claims(jobs)
    await jobs.add(payload={"n": 2})
    await eventually(lambda: 2 in runs)

    async def are_locked() -> bool:
        return await jobs.locked() == 3

    await eventually(are_locked)
    release.set()
    await eventually(jobs.empty)
    assert runs == [1, 2]


async def test_what_others_have_claimed_after_a_crash_does_not_start_here(
    jobs, make_runner, eventually
) -> None:
    held, runs = asyncio.Event(), []

    async def handler(payload) -> None:
        runs.append(payload)
        await held.wait()

    runner = make_runner(handler, concurrency=1, intervals=Intervals(hold=600), options=QUICK)
    await runner.start()
    await jobs.add(payload={"n": "runs"})
    await eventually(lambda: runs)
    waiting = await jobs.add(payload={"n": "waits"})
    [task] = await jobs.sql("select id from graphile_worker._private_tasks")
    batch = await queue.claim(jobs.connection, SCHEMA, runner.pool_id, [task["id"]], 1)
    runner._buffer.put(batch.jobs, is_more=False)
    await lock(jobs, "pool-other", waiting)
    await end_connections(jobs)

    await eventually(lambda: not runner._buffer.jobs())
    held.set()

    async def only_one_is_left() -> bool:
        return await jobs.count() == 1

    await eventually(only_one_is_left)
    await runner.stop()
    assert runs == [{"n": "runs"}]
    assert (await jobs.row(waiting))["locked_by"] == "pool-other"


async def test_a_late_claim_of_our_own_is_given_back(
    jobs, make_runner, eventually, monkeypatch
) -> None:
    """A claim whose answer never came comes through only after we have looked what it took."""
    claim, tries = queue.claim, []

    async def lose_one(connection, schema, pool_id, *arguments):
        tries.append(pool_id)
        if len(tries) == 1:
            raise psycopg.OperationalError("the connection was lost")
        return await claim(connection, schema, pool_id, *arguments)

    monkeypatch.setattr(queue, "claim", lose_one)
    runner = make_runner(nothing, poll_interval=0.05)
    await runner.start()
    await eventually(lambda: len(tries) > 2)
    await lock(jobs, runner.pool_id, await jobs.add(queue_name="a"))
    await eventually(jobs.empty)


async def test_a_stop_gives_back_what_nobody_knew_of(jobs, make_runner, eventually) -> None:
    """As a result that a crash has forgotten: the job is there again, and locked by us."""
    runner = make_runner(nothing)
    await runner.start()
    late = await jobs.add("theirs", queue_name="a")
    await lock(jobs, runner.pool_id, late)
    await runner.stop()
    assert await jobs.locked() == 0
    assert (await jobs.row(late))["attempts"] == 0


async def test_a_stop_that_cannot_write_results_leaves_a_dead_pool(
    jobs, make_runner, eventually, monkeypatch
) -> None:
    """Its statement gets no answer: the others recover at once what it may still hold."""
    monkeypatch.setattr("zodworker_compat.runner.runner.FLUSH_TIMEOUT", 0.5)

    async def no_answer(*_arguments, **_more) -> list[Any]:
        await asyncio.Event().wait()
        return []

    monkeypatch.setattr(queue, "complete", no_answer)
    job_id = await jobs.add()
    ran = asyncio.Event()

    async def handler(payload) -> None:
        ran.set()

    runner = make_runner(handler)
    await runner.start()
    await ran.wait()
    await runner.stop()

    async def is_dead() -> bool:
        return [row["dead_at"] is not None for row in await jobs.sql(WORKERS)] == [True]

    await eventually(is_dead)
    assert (await heartbeat.recover(jobs.connection, SCHEMA)).job_ids == [job_id]


async def test_a_queue_is_freed_whose_running_job_was_deleted(
    jobs, make_runner, eventually
) -> None:
    runs = []

    async def handler(payload, job) -> None:
        runs.append(job.id)
        await jobs.sql("delete from graphile_worker._private_jobs where id = %s", int(job.id))

    await jobs.add(queue_name="a")
    runner = make_runner(handler, poll_interval=0.05)
    await runner.start()
    await eventually(lambda: runs)
    await jobs.add(queue_name="a")
    await eventually(lambda: len(runs) == 2)
    await runner.stop()
    assert await jobs.locked() == 0


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Have a process of the server hang."""
    name = Path(f"/proc/{pid}/comm").read_text()
    assert name.startswith("postgres"), "the server of this test must run on this machine"
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("of", ["claim", "complete"])
async def test_a_server_process_that_hangs_is_left(
    jobs, make_runner, eventually, monkeypatch, of
) -> None:
    """Its kernel says that the connection is alive; the other connections of the worker are."""
    monkeypatch.setattr("zodworker_compat.runner.fetch.PATIENCE", 0.5)
    monkeypatch.setattr("zodworker_compat.runner.settle.PATIENCE", 0.5)
    monkeypatch.setattr(sessions, "CANCEL_GRACE", 0.5)
    runner = make_runner(nothing, poll_interval=0.05)
    await runner.start()
    await jobs.add()
    await eventually(jobs.empty)
    which = {"claim": runner._claimer, "complete": runner._settler}[of]
    hung = (await which._session.connection()).info.backend_pid
    with stopped(hung):
        await jobs.add(queue_name="a")
        await eventually(jobs.empty)


async def test_a_beat_waits_for_no_standby(database) -> None:
    session = sessions.Session(database, application_name="test", is_local=True)
    cursor = await (await session.connection()).execute("show synchronous_commit")
    assert await cursor.fetchone() == ("local",)
    await session.close()


async def test_what_a_role_has_for_its_people_does_not_bind_its_workers(
    database, jobs, make_runner, eventually, caplog
) -> None:
    name = sql.Identifier(jobs.connection.info.dbname)
    for setting in (
        "statement_timeout = '500ms'",
        "idle_session_timeout = '500ms'",
        "default_transaction_isolation = 'serializable'",
    ):
        await jobs.connection.execute(
            sql.SQL("alter database {} set {}").format(name, sql.SQL(setting))
        )
    await jobs.sql(
        "create function delay() returns trigger language plpgsql as"
        " $$ begin perform pg_sleep(1); return old; end $$"
    )
    await jobs.sql(
        "create trigger delay before delete on graphile_worker._private_jobs"
        " for each row when (old.id = 1) execute function delay()"
    )
    runners = [make_runner(nothing, poll_interval=600) for _ in range(2)]
    for runner in runners:
        await runner.start()
    await jobs.add_many(20)
    await eventually(jobs.empty)

    async def have_been_idle() -> bool:
        rows = await jobs.sql(
            "select 1 from pg_stat_activity where application_name = 'zodworker:test'"
            " and now() - state_change > interval '1 s'"
        )
        return len(rows) >= 4

    await eventually(have_been_idle)
    await jobs.add_many(20, queue_name="a")
    await eventually(jobs.empty)
    for runner in runners:
        await runner.stop()
    assert [record.message for record in caplog.records if record.levelname != "INFO"] == []
