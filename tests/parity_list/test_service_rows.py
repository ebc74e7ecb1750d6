"""P-50 to P-60: limiter, recurring tasks, cleanup, reporter, signals, stopping."""

import asyncio
import os
import signal
import sys
from collections.abc import Collection
from datetime import UTC, datetime, timedelta

import pytest
from psycopg import sql

from zodworker_compat import CleanupOptions, CrontabError, Job, RunnerOptions

SESSIONS = (
    "select pid from pg_stat_activity where application_name like 'zodworker:%%'"
    " and datname = current_database() order by pid"
)


class Limiter:
    """Says no to the first `refusals` runs, and forbids `forbidden`."""

    def __init__(self, refusals: int = 0, forbidden: Collection[str] = ()) -> None:
        self.refusals, self.forbidden = refusals, forbidden
        self.asked = 0
        self.wrapped = 0
        self.jobs: list[Job] = []

    async def forbidden_flags(self) -> Collection[str]:
        self.asked += 1
        return self.forbidden

    def wrap_task(self, task, reschedule):
        self.wrapped += 1

        async def limited(payload, job, helpers) -> None:
            self.jobs.append(job)
            if len(self.jobs) <= self.refusals:
                await reschedule(payload, job)
            else:
                await task(payload, job, helpers)

        return limited


async def test_p50_jobs_with_a_forbidden_flag_are_skipped(make_worker, table) -> None:
    seen = []
    limiter = Limiter(forbidden=["no", "never"])
    worker = make_worker({"handler": seen.append}, rate_limiter=limiter)
    for name, flags in [("a", ["no"]), ("b", ["yes", "never"]), ("c", ["yes"]), ("d", None)]:
        await worker.enqueue("t", name, flags=flags)
    await worker.run_once()
    assert limiter.asked >= 1
    assert sorted(seen) == ["c", "d"]
    left = await table.rows()
    assert [(row["text"], row["attempts"]) for row in left] == [('"a"', 0), ('"b"', 0)]
    limiter.forbidden = []
    await worker.run_once()
    assert await table.empty()


@pytest.mark.parametrize("key", [None, "k"])
async def test_p51_a_throttled_job_is_enqueued_again_with_the_attempts_it_has_left(
    make_worker, table, key
) -> None:
    seen = []
    limiter = Limiter(refusals=1)
    worker = make_worker({"handler": seen.append, "maxAttempts": 5}, rate_limiter=limiter)
    added = await worker.enqueue("t", "p", job_key=key)
    await table.set("attempts = 2, revision = 7, last_error = 'e'")
    await worker.run_once()
    first, second = limiter.jobs
    assert (first.id, first.attempts, first.max_attempts) == (added.id, 3, 5)
    assert second.id != first.id
    assert (second.attempts, second.max_attempts, second.revision) == (1, 3, 0)  # claimed again
    assert (second.last_error, second.key, second.payload) == (None, key, "p")
    assert seen == ["p"]
    assert await table.empty()


async def test_p52_a_throttled_job_keeps_what_it_was_enqueued_with(make_worker) -> None:
    limiter = Limiter(refusals=2)
    catalog = {"priority": 9, "flags": ["catalog"], "handler": lambda payload: None}
    worker = make_worker(catalog, rate_limiter=limiter)
    past = datetime(2020, 1, 1, tzinfo=UTC)
    await worker.enqueue("t", priority=-3, job_key="k", flags=["b", "a"], run_at=past)
    await worker.enqueue("t", flags=[])
    worker.configure(concurrency=1)
    await worker.run_once()
    keyed = [job for job in limiter.jobs if job.key == "k"]
    plain = [job for job in limiter.jobs if job.key is None]
    assert len(keyed) + len(plain) == 4
    assert {(job.priority, job.run_at, *job.flags) for job in keyed} == {(-3, past, "a", "b")}
    assert {(job.priority, job.flags) for job in plain} == {(9, None)}


async def test_p52_a_throttled_job_is_not_lost_to_unsafe_dedupe_departure_6(
    make_worker, table
) -> None:
    # The original's second enqueue only counts on the row that is being deleted.
    seen = []
    worker = make_worker(
        {"handler": seen.append, "jobKeyMode": "unsafe_dedupe"}, rate_limiter=Limiter(refusals=3)
    )
    await worker.enqueue("t", "p", job_key="k")
    await worker.run_once()
    assert seen == ["p"]
    assert await table.empty()


CRON = '{"_cron": {"ts": "2024-06-01T12:00:00.000Z", "backfilled": false}}'
NOON = datetime(2024, 6, 1, 12, tzinfo=UTC)
CLEANUP = CleanupOptions(
    frequency_expression="13,27,43 * * * *", ttl=timedelta(days=7), max_count=2
)


