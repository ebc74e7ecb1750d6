"""The limiter that keeps its state in the queue's database."""

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from zodworker_compat import (
    DatabaseUnavailableError,
    Job,
    PostgresRateLimiter,
    RunnerOptions,
    ZodWorker,
)

PAST = datetime(2020, 1, 1, tzinfo=UTC)


class Gauge:
    """How many jobs ran, and how many at most at a time, per flag."""

    def __init__(self, seconds: float = 0.01) -> None:
        self.seconds = seconds
        self.running: dict[str, int] = {}
        self.most: dict[str, int] = {}
        self.ran: list[Job] = []

    async def __call__(self, _payload: Any, job: Job) -> None:
        flags = list(job.flags or ["none"])
        for flag in flags:
            self.running[flag] = self.running.get(flag, 0) + 1
            self.most[flag] = max(self.most.get(flag, 0), self.running[flag])
        await asyncio.sleep(self.seconds)
        for flag in flags:
            self.running[flag] -= 1
        self.ran.append(job)

    def all_running(self) -> int:
        return sum(self.running.values())


@pytest.fixture
async def make_worker(database: str) -> AsyncIterator[Callable[..., ZodWorker]]:
    made: list[ZodWorker] = []

    def make(
        limiter: PostgresRateLimiter,
        handler: Callable[..., Any],
        conninfo: str = database,
        **options: Any,
    ) -> ZodWorker:
        worker = ZodWorker(
            name="limited",
            runner_options=RunnerOptions(
                connection_string=conninfo, concurrency=10, poll_interval=0.05
            ),
            rate_limiter=limiter,
            handle_signals=False,
        )
        worker.task("task", schema=True, **options)(handler)
        made.append(worker)
        return worker

    yield make
    for worker in made:
        await worker.stop()


@pytest.fixture
async def limiter(database: str) -> AsyncIterator[PostgresRateLimiter]:
    """One that belongs to no worker; its tables are there."""
    limiter = PostgresRateLimiter(runner_options=RunnerOptions(connection_string=database))
    await limiter.forbidden_flags()
    yield limiter
    await limiter.close()


async def slots(jobs: Any) -> list[tuple[str, int]]:
    rows = await jobs.sql("select flag, job_id from graphile_worker.zodworker_limiter_slots")
    return sorted((row["flag"], row["job_id"]) for row in rows)


async def test_two_workers_together_never_exceed_a_limit_and_lose_nothing(
    jobs, make_worker, eventually
) -> None:
    gauge = Gauge()
    limits = {"rl:two": 2, "rl:one": 1}
    for n in range(60):
        flags = [["rl:two"], ["rl:one"], ["rl:two", "rl:one"], None][n % 4]
        queue = f"q{n % 5}" if n % 3 == 0 else None
        await jobs.add(
            "task", {"n": n}, flags=flags, queue_name=queue, job_key=f"k{n}", priority=n % 3
        )
    for _ in range(2):
        await make_worker(PostgresRateLimiter(limits), gauge).initialize()
    await eventually(jobs.empty)
    assert sorted(job.payload["n"] for job in gauge.ran) == list(range(60))
    assert (gauge.most["rl:two"], gauge.most["rl:one"]) == (2, 1)
    assert {(job.key, job.priority) for job in gauge.ran} == {(f"k{n}", n % 3) for n in range(60)}
    assert {job.attempts for job in gauge.ran} == {1}
    await eventually(lambda: not gauge.all_running())
    assert await slots(jobs) == []


async def test_a_worker_alone_puts_next_to_no_job_back(jobs, make_worker, eventually) -> None:
    """A flag is forbidden before the next job of it is claimed."""
    gauge = Gauge(seconds=0.1)
    ids = {await jobs.add("task", flags=["rl:a"]) for _ in range(40)}
    await make_worker(PostgresRateLimiter(default=3), gauge).initialize()
    await eventually(jobs.empty)
    assert gauge.most["rl:a"] <= 3
    put_back = {int(job.id) for job in gauge.ran} - ids
    assert len(put_back) <= 4


