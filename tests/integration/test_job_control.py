"""What a task and its handler may say about a run: how long, how often, how many at a time."""

import asyncio
import threading
from datetime import timedelta

import psycopg
import pytest

from zodworker_compat import PermanentFailure, RetryAfter, RunnerOptions, ZodWorker
from zodworker_compat.runner import ExponentialBackoff, RunnableTask, RunOptions


def task(handler, identifier="task", *, keep_failed=False, **options):
    return RunnableTask(
        identifier,
        lambda payload: payload,
        handler,
        options=RunOptions(**options),
        keep_failed=keep_failed,
    )


@pytest.fixture
def run_tasks(make_runner):
    """`run_tasks(task(handler, timeout=1), ...)`: a runner of tasks that have options."""

    def make(*tasks, **more):
        return make_runner({one.identifier: one for one in tasks}, **more)

    return make


async def seconds_to_retry(jobs, job_id):
    rows = await jobs.sql(
        "select extract(epoch from run_at - now())::float as seconds"
        " from graphile_worker._private_jobs where id = %s",
        job_id,
    )
    return rows[0]["seconds"]


async def nothing(payload) -> None: ...


async def failing(payload) -> None:
    raise ValueError("boom")


async def test_an_async_handler_is_cancelled_at_its_timeout(jobs, run_tasks) -> None:
    told = []

    async def handler(payload, job, helpers) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            told.append(helpers.abort_signal.is_set())

    job_id = await jobs.add()
    quick = await jobs.add("quick")
    await run_tasks(task(handler, timeout=0.05), task(nothing, "quick", timeout=60)).run_once()
    row = await jobs.row(job_id)
    assert row["last_error"].startswith("TimeoutError: the run took longer than the 0.05 s")
    assert (row["attempts"], row["locked_at"], told) == (1, None, [True])
    assert quick not in [row["id"] for row in await jobs.all()]


@pytest.mark.parametrize("ending", ["return", "raise"])
async def test_a_handler_that_swallows_its_cancellation_has_failed_all_the_same(
    jobs, run_tasks, ending
) -> None:
    async def handler(payload) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if ending == "raise":
                raise ValueError("in vain") from None

    job_id = await jobs.add()
    await run_tasks(task(handler, timeout=0.05), concurrency=1).run_once()
    assert (await jobs.row(job_id))["last_error"].startswith("TimeoutError: the run took longer")


async def test_a_handlers_own_timeout_error_is_its_own(jobs, run_tasks) -> None:
    async def handler(payload) -> None:
        raise TimeoutError("of the mail server")

    job_id = await jobs.add()
    await run_tasks(task(handler, timeout=60)).run_once()
    assert (await jobs.row(job_id))["last_error"] == "TimeoutError: of the mail server"


async def test_a_sync_job_fails_at_its_timeout_and_its_slot_waits_for_the_thread(
    jobs, run_tasks, eventually, caplog
) -> None:
    release, aborted, seen = threading.Event(), threading.Event(), []

    def handler(payload, job, helpers) -> None:
        if payload["n"] == 1:
            assert helpers.abort_signal.wait(60)
            aborted.set()
            assert release.wait(60)
        seen.append(payload["n"])

    await jobs.add_many(2)
    runner = run_tasks(task(handler, timeout=0.05), concurrency=1)
    await runner.start()
    await eventually(aborted.is_set)

    async def first_failed():
        return (await jobs.row(1))["locked_at"] is None and (await jobs.row(1))["last_error"]

    assert (await eventually(first_failed)).startswith("TimeoutError: the run took longer")
    before = await jobs.row(1)
    assert (await jobs.row(2))["attempts"] == 0
    assert seen == []
    release.set()
    await eventually(lambda: 2 in seen)
    await runner.stop()
    assert await jobs.all() == [before]
    assert any("after its timeout; its result changed nothing" in m for m in caplog.messages)


async def test_a_sync_handler_in_time_gives_its_result_or_error(jobs, run_tasks) -> None:
    seen = []

    async def inner(payload) -> None:
        seen.append(payload["n"])

    def handler(payload):
        if payload["n"] == 1:
            raise ValueError("boom")
        return inner(payload)

    await jobs.add_many(2)
    await run_tasks(task(handler, timeout=60)).run_once()
    (row,) = await jobs.all()
    assert (row["last_error"], seen) == ("ValueError: boom", [2])


async def test_a_shutdown_during_a_timeout_gives_the_job_back(jobs, run_tasks, eventually) -> None:
    async def handler(payload) -> None:
        await asyncio.Event().wait()

    job_id = await jobs.add()
    runner = run_tasks(task(handler, timeout=60), shutdown_timeout=0.05)
    await runner.start()
    await eventually(jobs.locked)
    await runner.stop()
    row = await jobs.row(job_id)
    assert (row["attempts"], row["locked_at"]) == (0, None)
    assert row["last_error"].startswith("Worker shutdown")


