"""From what the caller calls a transaction to the psycopg connection under it.

SQLAlchemy and Django are recognised by their module names, so neither needs to be installed.
"""

from typing import Any

from psycopg import AsyncConnection, Connection

from zodworker_compat.errors import TransactionError


def unwrap(tx: object) -> Connection[Any]:
    """Return the connection under a psycopg, SQLAlchemy or Django connection or session.

    Raises:
        TransactionError: there is no sync psycopg 3 connection under it, or Django is in
            autocommit mode outside `atomic()`.
    """
    connection = _sync_connection(tx)
    if isinstance(connection, Connection):
        return connection
    if isinstance(connection, AsyncConnection):
        raise TransactionError(
            "tx is an async connection, and this is the sync client: use the async ZodWorker, "
            "or a psycopg.Connection."
        )
    raise _refusal(
        tx,
        connection,
        "a psycopg 3 Connection, a SQLAlchemy Session or Connection, or a Django connection",
    )


async def unwrap_async(tx: object) -> AsyncConnection[Any]:
    """Return the connection under a psycopg AsyncConnection, SQLAlchemy AsyncSession or AsyncConnection.

    Raises:
        TransactionError: there is no async psycopg 3 connection under it.
    """
    connection = (
        await _under_async_sqlalchemy(tx)
        if _comes_from(tx, "sqlalchemy.ext.asyncio")
        else _sync_connection(tx)
    )
    if isinstance(connection, AsyncConnection):
        return connection
    if isinstance(connection, Connection):
        raise TransactionError(
            "tx is a sync connection, and this is the async ZodWorker: "
            "use worker.sync.enqueue_tx(tx, ...), or an AsyncConnection."
        )
    raise _refusal(
        tx,
        connection,
        "a psycopg 3 AsyncConnection, or a SQLAlchemy AsyncSession or AsyncConnection",
    )


def _sync_connection(tx: object) -> object:
    if isinstance(tx, Connection | AsyncConnection) or _comes_from(tx, "sqlalchemy.ext.asyncio"):
        return tx
    if _comes_from(tx, "sqlalchemy"):
        return _under_sqlalchemy(tx)
    if _comes_from(tx, "django"):
        return _under_django(tx)
    return getattr(tx, "connection", tx)  # what transaction() gives


def _under_sqlalchemy(tx: object) -> object:
    from sqlalchemy import Connection as CoreConnection  # noqa: PLC0415 - it is there: tx is its
    from sqlalchemy.orm import Session, scoped_session  # noqa: PLC0415

    core = tx.connection() if isinstance(tx, Session | scoped_session) else tx
    if not isinstance(core, CoreConnection):
        return tx
    if core.closed:
        raise TransactionError("tx is closed.")
    if not core.in_transaction():
        core.begin()  # as its first statement would: without it, its commit() does nothing
    return core.connection.driver_connection


async def _under_async_sqlalchemy(tx: object) -> object:
    from sqlalchemy.ext.asyncio import (  # noqa: PLC0415 - it is there: tx is its
        AsyncConnection as CoreConnection,
    )
    from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session  # noqa: PLC0415

    core = tx
    if isinstance(tx, AsyncSession | async_scoped_session):
        core = await tx.connection()
    if not isinstance(core, CoreConnection):
        return tx
    if core.closed:
        raise TransactionError("tx is closed.")
    if not core.in_transaction():
        await core.begin()
    return (await core.get_raw_connection()).driver_connection


def _under_django(tx: Any) -> object:
    if not hasattr(tx, "ensure_connection"):
        return tx
    if tx.get_autocommit() and not tx.in_atomic_block:
        raise TransactionError(
            "tx is in autocommit mode and outside a transaction block, so the job would be "
            "committed at once: use `with transaction.atomic():`, or leave out tx."
        )
    tx.ensure_connection()
    return tx.connection


def _comes_from(tx: object, package: str) -> bool:
    return any(f"{base.__module__}.".startswith(f"{package}.") for base in type(tx).__mro__)


def _refusal(tx: object, connection: object, expected: str) -> TransactionError:
    under = "" if connection is tx else f", over {type(connection).__module__}"
    return TransactionError(
        f"tx must be {expected}; got {type(tx).__module__}.{type(tx).__qualname__}{under}."
    )