async def test_a_job_that_is_put_back_keeps_what_it_has(
    jobs, make_worker, limiter, eventually
) -> None:
    """Also with `unsafe_dedupe` in the catalog, which loses such a job in the original."""
    gauge = Gauge()
    worker = make_worker(
        PostgresRateLimiter(lambda _flag: size[0]),
        gauge,
        job_key_mode="unsafe_dedupe",
        max_attempts=5,
    )
    size = [0]
    await worker.enqueue(
        "task", {"n": 1}, flags=["rl:a", "b"], job_key="k", priority=-7, run_at=PAST
    )
    await jobs.sql("update graphile_worker._private_jobs set attempts = 2")
    [before] = await jobs.all()
    await worker.initialize()

    async def put_back() -> Any:
        return [row for row in await jobs.all() if row["id"] != before["id"]]

    [after] = await eventually(put_back)
    assert (after["attempts"], after["max_attempts"], after["revision"]) == (0, 3, 0)
    kept = ("key", "priority", "run_at", "flags", "task_id", "payload")
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    size[0] = 1
    await eventually(jobs.empty)
    [job] = gauge.ran
    assert (job.attempts, job.max_attempts) == (1, 3)


async def test_jobs_without_a_full_flag_run_meanwhile(jobs, make_worker, eventually) -> None:
    gauge = Gauge(seconds=0.05)
    worker = make_worker(PostgresRateLimiter({"rl:none": 0}, default=5), gauge)
    for flags in (["rl:none"], None, [], ["other"], ["rl:some"], ["rl:some", "rl:none"]):
        await jobs.add("task", flags=flags)
    await worker.initialize()

    async def only_two_are_left() -> bool:
        return await jobs.count() == 2

    await eventually(only_two_are_left)
    assert len(gauge.ran) == 4
    assert [sorted(row["flags"]) for row in await jobs.all()] == [
        ["rl:none"],
        ["rl:none", "rl:some"],
    ]
    assert "rl:none" not in gauge.most


async def test_pause_and_resume(jobs, make_worker, limiter, eventually) -> None:
    gauge = Gauge()
    await limiter.pause("rl:a")
    await limiter.pause("rl:a")
    assert await limiter.forbidden_flags() == {"rl:a"}
    await jobs.add("task", flags=["rl:a"])
    await jobs.add("task", flags=["rl:b"])
    await make_worker(PostgresRateLimiter(), gauge).initialize()

    async def only_one_is_left() -> bool:
        return await jobs.count() == 1

    await eventually(only_one_is_left)
    [row] = await jobs.all()
    assert (row["attempts"], row["flags"]) == (0, {"rl:a": True})
    await limiter.resume("rl:a")
    await eventually(jobs.empty)
    await limiter.resume("rl:a")
    assert await limiter.forbidden_flags() == set()


async def test_a_job_claimed_before_the_pause_does_not_start(jobs, limiter) -> None:
    await limiter.pause("rl:b")
    job_id = await jobs.add("task", flags=["rl:a", "rl:b"])
    assert await start(jobs, limiter, job_id) == "put back"
    assert await slots(jobs) == []


async def start(jobs: Any, limiter: PostgresRateLimiter, job_id: int, pool: str = "pool-1") -> str:
    """Claim a job by hand, for a pool that then dies while it runs it; or is it put back?"""
    await jobs.sql(
        "update graphile_worker._private_jobs set locked_by = %s, locked_at = now() where id = %s",
        pool,
        job_id,
    )
    row = await jobs.row(job_id)
    job = Job(
        **{name: value for name, value in row.items() if name != "payload"},
        payload=row["payload"],
        task_identifier="task",
        queue_name=None,
    )
    outcome = asyncio.get_running_loop().create_future()

    async def task(*_arguments: Any) -> None:
        outcome.set_result("ran")
        await asyncio.Event().wait()

    async def reschedule(_payload: Any, _job: Job) -> None:
        outcome.set_result("put back")

    runs.append(asyncio.create_task(limiter.wrap_task(task, reschedule)({}, job, None)))
    return await outcome


runs: list["asyncio.Task[None]"] = []


