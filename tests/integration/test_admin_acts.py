"""Acting on many jobs by the library: what changes, what is left alone and why, in batches."""

import asyncio
import inspect
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest

from zodworker_compat import OptionError, RunnerOptions
from zodworker_compat.client.admin import Admin
from zodworker_compat.client.admin_async import AsyncAdmin
from zodworker_compat.database import admin as sync_acts
from zodworker_compat.database import admin_async as async_acts
from zodworker_compat.database.job_filter import JobFilter
from zodworker_compat.database.own_tables_async import ensure_own_tables

LOCK = "update graphile_worker._private_jobs set locked_by = %s, locked_at = now() - %s::interval"


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
async def admin(
    request: pytest.FixtureRequest, database: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Both]:
    monkeypatch.setattr(async_acts, "BATCH", 4)
    monkeypatch.setattr(sync_acts, "BATCH", 4)
    both = Both(request.param(RunnerOptions(connection_string=database)))
    yield both
    await both.close()


async def failed_jobs(jobs: Any, count: int) -> None:
    await jobs.add_many(count)
    await jobs.sql(
        "update graphile_worker._private_jobs set attempts = max_attempts, last_error = 'E',"
        " run_at = now() - interval '1 day'"
    )


async def test_retry_runs_jobs_now_with_all_attempts(admin: Both, jobs: Any) -> None:
    await failed_jobs(jobs, 10)
    batches: list[int] = []

    outcome = await admin.retry(JobFilter(states=["failed"]), progress=batches.append)

    assert (outcome.changed, outcome.held, batches) == (10, [], [4, 4, 2])
    rows = await jobs.all()
    assert {(row["attempts"], row["last_error"], row["is_available"]) for row in rows} == {
        (0, "E", True)
    }
    assert len({row["run_at"] for row in rows}) == 3  # a transaction for each batch
    assert (await admin.status()).jobs.ready == 10


async def test_reschedule_changes_what_is_given(admin: Both, jobs: Any) -> None:
    numbers = [await jobs.add() for _ in range(2)]
    before = await jobs.row(numbers[0])

    outcome = await admin.reschedule(JobFilter(ids=numbers[:1]), priority=-7, max_attempts=3)

    after = await jobs.row(numbers[0])
    assert outcome.changed == 1
    assert (after["priority"], after["max_attempts"]) == (-7, 3)
    assert (after["run_at"], after["attempts"]) == (before["run_at"], before["attempts"])
    assert (await jobs.row(numbers[1]))["priority"] == 0
    with pytest.raises(OptionError, match="priority"):
        await admin.reschedule(JobFilter(ids=numbers), priority=10**6)


async def test_fail_keeps_jobs_and_complete_deletes_them(admin: Both, jobs: Any) -> None:
    await jobs.add_many(6)

    assert (await admin.fail(JobFilter(tasks=["task"]), "because")).changed == 6
    assert {(row["attempts"], row["last_error"]) for row in await jobs.all()} == {(25, "because")}
    assert (await admin.complete(JobFilter(error="BECAUSE"))).changed == 6
    assert await jobs.empty()


async def test_what_workers_hold_is_left_alone_and_named(admin: Both, jobs: Any) -> None:
    await jobs.add_many(7)
    await jobs.sql(f"{LOCK} where id in (2, 6)", "w1", "3 hours")
    await jobs.sql(f"{LOCK} where id = 3", "w2", "1 second")
    await jobs.sql(f"{LOCK} where id = 4", "gone", "5 hours")

    preview = await admin.preview(JobFilter(tasks=["task"]))
    by_filter = await admin.fail(JobFilter(tasks=["task"]))
    by_id = await admin.complete(JobFilter(ids=[1, 2, 3, 4, 99]))

    assert (preview.jobs, preview.tasks) == (4, {"task": 4})
    assert {(one.locked_by, one.jobs) for one in preview.held} == {("w1", 2), ("w2", 1)}
    assert by_filter.changed == 4
    assert {(one.locked_by, one.jobs, one.ids) for one in by_filter.held} == {
        ("w1", 2, ()),
        ("w2", 1, ()),
    }
    assert by_id.changed == 2
    assert {(one.locked_by, one.ids) for one in by_id.held} == {("w1", ("2",)), ("w2", ("3",))}
    assert (by_id.missing, by_id.busy) == (("99",), ())
    assert [row["id"] for row in await jobs.all()] == [2, 3, 5, 6, 7]


async def test_rows_of_an_open_transaction_are_stepped_over(
    admin: Both, jobs: Any, database: str
) -> None:
    await jobs.add_many(6)
    async with await psycopg.AsyncConnection.connect(database) as other:
        await other.execute("select from graphile_worker._private_jobs where id = 2 for update")

        by_id = await admin.complete(JobFilter(ids=[1, 2]))
        by_filter = await admin.complete(JobFilter(tasks=["task"]))

    assert (by_id.changed, by_id.busy, by_id.missing) == (1, ("2",), ())
    assert by_filter.changed == 4
    assert [row["id"] for row in await jobs.all()] == [2]


async def test_a_job_that_changes_in_between_is_not_mistaken(
    admin: Both, jobs: Any, database: str
) -> None:
    await failed_jobs(jobs, 6)

    def revive(_done: int) -> None:
        with psycopg.connect(database) as connection:
            connection.execute("update graphile_worker._private_jobs set attempts = 0 where id = 6")

    outcome = await admin.complete(JobFilter(states=["failed"]), progress=revive)

    assert outcome.changed == 5
    assert [row["id"] for row in await jobs.all()] == [6]


