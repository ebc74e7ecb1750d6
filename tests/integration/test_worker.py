"""ZodWorker as a whole: handlers, the literal form, running, stopping."""

import asyncio
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from attrs import frozen

from zodworker_compat import (
    CatalogError,
    ConfigurationError,
    DatabaseUnavailableError,
    Job,
    JobHelpers,
    MigrationError,
    OptionError,
    RunnerOptions,
    UnknownTaskError,
    WorkerCatalog,
    ZodWorker,
)

ID = {"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]}


@frozen
class StartRun:
    id: str


def options(database: str, **more: Any) -> RunnerOptions:
    return RunnerOptions(connection_string=database, **more)


@pytest.fixture
async def worker(database: str) -> AsyncIterator[ZodWorker]:
    worker = ZodWorker(
        name="test",
        catalog=WorkerCatalog.of(name="test", schema={"startRun": ID}, tasks={"startRun": {}}),
        runner_options=options(database),
    )
    yield worker
    await worker.stop()


def jobs_left(database: str, where: str = "true") -> int:
    with psycopg.connect(database) as connection:
        row = connection.execute(
            f"select count(*) from graphile_worker._private_jobs where {where}"
        ).fetchone()
        assert row is not None
        return row[0]


async def test_a_handler_gets_payload_job_and_helpers(worker: ZodWorker, database: str) -> None:
    seen: list[tuple[StartRun, Job, JobHelpers]] = []

    @worker.task("startRun", priority=3)
    async def start_run(payload: StartRun, job: Job, helpers: JobHelpers) -> None:
        seen.append((payload, job, helpers))

    added = await worker.enqueue("startRun", {"id": "r1", "extra": True})
    assert added.priority == 3
    await worker.run_once()

    [(payload, job, helpers)] = seen
    assert payload == StartRun("r1")
    assert (job.id, job.payload, job.attempts) == (added.id, {"id": "r1", "extra": True}, 1)
    assert helpers.job is job
    assert helpers.queue_name is job.queue_name is None
    assert jobs_left(database) == 0


async def test_a_plain_handler_runs_in_a_thread_and_gets_the_stripped_dict(
    worker: ZodWorker,
) -> None:
    seen: list[Any] = []

    @worker.task("startRun")
    def start_run(payload: dict[str, Any]) -> None:
        seen.append((payload, threading.current_thread() is threading.main_thread()))

    await worker.enqueue("startRun", {"id": "r1", "extra": True})
    await worker.run_once()
    assert seen == [({"id": "r1"}, False)]


async def test_the_literal_port(database: str) -> None:
    seen: list[Any] = []

    async def handler(payload: Any) -> None:
        seen.append(payload)

    worker = ZodWorker(
        name="workerQueue",
        runner_options=options(database),
        schema={"a": ID, "b": True},
        tasks={
            "a": {"maxAttempts": 4, "queueName": "q", "handler": handler},
            "b": {"handler": handler},
        },
    )
    job = await worker.enqueue("a", {"id": "1"})
    await worker.enqueue("b", [2])
    assert (job.max_attempts, job.queue_name) == (4, "q")
    await worker.run_once()
    assert sorted(map(str, seen)) == ["[2]", "{'id': '1'}"]


async def test_a_literal_task_has_its_run_options_too(database: str) -> None:
    attempts: list[int] = []

    async def handler(payload: Any, job: Job) -> None:
        attempts.append(job.attempts)
        if job.attempts == 1:
            raise RuntimeError

    worker = ZodWorker(
        name="workerQueue",
        runner_options=options(database),
        schema={"a": True},
        tasks={"a": {"handler": handler, "retry": lambda _job, _error: 0, "concurrency": 1}},
    )
    await worker.enqueue("a")
    await worker.run_once()
    assert attempts == [1, 2]


async def test_a_worker_without_a_catalog_defines_its_tasks_itself(database: str) -> None:
    worker = ZodWorker(name="own", runner_options=options(database))
    seen: list[Any] = []

    @worker.task("sendEmail", schema=ID, max_attempts=2)
    async def send_email(payload: Any) -> None:
        seen.append(payload)

    job = await worker.enqueue("sendEmail", {"id": "1"})
    assert job.max_attempts == 2
    await worker.run_once()
    assert seen == [{"id": "1"}]
    with pytest.raises(UnknownTaskError, match="Did you mean 'sendEmail'"):
        await worker.enqueue("sendEmial")


async def test_what_registration_refuses(worker: ZodWorker) -> None:
    def handler(payload: Any) -> None: ...

    with pytest.raises(UnknownTaskError, match="Did you mean 'startRun'"):
        worker.task("startrun")(handler)
    with pytest.raises(OptionError, match="Did you mean 'max_attempts'"):
        worker.task("startRun", maxAttempts=3)(handler)
    with pytest.raises(OptionError, match="at least 1"):
        worker.task("startRun", max_attempts=0)(handler)
    with pytest.raises(ConfigurationError, match=r"not @worker\.task\."):
        worker.task(handler)
    with pytest.raises(ConfigurationError, match=r"Task 'startRun': The handler .* 1 to 3"):
        worker.task("startRun")(lambda: None)
    with pytest.raises(ConfigurationError, match=r"Task 'startRun': 5 is no function"):
        worker.task("startRun")(5)
    with pytest.raises(CatalogError, match=r"other.*/minimun: .*did you mean 'minimum'"):
        worker.task("other", schema={"type": "number", "minimun": 0})(handler)
    worker.task("startRun")(handler)
    with pytest.raises(ConfigurationError, match="has a handler already"):
        worker.task("startRun")
    await worker.initialize()
    with pytest.raises(ConfigurationError, match=r"before initialize\(\)"):
        worker.task("other", schema=True)
    with pytest.raises(ConfigurationError, match=r"is running; stop it before run_once\(\)"):
        await worker.run_once()


def test_what_construction_refuses() -> None:
    with pytest.raises(ConfigurationError, match="either catalog, or schema and tasks"):
        ZodWorker(name="x", catalog="workerQueue", schema={})
    with pytest.raises(CatalogError, match="Did you mean 'workerQueue'"):
        ZodWorker(name="x", catalog="workerQueu")
    with pytest.raises(ConfigurationError, match=r"runner_options must be RunnerOptions\(\.\.\.\)"):
        ZodWorker(name="x", runner_options={"concurrency": 5})
    with pytest.raises(
        ConfigurationError, match=r"cleanup must be CleanupOptions\(\.\.\.\), got dict"
    ):
        ZodWorker(name="x", cleanup={})
    with pytest.raises(ConfigurationError, match="concurrency must be greater than zero"):
        RunnerOptions(concurrency=0)
    with pytest.raises(ConfigurationError, match="poll_interval must be greater than zero"):
        RunnerOptions(poll_interval=timedelta(0))
    with pytest.raises(ConfigurationError, match="concurrency must be a whole number, got '5'"):
        RunnerOptions(concurrency="5")
    with pytest.raises(ConfigurationError, match="timedelta or a number of seconds, got '1'"):
        RunnerOptions(poll_interval="1")
    with pytest.raises(ConfigurationError, match="'' cannot be the name of a schema"):
        RunnerOptions(schema="")
    assert RunnerOptions(poll_interval=2).poll_interval == timedelta(seconds=2)


async def test_a_worker_without_handlers_cannot_run(worker: ZodWorker) -> None:
    with pytest.raises(ConfigurationError, match="has no handlers"):
        await worker.initialize()


async def test_initialize_installs_the_schema_and_is_idempotent(empty_database: str) -> None:
    worker = ZodWorker(name="test", runner_options=options(empty_database, schema='od"d'))
    done = asyncio.Event()

    @worker.task("t", schema=True)
    async def handler(payload: Any) -> None:
        done.set()

    assert await worker.initialize() is True
    assert await worker.initialize() is True
    await worker.enqueue("t")
    await asyncio.wait_for(done.wait(), 10)
    await worker.stop()
    await worker.stop()


async def test_start_errors_leave_a_worker_that_can_start_later(
    worker: ZodWorker, database: str
) -> None:
    @worker.task("startRun")
    async def handler(payload: Any) -> None: ...

    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(
            "insert into graphile_worker.migrations (id, breaking) values (999, true)"
        )
        with pytest.raises(MigrationError, match="revision 999"):
            await worker.initialize()
        connection.execute("delete from graphile_worker.migrations where id = 999")
    assert await worker.initialize()

    away = ZodWorker(name="away", runner_options=options("postgresql://u:secret@127.0.0.1:1/d"))
    away.task("t", schema=True)(handler)
    with pytest.raises(DatabaseUnavailableError, match=r"host 127\.0\.0\.1, port 1"):
        await away.run_until_stopped()


async def test_each_worker_of_a_process_takes_its_own_tasks(database: str) -> None:
    seen: dict[str, list[int]] = {"one": [], "two": []}
    both = asyncio.Event()
    workers = []
    for name in seen:
        worker = ZodWorker(name=name, runner_options=options(database))

        async def handler(payload: int, job: Job, name: str = name) -> None:
            seen[job.task_identifier].append(payload)
            if sum(map(len, seen.values())) == 40:
                both.set()

        worker.task(name, schema=True)(handler)
        workers.append(worker)
    for worker in workers:
        await worker.initialize()
    for number in range(20):
        for name, worker in zip(seen, workers, strict=True):
            await worker.enqueue(name, number)
    await asyncio.wait_for(both.wait(), 20)
    for worker in workers:
        await worker.stop()
    assert sorted(seen["one"]) == sorted(seen["two"]) == list(range(20))


async def test_a_signal_stops_every_worker_of_the_process(
    database: str, eventually: Callable[..., Any]
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    started, released = asyncio.Event(), asyncio.Event()
    workers = [ZodWorker(name=name, runner_options=options(database)) for name in ("one", "two")]

    async def handler(payload: Any) -> None:
        started.set()
        await released.wait()

    for worker in workers:
        worker.task(worker.name, schema=True)(handler)
        await worker.initialize()
    heard: list[tuple[str, str]] = []
    for worker in workers:
        worker.events.on(
            "gracefulShutdown", lambda event, name=worker.name: heard.append((name, event.signal))
        )
    runs = [asyncio.create_task(worker.run_until_stopped()) for worker in workers]
    await workers[0].enqueue("one")
    await asyncio.wait_for(started.wait(), 10)

    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(runs[1], 60)  # it has nothing to finish
    os.kill(os.getpid(), signal.SIGTERM)  # a second signal changes nothing
    assert not runs[0].done()
    released.set()
    await asyncio.wait_for(runs[0], 60)
    assert jobs_left(database) == 0
    assert heard == [("one", "SIGTERM"), ("two", "SIGTERM")]
    assert signal.getsignal(signal.SIGTERM) is before


async def test_after_the_shutdown_timeout_jobs_are_handed_back(database: str) -> None:
    worker = ZodWorker(name="slow", runner_options=options(database), shutdown_timeout=0.05)
    started = asyncio.Event()

    @worker.task("t", schema=True)
    async def handler(payload: Any) -> None:
        started.set()
        await asyncio.Event().wait()

    await worker.enqueue("t", queue_name="serial")
    await worker.initialize()
    await asyncio.wait_for(started.wait(), 10)
    await worker.stop()
    assert jobs_left(database, "locked_at is null and locked_by is null") == 1
    with psycopg.connect(database) as connection:
        locked = connection.execute(
            "select locked_by from graphile_worker._private_job_queues"
        ).fetchall()
    assert locked == [(None,)]


async def test_a_stop_while_it_starts(
    worker: ZodWorker, database: str, eventually: Callable[..., Any]
) -> None:
    @worker.task("startRun")
    async def handler(payload: Any) -> None: ...

    starting = asyncio.create_task(worker.run_until_stopped())
    await eventually(lambda: worker._runner is not None)
    await worker.stop()
    await asyncio.wait_for(starting, 60)
    assert jobs_left(database, "locked_at is not null") == 0


async def test_handlers_enqueue_through_their_helpers(worker: ZodWorker, database: str) -> None:
    @worker.task("startRun")
    async def start_run(payload: dict[str, str], job: Job, helpers: JobHelpers) -> None:
        if payload["id"] != "last":
            await helpers.enqueue("startRun", {"id": "last"})

    await worker.enqueue("startRun", {"id": "first"})
    await worker.run_once()
    assert jobs_left(database) == 0


async def test_a_role_that_may_not_use_the_queue_cannot_start(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(
            "create role weak login password 'weak';"
            "grant usage on schema graphile_worker to weak;"
            "grant all on all tables in schema graphile_worker to weak"
        )
    url = urlsplit(database)
    host = url.netloc.rpartition("@")[2]
    worker = ZodWorker(
        name="weak",
        runner_options=options(url._replace(netloc=f"weak:weak@{host}").geturl()),
    )

    @worker.task("t", schema=True)
    async def handler(payload: Any) -> None: ...

    try:
        with pytest.raises(ConfigurationError, match="row level security"):
            await worker.initialize()
    finally:
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute("drop owned by weak; drop role weak")
