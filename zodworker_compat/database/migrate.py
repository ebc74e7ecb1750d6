# Generated from migrate_async.py by tools/async_to_sync.py: edit that file and run `make sync`.
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
from psycopg import Connection
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


def migrate(
    connection: Connection[Any],
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
        return _migrate(connection, schema, revision)
    except psycopg.OperationalError:
        raise
    except psycopg.Error as error:
        raise _explained(error, schema) from error


def plan_migration(
    connection: Connection[Any],
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
        return make_plan(schema, _read(connection, schema), revision)
    except psycopg.OperationalError:
        raise
    except psycopg.Error as error:
        raise _explained(error, schema) from error


def _migrate(connection: Connection[Any], schema: str, revision: int | None) -> Migration:
    first, clashes = None, 0
    while True:
        ledger = _read(connection, schema)
        first = first or ledger
        if ledger.is_growing:
            _wait(connection)
            continue
        plan = make_plan(schema, ledger, revision)
        if not plan:
            return Migration(schema, first.newest, plan.after, plan.warning)
        if plan.preparation:
            clashes += not _prepare(connection, plan, is_last=clashes == MOST_CLASHES)
        else:
            _apply(connection, plan, ledger)


def _prepare(connection: Connection[Any], plan: Plan, *, is_last: bool) -> bool:
    """Make the schema and its table `migrations`; False if another session is just making them."""
    try:
        with connection.transaction():
            for script in plan.preparation:
                connection.execute(script.sql.encode(), prepare=False)
            connection.execute(
                statement("migrate_flag", plan.schema), {"breaking": sorted(BREAKING)}
            )
    except psycopg.Error as error:
        if error.sqlstate not in CLASHES or is_last:
            raise
        _wait(connection)
        return False
    return True


def _apply(connection: Connection[Any], plan: Plan, expected: Ledger) -> None:
    """Apply the revisions of a plan, unless another migrator came first."""
    with connection.transaction():
        connection.execute(statement("migrate_lock", plan.schema), {})
        if (_read(connection, plan.schema)).revisions != expected.revisions:
            return
        for script in plan.revisions:
            row = {"revision": script.revision, "breaking": script.is_breaking}
            connection.execute(statement("migrate_record", plan.schema), row)
            if script.sql:
                connection.execute(script.sql.encode(), prepare=False)
            connection.execute(statement("migrate_notify", plan.schema), row)


def _read(connection: Connection[Any], schema: str) -> Ledger:
    names = {"schema": schema, "relations": list(RELATIONS)}
    with connection.transaction(), connection.cursor(row_factory=dict_row) as cursor:
        cursor.execute(statement("migrate_ledger", schema), names)
        [found] = cursor.fetchall()
        ledger = Ledger(found["has_schema"], frozenset(found["columns"]), tuple(found["relations"]))
        if not ledger.is_readable:
            return ledger
        cursor.execute(statement("migrate_rows", schema), names)
        [found] = cursor.fetchall()
    return evolve(
        ledger,
        relations=tuple(found["relations"]),
        revisions=tuple(found["revisions"]),
        breaking=frozenset(found["breaking"]),
        age=found["age"],
    )


def _wait(connection: Connection[Any]) -> None:
    with connection.transaction():
        connection.execute(statement("migrate_wait", ""))


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
