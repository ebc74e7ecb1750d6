"""What a pool says about its life, and what is done to those that are silent."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, NamedTuple

import psycopg
from attrs import asdict, field, frozen
from psycopg import AsyncConnection
from psycopg.rows import class_row, scalar_row, tuple_row

from zodworker_compat.database.own_tables_async import ensure_own_tables
from zodworker_compat.database.refusals import is_about_rows
from zodworker_compat.database.statements import statement


@frozen(kw_only=True)
class WorkerRow:
    """A pool, as it enters itself in `zodworker_workers`."""

    pool_id: str
    name: str
    host: str
    pid: int
    version: str
    concurrency: int
    tasks: list[str]
    dead_after: timedelta


class Beat(NamedTuple):
    """The answer to a sign of life."""

    clock: float
    """The time in the database: seconds since 1970."""
    is_any_dead: bool
    """Whether some pool is silent, or dead and not recovered from."""


class Silent(NamedTuple):
    """A pool that was declared dead."""

    pool_id: str
    name: str
    host: str
    pid: int
    silence: float
    """Seconds since its last sign of life."""


@frozen(kw_only=True)
class Recovery:
    """What was freed of dead pools."""

    pool_ids: Sequence[str] = ()
    job_ids: Sequence[int] = ()
    queues: int = 0
    refused: Sequence[int] = field(default=())
    """Jobs whose rows PostgreSQL does not let us change."""
    error: psycopg.Error | None = None
    """Why it refused the last of them."""


async def register(connection: AsyncConnection[Any], schema: str, row: WorkerRow) -> None:
    """Make the table if it is not there, and enter a pool.

    Raises:
        MigrationError: this role may not make the table, or not use it.
    """
    await ensure_own_tables(connection, schema, "workers")
    await connection.execute(statement("worker_register", schema), asdict(row))


async def beat(connection: AsyncConnection[Any], schema: str, pool_id: str) -> Beat | None:
    """Give a sign of life; None if the pool has been declared dead."""
    async with connection.cursor(row_factory=class_row(Beat)) as cursor:
        await cursor.execute(statement("worker_beat", schema), {"pool_id": pool_id})
        return await cursor.fetchone()


async def leave(
    connection: AsyncConnection[Any], schema: str, pool_id: str, *, holds_nothing: bool
) -> None:
    """Take a pool off the list, or leave what it may still hold to be recovered at once."""
    name = "worker_leave" if holds_nothing else "worker_abandon"
    await connection.execute(statement(name, schema), {"pool_id": pool_id})


async def declare_dead(
    connection: AsyncConnection[Any], schema: str, pool_id: str, watched: timedelta, share: float
) -> list[Silent]:
    """Declare silent pools dead; return them.

    Args:
        connection: in autocommit.
        schema: of the queue.
        pool_id: who judges.
        watched: for how long it has reached the database without a break.
        share: of the other's limit that this must be at least.
    """
    parameters = {"pool_id": pool_id, "watched": watched, "share": share}
    async with connection.cursor(row_factory=class_row(Silent)) as cursor:
        await cursor.execute(statement("recovery_declare", schema), parameters)
        return await cursor.fetchall()


async def recover(
    connection: AsyncConnection[Any], schema: str, *, again: bool = False
) -> Recovery:
    """Free the jobs and queues that dead pools hold, and wake the workers.

    Any number of recoverers may do this at once: each takes other pools. A row that an open
    transaction holds is left to the next call.

    Args:
        connection: in autocommit.
        schema: of the queue.
        again: look also at pools that held nothing any more the last time, and forget old ones.
    """
    async with connection.transaction():
        await connection.execute(statement("recovery_patience", schema))
        pool_ids = await _column(connection, "recovery_dead", schema, {"again": again})
        if not pool_ids:
            return Recovery()
        async with connection.cursor(row_factory=tuple_row) as cursor:
            await cursor.execute(statement("recovery_held", schema), {"pool_ids": pool_ids})
            held = await cursor.fetchall()
        freed, refused, error = await _free(connection, schema, held)
        queues = await _column(connection, "recovery_queues", schema, {"pool_ids": pool_ids})
        if freed or queues:
            await connection.execute(statement("wake_workers", schema), {})
        handled = {*freed, *refused}
        busy = {pool_id for job_id, pool_id, _ in held if job_id not in handled}
        done = {"pool_ids": [pool_id for pool_id in pool_ids if pool_id not in busy]}
        await connection.execute(statement("recovery_done", schema), done)
        if again:
            await connection.execute(statement("recovery_forget", schema), {})
    return Recovery(
        pool_ids=pool_ids, job_ids=freed, queues=len(queues), refused=refused, error=error
    )


async def _free(
    connection: AsyncConnection[Any], schema: str, held: list[tuple[int, str, bool]]
) -> tuple[list[int], list[int], psycopg.Error | None]:
    """Free the jobs `held`: (id, pool id, whether it has waited only); one that is refused harms no other.

    Returns:
        the ids of the freed ones, those of the refused ones, and why the last was refused.
    """
    if not held:
        return [], [], None
    names = ("ids", "pool_ids", "has_waited")
    parameters = dict(zip(names, map(list, zip(*held, strict=True)), strict=True))
    try:
        async with connection.transaction():
            return await _column(connection, "recovery_free", schema, parameters), [], None
    except psycopg.Error as error:
        if not is_about_rows(error):
            raise
        if len(held) == 1:
            return [], [held[0][0]], error
    half = len(held) // 2
    first, second = [await _free(connection, schema, part) for part in (held[:half], held[half:])]
    return first[0] + second[0], first[1] + second[1], second[2] or first[2]


async def refresh_locks(
    connection: AsyncConnection[Any], schema: str, pool_id: str, ids: Sequence[int]
) -> list[int]:
    """Keep the locks of those of the jobs that are older than an hour; return these."""
    return await _column(connection, "refresh_locks", schema, {"pool_id": pool_id, "ids": ids})


async def _column(
    connection: AsyncConnection[Any], name: str, schema: str, parameters: dict[str, Any]
) -> list[Any]:
    async with connection.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(statement(name, schema), parameters)
        return await cursor.fetchall()
