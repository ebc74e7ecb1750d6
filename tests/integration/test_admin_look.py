"""Looking at a queue by the library: filters, orders, pages, one job, crontabs, workers."""

import inspect
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from zodworker_compat import (
    ConfigurationError,
    MigrationError,
    OptionError,
    RunnerOptions,
    WorkerCatalog,
)
from zodworker_compat.client.admin import Admin
from zodworker_compat.client.admin_async import AsyncAdmin
from zodworker_compat.client.reasons import reasons
from zodworker_compat.cron import parse_crontab
from zodworker_compat.database.job_filter import JOB_SORTS, JOB_STATES, JobFilter
from zodworker_compat.database.own_tables_async import ensure_own_tables
from zodworker_compat.database.statements import statement

CATALOG = WorkerCatalog.of(name="test", schema={"t": True}, tasks={"t": {}})
HOUR = timedelta(hours=1)


class Both:
    """The async and the sync calls, called in the same way."""

    def __init__(self, admin: Any) -> None:
        self.admin = admin

    def __getattr__(self, name: str) -> Any:
        async def call(*arguments: Any, **options: Any) -> Any:
            result = getattr(self.admin, name)(*arguments, **options)
            return await result if inspect.isawaitable(result) else result

        return call


@pytest.fixture(params=[AsyncAdmin, Admin], ids=["async", "sync"])
async def admin(request: pytest.FixtureRequest, database: str) -> AsyncIterator[Both]:
    both = Both(request.param(RunnerOptions(connection_string=database)))
    yield both
    await both.close()


FILL = """
select graphile_worker.add_job('mail', '{"n": 1}');
select graphile_worker.add_job('mail', '{}', 'q', now() - interval '1 hour', priority => 5);
select graphile_worker.add_job('mail', '{}', null, now() + interval '1 hour', job_key => 'later');
select graphile_worker.add_job('sync', '{}', 'q', now() - interval '2 hours');
select graphile_worker.add_job('sync', '{}', 'Q', now() + interval '5 minutes', priority => -5);
select graphile_worker.add_job('sync', '{}', null, now() - interval '3 hours', max_attempts => 3);
select graphile_worker.add_job('sync', '{}', null, now() - interval '3 hours');
update graphile_worker._private_jobs set locked_at = now() - interval '10 minutes',
    locked_by = 'w1', attempts = 1 where id = 4;
update graphile_worker._private_jobs set attempts = 2, last_error = 'E: Host UNREACHABLE%' where id = 5;
update graphile_worker._private_jobs set attempts = 3, last_error = E'E: no\\nmore' where id = 6;
update graphile_worker._private_jobs set locked_at = now(), locked_by = 'w2',
    created_at = now() - interval '2 days' where id = 7;
update graphile_worker._private_job_queues set locked_at = now() - interval '10 minutes',
    locked_by = 'w1' where queue_name = 'q';
"""
STATES = {1: "ready", 2: "ready", 3: "scheduled", 4: "running", 5: "retrying", 6: "failed", 7: "running"}  # fmt: skip


@pytest.fixture
async def filled(jobs: Any) -> Any:
    """Seven jobs in all states; see `STATES`."""
    await jobs.connection.execute(FILL)
    return jobs


@pytest.mark.parametrize(
    ("given", "ids"),
    [
        ({}, [1, 2, 3, 4, 5, 6, 7]),
        ({"ids": ["3", 1, 99]}, [1, 3]),
        ({"keys": ["later", "x"]}, [3]),
        ({"tasks": ["mail"]}, [1, 2, 3]),
        ({"tasks": ["absent"]}, []),
        ({"queues": ["q"]}, [2, 4]),
        ({"states": ["failed", "retrying"]}, [5, 6]),
        ({"states": []}, []),
        ({"error": "host unreachable%"}, [5]),
        ({"error": "_"}, []),
        ({"locked_by": ["w1"]}, [4]),
        ({"locked_for": timedelta(minutes=5)}, [4]),
        ({"older_than": timedelta(days=1)}, [7]),
        ({"newer_than": timedelta(days=1)}, [1, 2, 3, 4, 5, 6]),
        ({"due_before": datetime.now(UTC) - 2.5 * HOUR}, [6, 7]),
        ({"tasks": ["sync"], "states": ["running"], "queues": ["q", "Q"]}, [4]),
    ],
)
async def test_filters(admin: Both, filled: Any, given: dict[str, Any], ids: list[int]) -> None:
    page = await admin.jobs(JobFilter(**given))

    assert [int(one.job.id) for one in page.jobs] == ids
    assert page.after is None


