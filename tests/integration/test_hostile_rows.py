"""Rows that others wrote by hand: each runs, fails with a reason or is left alone, and harms no other."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from zodworker_compat import ZodWorker
from zodworker_compat.limiter import PostgresRateLimiter
from zodworker_compat.payload import PayloadCodec
from zodworker_compat.runner.pool import Intervals
from zodworker_compat.runner_options import RunnerOptions

# A value for a column, as SQL: the job runs, whatever the handler makes of it.
HARMLESS = {
    "payload is a string": ("payload", "'\"text\"'"),
    "payload is a number": ("payload", "'1'"),
    "payload is null": ("payload", "'null'"),
    "payload with NUL": ("payload", r"""'{"a\u0000": "\u0000"}'"""),
    "payload with lone surrogates": ("payload", r"""'{"\ud800": "\udfff\ud800"}'"""),
    "payload with a number beyond floats": ("payload", "'[1e400, -1e400, 1e-400, 0.1e-5000]'"),
    "payload with the same key twice": ("payload", """'{"a": 1, "a": 2}'"""),
    "payload with an empty key": ("payload", """'{"": {"": []}}'"""),
    "payload with __proto__": ("payload", """'{"__proto__": {"a": 1}, "__class__": "x"}'"""),
    "flags are a list": ("flags", """'["a", 1, null, ["b"]]'"""),
    "flags are a string": ("flags", "'\"rl:a\"'"),
    "flags are a number": ("flags", "'1'"),
    "flags are json's null": ("flags", "'null'"),
    "flags are true": ("flags", "'true'"),
    "flags are nested": ("flags", """'{"a": {"b": [1]}, "c": null, "": true}'"""),
    "flags with a number of 5000 digits": ("flags", """'{"a": 1e5000}'"""),
    "flags are a number of 5000 digits": ("flags", "'1e5000'"),
    "flags 1500 deep": ("flags", "(repeat('[', 1500) || repeat(']', 1500))::jsonb"),
    "flags with a broken trace": ("flags", """'{"traceparent:rubbish": true}'"""),
    "fewest attempts": ("attempts", "-32768"),
    "lowest priority": ("priority", "-32768"),
    "highest priority": ("priority", "32767"),
    "run_at before time": ("run_at", "'-infinity'"),
    "run_at before Christ": ("run_at", "'4713-01-01 BC'"),
    "created after time": ("created_at", "'infinity'"),
    "created before time": ("created_at", "'-infinity'"),
    "updated after time": ("updated_at", "'infinity'"),
    "updated in the year 200000": ("updated_at", "'200000-01-01'"),
    "key of spaces": ("key", "'   '"),
    "key of quotes": ("key", """E'\\'";\\\\ --\\n\\t\\u200b'"""),
    "last_error of 2 MB": ("last_error", "repeat('x', 2000000)"),
    "largest revision": ("revision", "2147483647"),
    "locked_by without a lock": ("locked_by", "'nobody'"),
}
# The job fails, and `last_error` says why.
BROKEN = {
    "number of 5000 digits": ("payload", "('[' || repeat('9', 5000) || ']')::json", "4300 digits"),
    "3000 deep": ("payload", "(repeat('[', 3000) || repeat(']', 3000))::json", "too deep"),
}
# Nobody claims the job, and nothing happens to it.
LEFT_ALONE = {
    "no attempts left": ("attempts", "25"),
    "more attempts than there are": ("attempts", "32767"),
    "run_at after time": ("run_at", "'infinity'"),
    "run_at in the year 200000": ("run_at", "'200000-01-01'"),
    "no such task": ("task_id", "2147483647"),
    "negative task": ("task_id", "-1"),
    "no such queue": ("job_queue_id", "2147483647"),
    "locked after time": ("locked_at", "'infinity'"),
    "locked by nobody": ("locked_at", "now()"),
}
# It looks into lists, so that what is too deep is refused also where Python can read it (3.13).
SCHEMA = {"type": ["object", "array", "string", "number", "null"], "items": {"$ref": "#"}}


async def add_hostile(jobs, column: str, value: str) -> int:
    job_id = await jobs.add()
    await jobs.sql(
        f"update graphile_worker._private_jobs set {column} = {value} where id = {job_id}"
    )
    return job_id


async def add_all(jobs) -> tuple[set[int], dict[int, str], set[int]]:
    """Add the rows above between healthy ones; return the ids of those that run, fail, stay."""
    run = set()
    for column, value in HARMLESS.values():
        run |= {await jobs.add(), await add_hostile(jobs, column, value)}
    fail = {await add_hostile(jobs, *row[:2]): row[2] for row in BROKEN.values()}
    stay = {await add_hostile(jobs, *row) for row in LEFT_ALONE.values()}
    return run, fail, stay


