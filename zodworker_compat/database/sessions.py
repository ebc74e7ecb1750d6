"""A worker's long-lived connections: one per loop, opened when needed, replaced when broken."""

import asyncio
import os
import socket
from contextlib import suppress
from typing import Any, LiteralString

import psycopg
from attrs import define, field
from psycopg import AsyncConnection

from zodworker_compat.database.connect import unavailable, with_defaults

# A dead peer is noticed in under a minute, not in the operating system's two hours.
_DEFAULTS: dict[str, str] = {
    "connect_timeout": "10",
    "keepalives_idle": "20",
    "keepalives_interval": "5",
    "keepalives_count": "4",
    "tcp_user_timeout": "40000",
    "client_encoding": "UTF8",
}

_SETTINGS: LiteralString = "set timezone to 'UTC'"
# A database crash can then repeat a job, never lose one. Bad plans made while the table was
# empty stay cached, so the claim is kept from reading the whole table.
_FAST_SETTINGS: LiteralString = "; set synchronous_commit to off; set enable_seqscan to off"
_IMPATIENT_SETTINGS: LiteralString = "; set lock_timeout to '200ms'"


@define
class Session:
    """One autocommit connection that a loop keeps to itself.

    `prepared=False` says that a pooler is in between: no prepared statements, and no session
    settings either, which would leak to the pooler's other clients.
    """

    conninfo: str = field(repr=False)
    application_name: str
    prepared: bool = True
    fast: bool = False
    """`synchronous_commit = off`: for claim and settle only."""
    impatient: bool = False
    """Waits 200 ms at most for a row that an open transaction holds: for settle only."""
    connect_timeout: int | None = None
    """Seconds, instead of what the connection string says or 10."""
    _connection: AsyncConnection[Any] | None = field(default=None, init=False, repr=False)

    async def connection(self) -> AsyncConnection[Any]:
        """Return the open connection; open one if there is none or it is broken.

        Raises:
            DatabaseUnavailableError: PostgreSQL cannot be reached or refuses us.
        """
        if self._connection is not None and not self._connection.closed:
            return self._connection
        # A connect that is cancelled half-way would keep the server waiting for its authentication,
        # and DROP DATABASE waiting for the server: up to a minute. So it is finished, and closed.
        opening = asyncio.ensure_future(self._open())
        try:
            self._connection = await asyncio.shield(opening)
        except asyncio.CancelledError:
            with suppress(psycopg.Error):
                await (await opening).close()
            raise
        except (
            psycopg.OperationalError,
            UnicodeError,
        ) as error:  # UnicodeError: of the host's name
            raise unavailable(self.conninfo, error) from error
        return self._connection

    async def _open(self) -> AsyncConnection[Any]:
        more: dict[str, Any] = {}
        if self.connect_timeout is not None:
            more["connect_timeout"] = self.connect_timeout
        connection = await AsyncConnection.connect(
            with_defaults(self.conninfo, **_DEFAULTS),
            **more,
            application_name=self.application_name,
            autocommit=True,
            prepare_threshold=1 if self.prepared else None,
        )
        if self.prepared:
            try:
                await connection.execute(
                    _SETTINGS
                    + (_FAST_SETTINGS if self.fast else "")
                    + (_IMPATIENT_SETTINGS if self.impatient else "")
                )
            except BaseException:  # a cancellation among them
                await connection.close()
                raise
        return connection

    def cut(self) -> None:
        """Have the statement that runs fail now, without asking the server, which may not answer."""
        if self._connection is not None and not self._connection.closed:
            with suppress(OSError), socket.socket(fileno=os.dup(self._connection.fileno())) as wire:
                wire.shutdown(socket.SHUT_RDWR)

    async def close(self) -> None:
        """Close the connection; the next call of `connection` opens a fresh one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()