@pytest.mark.parametrize(
    ("given", "expected"),
    [(timedelta(minutes=5), 300), (90, 90), (0, 0), (None, 2.7), (-1, 2.7), ("soon", 2.7)],
)
async def test_a_task_may_say_when_to_retry(jobs, run_tasks, eventually, given, expected) -> None:
    asked = []

    def retry(job, error):
        asked.append((job.id, job.attempts, str(error)))
        return given

    job_id = await jobs.add(max_attempts=2)
    runner = run_tasks(task(failing, retry=retry))
    await runner.start()
    await eventually(lambda: asked)
    await runner.stop()
    assert asked[0] == (str(job_id), 1, "boom")
    if expected:
        assert await seconds_to_retry(jobs, job_id) == pytest.approx(expected, abs=2)
    else:
        assert (await jobs.row(job_id))["last_error"] == "ValueError: boom"


async def test_a_policy_that_fails_leaves_graphile_workers_backoff(jobs, run_tasks, caplog) -> None:
    def retry(job, error):
        raise KeyError("policy")

    job_id = await jobs.add()
    await run_tasks(task(failing, retry=retry)).run_once()
    row = await jobs.row(job_id)
    assert row["last_error"] == "ValueError: boom"
    assert await seconds_to_retry(jobs, job_id) == pytest.approx(2.7, abs=2)
    assert any("retry policy of task gave no delay" in message for message in caplog.messages)


async def test_max_attempts_rules_over_the_policy(jobs, run_tasks) -> None:
    job_id = await jobs.add(max_attempts=3)
    await run_tasks(task(failing, retry=lambda job, error: 0)).run_once()
    row = await jobs.row(job_id)
    assert (row["attempts"], row["is_available"], row["last_error"]) == (
        3,
        False,
        "ValueError: boom",
    )


async def test_exponential_backoff_in_the_database(jobs, run_tasks) -> None:
    third = await jobs.add()
    await jobs.sql("update graphile_worker._private_jobs set attempts = 2")
    await run_tasks(task(failing, retry=ExponentialBackoff())).run_once()
    assert await seconds_to_retry(jobs, third) == pytest.approx(120, abs=2)


async def test_a_handler_may_ask_to_be_called_later(jobs, run_tasks) -> None:
    async def handler(payload) -> None:
        raise RetryAfter(timedelta(minutes=10), "rate limited")

    job_id = await jobs.add()
    await run_tasks(task(handler, retry=lambda job, error: 1)).run_once()
    row = await jobs.row(job_id)
    assert (row["attempts"], row["last_error"]) == (1, "RetryAfter: rate limited (in 600 s)")
    assert await seconds_to_retry(jobs, job_id) == pytest.approx(600, abs=2)


async def test_a_handler_may_give_up_for_good(jobs, run_tasks, make_runner) -> None:
    async def handler(payload) -> None:
        raise PermanentFailure("no such user")

    job_id = await jobs.add(queue_name="q")
    await run_tasks(task(handler)).run_once()
    row = await jobs.row(job_id)
    assert (row["attempts"], row["max_attempts"], row["is_available"]) == (25, 25, False)
    assert row["last_error"] == "PermanentFailure: no such user"
    assert await jobs.locked() == 0

    await jobs.sql("delete from graphile_worker._private_jobs")
    await jobs.add()
    await run_tasks(task(handler), delete_failed_jobs=True).run_once()
    assert await jobs.empty()


async def test_failures_of_recurring_tasks_are_never_deleted(jobs, run_tasks) -> None:
    job_id = await jobs.add(max_attempts=1)
    await run_tasks(task(failing, keep_failed=True), delete_failed_jobs=True).run_once()
    assert (await jobs.row(job_id))["last_error"] == "ValueError: boom"


@pytest.mark.parametrize("is_async", [True, False])
async def test_on_error_is_called_when_the_failure_is_written(jobs, run_tasks, is_async) -> None:
    seen = []

    def sync_hook(job, error) -> None:
        seen.append((job.id, job.payload, str(error)))
        raise RuntimeError("of the hook")

    async def async_hook(job, error) -> None:
        row = await jobs.row(int(job.id))
        assert row["last_error"] == "ValueError: boom"
        sync_hook(job, error)

    job_id = await jobs.add(payload={"n": 1})
    hook = async_hook if is_async else sync_hook
    await run_tasks(task(failing), on_error=hook).run_once()
    assert seen == [(str(job_id), {"n": 1}, "boom")]
    assert (await jobs.row(job_id))["last_error"] == "ValueError: boom"


