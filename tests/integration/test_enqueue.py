"""enqueue and dequeue on a real database: what is stored, what comes back, what is refused."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from attrs import frozen
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from zodworker_compat import (
    CLEAR,
    ConfigurationError,
    DatabaseUnavailableError,
    MigrationError,
    PayloadSerialisationError,
    PayloadValidationError,
    RunnerOptions,
    TaskOptions,
    UnknownTaskError,
    WorkerCatalog,
    ZodWorker,
)

ID = {"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]}
CATALOG = WorkerCatalog.of(
    name="test",
    schema={"plain": ID, "full": ID, "anything": True},
    tasks={
        "plain": {},
        "anything": {},
        "full": {
            "queueName": "runs:{payload.id}",
            "priority": 5,
            "maxAttempts": 3,
            "jobKeyMode": "preserve_run_at",
            "flags": ["a", "b", "a"],
        },
    },
)


async def rows(database: str) -> list[dict]:
    async with await psycopg.AsyncConnection.connect(database, row_factory=dict_row) as connection:
        cursor = await connection.execute(
            "select job.*, payload::text as text from graphile_worker._private_jobs as job order by id"
        )
        return await cursor.fetchall()


async def test_a_job_comes_back_with_every_column(worker: ZodWorker, database: str) -> None:
    before = datetime.now(UTC) - timedelta(seconds=5)
    job = await worker.enqueue("full", {"id": "r1", "extra": [1.0, None]}, job_key="k")

    assert isinstance(job.id, str)
    assert job.task_identifier == "full"
    assert job.queue_name == "runs:r1"
    assert job.payload == {"id": "r1", "extra": [1, None]}
    assert (job.priority, job.attempts, job.max_attempts, job.revision) == (5, 0, 3, 0)
    assert job.flags == {"a": True, "b": True}
    assert (job.key, job.last_error, job.locked_at, job.locked_by) == ("k", None, None, None)
    assert job.is_available
    assert job.run_at.tzinfo is UTC
    assert before < job.run_at == job.created_at

    [row] = await rows(database)
    assert row["text"] == '{"id":"r1","extra":[1,null]}'  # verbatim, as JSON.stringify writes it
    assert row["id"] == int(job.id)


async def test_defaults_are_graphile_workers(worker: ZodWorker) -> None:
    job = await worker.enqueue("plain", {"id": "x"})
    assert (job.priority, job.max_attempts, job.flags, job.key, job.queue_name) == (
        0,
        25,
        None,
        None,
        None,
    )


async def test_no_payload_is_an_empty_object_and_none_is_null(
    worker: ZodWorker, database: str
) -> None:
    await worker.enqueue("anything")
    await worker.enqueue("anything", None)
    await worker.enqueue("anything", [1, "two"])
    assert [row["text"] for row in await rows(database)] == ["{}", "null", '[1,"two"]']


async def test_an_attrs_payload_keeps_its_camel_case(worker: ZodWorker, database: str) -> None:
    @frozen
    class Payload:
        id: str
        isRetry: bool  # noqa: N815

    await worker.enqueue("plain", Payload(id="p", isRetry=False))
    assert [row["text"] for row in await rows(database)] == ['{"id":"p","isRetry":false}']


async def test_clear_removes_the_catalogs_defaults(worker: ZodWorker) -> None:
    job = await worker.enqueue("full", {"id": "1"}, priority=CLEAR, max_attempts=CLEAR, flags=CLEAR)
    assert (job.priority, job.max_attempts, job.flags) == (0, 25, None)


async def test_global_defaults_lie_under_the_catalog(database: str) -> None:
    worker = ZodWorker(
        name="test",
        catalog=CATALOG,
        runner_options=RunnerOptions(connection_string=database),
        defaults=TaskOptions(priority=9, max_attempts=7),
    )
    plain = await worker.enqueue("plain", {"id": "1"})
    full = await worker.enqueue("full", {"id": "1"}, max_attempts=2)
    await worker.close()
    assert (plain.priority, plain.max_attempts) == (9, 7)
    assert (full.priority, full.max_attempts) == (5, 2)


@pytest.mark.parametrize(
    ("identifier", "payload", "error", "message"),
    [
        ("plian", {"id": "1"}, UnknownTaskError, "Did you mean 'plain'"),
        ("plain", {"idd": "1"}, PayloadValidationError, "id"),
        ("plain", {"id": 5}, PayloadValidationError, "/id"),
        ("plain", "text", PayloadValidationError, "plain"),
        ("plain", {"id": float("nan")}, PayloadSerialisationError, "/id"),
        ("anything", datetime(2026, 1, 1), PayloadSerialisationError, "time zone"),  # noqa: DTZ001
    ],
)
async def test_a_bad_call_writes_nothing(
    worker: ZodWorker, database: str, identifier: str, payload: object, error: type, message: str
) -> None:
    with pytest.raises(error, match=message):
        await worker.enqueue(identifier, payload)
    assert await rows(database) == []


async def test_validation_can_be_turned_off(database: str) -> None:
    worker = ZodWorker(
        name="test",
        catalog=CATALOG,
        runner_options=RunnerOptions(connection_string=database),
        validate_on_enqueue=False,
    )
    job = await worker.enqueue("plain", {"id": 123})
    await worker.close()
    assert job.payload == {"id": 123}


async def test_dequeue_removes_a_waiting_job(worker: ZodWorker, database: str) -> None:
    added = await worker.enqueue("plain", {"id": "1"}, job_key="k")
    removed = await worker.dequeue("k")
    assert removed is not None
    assert (removed.id, removed.task_identifier) == (added.id, "plain")
    assert await rows(database) == []
    assert await worker.dequeue("k") is None


async def test_dequeue_bars_a_running_job_from_retries(worker: ZodWorker, database: str) -> None:
    await worker.enqueue("plain", {"id": "1"}, job_key="k")
    await execute(
        database, "update graphile_worker._private_jobs set locked_at = now(), locked_by = 'w'"
    )
    removed = await worker.dequeue("k")
    assert removed is not None
    assert (removed.key, removed.attempts, removed.max_attempts) == (None, 25, 25)
    [row] = await rows(database)
    assert row["locked_by"] == "w"


async def execute(database: str, statement: str) -> None:
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as connection:
        await connection.execute(statement)


async def test_many_callers_at_once(worker: ZodWorker, database: str) -> None:
    await asyncio.gather(*(worker.enqueue("plain", {"id": str(n)}) for n in range(50)))
    assert len(await rows(database)) == 50


async def test_the_applications_pool_is_used_and_left_open(database: str) -> None:
    async with AsyncConnectionPool(database, min_size=1, open=False) as pool:
        worker = ZodWorker(name="test", catalog=CATALOG, runner_options=RunnerOptions(pool=pool))
        await worker.enqueue("plain", {"id": "1"})
        await worker.enqueue_many([("plain", {"id": "2"}), ("plain", {"id": "3"})])
        await worker.close()
        assert len(await rows(database)) == 3
        assert not pool.closed


def test_a_worker_outlives_its_event_loop(database: str) -> None:
    worker = ZodWorker(
        name="test", catalog=CATALOG, runner_options=RunnerOptions(connection_string=database)
    )

    async def once(number: int) -> str:
        job = await worker.enqueue("plain", {"id": str(number)})
        await worker.close()
        return job.id

    assert asyncio.run(once(1)) != asyncio.run(once(2))


async def test_a_schema_name_that_needs_quotes(database: str) -> None:
    options = RunnerOptions(connection_string=database, schema='my "odd" Schema')
    worker = ZodWorker(name="test", catalog=CATALOG, runner_options=options)
    await worker.migrate()
    job = await worker.enqueue("full", {"id": "1"}, job_key="k")
    await worker.enqueue_many([("plain", {"id": "2"})])
    assert (await worker.dequeue("k")).id == job.id
    await worker.close()


async def test_a_server_that_is_not_there(database: str) -> None:
    url = "postgresql://someone:secret@127.0.0.1:1/nothing"
    worker = ZodWorker(
        name="test", catalog=CATALOG, runner_options=RunnerOptions(connection_string=url)
    )
    with pytest.raises(
        DatabaseUnavailableError, match=r"host 127\.0\.0\.1, port 1, database nothing"
    ) as caught:
        await worker.enqueue("plain", {"id": "1"})
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("parked_at", ["infinity", "-infinity", "20000-01-01", "0044-03-15 BC"])
async def test_a_job_at_a_time_that_python_does_not_have(
    worker: ZodWorker, database: str, parked_at: str
) -> None:
    await worker.enqueue("plain", {"id": "1"}, job_key="k")
    await execute(database, f"update graphile_worker._private_jobs set run_at = '{parked_at}'")
    job = await worker.enqueue("plain", {"id": "1"}, job_key="k", job_key_mode="unsafe_dedupe")
    assert job.run_at.year == (1 if parked_at.startswith(("-", "0044")) else 9999)
    assert (await worker.dequeue("k")).id == job.id


async def test_a_schema_that_is_not_there_says_how_to_install_it(empty_database: str) -> None:
    worker = ZodWorker(
        name="test", catalog=CATALOG, runner_options=RunnerOptions(connection_string=empty_database)
    )
    with pytest.raises(
        MigrationError, match=r'"graphile_worker" holds no queue.*zodworker migrate'
    ):
        await worker.enqueue("plain", {"id": "1"})
    with pytest.raises(MigrationError, match="holds no queue"):
        await worker.dequeue("k")
    await worker.close()


async def test_a_role_that_row_level_security_shuts_out(worker: ZodWorker, database: str) -> None:
    await execute(
        database,
        "grant usage on schema graphile_worker to public;"
        "grant all on all tables in schema graphile_worker to public",
    )
    async with await psycopg.AsyncConnection.connect(database) as connection:
        await connection.execute("create role outsider; set local role outsider")
        with pytest.raises(ConfigurationError, match="row level security"):
            await worker.enqueue_tx(connection, "plain", {"id": "1"})
        await connection.rollback()


async def test_a_pool_without_a_free_connection_says_so(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zodworker_compat.database.pool_async.PATIENCE", 0.5)
    options = RunnerOptions(connection_string=database, max_pool_size=1)
    worker = ZodWorker(name="test", catalog=CATALOG, runner_options=options)
    async with worker.transaction():
        with pytest.raises(DatabaseUnavailableError, match=r"All 1 connections.*tx\.enqueue"):
            await worker.enqueue("plain", {"id": "1"})
    await worker.close()


async def test_date_style_and_cursor_class_of_the_callers_connection(
    worker: ZodWorker, database: str
) -> None:
    connection = await psycopg.AsyncConnection.connect(
        database, cursor_factory=psycopg.AsyncRawCursor
    )
    await connection.execute("set datestyle to 'SQL, DMY'")
    job = await worker.enqueue_tx(connection, "full", {"id": "1"})
    assert job.run_at == job.created_at
    await connection.commit()
    await connection.close()


def test_threads_with_event_loops_of_their_own(database: str) -> None:
    worker = ZodWorker(
        name="test", catalog=CATALOG, runner_options=RunnerOptions(connection_string=database)
    )

    async def several() -> None:
        for number in range(10):
            await worker.enqueue("plain", {"id": str(number)})
        await worker.close()

    with ThreadPoolExecutor(3) as threads:
        for done in [threads.submit(asyncio.run, several()) for _ in range(3)]:
            done.result()
    assert len(asyncio.run(rows(database))) == 30
