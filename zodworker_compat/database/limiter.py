"""What the limiter writes: who holds a slot of which flag, and which flags are paused."""

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import scalar_row

from zodworker_compat.database.statements import statement


async def forbidden(connection: AsyncConnection[Any], schema: str, window: timedelta) -> set[str]:
    """Return the flags that are full or paused."""
    async with connection.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(statement("limiter_forbidden", schema), {"window": window})
        return set(await cursor.fetchall())


async def take(
    connection: AsyncConnection[Any],
    schema: str,
    holder: tuple[int, str],
    sizes: Mapping[str, int],
    window: timedelta,
) -> list[str]:
    """Take a slot of every flag, or none; return the flags that are full or paused.

    Args:
        connection: outside a transaction.
        schema: the queue's schema.
        holder: the id of the job, and the pool that holds it.
        sizes: how many slots each flag has.
        window: age at which a slot counts no longer.
    """
    flags = list(sizes)
    # One round trip; the answer is read when the transaction is committed.
    async with connection.pipeline(), connection.cursor(row_factory=scalar_row) as cursor:
        async with connection.transaction():
            await cursor.execute(
                statement("limiter_lock", schema), {"schema": schema, "flags": flags}
            )
            await cursor.execute(
                statement("limiter_take", schema),
                {
                    "flags": flags,
                    "sizes": list(sizes.values()),
                    "job_id": holder[0],
                    "pool_id": holder[1],
                    "window": window,
                },
            )
        return await cursor.fetchall()


async def release(
    connection: AsyncConnection[Any],
    schema: str,
    job_id: int,
    flags: Iterable[str],
    window: timedelta,
) -> None:
    """Give the slots of a job back."""
    parameters = {"job_id": job_id, "flags": list(flags), "window": window}
    await connection.execute(statement("limiter_release", schema), parameters)


async def renew(
    connection: AsyncConnection[Any], schema: str, holders: Iterable[tuple[int, str]]
) -> None:
    """Make slots as fresh as if they had been taken now; holders as in `take`."""
    given = list(holders)
    parameters = {"job_ids": [job for job, _ in given], "pool_ids": [pool for _, pool in given]}
    await connection.execute(statement("limiter_renew", schema), parameters)


async def pause(connection: AsyncConnection[Any], schema: str, flag: str) -> None:
    """Forbid a flag."""
    await connection.execute(statement("limiter_pause", schema), {"flag": flag})


async def resume(connection: AsyncConnection[Any], schema: str, flag: str) -> None:
    """Allow a paused flag again, and wake the workers."""
    async with connection.transaction():
        await connection.execute(statement("limiter_resume", schema), {"flag": flag})
        await connection.execute(statement("wake_workers", schema), {})