async def test_a_limited_task_never_exceeds_its_limit_and_starves_nobody(
    jobs, run_tasks, eventually
) -> None:
    running, most, done = 0, 0, {"limited": 0, "free": 0}

    async def limited(payload) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.005)
        running -= 1
        done["limited"] += 1

    async def free(payload) -> None:
        await asyncio.sleep(0)
        done["free"] += 1

    for _ in range(30):
        await jobs.add("limited", priority=-1)
        for _ in range(5):
            await jobs.add("free")
    runner = run_tasks(task(limited, "limited", concurrency=2), task(free, "free"), concurrency=8)
    await runner.run_once()
    assert most == 2
    assert done == {"limited": 30, "free": 150}
    assert await jobs.empty()


async def test_a_full_task_leaves_its_backlog_to_others_and_lets_the_rest_pass(
    jobs, run_tasks, eventually
) -> None:
    release, passed, calls = asyncio.Event(), [], []

    async def limited(payload) -> None:
        calls.append(1)
        await release.wait()

    for _ in range(20):
        await jobs.add("limited", priority=-1)
    for _ in range(20):
        await jobs.add("free")
    runner = run_tasks(
        task(limited, "limited", concurrency=1),
        task(passed.append, "free"),
        concurrency=4,
        poll_interval=0.05,
    )
    await runner.start()
    await eventually(lambda: len(passed) == 20)
    assert len(calls) == 1

    async def only_the_running_one_is_locked() -> bool:
        return await jobs.locked() == 1

    await eventually(only_the_running_one_is_locked)
    untouched = await jobs.sql(
        "select count(*) from graphile_worker._private_jobs where attempts = 0"
    )
    assert untouched[0]["count"] == 19
    release.set()
    await eventually(jobs.empty)
    assert len(calls) == 20


async def test_a_row_that_cannot_be_written_blocks_no_other(jobs, run_tasks, caplog) -> None:
    await jobs.sql(
        "create function refuse() returns trigger language plpgsql as"
        " $$ begin raise exception 'audit refuses job %%', old.id; end $$"
    )
    await jobs.add_many(40)
    await jobs.sql(
        "create trigger refuse before delete on graphile_worker._private_jobs"
        " for each row when (old.id = 17) execute function refuse()"
    )
    await run_tasks(task(nothing)).run_once()
    (row,) = await jobs.all()
    assert (row["id"], row["attempts"], row["locked_by"]) == (17, 1, None)
    assert "PostgreSQL refused to delete its job" in row["last_error"]
    (refused,) = [m for m in caplog.messages if m.startswith("PostgreSQL refuses to settle")]
    assert "job 17" in refused
    assert "RaiseException: audit refuses job 17" in refused


async def test_a_run_that_was_claimed_again_by_us_changes_nothing(
    jobs, run_tasks, eventually, caplog
) -> None:
    started, release = [], [asyncio.Event(), asyncio.Event()]

    async def handler(payload, job) -> None:
        number = len(started)
        started.append(job.attempts)
        await release[number].wait()
        if number == 0:
            raise ValueError("too late")

    job_id = await jobs.add()
    runner = run_tasks(task(handler), poll_interval=0.05)
    await runner.start()
    await eventually(lambda: started == [1])
    await jobs.sql("update graphile_worker._private_jobs set locked_at = null, locked_by = null")
    await eventually(lambda: started == [1, 2])
    before = await jobs.row(job_id)
    release[0].set()
    assert any("was not ours any more" in message for message in caplog.messages)
    assert await jobs.row(job_id) == before
    release[1].set()
    await eventually(jobs.empty)
    await runner.stop()
    assert not any(message.startswith("Failed job") for message in caplog.messages)


async def test_options_of_the_facade(database, eventually) -> None:
    failures = []

    async def on_error(job, error) -> None:
        failures.append((job.task_identifier, type(error).__name__))

    worker = ZodWorker(
        name="test", runner_options=RunnerOptions(connection_string=database), on_error=on_error
    )

    @worker.task("slow", schema=True, timeout=timedelta(seconds=0.05), retry=ExponentialBackoff())
    async def slow(payload) -> None:
        await asyncio.Event().wait()

    @worker.task("sync", schema=True, concurrency=1)
    def sync(payload, job, helpers) -> None:
        helpers.query("create table if not exists seen (n int)")
        with helpers.with_connection() as connection:
            connection.execute("insert into seen values (1)")
            helpers.enqueue_tx(connection, "later", {"n": 1})
        assert helpers.query("select n from seen where n = %s", [1]) == [{"n": 1}]
        with pytest.raises(psycopg.errors.UndefinedTable):
            helpers.query("select * from nowhere")

    seen = []

    @worker.task("later", schema=True)
    async def later(payload, job, helpers) -> None:
        seen.append((payload, await helpers.query("select count(*) from seen")))

    await worker.enqueue("slow")
    await worker.enqueue("sync")
    await worker.run_once()
    assert failures == [("slow", "TimeoutError")]
    assert seen == [({"n": 1}, [{"count": 1}])]