async def test_every_job_is_in_the_state_in_which_it_is_counted(admin: Both, filled: Any) -> None:
    page = await admin.jobs()
    status = await admin.status()

    assert {int(one.job.id): one.state for one in page.jobs} == STATES
    for state in JOB_STATES:
        assert getattr(status.jobs, state) == [*STATES.values()].count(state)
        assert sum(getattr(one, state) for one in status.tasks) == getattr(status.jobs, state)
    assert status.jobs.blocked == 1
    assert status.jobs.queues == 2
    assert timedelta() < status.jobs.next_due - status.read_at <= timedelta(minutes=5)


ORDERS = {
    "id": [1, 2, 3, 4, 5, 6, 7],
    "newest": [7, 6, 5, 4, 3, 2, 1],
    "next": [5, 1, 3, 2],
    "due": [6, 7, 4, 2, 1, 5, 3],
    "locked": [4, 7],
}


@pytest.mark.parametrize("sort", JOB_SORTS)
async def test_orders_and_pages(admin: Both, filled: Any, sort: Any) -> None:
    whole = await admin.jobs(sort=sort)
    found, after = [], None
    for _ in ORDERS[sort]:
        page = await admin.jobs(sort=sort, limit=1, after=after)
        found += page.jobs
        after = page.after

    assert after is None
    assert [int(one.job.id) for one in found] == ORDERS[sort]
    assert [one.job for one in found] == [one.job for one in whole.jobs]


@pytest.mark.parametrize("sort", ["due", "next"])
async def test_pages_pass_jobs_at_infinity(admin: Both, jobs: Any, sort: Any) -> None:
    await jobs.add_many(3)
    await jobs.sql("update graphile_worker._private_jobs set run_at = 'infinity' where id < 3")
    await jobs.sql("update graphile_worker._private_jobs set run_at = '-infinity' where id = 3")

    found, after = [], None
    for _ in range(3):
        page = await admin.jobs(sort=sort, limit=1, after=after)
        found.append(page.jobs[0].job.id)
        after = page.after

    assert found == ["3", "1", "2"]
    assert (await admin.status()).jobs.ready == 1


@pytest.mark.parametrize(
    ("sort", "after"),
    [("id", "x"), ("id", "1,2"), ("due", "1"), ("next", "0,soon,1"), ("id", "9" * 30)],
)
async def test_a_wrong_place_to_go_on(admin: Both, sort: Any, after: str) -> None:
    with pytest.raises(OptionError, match="is not where a page in the order"):
        await admin.jobs(sort=sort, after=after)


@pytest.mark.parametrize(
    "given",
    [
        {"ids": "12"},
        {"ids": ["x"]},
        {"tasks": "mail"},
        {"keys": ["\0"]},
        {"states": ["done"]},
        {"older_than": -HOUR},
        {"older_than": 5},
        {"due_before": datetime(2030, 1, 1)},  # noqa: DTZ001
        {"error": 5},
    ],
)
def test_wrong_filters_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(
        OptionError, match=f"^{'run_at' if 'due_before' in given else next(iter(given))}"
    ):
        JobFilter(**given)


async def test_wrong_orders_and_limits_are_refused(admin: Both) -> None:
    with pytest.raises(OptionError, match="'oldest' is not one of id, newest"):
        await admin.jobs(sort="oldest")
    with pytest.raises(OptionError, match="limit"):
        await admin.jobs(limit=0)


