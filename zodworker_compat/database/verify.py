"""What a queue is set up like: the server, the role, the tables. Read only, of the catalogs alone."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from attrs import frozen
from psycopg import AsyncConnection
from psycopg.rows import dict_row

from zodworker_compat.database import queue
from zodworker_compat.database.statements import statement


@frozen(kw_only=True)
class Server:
    """The server, as the connecting role sees it."""

    clock: datetime
    version: str
    role: str
    is_standby: bool
    is_read_only: bool
    """Transactions of this role are read-only unless they say otherwise."""
    syncs: bool
    """`fsync` is on."""
    synchronous_commit: str
    autovacuums: bool
    free_connections: int
    """Which this role may still open, by the limits of server, database and role."""
    longest_transaction: timedelta | None
    """Of the other sessions in this database."""
    node_listeners: int
    """Sessions that listen for jobs and are not ours."""
    skew: timedelta
    """How far the server's clock is ahead of this machine's."""
    skew_known_to: timedelta
    """How far `skew` may be off: half of the round trip."""


@frozen(kw_only=True)
class Table:
    """One of the queue's tables that is there."""

    name: str
    missing: list[str]
    """Privileges that a worker needs, and the role has not: "select", "insert"."""
    hides_rows: bool
    """Row level security keeps rows from the role."""
    owner: str
    may_use_schema: bool
    may_create: bool
    """Other tables in the schema."""


@frozen(kw_only=True)
class JobsTable:
    """`_private_jobs`, as PostgreSQL keeps it."""

    is_unlogged: bool
    has_no_autovacuum: bool
    """It is switched off for this table."""
    live_rows: int
    """By the server's statistics."""
    dead_rows: int
    bytes: int
    """Without indexes and long payloads."""
    triggers: list[str]
    """Somebody else's: graphile-worker has none."""


@frozen(kw_only=True)
class Setup:
    """The tables of one schema."""

    tables: dict[str, Table]
    lacking: list[tuple[str, str]]
    """What graphile-worker's revision 18 has, and the schema has not: ("index", "... (key)")."""
    jobs: JobsTable | None


async def read_server(connection: AsyncConnection[Any]) -> Server:
    """Read what the server says about itself.

    Raises:
        psycopg.Error: the connection broke.
    """
    await queue.check(connection)  # so that the round trip below holds no waking up
    before = datetime.now(UTC)
    [row] = await _all(connection, "verify_server", "", {})
    took = datetime.now(UTC) - before
    return Server(**row, skew=row["clock"] - (before + took / 2), skew_known_to=took / 2)


async def read_setup(connection: AsyncConnection[Any], schema: str) -> Setup:
    """Read what is there of the queue's objects, and what the role may do with it.

    Raises:
        psycopg.Error: the connection broke.
    """
    tables = await _all(connection, "verify_tables", schema, {"schema": schema})
    lacking = await _all(connection, "verify_structure", schema, {})
    jobs = await _all(connection, "verify_jobs", schema, {})
    return Setup(
        tables={row["name"]: Table(**row) for row in tables},
        lacking=[(row["kind"], row["name"]) for row in lacking],
        jobs=JobsTable(**jobs[0]) if jobs else None,
    )


async def _all(
    connection: AsyncConnection[Any], name: str, schema: str, parameters: Mapping[str, Any]
) -> list[dict[str, Any]]:
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(statement(name, schema), parameters, prepare=False)
        return await cursor.fetchall()
