"""Tables of our own beside graphile-worker's: made when they are first needed, in its schema.

Their names begin with `zodworker_`, and their ledger is `zodworker_migrations`: graphile-worker's
own ledger, which tells Node what it may run on, is left as it is.
"""

from collections.abc import Iterable
from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import scalar_row

from zodworker_compat.database.statements import quoted, statement
from zodworker_compat.errors import MigrationError
from zodworker_compat.resources import folder


async def ensure_own_tables(connection: AsyncConnection[Any], schema: str, subject: str) -> None:
    """Apply what is missing of `migrations/zodworker/NNN_<subject>*.sql`, in one transaction.

    Nothing is written, and no privilege but to read is needed, if nothing is missing. Safe beside
    any number of others that do the same.

    Args:
        connection: idle, or in the caller's transaction: then it takes effect with that.
        schema: the queue's schema, which must be there.
        subject: what the tables are for: "limiter".

    Raises:
        MigrationError: the role may not do it.
        psycopg.Error: what else PostgreSQL refused.
    """
    scripts = _scripts(schema, subject)
    try:
        if await _missing(connection, schema, scripts):
            async with connection.transaction():
                await connection.execute(statement("own_lock", schema), {"schema": schema})
                await connection.execute(statement("own_ledger", schema), {})
                for name in await _missing(connection, schema, scripts):
                    await connection.execute(scripts[name], prepare=False)
                    row = {"id": int(name[:3]), "name": name}
                    await connection.execute(statement("own_record", schema), row)
    except psycopg.errors.InsufficientPrivilege as error:
        raise MigrationError(
            f"The tables for the {subject} could not be made or read in schema {quoted(schema)}: "
            f"{error.diag.message_primary}. Let the owner of the schema start a worker with it once, "
            "then grant this role select, insert, update and delete on its tables zodworker_*."
        ) from error


async def _missing(
    connection: AsyncConnection[Any], schema: str, names: Iterable[str]
) -> list[str]:
    async with connection.transaction(), connection.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(statement("own_exists", schema), {"schema": schema})
        if not await cursor.fetchone():
            return list(names)
        await cursor.execute(statement("own_applied", schema), {})
        applied = await cursor.fetchall()
    return [name for name in names if name not in applied]


def _scripts(schema: str, subject: str) -> dict[str, bytes]:
    files = (folder("migrations") / "zodworker").glob(f"[0-9][0-9][0-9]_{subject}*.sql")
    return {
        file.stem: file.read_text("utf-8").replace(":schema", quoted(schema)).encode()
        for file in sorted(files)
    }