async def test_p53_the_limiter_wraps_only_tasks_of_the_catalog(make_worker, table) -> None:
    seen, reports = [], []
    limiter = Limiter(refusals=100)
    worker = make_worker(
        {"handler": seen.append},
        rate_limiter=limiter,
        recurring_tasks={"r": {"match": "* * * * *", "handler": seen.append}},
        cleanup=CLEANUP,
        reporter=lambda *report: reports.append(report),
    )
    for identifier in ("r", "__cleanupOldJobs", "__reporter"):
        await table.sql("select graphile_worker.add_job(%s, %s)", identifier, CRON)
    await worker.run_once()
    assert (limiter.wrapped, limiter.jobs) == (1, [])
    assert [run.ts for run in seen] == [NOON]
    assert {event for event, _ in reports} == {"cleanup_stats", "queue_metrics"}


def nothing(run) -> None: ...


def test_p54_cron_items_are_cleanup_reporter_and_the_recurring_tasks(make_worker, nowhere) -> None:
    recurring = {name: {"match": "* * * * *", "handler": nothing} for name in ("r2", "r1")}
    worker = make_worker(
        runner_options=nowhere, recurring_tasks=recurring, cleanup=CLEANUP, reporter=print
    )
    assert [(item.identifier, item.task, item.match.text) for item in worker.cron_items] == [
        ("__cleanupOldJobs", "__cleanupOldJobs", "13,27,43 * * * *"),
        ("__reporter", "__reporter", "50 * * * *"),
        ("r2", "r2", "* * * * *"),
        ("r1", "r1", "* * * * *"),
    ]
    with pytest.raises(CrontabError, match="rename the 'pattern' property to 'match'"):
        make_worker(recurring_tasks={"r": {"pattern": "* * * * *", "handler": nothing}})


async def cleaned_up(worker, table) -> list[str]:
    """Run a clean-up; returns the payloads of the jobs that are left."""
    await table.sql("select graphile_worker.add_job('__cleanupOldJobs', %s)", CRON)
    await worker.run_once()
    return [row["text"] for row in await table.rows()]


OLD = NOON - timedelta(days=7, seconds=1)


@pytest.mark.parametrize(
    ("state", "run_at"),
    [
        ("attempts = 2", NOON - timedelta(days=7)),
        ("attempts = 1", OLD),
        ("attempts = 2, locked_at = now(), locked_by = 'other'", OLD),
    ],
)
async def test_p55_cleanup_keeps_what_is_recent_unfinished_or_locked(
    make_worker, table, state, run_at
) -> None:
    worker = make_worker(cleanup=CLEANUP)
    await worker.enqueue("t", max_attempts=2, run_at=run_at)
    await table.set(state)
    assert await cleaned_up(worker, table) == ["{}"]


async def test_p55_cleanup_deletes_at_most_max_count_old_failed_jobs(make_worker, table) -> None:
    worker = make_worker(cleanup=CLEANUP)
    for number in range(5):
        await worker.enqueue("t", number, max_attempts=2, run_at=OLD)
    await table.set("attempts = 2")
    assert [len(await cleaned_up(worker, table)) for _ in range(3)] == [3, 1, 0]


async def test_p55_cleanup_deletes_a_job_with_too_many_attempts_departure(
    make_worker, table
) -> None:
    # Whoever lowers max_attempts makes one; no worker takes it, and it would stay for ever.
    worker = make_worker(cleanup=CLEANUP)
    await worker.enqueue("t", max_attempts=2, run_at=OLD)
    await table.set("attempts = 3")
    assert await cleaned_up(worker, table) == []


async def test_p56_cleanup_and_reporter_run_only_if_configured(make_worker, table) -> None:
    recurring = {"r": {"match": "* * * * *", "handler": nothing}}
    worker = make_worker(recurring_tasks=recurring)
    assert [item.identifier for item in worker.cron_items] == ["r"]
    for identifier in ("__cleanupOldJobs", "__reporter"):
        await table.sql("select graphile_worker.add_job(%s, %s)", identifier, CRON)
    before = await table.rows()
    await worker.run_once()
    assert await table.rows() == before


async def test_p56_the_reporter_gets_the_numbers(make_worker, table) -> None:
    reports = {}
    worker = make_worker(
        cleanup=CLEANUP, reporter=lambda event, properties: reports.update({event: properties})
    )
    await worker.enqueue("t", max_attempts=1, run_at=OLD)
    await table.set("attempts = 1")
    assert await cleaned_up(worker, table) == []
    for minutes in (1, 59, 61):
        await worker.enqueue("t", run_at=datetime(2100, 1, 1, tzinfo=UTC))
        await table.set(
            f"created_at = '{NOON}'::timestamptz - interval '{minutes} minutes'",
            where="created_at > '2025-01-01'",
        )
    await table.sql("select graphile_worker.add_job('__reporter', %s)", CRON)
    await worker.run_once()
    assert reports == {
        "cleanup_stats": {
            "found": 1,
            "deleted": 1,
            "expirationDate": NOON - timedelta(days=7),
            "ts": NOON,
        },
        "queue_metrics": {"addedCount": 2, "totalCount": 4, "ts": NOON},
    }