async def test_jobs_that_are_added_meanwhile_are_left_alone(
    admin: Both, jobs: Any, database: str
) -> None:
    await jobs.add_many(6)

    def add(_done: int) -> None:
        with psycopg.connect(database) as connection:
            connection.execute("select graphile_worker.add_job('task')")

    assert (await admin.complete(JobFilter(tasks=["task"]), progress=add)).changed == 6
    assert await jobs.count() == 2


async def test_what_was_done_before_an_error_stays_done(admin: Both, jobs: Any) -> None:
    await jobs.add_many(6)

    def stop(_done: int) -> None:
        raise KeyError

    with pytest.raises(KeyError):
        await admin.complete(JobFilter(tasks=["task"]), progress=stop)
    assert [row["id"] for row in await jobs.all()] == [5, 6]


async def test_the_queue_of_a_stale_lock_is_freed(admin: Both, jobs: Any) -> None:
    for queue in ("stale", "held"):
        await jobs.add(queue_name=queue)
    await jobs.sql(LOCK, "w", "5 hours")
    await jobs.sql(
        "update graphile_worker._private_job_queues set locked_by = 'w',"
        " locked_at = now() - case queue_name when 'held' then interval '1 s' else '5 hours' end"
    )

    assert (await admin.complete(JobFilter(tasks=["task"]))).changed == 2

    rows = await jobs.sql("select * from graphile_worker._private_job_queues order by id")
    assert [row["locked_by"] for row in rows] == [None, "w"]


async def test_everything_must_be_said(admin: Both) -> None:
    for act in (admin.retry, admin.fail, admin.complete, admin.reschedule):
        with pytest.raises(OptionError, match="empty filter"):
            await act(JobFilter())


async def test_keys_are_removed_as_dequeue_removes_them(admin: Both, jobs: Any) -> None:
    for key in ("waiting", "running", "kept"):
        await jobs.add(job_key=key)
    await jobs.sql(f"{LOCK} where key = 'running'", "w", "1 second")

    outcome = await admin.remove_keys(["waiting", "running", "absent", "waiting"])

    assert (outcome.changed, outcome.missing) == (2, ("absent",))
    rows = await jobs.all()
    assert [(row["key"], row["attempts"], row["locked_by"]) for row in rows] == [
        (None, 25, "w"),
        ("kept", 0, None),
    ]


class TestUnlock:
    @pytest.fixture
    async def held(self, jobs: Any) -> Any:
        """A dead, a living and an unknown worker; each holds a job and its queue."""
        await ensure_own_tables(jobs.connection, "graphile_worker", "workers")
        for name, seconds in (("dead", 60), ("alive", -3600), ("node", None)):
            number = await jobs.add(queue_name=name)
            await jobs.sql(f"{LOCK} where id = %s", name, "1 minute", number)
            await jobs.sql(
                "update graphile_worker._private_job_queues"
                " set locked_by = queue_name, locked_at = now() where queue_name = %s",
                name,
            )
            if seconds is not None:
                await jobs.sql(
                    "insert into graphile_worker.zodworker_workers (pool_id, name, host, pid,"
                    " version, concurrency, tasks, beat_at, dead_after) values"
                    " (%s, 'n', 'h', 1, '1', 1, '{}', now() - %s * interval '1 s', '15 s')",
                    name,
                    seconds,
                )
        return jobs

    async def held_by(self, jobs: Any) -> set[str]:
        rows = [
            *await jobs.all(),
            *await jobs.sql("select * from graphile_worker._private_job_queues"),
        ]
        return {row["locked_by"] for row in rows} - {None}

    async def test_frees_what_the_dead_hold(self, admin: Both, held: Any) -> None:
        planned = await admin.unlock(dry_run=True)
        assert await self.held_by(held) == {"dead", "alive", "node"}

        done = await admin.unlock()

        [freed] = done.freed
        assert [one.locked_by for one in planned.freed] == [freed.locked_by]
        assert (freed.locked_by, freed.jobs, freed.queues) == ("dead", 1, 1)
        assert (done.skipped, done.missing) == ([], ())
        assert await self.held_by(held) == {"alive", "node"}

    async def test_leaves_others_alone_unless_forced(self, admin: Both, held: Any) -> None:
        done = await admin.unlock(["alive", "node", "nobody"])
        assert ([one.locked_by for one in done.skipped], done.freed) == (["alive", "node"], [])
        assert done.missing == ("nobody",)
        assert await self.held_by(held) == {"dead", "alive", "node"}

        await admin.unlock(["alive", "node"], force=True)
        assert await self.held_by(held) == {"dead"}


async def test_two_at_once_share_the_work(jobs: Any, database: str) -> None:
    await failed_jobs(jobs, 3000)
    admins = [AsyncAdmin(RunnerOptions(connection_string=database)) for _ in range(2)]

    outcomes = await asyncio.gather(
        *(admin.complete(JobFilter(states=["failed"])) for admin in admins)
    )
    for admin in admins:
        await admin.complete(JobFilter(states=["failed"]))  # what both stepped over
        await admin.close()

    assert sum(one.changed for one in outcomes) <= 3000
    assert await jobs.empty()
