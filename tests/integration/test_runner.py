"""Running jobs: which, in what order, with what, and what is left of them."""

import asyncio
import contextvars
import logging
import threading
from datetime import UTC, datetime, timedelta

import pytest

from zodworker_compat.errors import PayloadValidationError, Problem
from zodworker_compat.job import Job


async def nothing(payload) -> None: ...


async def test_a_job_runs_and_its_row_is_gone(jobs, make_runner) -> None:
    seen = []
    await jobs.add(payload={"n": 1})
    await make_runner(seen.append).run_once()
    assert seen == [{"n": 1}]
    assert await jobs.empty()


async def test_every_job_runs_exactly_once(jobs, make_runner) -> None:
    seen = []

    async def handler(payload) -> None:
        seen.append(payload["n"])

    await jobs.add_many(3000)
    await asyncio.gather(*(make_runner(handler).run_once() for _ in range(3)))
    assert sorted(seen) == list(range(1, 3001))
    assert await jobs.empty()


async def test_jobs_run_by_priority_then_time(jobs, make_runner) -> None:
    seen = []
    now = datetime.now(UTC)
    for name, priority, age in [("d", 9, 9), ("b", 0, 5), ("c", 0, 1), ("a", -1, 0)]:
        await jobs.add(
            payload={"name": name}, priority=priority, run_at=now - timedelta(minutes=age)
        )
    await make_runner(lambda payload: seen.append(payload["name"]), concurrency=1).run_once()
    assert seen == ["a", "b", "c", "d"]


async def test_jobs_of_others_and_of_the_future_are_left_alone(jobs, make_runner) -> None:
    await jobs.add("theirs")
    await jobs.add(run_at=datetime.now(UTC) + timedelta(hours=1))
    before = await jobs.all()
    await make_runner(nothing).run_once()
    assert await jobs.all() == before


async def test_a_claimed_job_is_locked_and_counted(jobs, make_runner, eventually) -> None:
    release = asyncio.Event()

    async def handler(payload) -> None:
        await release.wait()

    job_id = await jobs.add(queue_name="q")
    runner = make_runner(handler)
    await runner.start()
    await eventually(jobs.locked)
    row = await jobs.row(job_id)
    queue = (await jobs.sql("select * from graphile_worker._private_job_queues"))[0]
    assert row["locked_by"] == queue["locked_by"] == runner.pool_id
    assert row["attempts"] == 1
    release.set()
    await eventually(jobs.empty)
    await runner.stop()
    assert await jobs.locked() == 0


async def test_a_handler_gets_payload_job_and_helpers(jobs, make_runner) -> None:
    got = []

    async def handler(payload, job, helpers) -> None:
        got.append((payload, job, helpers.job, helpers.logger.extra))

    job_id = await jobs.add(
        payload={"n": 1}, queue_name="q", job_key="k", priority=3, max_attempts=7, flags=["f"]
    )
    runner = make_runner(handler, decode=lambda raw: {"decoded": raw})
    await runner.run_once()
    payload, job, helpers_job, extra = got[0]
    assert payload == {"decoded": {"n": 1}}
    assert isinstance(job, Job)
    assert job is helpers_job
    assert (job.id, job.payload, job.queue_name, job.key) == (str(job_id), {"n": 1}, "q", "k")
    assert (job.priority, job.attempts, job.max_attempts) == (3, 1, 7)
    assert job.flags == {"f": True}
    assert job.locked_by == runner.pool_id
    assert job.run_at.tzinfo is UTC
    assert extra == {"job_id": str(job_id), "task_identifier": "task", "attempt": 1}


async def test_sync_handlers_run_side_by_side_in_threads(jobs, make_runner) -> None:
    together = threading.Barrier(3, timeout=60)
    names = set()

    def handler(payload) -> None:
        together.wait()
        names.add(threading.current_thread().name)

    await jobs.add_many(3)
    await make_runner(handler, concurrency=3).run_once()
    assert len(names) == 3
    assert await jobs.empty()


async def test_no_more_jobs_run_at_a_time_than_asked_for(jobs, make_runner) -> None:
    running, most = 0, 0

    async def handler(payload) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        running -= 1

    await jobs.add_many(100)
    await make_runner(handler, concurrency=4).run_once()
    assert most == 4