@pytest.mark.parametrize(
    ("given", "sort", "index"),
    [
        ({}, "id", "jobs_pkey1"),
        ({}, "newest", "jobs_pkey1"),
        ({}, "next", "jobs_main_index"),
        ({"states": ["ready"]}, "next", "jobs_main_index"),
        ({"states": ["ready", "scheduled", "retrying"]}, "next", "jobs_main_index"),
        ({"ids": [7]}, "id", "jobs_pkey1"),
        ({"keys": ["x"]}, "id", "jobs_key_key1"),
    ],
)
@pytest.mark.parametrize("after", [None, 100])
async def test_a_first_page_and_the_next_read_an_index(
    jobs: Any, given: dict[str, Any], sort: str, index: str, after: int | None
) -> None:
    await jobs.add_many(5000)
    await jobs.sql("update graphile_worker._private_jobs set run_at = now() - id * interval '1 s'")
    await jobs.sql("analyze graphile_worker._private_jobs")
    place = {"after_id": after, "after_priority": after, "after_time": after and datetime.now(UTC)}
    parameters = {**JobFilter(**given).parameters(), **place, "sort": sort, "limit": 51}

    plan = await jobs.connection.execute(
        b"explain " + statement("look_jobs", "graphile_worker"), parameters
    )

    text = "\n".join(row["QUERY PLAN"] for row in await plan.fetchall())
    assert index in text
    assert "Seq Scan on _private_jobs" not in text


class TestOneJob:
    async def test_that_is_not_there(self, admin: Both) -> None:
        assert await admin.job(99) is None
        with pytest.raises(OptionError, match="is not a job id"):
            await admin.job("x")

    async def test_waits_for_its_queue_and_those_before_it(self, admin: Both, filled: Any) -> None:
        report = await admin.job(2)

        assert (report.listed.job.queue_name, report.listed.queue_locked_by) == ("q", "w1")
        assert report.running_in_queue == ("4",)
        assert report.ahead == 1
        assert report.holder.locked_by == "w1"
        assert report.holder.state == "unknown"
        assert any("queue q is locked by w1" in one for one in reasons(report))

    async def test_is_handled_by_living_workers(self, admin: Both, filled: Any) -> None:
        await put_workers(filled)

        assert [one.pool_id for one in (await admin.job(1)).handled_by] == ["w0"]
        running = await admin.job(4)
        assert (running.holder.state, running.handled_by) == ("dead", ())
        assert running.has_heartbeats

    async def test_has_a_flag_that_is_paused(self, admin: Both, jobs: Any) -> None:
        number = await jobs.add(flags=["a", "b"])
        assert (await admin.job(number)).paused_flags == ()
        await ensure_own_tables(jobs.connection, "graphile_worker", "limiter")
        await jobs.sql("insert into graphile_worker.zodworker_paused_flags values ('b'), ('c')")

        assert (await admin.job(number)).paused_flags == ("b",)

    async def test_has_a_payload_that_python_cannot_read(self, admin: Both, jobs: Any) -> None:
        for poison in ("[" * 3000 + "]" * 3000, "1" * 5000):
            [row] = await jobs.sql(
                "select id from graphile_worker.add_job('task', %s::json)", poison
            )

            report = await admin.job(row["id"])

            assert report.listed.job.payload is None
            assert report.listed.payload_text == poison
        assert len((await admin.jobs()).jobs) == 2


async def put_workers(jobs: Any) -> None:
    """Add a living worker w0, and w1, which is dead."""
    await ensure_own_tables(jobs.connection, "graphile_worker", "workers")
    await jobs.sql(
        "insert into graphile_worker.zodworker_workers (pool_id, name, host, pid, version,"
        " concurrency, tasks, beat_at, dead_after) values"
        " ('w0', 'shop', 'h', 1, '1', 5, '{mail}', now() + interval '1 hour', '15 s'),"
        " ('w1', 'shop', 'h', 2, '1', 5, '{sync}', now() - interval '1 minute', '15 s')"
    )


async def test_workers_with_and_without_heartbeats(admin: Both, filled: Any) -> None:
    assert {one.locked_by: one.state for one in (await admin.status()).workers} == {
        "w1": "unknown",
        "w2": "unknown",
    }
    await put_workers(filled)

    status = await admin.status()

    assert status.has_heartbeats
    assert [(one.locked_by, one.state, one.jobs, one.queues) for one in status.workers] == [
        ("w0", "alive", 0, 0),
        ("w1", "dead", 1, 1),
        ("w2", "unknown", 1, 0),
    ]
    beat = status.workers[1].heartbeat
    assert (beat.name, beat.pid, beat.tasks) == ("shop", 2, ("sync",))
    assert beat.silent_for >= timedelta(minutes=1)


