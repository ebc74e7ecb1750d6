"""The caller's transaction: only used, never committed, rolled back, closed or reconfigured."""

from typing import Any

from psycopg import AsyncConnection
from psycopg.pq import TransactionStatus

from zodworker_compat.client.unwrap import unwrap_async
from zodworker_compat.errors import TransactionError


async def connection_of(tx: object) -> AsyncConnection[Any]:
    """Return the psycopg connection of `tx`, on which a statement joins its transaction.

    Raises:
        TransactionError: `tx` is no connection or session, or is closed, in a failed transaction,
            or in autocommit outside a block.
    """
    connection = await unwrap_async(tx)
    if connection.closed:
        raise TransactionError("tx is closed.")
    status = connection.info.transaction_status
    if status == TransactionStatus.INERROR:
        raise TransactionError(
            "The transaction of tx has failed already, so PostgreSQL ignores what follows: "
            "roll it back (or its savepoint), then enqueue again."
        )
    if connection.autocommit and status == TransactionStatus.IDLE:
        raise TransactionError(
            "tx is in autocommit mode and outside a transaction block, so the job would be committed "
            "at once: use `async with connection.transaction():`, or leave out tx."
        )
    return connection
