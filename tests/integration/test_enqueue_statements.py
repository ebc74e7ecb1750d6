"""Enqueue by plain statements, and when it must leave the job to graphile-worker's functions."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from attrs import asdict
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from zodworker_compat import Client, Job, RunnerOptions, WorkerCatalog, ZodWorker
from zodworker_compat.database import jobs_async, pool_async
from zodworker_compat.database.migrate_async import migrate

NAMES = ["a", "b", "c"]
CATALOG = WorkerCatalog.of(
    name="test", schema=dict.fromkeys(NAMES, True), tasks={name: {} for name in NAMES}
)
ROWS = """
    select job.*, task.identifier as task_identifier, queue.queue_name
    from {schema}._private_jobs as job
    join {schema}._private_tasks as task on task.id = job.task_id
    left join {schema}._private_job_queues as queue on queue.id = job.job_queue_id
    order by job.id
"""


@pytest.fixture
async def table(database: str) -> AsyncIterator[psycopg.AsyncConnection[dict[str, Any]]]:
    async with await psycopg.AsyncConnection.connect(
        database, autocommit=True, row_factory=dict_row
    ) as connection:
        yield connection


async def stored(
    table: psycopg.AsyncConnection[dict[str, Any]], schema: str = "graphile_worker"
) -> dict[str, dict[str, Any]]:
    cursor = await table.execute(ROWS.format(schema=schema))
    return {str(row["id"]): {**row, "id": str(row["id"])} for row in await cursor.fetchall()}


def as_row(job: Job) -> dict[str, Any]:
    return asdict(job, recurse=False)


@pytest.fixture
def function_calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of graphile-worker's functions that were called."""
    called: list[str] = []
    statement = jobs_async.statement

    def counted(name: str, schema: str, **without: Any) -> bytes:
        if name in {"add_job", "add_jobs"}:
            called.append(name)
        return statement(name, schema, **without)

    monkeypatch.setattr(jobs_async, "statement", counted)
    return called


async def test_new_names_go_to_the_functions_known_ones_do_not(
    worker: ZodWorker,
    table: psycopg.AsyncConnection[dict[str, Any]],
    function_calls: list[str],
) -> None:
    jobs = []
    for expected in (["add_job", "add_job", "add_jobs", "add_jobs"], []):
        function_calls.clear()
        jobs += [await worker.enqueue("a", 1), await worker.enqueue("a", 2, queue_name="q")]
        jobs += await worker.enqueue_many([("b", 3), ("a", 4)])
        jobs += await worker.enqueue_many([("b", 5, {"queue_name": "r"}), ("a", 6)])
        assert function_calls == expected
    rows = await stored(table)
    assert len(rows) == len(jobs)
    assert [as_row(job) for job in jobs] == [rows[job.id] for job in jobs]


@pytest.mark.parametrize("keyed", [False, True])
async def test_with_a_trigger_the_truth_comes_back(
    worker: ZodWorker, table: psycopg.AsyncConnection[dict[str, Any]], keyed: bool
) -> None:
    await worker.enqueue("a", 0)  # known from now on
    await table.execute(
        "create function meddle() returns trigger language plpgsql as $$ begin"
        " new.priority := 9; new.payload := '\"other\"'; return new; end $$"
    )
    await table.execute(
        "create trigger meddle before insert on graphile_worker._private_jobs"
        " for each row execute function meddle()"
    )
    options = [{"job_key": f"k{n}"} if keyed else {} for n in range(3)]
    jobs = [await worker.enqueue("a", 1, **options[0])]
    jobs += await worker.enqueue_many([("a", 2, options[1]), ("a", 3, options[2])])
    rows = await stored(table)
    assert [(job.priority, job.payload) for job in jobs] == [(9, "other")] * 3
    assert [as_row(job) for job in jobs] == [rows[job.id] for job in jobs]


