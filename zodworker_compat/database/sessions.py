"""A worker's long-lived connections: one per loop, opened when needed, replaced when broken."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import psycopg
from attrs import define, field
from psycopg import AsyncConnection

from zodworker_compat.database.connect import unavailable, with_defaults
from zodworker_compat.database.statements import statement

# A dead peer is noticed in under a minute, not in the operating system's two hours.
_DEFAULTS: dict[str, str] = {
    "connect_timeout": "10",
    "keepalives_idle": "20",
    "keepalives_interval": "5",
    "keepalives_count": "4",
    "tcp_user_timeout": "40000",
    "client_encoding": "UTF8",
}

_SETTINGS = {
    "timezone": "UTC",
    # What a role may have for its people would end a worker's work half-way, each time at the same point.
    "statement_timeout": "0",
    "idle_session_timeout": "0",
    "default_transaction_isolation": "read committed",
}
_FAST_SETTINGS = {
    "synchronous_commit": "off",  # a database crash can then repeat a job, never lose one
    # Planning a claim costs 0.4 ms, more than running it for one job; JIT costs 20.
    "plan_cache_mode": "force_generic_plan",
    "jit": "off",
    # The plan is made while the table may be empty: it is kept from reading a whole table.
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
}
_IMPATIENT_SETTINGS = {"lock_timeout": "200ms"}
_LOCAL_SETTINGS = {"synchronous_commit": "local"}
CANCEL_GRACE = 5.0
"""Seconds that the server has to cancel a statement before the connection is cut."""
# Of a transaction: a worker that freezes in it must not keep the others from its rows.
_PATIENCE = {"idle_in_transaction_session_timeout": "5s"}


@define
class Session:
    """One autocommit connection that a loop keeps to itself.

    Behind a pooler it has no prepared statements, which the next server would not know, and no
    session settings either, which would leak to the pooler's other clients: see `settings`. `prepared=False` says
    that there is one; those that tell a process id of their own, as PgBouncer, are found.
    """

    conninfo: str = field(repr=False)
    application_name: str
    prepared: bool = True
    fast: bool = False
    """`synchronous_commit = off`: for claim and settle only."""
    impatient: bool = False
    """Waits 200 ms at most for a row that an open transaction holds: for settle only."""
    is_local: bool = False
    """`synchronous_commit = local`: waits for no standby, which may be away; for the heartbeat only."""
    connect_timeout: int | None = None
    """Seconds, instead of what the connection string says or 10."""
    is_direct: bool = field(default=False, init=False)
    """Whether the connection has its server to itself, and the settings; known once it is open."""
    _connection: AsyncConnection[Any] | None = field(default=None, init=False, repr=False)
    _cancelling: "asyncio.Future[None] | None" = field(default=None, init=False, repr=False)

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
            prepare_threshold=None,
        )
        if self.prepared:
            try:
                self.is_direct = await self._set(connection, {}, is_local=False)
            except BaseException:  # a cancellation among them
                await connection.close()
                raise
            connection.prepare_threshold = 1 if self.is_direct else None
        return connection

    @asynccontextmanager
    async def settings(self) -> AsyncIterator[AsyncConnection[Any]]:
        """Give the connection with its settings: behind a pooler in a transaction that has them.

        Raises:
            DatabaseUnavailableError: PostgreSQL cannot be reached or refuses us.
        """
        connection = await self.connection()
        if self.is_direct:
            yield connection
            return
        async with connection.transaction():
            await self._set(connection, _PATIENCE, is_local=True)
            yield connection

    async def _set(
        self, connection: AsyncConnection[Any], more: Mapping[str, str], *, is_local: bool
    ) -> bool:
        """Make the settings; False, and none are made for the session, behind a pooler."""
        settings = {
            **_SETTINGS,
            **(_FAST_SETTINGS if self.fast else {}),
            **(_IMPATIENT_SETTINGS if self.impatient else {}),
            **(_LOCAL_SETTINGS if self.is_local else {}),
            **more,
        }
        cursor = await connection.execute(
            statement("session_settings", ""),
            {
                "names": list(settings),
                "values": list(settings.values()),
                "is_local": is_local,
                "pid": connection.info.backend_pid,
            },
        )
        return cursor.rowcount > 0

    @contextmanager
    def patience(self, seconds: float) -> Iterator[None]:
        """Cancel the statement of the block if it takes longer, and cut the connection if that does nothing.

        A server process that hangs (stopped, or on a disk that does not answer) leaves both unanswered,
        while its kernel says that the connection is alive.
        """
        loop = asyncio.get_running_loop()
        timers = [
            loop.call_later(seconds, self._cancel),
            loop.call_later(seconds + CANCEL_GRACE, self.cut),
        ]
        try:
            yield
        finally:
            for timer in timers:
                timer.cancel()

    def _cancel(self) -> None:
        if self._connection is not None and not self._connection.closed:
            cancelling = self._connection.cancel_safe(timeout=CANCEL_GRACE)
            self._cancelling = asyncio.ensure_future(_quietly(cancelling))

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


async def _quietly(call: Coroutine[Any, Any, None]) -> None:
    with suppress(psycopg.Error, OSError):
        await call