async def test_a_failure_is_written_and_postponed_by_the_backoff(jobs, make_runner) -> None:
    async def handler(payload) -> None:
        raise ValueError("no such run\0")

    await jobs.sql("create table clock as select now() as start")
    job_id = await jobs.add(queue_name="q")
    await make_runner(handler).run_once()
    row = await jobs.row(job_id)
    assert row["last_error"] == "ValueError: no such run\\x00"
    assert row["attempts"] == 1
    assert await jobs.locked() == 0
    wait = (
        await jobs.sql(
            "select extract(epoch from run_at - start)::float as least,"
            " extract(epoch from run_at - now())::float as most"
            " from clock, graphile_worker._private_jobs"
        )
    )[0]
    assert wait["least"] >= 2.718
    assert wait["most"] <= 2.719


async def test_the_backoff_grows_with_the_attempts_up_to_ten(jobs, make_runner) -> None:
    def handler(payload) -> None:
        raise ValueError

    for attempts in (1, 9, 14):
        job_id = await jobs.add()
        await jobs.sql(
            "update graphile_worker._private_jobs set attempts = %s where id = %s", attempts, job_id
        )
    await make_runner(handler).run_once()
    waits = await jobs.sql(
        "select round(extract(epoch from run_at - now()))::int as seconds"
        " from graphile_worker._private_jobs order by id"
    )
    assert [row["seconds"] for row in waits] == pytest.approx([7, 22026, 22026], abs=2)


async def test_the_last_failure_is_kept(jobs, make_runner) -> None:
    def handler(payload) -> None:
        raise ValueError("gone")

    job_id = await jobs.add(max_attempts=1)
    await make_runner(handler).run_once()
    row = await jobs.row(job_id)
    assert (row["last_error"], row["is_available"]) == ("ValueError: gone", False)


async def test_the_last_failure_is_deleted_on_request(jobs, make_runner, caplog) -> None:
    def handler(payload) -> None:
        raise ValueError("gone")

    await jobs.add(max_attempts=1)
    retried = await jobs.add(max_attempts=2)
    await make_runner(handler, delete_failed_jobs=True).run_once()
    assert [row["id"] for row in await jobs.all()] == [retried]
    assert "Job failed after max attempts" in caplog.messages


async def test_a_wrong_payload_is_a_failure_that_is_never_deleted(jobs, make_runner) -> None:
    def decode(raw):
        raise PayloadValidationError("task", [Problem("/id", "is missing")])

    job_id = await jobs.add(max_attempts=1)
    await make_runner(nothing, decode=decode, delete_failed_jobs=True).run_once()
    row = await jobs.row(job_id)
    assert "/id: is missing" in row["last_error"]
    assert row["attempts"] == 1


@pytest.mark.parametrize(
    "error", [SystemExit(2), KeyboardInterrupt(), asyncio.CancelledError(), StopIteration()]
)
@pytest.mark.parametrize("is_async", [True, False])
async def test_no_exception_of_a_handler_ends_the_runner(
    jobs, make_runner, error, is_async
) -> None:
    seen = []

    def sync_handler(payload) -> None:
        if payload["n"] == 1:
            raise error
        seen.append(payload["n"])

    async def async_handler(payload) -> None:
        sync_handler(payload)

    await jobs.add_many(4)
    handler = async_handler if is_async else sync_handler
    await make_runner(handler, concurrency=1).run_once()
    assert sorted(seen) == [2, 3, 4]
    (row,) = await jobs.all()
    assert row["last_error"]
    assert row["locked_at"] is None


async def test_a_handler_that_cancels_its_task_fails_and_leaves_the_slot_whole(
    jobs, make_runner
) -> None:
    seen = []

    async def handler(payload) -> None:
        if payload["n"] == 1:
            asyncio.current_task().cancel()
        await asyncio.sleep(0)
        seen.append(payload["n"])

    await jobs.add_many(3)
    await make_runner(handler, concurrency=1).run_once()
    assert seen == [2, 3]
    (row,) = await jobs.all()
    assert row["last_error"] == "CancelledError"


async def test_context_variables_do_not_reach_the_next_job(jobs, make_runner) -> None:
    tenant = contextvars.ContextVar("tenant", default="none")
    seen = []

    async def handler(payload) -> None:
        seen.append(tenant.get())
        tenant.set("somebody")

    await jobs.add_many(5)
    await make_runner(handler, concurrency=1).run_once()
    assert seen == ["none"] * 5


async def test_context_variables_of_the_application_reach_sync_handlers(jobs, make_runner) -> None:
    tenant = contextvars.ContextVar("tenant", default="none")
    tenant.set("mine")
    seen = []
    await jobs.add()
    await make_runner(lambda payload: seen.append(tenant.get())).run_once()
    assert seen == ["mine"]


