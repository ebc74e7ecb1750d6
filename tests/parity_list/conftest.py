"""Workers of one task or two, and the jobs table as another client of the database sees it."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from zodworker_compat import RunnerOptions, WorkerCatalog, ZodWorker

NOWHERE = "postgresql://nobody@127.0.0.1:1/nowhere"


class Table:
    """The jobs table."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self._connection = connection

    async def sql(self, text: str, *parameters: Any) -> list[dict[str, Any]]:
        cursor = await self._connection.execute(text, parameters)
        return await cursor.fetchall() if cursor.description is not None else []

    async def set(self, assignments: str, where: str = "true") -> None:
        """Change rows as no client does: time has passed, another worker has locked them."""
        await self.sql(f"update graphile_worker._private_jobs set {assignments} where {where}")

    async def rows(self) -> list[dict[str, Any]]:
        return await self.sql(
            "select job.*, payload::text as text from graphile_worker._private_jobs as job order by id"
        )

    async def row(self) -> dict[str, Any]:
        """Return the only job."""
        [row] = await self.rows()
        return row

    async def empty(self) -> bool:
        return not await self.rows()


@pytest.fixture
async def table(database: str) -> AsyncIterator[Table]:
    async with await psycopg.AsyncConnection.connect(
        database, autocommit=True, row_factory=dict_row
    ) as connection:
        yield Table(connection)


@pytest.fixture
def nowhere() -> RunnerOptions:
    """A database that is not there: whoever sends SQL to it fails."""
    return RunnerOptions(connection_string=NOWHERE)


@pytest.fixture
async def make_worker(database: str) -> AsyncIterator[Callable[..., ZodWorker]]:
    """`make_worker({"maxAttempts": 3, "handler": f})`: a worker of the one task "t".

    `schema` is the task's, default: anything. `tasks` replaces "t" by others, `catalog` by a file.
    Stopped with the test.
    """
    made: list[ZodWorker] = []

    def make(
        task: dict[str, Any] | None = None,
        *,
        schema: Any = True,
        tasks: dict[str, dict[str, Any]] | None = None,
        catalog: str | None = None,
        name: str = "test",
        **more: Any,
    ) -> ZodWorker:
        tasks = tasks or {"t": task or {}}
        loaded = catalog and WorkerCatalog.load(catalog)
        literal = {"schema": dict.fromkeys(tasks, schema), "tasks": tasks}
        more.setdefault("runner_options", RunnerOptions(connection_string=database))
        made.append(ZodWorker(name=name, **({"catalog": loaded} if loaded else literal), **more))
        return made[-1]

    yield make
    for worker in made:
        await worker.stop()
