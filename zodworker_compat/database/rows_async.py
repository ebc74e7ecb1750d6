"""Rows of the jobs table as `Job`s, on whosever connection."""

from collections.abc import Mapping
from typing import Any

from psycopg import AsyncConnection, AsyncCursor
from psycopg.pq import Format
from psycopg.rows import dict_row

from zodworker_compat.database.timestamps import BoundedLoader
from zodworker_compat.job import Job
from zodworker_compat.payload.stored import payload_or_none, read_flags


def cursor_of(connection: AsyncConnection[Any]) -> AsyncCursor[dict[str, Any]]:
    """Return a cursor that reads rows as we expect them, whatever the caller's connection is set to.

    Binary, because text depends on its DateStyle; not of its own cursor class, and without the
    loaders that Django registers.
    """
    cursor = AsyncCursor(connection, row_factory=dict_row)
    cursor.format = Format.BINARY
    cursor.adapters.register_loader("timestamptz", BoundedLoader)
    return cursor


def job_of(row: Mapping[str, Any]) -> Job:
    """Return a row as a job; `payload` and `flags` come as text. An unreadable payload is None."""
    return Job(
        **{**row, "payload": payload_or_none(row["payload"]), "flags": read_flags(row["flags"])}
    )