async def test_a_sync_wrapper_of_an_async_function_is_awaited(jobs, make_runner) -> None:
    seen = []

    async def wrapped(payload) -> None:
        await asyncio.sleep(0)
        seen.append(payload)

    await jobs.add()
    await make_runner(lambda payload: wrapped(dict(payload))).run_once()
    assert seen == [{}]


async def test_one_unreadable_row_does_not_spoil_its_batch(jobs, make_runner) -> None:
    seen = []
    await jobs.add_many(3)
    await jobs.sql("update graphile_worker._private_jobs set run_at = '-infinity' where id = 1")
    number = "9" * 5000  # more digits than Python reads
    await jobs.sql(
        "update graphile_worker._private_jobs set payload = %s::json where id = 2", number
    )
    await make_runner(lambda payload: seen.append(payload["n"])).run_once()
    assert sorted(seen) == [1, 3]
    (row,) = await jobs.sql("select last_error from graphile_worker._private_jobs")
    assert "cannot be read: Exceeds the limit" in row["last_error"]


async def test_the_log_says_what_failed_and_only_then_what_succeeded(
    jobs, make_runner, caplog
) -> None:
    def handler(payload) -> None:
        if payload["n"] == 1:
            raise ValueError("boom")

    await jobs.add_many(2)
    with caplog.at_level(logging.INFO, "zodworker_compat.runner"):
        await make_runner(handler).run_once()
    failed = next(r for r in caplog.records if r.message.startswith("Failed job 1 (task"))
    completed = next(r for r in caplog.records if r.message.startswith("Completed job 2 (task"))
    assert failed.exc_info
    assert (failed.job_id, failed.task_identifier, failed.attempt) == (1, "task", 1)
    assert completed.job_id == 2


async def test_a_job_whose_lock_was_taken_is_not_touched(jobs, make_runner, eventually, caplog):
    release = asyncio.Event()

    async def handler(payload) -> None:
        await release.wait()
        if payload["n"] == 2:
            raise ValueError

    await jobs.add_many(2)
    runner = make_runner(handler)
    await runner.start()
    await eventually(jobs.locked)
    await jobs.sql("update graphile_worker._private_jobs set locked_by = 'pool-other'")
    before = await jobs.all()
    release.set()
    await runner.stop()
    assert await jobs.all() == before
    assert sum("was not ours any more" in message for message in caplog.messages) == 2


class Enqueuer:
    """Stands where the worker stands: notes what handlers ask of it."""

    def __init__(self) -> None:
        self.asked = []

    async def enqueue(self, *args, **kwargs):
        self.asked.append(("enqueue", args, kwargs))
        return "job"

    async def enqueue_many(self, *args, **kwargs):
        self.asked.append(("enqueue_many", args, kwargs))

    async def dequeue(self, *args, **kwargs):
        self.asked.append(("dequeue", args, kwargs))


async def test_helpers_enqueue_from_async_and_sync_handlers(jobs, make_runner) -> None:
    enqueuer = Enqueuer()

    async def from_async(payload, job, helpers) -> None:
        assert await helpers.enqueue("other", {}, priority=1) == "job"
        await helpers.enqueue_many([])
        await helpers.dequeue("key")

    def from_sync(payload, job, helpers) -> None:
        assert helpers.enqueue("other", {}, priority=1) == "job"
        helpers.enqueue_many([])
        helpers.dequeue("key")

    await jobs.add("a")
    await jobs.add("s")
    await make_runner({"a": from_async, "s": from_sync}, enqueuer=enqueuer).run_once()
    assert await jobs.empty()
    expected = [
        ("dequeue", ("key",), {}),
        ("enqueue", ("other", {}), {"priority": 1}),
        ("enqueue_many", ([],), {}),
    ]
    assert sorted(enqueuer.asked, key=lambda call: call[0]) == [e for e in expected for _ in "12"]


async def test_helpers_lend_a_connection(jobs, make_runner) -> None:
    async def from_async(payload, job, helpers) -> None:
        async with helpers.with_connection() as connection:
            await connection.execute("insert into orders values ('async')")

    def from_sync(payload, job, helpers) -> None:
        with helpers.with_connection() as connection:
            connection.execute("insert into orders values ('sync')")

    await jobs.sql("create table orders (made_by text)")
    await jobs.add("a")
    await jobs.add("s")
    await make_runner({"a": from_async, "s": from_sync}).run_once()
    orders = await jobs.sql("select made_by from orders order by 1")
    assert [order["made_by"] for order in orders] == ["async", "sync"]


async def test_prepared_statements_can_be_off(jobs, make_runner) -> None:
    await jobs.add_many(50)
    await make_runner(nothing, options={"prepared_statements": False}).run_once()
    assert await jobs.empty()
