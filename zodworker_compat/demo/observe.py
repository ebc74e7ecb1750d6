"""What a demo came to, read from the tables of the business and of the queue."""

from collections.abc import Set
from typing import Any

from psycopg import AsyncConnection

from zodworker_compat.demo.business import Business
from zodworker_compat.demo.measure import Measurements
from zodworker_compat.demo.outcome import Outcome


async def unfinished_jobs(connection: AsyncConnection[Any], business: Business) -> int:
    """Return how many jobs are neither done nor failed for good."""
    row = await business.execute(connection, "unfinished_jobs")
    return 0 if row is None else int(row[0])


async def observe(
    connection: AsyncConnection[Any],
    business: Business,
    measurements: Measurements,
    *,
    read: int,
    refused: Set[int],
) -> Outcome:
    """Read the tables.

    Args:
        connection: on the server of the demo.
        business: its schemas.
        measurements: what the workers noted.
        read: lines of the input.
        refused: those of them whose payload was refused.
    """
    serial, overlaps = await business.execute(connection, "serial_runs") or (0, 0)
    delayed, early = await business.execute(connection, "delayed_tasks") or (0, 0)
    (locks,) = await business.execute(connection, "locks") or (0,)
    return Outcome(
        read=read,
        refused=frozenset(refused),
        debounced=measurements.debounced,
        counts=measurements.counts(),
        events=await business.fetch_all(connection, "events"),
        runs=await business.fetch_all(connection, "runs"),
        tasks=await business.fetch_all(connection, "tasks"),
        outbox=await business.fetch_all(connection, "outbox"),
        failed_jobs=await business.fetch_all(connection, "failed_jobs"),
        serial=serial,
        overlaps=overlaps,
        delayed=delayed,
        early=early,
        unfinished=await unfinished_jobs(connection, business),
        locks=locks,
    )
