"""From what the caller calls a transaction to the psycopg connection under it.

SQLAlchemy and Django are recognised by their module names, so neither needs to be installed.
"""

from typing import Any

from psycopg import AsyncConnection, Connection

from zodworker_compat.errors import TransactionError


def unwrap(tx: object) -> Connection[Any]:
    """Return the connection under a psycopg, SQLAlchemy or Django connection or session.

    Raises:
        TransactionError: there is no sync psycopg 3 connection under it.
    """
    opaque: Any = tx
    connection: object = tx
    if isinstance(tx, Connection | AsyncConnection):
        pass
    elif _comes_from(tx, "sqlalchemy") and not _comes_from(tx, "sqlalchemy.ext.asyncio"):
        if callable(opaque.connection):  # a Session
            opaque = opaque.connection()
        connection = opaque.connection.driver_connection
    elif _comes_from(tx, "django"):
        opaque.ensure_connection()
        connection = opaque.connection
    else:
        connection = getattr(tx, "connection", tx)  # what transaction() gives
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
    opaque: Any = tx
    connection: object = tx
    if isinstance(tx, Connection | AsyncConnection):
        pass
    elif _comes_from(tx, "sqlalchemy.ext.asyncio"):
        if not hasattr(opaque, "get_raw_connection"):  # an AsyncSession
            opaque = await opaque.connection()
        connection = (await opaque.get_raw_connection()).driver_connection
    else:
        connection = getattr(tx, "connection", tx)  # what transaction() gives
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


def _comes_from(tx: object, package: str) -> bool:
    return any(f"{base.__module__}.".startswith(f"{package}.") for base in type(tx).__mro__)


def _refusal(tx: object, connection: object, expected: str) -> TransactionError:
    under = "" if connection is tx else f", over {type(connection).__module__}"
    return TransactionError(
        f"tx must be {expected}; got {type(tx).__module__}.{type(tx).__qualname__}{under}."
    )
