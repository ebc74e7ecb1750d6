"""What the built-in recurring tasks read: jobs to clean up, and how many jobs there are."""

from datetime import datetime
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import scalar_row, tuple_row

from zodworker_compat.database.statements import statement


async def lock_expired_jobs(
    connection: AsyncConnection[Any], schema: str, expiration: datetime, most: int
) -> list[int]:
    """Return ids of exhausted, unlocked jobs due before `expiration`, oldest first, at most `most`.

    Call it inside a transaction: they stay locked until it ends.
    """
    async with connection.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(
            statement("expired_jobs", schema), {"expiration": expiration, "most": most}
        )
        return await cursor.fetchall()


async def count_jobs(
    connection: AsyncConnection[Any], schema: str, since: datetime, until: datetime
) -> tuple[int, int]:
    """Return how many of the jobs in the table were added between two times, and how many there are."""
    async with connection.cursor(row_factory=tuple_row) as cursor:
        await cursor.execute(statement("queue_metrics", schema), {"since": since, "until": until})
        row = await cursor.fetchone()
    assert row is not None  # noqa: S101 - an aggregate
    added, total = row
    return added, total