@pytest.mark.parametrize("mode", ["replace", "preserve_run_at"])
async def test_a_batch_meets_jobs_in_every_state(
    worker: ZodWorker, table: psycopg.AsyncConnection[dict[str, Any]], mode: Any
) -> None:
    when = datetime(2030, 1, 1, tzinfo=UTC)
    old = await worker.enqueue_many(
        [("a", [1], {"job_key": key, "run_at": when}) for key in ("fresh", "tried", "busy", "dead")]
    )
    await table.execute(
        "update graphile_worker._private_jobs set"
        " attempts = case key when 'tried' then 1 when 'dead' then 25 else attempts end,"
        " locked_at = case key when 'busy' then now() end, locked_by = case key when 'busy' then 'w' end"
    )
    keys = ["dead", "new", "busy", "tried", "fresh"]
    later = datetime(2031, 1, 1, tzinfo=UTC)
    options = {"run_at": later, "job_key_mode": mode, "flags": ["ccc", "bb", "a", "bb"]}
    requests = [("b", [key], {**options, "job_key": key}) for key in keys]
    jobs = await worker.enqueue_many([("c", "first"), *requests, ("c", "last")])
    rows = await stored(table)
    assert [as_row(job) for job in jobs] == [rows[job.id] for job in jobs]
    assert [job.key for job in jobs] == [None, *keys, None]
    assert [job.payload for job in jobs[1:6]] == [
        ["dead"], ["new"], ["busy"], [1, "tried"], [1, "fresh"]
    ]  # fmt: skip
    assert [job.revision for job in jobs[1:6]] == [0, 0, 0, 1, 1]
    assert jobs[5].id == old[0].id
    assert jobs[5].run_at == (when if mode == "preserve_run_at" else later)
    assert jobs[4].run_at == later
    assert list(jobs[1].flags or ()) == ["a", "bb", "ccc"]


async def test_payloads_are_stored_as_they_are_written(
    worker: ZodWorker, table: psycopg.AsyncConnection[dict[str, Any]]
) -> None:
    payloads = [
        "\0", {"a\0": "\ud800"}, 10**400, "é\u2028\\u0000", None, [], {}, "", 0.1, [{"deep": [[]]}]
    ]  # fmt: skip
    for _ in range(2):  # by the function, then by the statement
        jobs = await worker.enqueue_many([("a", payload) for payload in payloads])
        assert [job.payload for job in jobs] == payloads
    cursor = await table.execute(
        "select payload::text as text from graphile_worker._private_jobs order by id"
    )
    texts = [row["text"] for row in await cursor.fetchall()]
    assert texts[: len(payloads)] == texts[len(payloads) :]
    assert texts[:2] == ['"\\u0000"', '{"a\\u0000":"\\ud800"}']


async def test_a_batch_is_told_once_with_its_size(
    worker: ZodWorker, table: psycopg.AsyncConnection[dict[str, Any]]
) -> None:
    await worker.enqueue("a", 0)
    await table.execute('listen "jobs:insert"')
    await worker.enqueue_many([("a", n) for n in range(7)])
    await worker.enqueue("a", 1)
    await worker.enqueue("a", 1, job_key="k")
    await worker.enqueue("a", 2, job_key="k")
    heard = [
        json.loads(notify.payload) async for notify in table.notifies(timeout=60, stop_after=4)
    ]
    assert [message["count"] for message in heard] == [7, 1, 1, 1]
    assert len({message["r"] for message in heard}) == 4


async def test_keys_are_found_whatever_encoding_the_caller_speaks(
    worker: ZodWorker, database: str
) -> None:
    await worker.enqueue("a", 0)
    async with await psycopg.AsyncConnection.connect(
        database, client_encoding="LATIN1"
    ) as connection:
        keys = ["é", "e", "ü"]
        jobs = await worker.enqueue_many(
            [("a", key, {"job_key": key}) for key in keys], tx=connection
        )
        assert [(job.key, job.payload) for job in jobs] == [(key, key) for key in keys]


async def test_a_schema_name_with_every_kind_of_quote(database: str) -> None:
    schema = """it's an "odd" 100% :schema"""
    options = RunnerOptions(connection_string=database, schema=schema)
    worker = ZodWorker(name="test", catalog=CATALOG, runner_options=options)
    async with await psycopg.AsyncConnection.connect(
        database, autocommit=True, row_factory=dict_row
    ) as connection:
        await migrate(connection, schema)
        jobs = []
        for _ in range(2):
            jobs += [await worker.enqueue("a", 1), *await worker.enqueue_many([("a", 2)])]
        rows = await stored(connection, psycopg.sql.Identifier(schema).as_string())
    await worker.close()
    assert [as_row(job) for job in jobs] == [rows[job.id] for job in jobs]