async def test_queues_are_bounded_and_chosen(admin: Both, jobs: Any) -> None:
    for name in ("a", "b", "b", "locked", "idle"):
        await jobs.add(queue_name=name)
    await jobs.sql("delete from graphile_worker._private_jobs where id = 5")
    lock = "update graphile_worker._private_job_queues set locked_at = now(), locked_by = 'w'"
    await jobs.sql(f"{lock} where queue_name in ('locked', 'idle')")

    async def names(**given: Any) -> list[str]:
        return [one.queue_name for one in (await admin.status(**given)).queues]

    assert await names() == ["locked", "b", "a", "idle"]
    assert await names(queues=2) == ["locked", "b"]
    assert await names(only_locked=True) == ["locked", "idle"]
    assert await names(queue_names=["a", "x"]) == ["a"]
    status = await admin.status()
    assert (status.jobs.queues, status.jobs.blocked) == (4, 1)
    assert [one.is_stuck for one in status.queues] == [True, False, False, True]


async def test_the_most_frequent_errors(admin: Both, jobs: Any) -> None:
    await jobs.add_many(6)
    await jobs.sql(
        "update graphile_worker._private_jobs set last_error = 'E: ' || id %% 2 || E'\\nmore',"
        " attempts = case id when 1 then 25 else 1 end,"
        " run_at = now() + case when id = 6 then interval '-1 h' else interval '1 h' end"
        " where id > 0"
    )

    errors = (await admin.status()).errors

    assert [(one.task_identifier, one.error, one.jobs, one.failed) for one in errors] == [
        ("task", "E: 1", 3, 1),
        ("task", "E: 0", 2, 0),
    ]
    assert (await admin.status(errors=0)).errors == []


async def test_crontabs(admin: Both, jobs: Any) -> None:
    known = "insert into graphile_worker._private_known_crontabs values (%s, %s, %s)"
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    await jobs.sql(known, "fresh", now - 2 * HOUR, now)
    await jobs.sql(known, "dead", now - 3 * HOUR, now - 2 * HOUR)
    await jobs.sql(known, "never", now, None)
    items = parse_crontab("* * * * * fresh\n* * * * * dead\n0 0 1 1 * other\n")

    (fresh_,) = [one for one in await admin.crontabs() if one.identifier == "fresh"]
    dead, fresh, never, other = await admin.crontabs(items)

    assert (fresh_.pattern, fresh_.next_at, fresh_.last_execution) == (None, None, now)
    assert (fresh.pattern, fresh.time_zone, fresh.missed_at) == ("* * * * *", "UTC", None)
    assert fresh.next_at is not None
    assert now - timedelta(minutes=3) <= dead.missed_at <= now
    assert (never.pattern, never.last_execution, never.known_since) == (None, None, now)
    assert (other.pattern, other.known_since, other.missed_at) == ("0 0 1 1 *", None, None)


async def test_a_look_gives_up_in_time_and_says_so(database: str, jobs: Any) -> None:
    await jobs.add()
    admin = AsyncAdmin(RunnerOptions(connection_string=database), patience=0.2)
    async with jobs.connection.transaction():
        await jobs.sql("lock table graphile_worker._private_jobs in access exclusive mode")
        with pytest.raises(ConfigurationError, match=r"gave up after 0\.2 s"):
            await admin.jobs()
    assert len((await admin.jobs()).jobs) == 1
    await admin.close()


async def test_without_a_queue(empty_database: str) -> None:
    admin = AsyncAdmin(RunnerOptions(connection_string=empty_database))
    for call in (admin.status, admin.jobs, admin.crontabs):
        with pytest.raises(MigrationError, match="zodworker migrate"):
            await call()
    await admin.close()


async def test_a_worker_and_its_sync_twin_have_them_too(worker: Any, jobs: Any) -> None:
    await jobs.add()
    assert len((await worker.admin.jobs()).jobs) == 1
    assert len(worker.sync.admin.jobs().jobs) == 1
    worker.sync.close()
