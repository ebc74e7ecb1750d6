"""Jobs put in and looked at by plain SQL, and runners that are stopped with the test."""

import json
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from zodworker_compat import ZodWorker
from zodworker_compat.runner import RunnableTask, Runner
from zodworker_compat.runner_options import RunnerOptions


class Jobs:
    """The jobs table, as another client of the database sees it."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self.connection = connection

    async def sql(self, text: str, *parameters: Any) -> list[dict[str, Any]]:
        cursor = await self.connection.execute(text, parameters)
        return await cursor.fetchall() if cursor.description is not None else []

    async def add(self, identifier: str = "task", payload: Any = None, **options: Any) -> int:
        """Enqueue by `add_job`; returns the id."""
        given = "".join(f", {name} => %s" for name in options)
        text = f"select id from graphile_worker.add_job(%s, %s::json{given})"
        rows = await self.sql(text, identifier, json.dumps(payload or {}), *options.values())
        return rows[0]["id"]

    async def add_many(self, count: int, queue_name: str | None = None) -> None:
        """Enqueue jobs of "task" with payloads {"n": 1}, {"n": 2}, …"""
        await self.sql(
            "select count(*) from graphile_worker.add_jobs(array(select ('task',"
            " json_build_object('n', n), %s, null, null, null, null, null)"
            "::graphile_worker.job_spec from generate_series(1, %s) n))",
            queue_name,
            count,
        )

    async def all(self) -> list[dict[str, Any]]:
        return await self.sql("select * from graphile_worker._private_jobs order by id")

    async def row(self, job_id: int) -> dict[str, Any]:
        rows = await self.sql("select * from graphile_worker._private_jobs where id = %s", job_id)
        return rows[0]

    async def count(self) -> int:
        return len(await self.all())

    async def empty(self) -> bool:
        return await self.count() == 0

    async def locked(self) -> int:
        """How many jobs and queues are locked."""
        rows = await self.sql(
            "select (select count(*) from graphile_worker._private_jobs where locked_at is not null)"
            " + (select count(*) from graphile_worker._private_job_queues"
            " where locked_at is not null) as count"
        )
        return rows[0]["count"]


@pytest.fixture
async def jobs(database: str) -> AsyncIterator[Jobs]:
    async with await psycopg.AsyncConnection.connect(
        database, autocommit=True, row_factory=dict_row
    ) as connection:
        yield Jobs(connection)


@pytest.fixture
async def make_runner(database: str) -> AsyncIterator[Callable[..., Runner]]:
    """`make_runner(handler)` or `make_runner({"identifier": handler or task}, concurrency=1)`."""
    made: list[Runner] = []

    def make(
        handlers: Any,
        *,
        decode: Callable[[Any], Any] = lambda payload: payload,
        concurrency: int = 5,
        poll_interval: float = 1,
        shutdown_timeout: float = 10,
        conninfo: str | None = None,
        enqueuer: Any = None,
        options: dict[str, Any] | None = None,
        **more: Any,
    ) -> Runner:
        by_name = handlers if isinstance(handlers, dict) else {"task": handlers}
        runner = Runner(
            name="test",
            conninfo=conninfo or database,
            options=RunnerOptions(
                concurrency=concurrency, poll_interval=poll_interval, **(options or {})
            ),
            tasks={
                name: given
                if isinstance(given, RunnableTask)
                else RunnableTask(name, decode, given)
                for name, given in by_name.items()
            },
            enqueuer=enqueuer,
            shutdown_timeout=timedelta(seconds=shutdown_timeout),
            **more,
        )
        made.append(runner)
        return runner

    yield make
    for runner in made:
        await runner.stop()


@pytest.fixture
async def worker(request: pytest.FixtureRequest, database: str) -> AsyncIterator[ZodWorker]:
    """A worker of the test module's `CATALOG` that only enqueues."""
    worker = ZodWorker(
        name="test",
        catalog=request.module.CATALOG,
        runner_options=RunnerOptions(connection_string=database),
    )
    yield worker
    await worker.close()
