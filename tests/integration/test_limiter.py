"""The rate limiter of a worker: what is skipped, and what becomes of a job that is put back."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from zodworker_compat import Job, RateLimiter, RateLimiterError, RunnerOptions, ZodWorker

[VECTOR] = [
    vector
    for vector in json.loads(
        (Path(__file__).parent.parent / "vectors" / "run_vectors.json").read_text()
    )["vectors"]
    if vector["case"].startswith("reschedule via limiter")
]


class Gate:
    """A limiter that forbids what it is told, and puts back what `is_full` says."""

    def __init__(self, is_full: Callable[[Job], bool] = lambda _job: False) -> None:
        self.is_full = is_full
        self.forbidden: Any = []
        self.asked = 0
        self.change: Callable[[Any], Any] = lambda payload: payload
        self.before = asyncio.sleep

    async def forbidden_flags(self) -> Collection[str]:
        self.asked += 1
        if isinstance(self.forbidden, Exception):
            raise self.forbidden
        return self.forbidden

    def wrap_task(self, task: Any, reschedule: Any) -> Any:
        async def limited(payload: Any, job: Job, helpers: Any) -> None:
            await self.before(0)
            if self.is_full(job):
                await reschedule(self.change(payload), job)
            else:
                await task(self.change(payload), job, helpers)

        return limited


def full_once() -> Callable[[Job], bool]:
    seen: list[str] = []
    return lambda job: not seen and not seen.append(job.id)


@pytest.fixture
async def make_worker(database: str) -> AsyncIterator[Callable[..., ZodWorker]]:
    made: list[ZodWorker] = []

    def make(limiter: RateLimiter, handler: Any, **more: Any) -> ZodWorker:
        options = more.pop("task", {})
        worker = ZodWorker(
            name="limited",
            runner_options=RunnerOptions(
                connection_string=database, poll_interval=more.pop("poll_interval", 0.05)
            ),
            rate_limiter=limiter,
            **more,
        )
        worker.task("task", schema=options.pop("schema", True), **options)(handler)
        made.append(worker)
        return worker

    yield make
    for worker in made:
        await worker.stop()


async def test_jobs_with_a_forbidden_flag_are_skipped_and_others_are_not(jobs, make_worker) -> None:
    seen: list[Any] = []
    gate = Gate()
    gate.forbidden = ["no", "never"]
    for name, flags in (
        ("null", None),
        ("empty", []),
        ("other", ["yes"]),
        ("one", ["no"]),
        ("both", ["yes", "never"]),
    ):
        await jobs.add("task", {"n": name}, flags=flags)
        await jobs.add("task", {"n": f"queued {name}"}, flags=flags, queue_name=name)
    await make_worker(gate, lambda payload: seen.append(payload["n"])).run_once()
    allowed = ["null", "empty", "other"]
    assert sorted(seen) == sorted([*allowed, *(f"queued {name}" for name in allowed)])
    left = await jobs.all()
    assert [row["attempts"] for row in left] == [0] * 4
    assert await jobs.locked() == 0


async def test_it_is_asked_before_each_claim(jobs, make_worker, eventually) -> None:
    gate = Gate()
    worker = make_worker(gate, lambda _payload: None)
    await worker.initialize()
    before = gate.asked
    assert before >= 1
    await eventually(lambda: gate.asked >= before + 3)


@pytest.mark.parametrize("forbidden", [RuntimeError("redis is away"), "rl:a", [1]])
async def test_a_limiter_that_fails_lets_nothing_be_claimed_until_it_works_again(
    jobs, make_worker, eventually, caplog, forbidden
) -> None:
    caplog.set_level(logging.INFO)
    seen: list[Any] = []
    gate = Gate()
    gate.forbidden = forbidden
    job_id = await jobs.add("task", {"n": 1})
    worker = make_worker(gate, seen.append)
    await worker.initialize()
    await eventually(lambda: gate.asked >= 3)
    assert seen == []
    assert (await jobs.row(job_id))["attempts"] == 0
    [record] = [r for r in caplog.records if "cannot name the forbidden flags" in r.getMessage()]
    assert record.levelno == logging.WARNING
    gate.forbidden = []
    await eventually(jobs.empty)
    assert seen == [{"n": 1}]


async def test_run_once_ends_with_the_error_of_a_limiter_that_fails(jobs, make_worker) -> None:
    gate = Gate()
    gate.forbidden = RuntimeError("redis is away")
    await jobs.add("task")
    with pytest.raises(RateLimiterError, match="RuntimeError: redis is away"):
        await make_worker(gate, lambda _payload: None).run_once()
    assert await jobs.locked() == 0


async def test_what_the_original_put_back_is_what_we_put_back(jobs, make_worker, caplog) -> None:
    """The recorded vector: the arguments of the second `add_job`."""
    [call] = VECTOR["sql"]
    identifier, payload, run_at, max_attempts, key, priority, flags, _mode = call["params"]
    assert identifier == "t"  # here "task"
    job_id = await jobs.add(
        "task",
        {**json.loads(payload), "x": 1},
        run_at=datetime.fromisoformat(run_at),
        max_attempts=5,
        job_key=key,
        priority=priority,
        flags=flags,
    )
    await jobs.sql("update graphile_worker._private_jobs set attempts = 1, revision = 3")
    gate = Gate(full_once())
    gate.change = lambda payload: {"id": payload["id"]}
    seen: list[Job] = []
    caplog.set_level(logging.DEBUG)
    worker = make_worker(gate, lambda _payload, job: seen.append(job), task={"flags": ["catalog"]})
    await worker.run_once()
    [line, _] = VECTOR["logs"]  # the second is of its `enqueue`; we move the row
    assert line.replace("debug: [worker][wq]", "[worker][limited]") in caplog.messages
    [job] = seen
    assert job.id != str(job_id)
    assert (job.attempts, job.revision, job.last_error) == (1, 0, None)
    assert job.payload == json.loads(payload)
    assert (job.max_attempts, job.key, job.priority) == (max_attempts, key, priority)
    assert job.run_at == datetime.fromisoformat(run_at)
    assert list(job.flags) == flags
    assert await jobs.empty()


async def test_a_job_put_back_is_neither_completed_nor_failed(jobs, make_worker, caplog) -> None:
    caplog.set_level(logging.INFO)
    await jobs.add("task", {"n": 1}, queue_name="q")
    await make_worker(Gate(full_once()), lambda _payload: None).run_once()
    assert await jobs.empty()
    assert await jobs.locked() == 0
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []


async def test_nothing_is_lost_if_the_limiter_fails_after_it_has_put_a_job_back(
    jobs, make_worker
) -> None:
    class Broken(Gate):
        def wrap_task(self, task: Any, reschedule: Any) -> Any:
            async def limited(payload: Any, job: Job, helpers: Any) -> None:
                if self.is_full(job):
                    await reschedule(payload, job)
                    raise RuntimeError("after all")
                await task(payload, job, helpers)

            return limited

    seen: list[Any] = []
    await jobs.add("task", {"n": 1})
    await make_worker(Broken(full_once()), seen.append).run_once()
    assert seen == [{"n": 1}]
    assert await jobs.empty()


async def test_a_limiter_that_fails_fails_the_job(jobs, make_worker) -> None:
    def fail(_job: Job) -> bool:
        raise RuntimeError("cannot decide")

    job_id = await jobs.add("task")
    await make_worker(Gate(fail), lambda _payload: None).run_once()
    row = await jobs.row(job_id)
    assert row["last_error"] == "RuntimeError: cannot decide"
    assert row["attempts"] == 1
    assert row["locked_at"] is None


async def test_a_newer_job_of_the_same_key_is_not_overwritten(jobs, make_worker) -> None:
    """The original puts the older payload over the newer one. A running job keeps no key."""
    seen: list[tuple[Any, str | None, int]] = []
    gate = Gate(full_once())

    async def enqueue_again(_seconds: float) -> None:
        if not (await jobs.sql("select from graphile_worker._private_jobs where key is null")):
            await jobs.add(
                "task", {"n": "new"}, job_key="k", run_at=datetime(2020, 1, 1, tzinfo=UTC)
            )
        gate.before = asyncio.sleep

    gate.before = enqueue_again
    await jobs.add("task", {"n": "old"}, job_key="k", run_at=datetime(2020, 1, 2, tzinfo=UTC))
    await make_worker(
        gate, lambda payload, job: seen.append((payload["n"], job.key, job.max_attempts))
    ).run_once()
    assert sorted(seen) == [("new", "k", 25), ("old", None, 1)]


@pytest.mark.parametrize("mode", ["replace", "preserve_run_at", "unsafe_dedupe"])
async def test_no_key_mode_of_the_catalog_loses_a_job_that_is_put_back(
    jobs, make_worker, mode
) -> None:
    seen: list[Job] = []
    worker = make_worker(
        Gate(full_once()), lambda _payload, job: seen.append(job), task={"job_key_mode": mode}
    )
    past = datetime(2020, 1, 1, tzinfo=UTC)
    await worker.enqueue("task", {"n": 1}, job_key="k", run_at=past, queue_name="q")
    await worker.run_once()
    [job] = seen
    assert (job.key, job.run_at, job.queue_name) == ("k", past, "q")


async def test_a_job_that_is_not_ours_any_more_is_not_put_back(jobs, make_worker, caplog) -> None:
    gate = Gate(lambda _job: True)

    async def steal(_seconds: float) -> None:
        await jobs.sql("update graphile_worker._private_jobs set locked_by = 'somebody else'")

    gate.before = steal
    job_id = await jobs.add("task")
    await make_worker(gate, lambda _payload: None).run_once()
    [row] = await jobs.all()
    assert (row["id"], row["locked_by"]) == (job_id, "somebody else")
    assert "was not ours any more when the limiter put it back" in caplog.text


async def test_a_payload_error_is_kept_whatever_happens_to_failed_jobs(jobs, make_worker) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    await jobs.add("task", {"n": "no"}, max_attempts=1)
    worker = make_worker(
        Gate(), lambda _payload: None, task={"schema": schema}, delete_failed_jobs=True
    )
    await worker.run_once()
    [row] = await jobs.all()
    assert row["last_error"].startswith("PayloadValidationError")


@pytest.mark.parametrize("is_async", [True, False])
async def test_handlers_get_their_job_and_their_kind_of_helpers(
    jobs, make_worker, is_async
) -> None:
    seen: list[Any] = []

    async def async_handler(payload: Any, job: Job, helpers: Any) -> None:
        seen.append((payload, job.id, type(helpers).__name__))

    def sync_handler(payload: Any, job: Job, helpers: Any) -> None:
        seen.append((payload, job.id, type(helpers).__name__))

    job_id = await jobs.add("task", {"n": 1})
    await make_worker(Gate(), async_handler if is_async else sync_handler).run_once()
    name = "JobHelpers" if is_async else "SyncJobHelpers"
    assert seen == [({"n": 1}, str(job_id), name)]


async def test_of_jobs_with_the_same_flags_one_is_claimed_at_a_time(jobs, make_worker) -> None:
    """So that the limiter can forbid the flag before the next one is claimed."""
    gate = Gate()
    running: list[str] = []
    most: list[int] = []

    async def begin(_seconds: float) -> None:
        gate.forbidden = ["rl:a"]

    async def handler(_payload: Any, job: Job) -> None:
        running.append(job.id)
        most.append(len(running))
        await asyncio.sleep(0.01)
        running.remove(job.id)
        gate.forbidden = []

    gate.before = begin
    for n in range(5):
        await jobs.add("task", flags=["rl:a", f"traceparent:00-{n}"])
    worker = make_worker(gate, handler)
    await worker.run_once()
    while not await jobs.empty():  # run_once ends when all that is left is forbidden
        await worker.run_once()
    assert most == [1] * 5


async def test_flags_that_only_trace_do_not_slow_the_claim(jobs, make_worker) -> None:
    together: list[int] = []
    running = 0

    async def handler(_payload: Any) -> None:
        nonlocal running
        running += 1
        together.append(running)
        await asyncio.sleep(0.01)
        running -= 1

    for n in range(5):
        await jobs.add("task", flags=[f"traceparent:00-{n}"])
    await jobs.sql("update graphile_worker._private_jobs set flags = '[1]' where id = 5")
    await make_worker(Gate(), handler).run_once()
    assert together == [1, 2, 3, 4, 5]