async def end_sessions(table: psycopg.AsyncConnection[Any]) -> int:
    """End all sessions of the database but ours, and wait until they have ended."""
    cursor = await table.execute(
        "select pg_terminate_backend(pid, 60000) from pg_stat_activity"
        " where datname = current_database() and pid <> pg_backend_pid()"
        " and backend_type = 'client backend'"
    )
    return len(await cursor.fetchall())


async def test_connections_that_the_server_closed_meanwhile_are_replaced(
    worker: ZodWorker, table: psycopg.AsyncConnection[dict[str, Any]]
) -> None:
    await asyncio.gather(*(worker.enqueue("a", n) for n in range(20)))
    for turn in range(3):
        assert await end_sessions(table) >= 1
        await worker.enqueue("a", f"after {turn}")
    assert await end_sessions(table) >= 1
    await worker.enqueue_many([("a", "batch")])
    payloads = [row["payload"] for row in (await stored(table)).values()]
    assert sorted(payloads[20:]) == ["after 0", "after 1", "after 2", "batch"]  # each once


async def test_so_are_those_of_the_sync_twin(
    database: str, table: psycopg.AsyncConnection[dict[str, Any]]
) -> None:
    client = Client(CATALOG, runner_options=RunnerOptions(connection_string=database))

    async def enqueue(payload: int) -> None:
        await asyncio.to_thread(client.enqueue, "a", payload)

    await enqueue(0)
    for turn in (1, 2):
        assert await end_sessions(table) >= 1
        await enqueue(turn)
    await asyncio.to_thread(client.close)
    assert [row["payload"] for row in (await stored(table)).values()] == [0, 1, 2]


@pytest.mark.parametrize(("trusted", "asked"), [(3600, False), (-1, True)])
async def test_a_connection_is_asked_only_after_it_was_idle(
    worker: ZodWorker,
    table: psycopg.AsyncConnection[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    trusted: float,
    asked: bool,
) -> None:
    """An empty statement is the question; it would be the last that the session has run."""
    monkeypatch.setattr(pool_async, "TRUSTED", trusted)
    await worker.enqueue("a", 1)
    async with worker.transaction() as tx:
        pid = tx.connection.info.backend_pid
    async with worker._database.connection() as connection:
        assert connection.info.backend_pid == pid
        cursor = await table.execute("select query from pg_stat_activity where pid = %s", [pid])
        row = await cursor.fetchone()
    assert row is not None
    assert (row["query"] == "") == asked


async def test_what_the_application_does_with_its_own_pool_is_committed(
    database: str, table: psycopg.AsyncConnection[dict[str, Any]]
) -> None:
    async with AsyncConnectionPool(database, min_size=1, open=False) as pool:  # not in autocommit
        worker = ZodWorker(name="test", catalog=CATALOG, runner_options=RunnerOptions(pool=pool))
        await worker.enqueue("a", 1)
        assert len(await stored(table)) == 1
        with pytest.raises(ZeroDivisionError):
            async with worker.transaction() as tx:
                await tx.enqueue("a", 2)
                raise ZeroDivisionError
        await worker.enqueue_many([("a", 3)])
    assert [row["payload"] for row in (await stored(table)).values()] == [1, 3]


async def test_a_key_that_is_claimed_while_it_is_replaced_is_scheduled(
    worker: ZodWorker,
    table: psycopg.AsyncConnection[dict[str, Any]],
    eventually: Callable[..., Any],
) -> None:
    """The statement finds the job taken when the claim commits; then the function does it."""
    await worker.enqueue("a", "old", job_key="k")
    many = [("a", "new", {"job_key": "k"}), ("a", "other", {"job_key": "l"}), ("a", "none")]
    async with table.transaction():
        await table.execute(
            "update graphile_worker._private_jobs set locked_at = now(), locked_by = 'w'"
        )
        adding = asyncio.create_task(worker.enqueue_many(many))

        async def is_waiting() -> bool:
            cursor = await table.execute(
                "select from pg_stat_activity where pg_backend_pid() = any (pg_blocking_pids(pid))"
            )
            return bool(await cursor.fetchall())

        await eventually(is_waiting, timeout=60)
    jobs = await adding
    rows = await stored(table)
    assert [as_row(job) for job in jobs] == [rows[job.id] for job in jobs]
    assert [(job.key, job.payload) for job in jobs] == [
        ("k", "new"),
        ("l", "other"),
        (None, "none"),
    ]
    assert len(rows) == 4