async def test_p57_a_second_initialize_does_nothing(make_worker, table) -> None:
    worker = make_worker({"handler": print})
    assert await worker.initialize() is True
    before = await table.sql(SESSIONS)
    assert await worker.initialize() is True
    assert await table.sql(SESSIONS) == before != []


STUBBORN = """
import asyncio, logging, sys
from zodworker_compat import RunnerOptions, ZodWorker, signals

logging.basicConfig(level="INFO")
signals.QUIET = float(sys.argv[3])

async def handler(payload):
    print("started", flush=True)
    await asyncio.Event().wait()

worker = ZodWorker(
    name="test",
    runner_options=RunnerOptions(connection_string=sys.argv[1]),
    schema={"t": True},
    tasks={"t": {"handler": handler}},
    shutdown_timeout=float(sys.argv[2]),
)
asyncio.run(worker.run_until_stopped())
"""


@pytest.fixture
async def stubborn(make_worker, process, database, eventually):
    """A process whose only job runs for ever, until its worker's shutdown timeout."""

    async def start(shutdown_timeout: float, quiet: float = 5):
        await make_worker().enqueue("t")
        arguments = [database, str(shutdown_timeout), str(quiet)]
        started = process([sys.executable, "-c", STUBBORN, *arguments])
        await eventually(lambda: "started" in started.output, timeout=60)
        return started

    return start


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_p58_after_repeated_signals_there_is_one_stop_and_status_0(stubborn, number) -> None:
    process = await stubborn(shutdown_timeout=0.3)
    for _ in range(3):
        process.send(number)
    assert await asyncio.to_thread(process.wait) == 0
    assert "Traceback" not in process.errors


async def test_p58_a_timeout_of_0_waits_for_ever(make_worker, table, eventually) -> None:
    started, released = asyncio.Event(), asyncio.Event()

    async def handler(payload) -> None:
        started.set()
        await released.wait()

    worker = make_worker({"handler": handler}, shutdown_timeout=0)
    await worker.enqueue("t")
    await worker.initialize()
    running = asyncio.create_task(worker.run_until_stopped())
    await started.wait()
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait([running], timeout=0.2)
    assert not running.done()
    released.set()
    await running
    assert await table.empty()


async def test_p58_at_the_timeout_jobs_are_given_back_departure(stubborn, table) -> None:
    # The original exits and leaves them locked for four hours.
    process = await stubborn(shutdown_timeout=0.1)
    process.send(signal.SIGTERM)
    assert await asyncio.to_thread(process.wait) == 0
    row = await table.row()
    assert (row["locked_at"], row["locked_by"], row["attempts"]) == (None, None, 0)


async def test_p58_a_later_signal_gives_running_jobs_back_departure(
    stubborn, table, eventually
) -> None:
    # The original ignores it, and then only SIGKILL helps, which leaves them locked.
    process = await stubborn(shutdown_timeout=60, quiet=0)
    process.send(signal.SIGTERM)
    await eventually(lambda: "finishing running jobs" in process.errors)
    process.send(signal.SIGTERM)
    assert await asyncio.to_thread(process.wait) == 0
    assert (await table.row())["locked_at"] is None


async def test_p59_stop_waits_for_running_jobs(make_worker, table, eventually) -> None:
    started, released = asyncio.Event(), asyncio.Event()

    async def handler(payload) -> None:
        started.set()
        await released.wait()

    worker = make_worker({"handler": handler})
    await worker.enqueue("t")
    await worker.enqueue("t")
    await worker.initialize()
    await started.wait()
    stopping = asyncio.create_task(worker.stop())
    await asyncio.wait([stopping], timeout=0.05)
    assert not stopping.done()
    released.set()
    await stopping
    assert await table.empty()

    async def all_gone() -> bool:  # PostgreSQL sees a moment later that a client has left
        return not await table.sql(SESSIONS)

    await eventually(all_gone)


@pytest.mark.parametrize("schema", ["jobs", 'My "own" schema', "sch%s-ä"])
async def test_p60_any_schema_name_will_do(make_worker, empty_database, schema) -> None:
    seen, reports = [], []
    worker = make_worker(
        {"handler": seen.append},
        runner_options=RunnerOptions(connection_string=empty_database, schema=schema),
        cleanup=CLEANUP,
        reporter=lambda event, _: reports.append(event),
    )
    await worker.migrate()
    await worker.enqueue("t", 1, job_key="k", queue_name="q")
    assert (await worker.dequeue("k")).payload == 1
    await worker.enqueue("t", 2)
    add_job = sql.SQL("select {}.add_job({}, {})")
    async with worker.transaction() as tx:
        for identifier in ("__cleanupOldJobs", "__reporter"):
            await tx.connection.execute(add_job.format(sql.Identifier(schema), identifier, CRON))
    await worker.run_once()
    assert (seen, sorted(reports)) == ([2], ["cleanup_stats", "queue_metrics"])
    assert worker.graphile_worker_schema == schema
