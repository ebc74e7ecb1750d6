"""The built-in recurring tasks: jobs that have failed for good are deleted, numbers are reported."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from zodworker_compat import (
    CleanupOptions,
    ConfigurationError,
    CrontabError,
    RunnerOptions,
    ZodWorker,
)

VECTORS = {
    vector["case"]: vector
    for vector in json.loads(
        (Path(__file__).parent.parent / "vectors" / "run_vectors.json").read_text("utf-8")
    )["vectors"]
}
NOON = datetime(2024, 6, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
CRON = {"_cron": {"ts": "2024-06-01T12:00:00.000Z", "backfilled": False}}


class Reports(list):
    """A reporter that remembers, as the vectors write it down."""

    def __call__(self, event, properties):
        self.append([event, {name: plain(value) for name, value in properties.items()}])


def plain(value):
    return f"{value:%Y-%m-%dT%H:%M:%S}.000Z" if isinstance(value, datetime) else value


@pytest.fixture
def make_worker(database):
    def make(*, ttl=1, max_count=5, cleanup=True, **arguments):
        options = CleanupOptions(
            frequency_expression="13,27,43 * * * *", ttl=ttl, max_count=max_count
        )
        return ZodWorker(
            name="wq",
            runner_options=RunnerOptions(connection_string=database),
            cleanup=options if cleanup else None,
            **arguments,
        )

    return make


async def add(jobs, *, run_at=NOON - HOUR, attempts=2, max_attempts=2, **columns):
    """Add a job in a state; returns its id."""
    added = await jobs.add("t", run_at=run_at)
    given = {"attempts": attempts, "max_attempts": max_attempts, **columns}
    await jobs.sql(
        f"update graphile_worker._private_jobs set {', '.join(f'{name} = %s' for name in given)}"
        " where id = %s",
        *given.values(),
        added,
    )
    return added


async def clean_up(worker, jobs, payload=None):
    await jobs.add("__cleanupOldJobs", payload or CRON)
    await worker.run_once()


def test_the_cron_items_are_those_of_zodworker(make_worker):
    worker = make_worker(
        reporter=Reports(), recurring_tasks={"r": {"match": "* * * * *", "handler": lambda run: 0}}
    )
    items = [
        {"match": item.match.text, "identifier": item.identifier, "task": item.task}
        for item in worker.cron_items
    ]
    assert items == VECTORS["cron items"]["value"]


async def test_a_clean_up_deletes_and_reports_as_zodworker(make_worker, jobs):
    reports = Reports()
    for _ in range(2):
        await add(jobs)
    await clean_up(make_worker(reporter=reports), jobs)
    assert reports == VECTORS["cleanup"]["reports"]
    assert await jobs.empty()


async def test_only_old_unlocked_jobs_without_attempts_are_deleted(make_worker, jobs):
    kept = {
        "young": await add(jobs, run_at=NOON - timedelta(seconds=1)),
        "has attempts": await add(jobs, attempts=1),
        "locked": await add(jobs, locked_at=datetime.now(UTC), locked_by="w"),
    }
    await add(jobs)
    await add(jobs, attempts=3)  # its max_attempts were lowered
    await add(jobs, run_at=NOON - timedelta(seconds=1, microseconds=1))
    reports = Reports()
    await clean_up(make_worker(reporter=reports), jobs)
    assert {job["id"] for job in await jobs.all()} == set(kept.values())
    assert (reports[0][1]["found"], reports[0][1]["deleted"]) == (3, 3)


async def test_a_clean_up_deletes_the_oldest_and_no_more_than_it_may(make_worker, jobs):
    ids = [await add(jobs, run_at=NOON - hours * HOUR) for hours in (1, 9, 5, 7, 3)]
    reports = Reports()
    await clean_up(make_worker(max_count=3, ttl=timedelta(minutes=1), reporter=reports), jobs)
    assert [job["id"] for job in await jobs.all()] == [ids[0], ids[4]]
    [[_, stats]] = reports
    assert (stats["found"], stats["deleted"]) == (3, 3)


async def test_a_job_that_is_being_revived_is_not_deleted(make_worker, jobs, database):
    revived = await add(jobs)
    await add(jobs)
    async with await psycopg.AsyncConnection.connect(database) as connection:
        await connection.execute(
            "select graphile_worker.reschedule_jobs(array[%s]::bigint[], attempts => 0)", [revived]
        )
        await clean_up(make_worker(), jobs)
    assert [job["id"] for job in await jobs.all()] == [revived]


async def test_a_payload_that_is_not_crons_fails_the_job(make_worker, jobs):
    await clean_up(make_worker(), jobs, {"x": 1})
    [job] = await jobs.all()
    text = "Failed to parse cleanup task payload: "
    assert VECTORS["cleanup bad payload"]["result"].startswith(f"throws Error: {text}")
    assert job["last_error"].startswith(f"PayloadValidationError: {text}")


async def test_the_reporter_counts_the_jobs_of_the_last_hour_and_all(make_worker, jobs):
    vector = VECTORS["reporter"]["reports"][0]
    reports = Reports()
    worker = make_worker(reporter=reports, cleanup=False)
    for created_at in (
        NOON - HOUR,
        NOON - HOUR + timedelta(microseconds=1),
        NOON - timedelta(microseconds=1),
        NOON,
    ):
        await add(jobs, created_at=created_at)
    await jobs.add("__reporter", CRON)
    await worker.run_once()
    assert reports == [["queue_metrics", {"addedCount": 2, "totalCount": 5, "ts": vector[1]["ts"]}]]
    assert reports[0][0] == vector[0]
    assert reports[0][1].keys() == vector[1].keys()


async def test_a_reporter_may_be_async(make_worker, jobs):
    reports = Reports()

    async def reporter(event, properties):
        reports(event, properties)

    await jobs.add("__reporter", CRON)
    await make_worker(reporter=reporter, cleanup=False).run_once()
    assert [event for event, _ in reports] == ["queue_metrics"]


async def test_a_reporter_that_fails_harms_its_own_job_alone(make_worker, jobs):
    def reporter(event, properties):
        raise OSError("no network")

    await add(jobs)
    worker = make_worker(reporter=reporter, delete_failed_jobs=True)
    await jobs.add("__cleanupOldJobs", CRON, max_attempts=1)
    await jobs.add("__reporter", CRON)
    await worker.run_once()
    left = await jobs.all()
    assert [(job["attempts"], job["last_error"]) for job in left] == 2 * [
        (1, "OSError: no network")
    ]


async def test_a_queue_of_another_schema_is_cleaned_and_counted(empty_database):
    reports = Reports()
    worker = ZodWorker(
        name="wq",
        runner_options=RunnerOptions(connection_string=empty_database, schema='odd "name"'),
        cleanup=CleanupOptions(frequency_expression="0 * * * *", ttl=1, max_count=5),
        reporter=reports,
    )
    await worker.migrate()
    async with await psycopg.AsyncConnection.connect(empty_database, autocommit=True) as connection:
        for identifier in ("__cleanupOldJobs", "__reporter"):
            await connection.execute(
                'select "odd ""name""".add_job(%s, %s::json)', [identifier, json.dumps(CRON)]
            )
    await worker.run_once()
    assert sorted(event for event, _ in reports) == ["cleanup_stats", "queue_metrics"]


@pytest.mark.parametrize("wrong", [{"ttl": 0}, {"ttl": -1}, {"max_count": 0}])
def test_numbers_that_delete_too_much_or_nothing_are_refused(wrong):
    with pytest.raises(ConfigurationError, match=f"{next(iter(wrong))} of cleanup"):
        CleanupOptions(**{"frequency_expression": "* * * * *", "ttl": 1, "max_count": 1, **wrong})


def test_a_frequency_that_is_no_cron_pattern_is_refused(database):
    with pytest.raises(CrontabError, match="__cleanupOldJobs"):
        ZodWorker(
            name="wq", cleanup=CleanupOptions(frequency_expression="hourly", ttl=1, max_count=1)
        )