async def check_all(jobs, expected, ran: set[int]) -> None:
    run, fail, stay = expected
    found = await jobs.sql(
        "select id, attempts, last_error, locked_at from graphile_worker._private_jobs"
        " where id <> all (%s)",
        [*stay],
    )
    rows = {row["id"]: row for row in found}
    assert {job_id: rows[job_id]["last_error"] for job_id in run & rows.keys()} == {}
    assert ran == run
    assert rows.keys() == fail.keys()
    for job_id, reason in fail.items():
        assert reason in rows[job_id]["last_error"]
        assert (rows[job_id]["attempts"], rows[job_id]["locked_at"]) == (1, None)
    untouched = await jobs.sql(
        "select id from graphile_worker._private_jobs where id = any (%s) and last_error is null"
        " and locked_by is null",
        [*stay],
    )
    assert {row["id"] for row in untouched} == stay


async def test_each_hostile_row_runs_fails_or_stays_and_no_other_is_harmed(
    jobs, make_runner
) -> None:
    ran = set()

    async def handler(payload, job) -> None:
        ran.add(int(job.id))

    expected = await add_all(jobs)
    decode = PayloadCodec.compile("task", SCHEMA).decode
    await make_runner(handler, decode=decode).run_once()
    await check_all(jobs, expected, ran)


async def test_the_same_under_a_limiter_with_tracing_and_listeners(jobs, database) -> None:
    from opentelemetry.sdk.trace import TracerProvider

    ran, told = set(), []
    worker = ZodWorker(
        name="test",
        runner_options=RunnerOptions(connection_string=database),
        rate_limiter=PostgresRateLimiter({"rl:a": 5}),
        tracer_provider=TracerProvider(),
        trace_payloads=True,
        handle_signals=False,
    )

    @worker.task("task", schema=SCHEMA)
    async def handler(payload, job) -> None:
        ran.add(int(job.id))

    for event in ("localQueue:getJobs:complete", "job:start", "job:error", "job:complete"):
        worker.events.on(event, told.append)
    expected = await add_all(jobs)
    await worker.run_once()
    await check_all(jobs, expected, ran)
    assert {int(event.job.id) for event in told if hasattr(event, "job")} == {
        *expected[0],
        *expected[1],
    }


async def test_what_is_done_to_hostile_rows_returns_them(jobs, database) -> None:
    """An error after the deed would hide it."""
    async with ZodWorkerOf(database) as worker:
        ids = [
            await add_hostile(jobs, column, value)
            for column, value in [
                *HARMLESS.values(),
                *(row[:2] for row in BROKEN.values()),
                LEFT_ALONE["run_at after time"],
                LEFT_ALONE["no such task"],
            ]
        ]
        for act in (
            lambda: worker.reschedule_jobs(ids, priority=1),
            lambda: worker.permanently_fail_jobs(ids, "because"),
            lambda: worker.complete_jobs(ids),
        ):
            assert [int(job.id) for job in await act()] == ids


@pytest.mark.parametrize("column", ["payload", "flags", "run_at", "created_at"])
async def test_a_hostile_row_can_be_replaced_and_removed_by_its_key(jobs, database, column) -> None:
    rows = [row[:2] for row in [*HARMLESS.values(), *BROKEN.values()] if row[0] == column]
    async with ZodWorkerOf(database) as worker:
        for number, row in enumerate(rows):
            hostile = await add_hostile(jobs, *row)
            await jobs.sql(
                "update graphile_worker._private_jobs set key = %s where id = %s",
                f"key {number}",
                hostile,
            )
            job = await worker.enqueue("task", [1], job_key=f"key {number}")
            assert job.id == str(hostile)
            removed = await worker.dequeue(f"key {number}")
            assert removed is not None
            assert removed.id == str(hostile)


async def test_a_payload_of_100_mb_is_run_and_may_fail(jobs, make_runner) -> None:
    sizes = []

    def handler(payload) -> None:
        sizes.append(len(payload["text"]))
        raise ValueError(payload["text"])

    job_id = await jobs.add()
    await jobs.sql(
        "update graphile_worker._private_jobs"
        " set payload = json_build_object('text', repeat('x', 100000000)) where id = %s",
        job_id,
    )
    await make_runner(handler).run_once()
    [row] = await jobs.sql(
        "select length(last_error) as length, locked_by from graphile_worker._private_jobs"
    )
    assert sizes == [100_000_000]
    assert row["length"] < 11_000
    assert row["locked_by"] is None


