"""Installs graphile-worker's schema, or adopts the one that is there.

A fresh schema gets its final tables at once, not the history that led to them, so the revisions
1 to 18 are all or nothing: one transaction, under a lock on `migrations` that every other
migrator's first insert waits for. Node, when it comes meanwhile, finds each row there (23505) and
takes that revision for done; one transaction per revision, as Node has it, would let Node apply
its own revision 5 between ours. When Node was first, we find its rows under the lock, leave the
schema to it, and look again until it is complete.

The schema and the empty table `migrations` come in a transaction before, as with Node: 0.16.6
does not survive a clash over them, so they are held as briefly as possible.
"""

from typing import Any

import psycopg
from attrs import evolve
from psycopg import AsyncConnection
from psycopg.rows import dict_row

from zodworker_compat.database.revisions import (
    BREAKING,
    RELATIONS,
    Ledger,
    Migration,
    Plan,
    check_arguments,
    check_server_version,
    make_plan,
)
from zodworker_compat.database.statements import quoted, statement
from zodworker_compat.errors import MigrationError

# What PostgreSQL says when two sessions make the same schema, table or column at one moment;
# XX000 is "tuple concurrently updated".
CLASHES = frozenset({"23505", "42P06", "42P07", "42701", "42710", "XX000"})
MOST_CLASHES = 50


async def migrate(
    connection: AsyncConnection[Any],
    schema: str = "graphile_worker",
    *,
    revision: int | None = None,
) -> Migration:
    """Bring `schema` to a revision that this package and graphile-worker can share.

    Without `revision`, a fresh schema is installed at 18 and an existing 18 or 19 is left as it is.
    With 18 or 19, the schema is brought there if it is below. Nothing is written, and no privilege
    but to read is needed, if there is nothing to do. Safe beside any number of other migrators.

    An idle connection is left idle, in autocommit or not: what was done is committed. Inside the
    caller's transaction all is done in savepoints, and takes effect when the caller commits.

    Raises:
        MigrationError: the server or the schema cannot be used, or the role may not do what is
            needed. At most the schema and an empty table `migrations` were made.
        psycopg.OperationalError: the connection broke.
    """
    check_server_version(connection.info.server_version)
    check_arguments(schema, revision)
    try:
        return await _migrate(connection, schema, revision)
    except psycopg.OperationalError:
        raise
    except psycopg.Error as error:
        raise _explained(error, schema) from error


async def plan_migration(
    connection: AsyncConnection[Any],
    schema: str = "graphile_worker",
    *,
    revision: int | None = None,
) -> Plan:
    """Return what `migrate` would do, and do nothing.

    Raises:
        MigrationError: as `migrate`.
        psycopg.OperationalError: the connection broke.
    """
    check_server_version(connection.info.server_version)
    check_arguments(schema, revision)
    try:
        return make_plan(schema, await _read(connection, schema), revision)
    except psycopg.OperationalError:
        raise
    except psycopg.Error as error:
        raise _explained(error, schema) from error


async def _migrate(
    connection: AsyncConnection[Any], schema: str, revision: int | None
) -> Migration:
    first, clashes = None, 0
    while True:
        ledger = await _read(connection, schema)
        first = first or ledger
        if ledger.is_growing:
            await _wait(connection)
            continue
        plan = make_plan(schema, ledger, revision)
        if not plan:
            return Migration(schema, first.newest, plan.after, plan.warning)
        if plan.preparation:
            clashes += not await _prepare(connection, plan, is_last=clashes == MOST_CLASHES)
        else:
            await _apply(connection, plan, ledger)


async def _prepare(connection: AsyncConnection[Any], plan: Plan, *, is_last: bool) -> bool:
    """Make the schema and its table `migrations`; False if another session is just making them."""
    try:
        async with connection.transaction():
            for script in plan.preparation:
                await connection.execute(script.sql.encode(), prepare=False)
            await connection.execute(
                statement("migrate_flag", plan.schema), {"breaking": sorted(BREAKING)}
            )
    except psycopg.Error as error:
        if error.sqlstate not in CLASHES or is_last:
            raise
        await _wait(connection)
        return False
    return True


async def _apply(connection: AsyncConnection[Any], plan: Plan, expected: Ledger) -> None:
    """Apply the revisions of a plan, unless another migrator came first."""
    async with connection.transaction():
        await connection.execute(statement("migrate_lock", plan.schema), {})
        if (await _read(connection, plan.schema)).revisions != expected.revisions:
            return
        for script in plan.revisions:
            row = {"revision": script.revision, "breaking": script.is_breaking}
            await connection.execute(statement("migrate_record", plan.schema), row)
            if script.sql:
                await connection.execute(script.sql.encode(), prepare=False)
            await connection.execute(statement("migrate_notify", plan.schema), row)


async def _read(connection: AsyncConnection[Any], schema: str) -> Ledger:
    names = {"schema": schema, "relations": list(RELATIONS)}
    async with connection.transaction(), connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(statement("migrate_ledger", schema), names)
        [found] = await cursor.fetchall()
        ledger = Ledger(found["has_schema"], frozenset(found["columns"]), tuple(found["relations"]))
        if not ledger.is_readable:
            return ledger
        await cursor.execute(statement("migrate_rows", schema), names)
        [found] = await cursor.fetchall()
    return evolve(
        ledger,
        relations=tuple(found["relations"]),
        revisions=tuple(found["revisions"]),
        breaking=frozenset(found["breaking"]),
        age=found["age"],
    )


async def _wait(connection: AsyncConnection[Any]) -> None:
    async with connection.transaction():
        await connection.execute(statement("migrate_wait", ""))


def _explained(error: psycopg.Error, schema: str) -> MigrationError:
    hint = (
        " Let the owner of the database run `zodworker migrate`, or grant this role what is missing."
        if isinstance(error, psycopg.errors.InsufficientPrivilege)
        else ""
    )
    return MigrationError(
        f"Schema {quoted(schema)} could not be installed or read: "
        f"{error.diag.message_primary or error}.{hint}"
    )