@pytest.fixture(autouse=True)
async def _end_runs() -> AsyncIterator[None]:
    yield
    for run in runs:
        run.cancel()
    await asyncio.gather(*runs, return_exceptions=True)
    runs.clear()


UPDATE_JOB = "update graphile_worker._private_jobs set {change} where id = {job}"
UPDATE_SLOT = (
    "update graphile_worker.zodworker_limiter_slots set taken_at = now() - interval '{age}'"
)


@pytest.mark.parametrize(
    ("what_happens", "is_free"),
    [
        ("select", False),
        ("delete from graphile_worker._private_jobs where id = {job}", True),
        (UPDATE_JOB.replace("{change}", "locked_by = null, locked_at = null"), True),
        (UPDATE_JOB.replace("{change}", "locked_by = 'pool-2'"), True),
        (UPDATE_SLOT.replace("{age}", "15 minutes"), True),
        (UPDATE_SLOT.replace("{age}", "14 minutes 50 seconds"), False),
    ],
)
async def test_when_the_slot_of_a_dead_worker_is_free(
    jobs, database, what_happens, is_free
) -> None:
    options = RunnerOptions(connection_string=database)
    limiter = PostgresRateLimiter(default=1, runner_options=options)
    dead, next_one = [await jobs.add("task", flags=["rl:a"]) for _ in range(2)]
    assert await start(jobs, limiter, dead) == "ran"
    assert await limiter.forbidden_flags() == {"rl:a"}
    await jobs.sql(what_happens.format(job=dead))
    assert await limiter.forbidden_flags() == (set() if is_free else {"rl:a"})
    assert await start(jobs, limiter, next_one) == ("ran" if is_free else "put back")
    await limiter.close()


async def test_a_job_takes_all_its_slots_or_none(jobs, database) -> None:
    options = RunnerOptions(connection_string=database)
    limiter = PostgresRateLimiter({"rl:one": 1}, runner_options=options)
    first, second = [await jobs.add("task", flags=["rl:one", "rl:many"]) for _ in range(2)]
    assert await start(jobs, limiter, first) == "ran"
    assert await start(jobs, limiter, second) == "put back"
    assert await slots(jobs) == [("rl:many", first), ("rl:one", first)]
    await limiter.close()


async def test_taking_the_last_slots_at_one_moment(jobs, database) -> None:
    options = RunnerOptions(connection_string=database, max_pool_size=8)
    limiters = [PostgresRateLimiter(default=3, runner_options=options) for _ in range(3)]
    ids = [await jobs.add("task", flags=["rl:a", "rl:b"]) for _ in range(24)]
    outcomes = await asyncio.gather(
        *(start_alone(database, limiters[n % 3], job_id) for n, job_id in enumerate(ids))
    )
    assert sorted(outcomes) == ["put back"] * 21 + ["ran"] * 3
    for one in limiters:
        await one.close()


async def start_alone(database: str, limiter: PostgresRateLimiter, job_id: int) -> str:
    class Rows:
        async def sql(self, text: str, *parameters: Any) -> list[Any]:
            cursor = await connection.execute(text, parameters)
            return await cursor.fetchall() if cursor.description else []

        async def row(self, job_id: int) -> Any:
            rows = await self.sql(
                "select * from graphile_worker._private_jobs where id = %s", job_id
            )
            return rows[0]

    async with await psycopg.AsyncConnection.connect(
        database, autocommit=True, row_factory=psycopg.rows.dict_row
    ) as connection:
        return await start(Rows(), limiter, job_id)


async def test_a_long_job_keeps_its_slot(jobs, make_worker, eventually) -> None:
    gauge = Gauge(seconds=1)
    limiter = PostgresRateLimiter(default=1, window=timedelta(seconds=0.4))
    for _ in range(2):
        await jobs.add("task", flags=["rl:a"])
    await make_worker(limiter, gauge).initialize()
    await eventually(jobs.empty)
    assert gauge.most == {"rl:a": 1}