async def test_rows_that_vanish_under_a_running_job_harm_nobody(
    jobs, make_runner, eventually
) -> None:
    """Its task, its queue, the job itself: deleted while the handler runs."""
    going, running = asyncio.Event(), set()

    async def handler(payload, job) -> None:
        running.add(job.id)
        await going.wait()
        if payload.get("fails"):
            raise ValueError

    runner = make_runner(handler, poll_interval=0.05, intervals=Intervals(resolve=0.2))
    await runner.start()
    for number in range(2):
        for fails in (False, True):
            await jobs.add(payload={"fails": fails}, queue_name=f"{number} {fails}")
    await eventually(lambda: len(running) == 4, timeout=60)
    await jobs.sql("delete from graphile_worker._private_tasks")
    await jobs.sql("delete from graphile_worker._private_job_queues")
    await jobs.sql("delete from graphile_worker._private_jobs where id <= 2")
    going.set()
    await eventually(lambda: _settled(jobs), timeout=60)
    [failed] = await jobs.all()
    assert failed["last_error"] == "ValueError"

    await jobs.add(payload={"new": True})  # under the task's new id, which is looked up again
    await eventually(lambda: len(running) == 5, timeout=60)
    await runner.stop()
    assert await jobs.locked() == 0


async def _settled(jobs) -> bool:
    return await jobs.count() == 1 and await jobs.locked() == 0


async def test_a_job_changed_under_a_running_handler_is_settled_all_the_same(
    jobs, make_runner, eventually
) -> None:
    going, running = asyncio.Event(), set()

    async def handler(payload, job) -> None:
        running.add(job.id)
        await going.wait()
        raise ValueError("reason")

    changes = (
        "attempts = -32768",
        "attempts = 32767",
        "max_attempts = 1",
        "run_at = '-infinity'",
        "run_at = 'infinity'",
        "payload = '1'",
        "key = 'new'",
        "flags = '[]'",
        "job_queue_id = 9999",
        "task_id = 9999",
    )
    ids = [await jobs.add() for _ in changes]
    runner = make_runner(handler, concurrency=len(ids))
    await runner.start()
    await eventually(lambda: len(running) == len(ids), timeout=60)
    for job_id, change in zip(ids, changes, strict=True):
        await jobs.sql(f"update graphile_worker._private_jobs set {change} where id = {job_id}")
    going.set()

    async def unlocked() -> bool:
        return await jobs.locked() == 0

    await eventually(unlocked, timeout=60)
    errors = await jobs.sql("select last_error from graphile_worker._private_jobs")
    assert {row["last_error"] for row in errors} == {"ValueError: reason"}


@pytest.mark.parametrize(
    "payload",
    ["[" * 7900, "9" * 7900, "", "null", "[]", '"x"', '{"count": "x"}', '{"count": 1e400}', "\x01"],
)
@pytest.mark.parametrize("channel", ["jobs:insert", "worker:migrate"])
async def test_any_notification_is_survived(
    jobs, make_runner, eventually, channel, payload
) -> None:
    """Whoever may connect may notify."""
    ran = []
    runner = make_runner(ran.append)
    await runner.start()
    await jobs.sql("select pg_notify(%s, %s)", channel, payload)
    await jobs.add()
    await eventually(lambda: ran, timeout=60)
    await runner.stop()


@pytest.mark.parametrize("moment", ["infinity", "-infinity"])
@pytest.mark.parametrize("column", ["known_since", "last_execution"])
async def test_a_recurring_task_with_an_odd_time_does_not_stop_the_others(
    jobs, database, eventually, column, moment
) -> None:
    ran = []
    async with ZodWorkerOf(database) as worker:
        for name in ("odd", "even"):
            worker.recurring(name, match="* * * * *", backfill_period=timedelta(hours=1))(
                ran.append
            )
        await jobs.sql(
            "insert into graphile_worker._private_known_crontabs (identifier, known_since,"
            " last_execution) values ('even', %(now)s, null), ('odd', %(now)s, null)".replace(
                "%(now)s", "now() - interval '5 min'"
            )
        )
        await jobs.sql(
            f"update graphile_worker._private_known_crontabs set {column} = '{moment}'"
            " where identifier = 'odd'"
        )
        await worker.initialize()
        await eventually(lambda: len(ran) >= 4, timeout=60)
        assert isinstance(ran[0].ts, datetime)
        assert ran[0].ts < datetime.now(UTC)


async def test_cleaning_up_and_reporting_goes_on_beside_hostile_rows(jobs, database) -> None:
    await add_all(jobs)
    async with ZodWorkerOf(database) as worker:
        done = await worker.cleanup(
            ["DELETE_PERMAFAILED_JOBS", "GC_TASK_IDENTIFIERS", "GC_JOB_QUEUES"]
        )
    assert done.jobs == 2


class ZodWorkerOf:
    """A worker of one task on a database, closed with the block."""

    def __init__(self, database: str) -> None:
        self.worker = ZodWorker(
            name="test",
            schema={"task": True},
            tasks={"task": {}},
            runner_options=RunnerOptions(connection_string=database),
            handle_signals=False,
        )

    async def __aenter__(self) -> ZodWorker:
        return self.worker

    async def __aexit__(self, *_: object) -> None:
        await self.worker.stop()