async def test_nothing_is_claimed_while_its_table_cannot_be_read(
    jobs, make_worker, limiter, eventually, caplog
) -> None:
    gauge = Gauge()
    table = "graphile_worker.zodworker_limiter_slots"
    await jobs.sql(f"alter table {table} rename to zodworker_elsewhere")
    job_id = await jobs.add("task", flags=["rl:a"])
    await jobs.add("task")
    await make_worker(PostgresRateLimiter(), gauge).initialize()
    await eventually(lambda: "cannot name the forbidden flags" in caplog.text)
    assert "zodworker_limiter_slots" in caplog.text
    assert gauge.ran == []
    assert (await jobs.row(job_id))["attempts"] == 0
    await jobs.sql(
        "alter table graphile_worker.zodworker_elsewhere rename to zodworker_limiter_slots"
    )
    await eventually(jobs.empty)


async def test_a_job_that_cannot_ask_for_its_slots_is_put_back(jobs, limiter, caplog) -> None:
    job_id = await jobs.add("task", flags=["rl:a"])
    await jobs.sql("drop table graphile_worker.zodworker_paused_flags")
    assert await start(jobs, limiter, job_id) == "put back"
    assert "Cannot ask for the slots of job" in caplog.text


async def test_a_slot_that_cannot_be_given_back_does_not_fail_its_job(
    jobs, make_worker, eventually, caplog
) -> None:
    async def handler(_payload: Any) -> None:
        await jobs.sql(
            "alter table graphile_worker.zodworker_limiter_slots rename to zodworker_elsewhere"
        )

    await jobs.add("task", flags=["rl:a"])
    await make_worker(PostgresRateLimiter(), handler).initialize()
    await eventually(jobs.empty)
    assert "Cannot give the slots of job" in caplog.text
    assert not [r for r in caplog.records if r.levelno >= logging.ERROR]


async def test_two_workers_of_one_process_may_share_a_limiter(
    jobs, make_worker, eventually
) -> None:
    gauge = Gauge()
    limiter = PostgresRateLimiter(default=1)
    first, second = make_worker(limiter, gauge), make_worker(limiter, gauge)
    await first.initialize()
    await second.initialize()
    await first.stop()
    for _ in range(3):
        await jobs.add("task", flags=["rl:a"])
    await eventually(jobs.empty)
    assert gauge.most == {"rl:a": 1}


async def test_an_unreachable_database_is_an_error(free_port_dsn: str) -> None:
    limiter = PostgresRateLimiter(runner_options=RunnerOptions(connection_string=free_port_dsn))
    with pytest.raises(DatabaseUnavailableError):
        await limiter.pause("rl:a")


@pytest.fixture
def free_port_dsn() -> str:
    return "postgresql://nobody@127.0.0.1:1/nowhere"


PROGRAM = """
import asyncio, sys
import psycopg
from zodworker_compat import PostgresRateLimiter, RunnerOptions, ZodWorker

worker = ZodWorker(
    name="limited",
    runner_options=RunnerOptions(connection_string=sys.argv[1], concurrency=8, poll_interval=0.05),
    rate_limiter=PostgresRateLimiter({"rl:a": 2}),
)

@worker.task("task", schema=True)
async def task(payload, job):
    async with await psycopg.AsyncConnection.connect(sys.argv[1], autocommit=True) as connection:
        await connection.execute("update gauge set running = running + 1, most = greatest(most, running + 1)")
        await asyncio.sleep(0.02)
        await connection.execute("update gauge set running = running - 1, ran = ran + 1")

asyncio.run(worker.run_until_stopped())
"""


async def test_two_processes_together_never_exceed_a_limit(
    jobs, database, process, eventually
) -> None:
    await jobs.sql("create table gauge (running integer, most integer, ran integer)")
    await jobs.sql("insert into gauge values (0, 0, 0)")
    for _ in range(30):
        await jobs.add("task", flags=["rl:a"])
    for _ in range(2):
        process([sys.executable, "-c", PROGRAM, database])
    await eventually(jobs.empty, timeout=60)
    [gauge] = await jobs.sql("select * from gauge")
    assert gauge == {"running": 0, "most": 2, "ran": 30}
