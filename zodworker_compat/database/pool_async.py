"""The connections that enqueue uses: the application's pool, or one of our own."""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any
from weakref import WeakKeyDictionary

import psycopg
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from zodworker_compat.database.connect import (
    is_gone,
    is_readable,
    resolve_conninfo,
    unavailable,
    with_defaults,
)
from zodworker_compat.database.statements import statement
from zodworker_compat.errors import ConfigurationError, DatabaseUnavailableError
from zodworker_compat.runner_options import RunnerOptions

PATIENCE = 10
"""Seconds until an unreachable server, or a pool without a free connection, is an error."""
TRUSTED = 5
"""Seconds since the last use in which a silent connection is taken to work."""


async def spare_pooler(connection: AsyncConnection[Any]) -> None:
    """Prepare no statements behind a pooler, whose next server would not know them."""
    if connection.prepare_threshold is not None:
        is_direct = statement("is_direct", "")
        cursor = await connection.execute(is_direct, {"pid": connection.info.backend_pid})
        if await cursor.fetchone() == (False,):
            connection.prepare_threshold = None
        await connection.commit()  # of a connection without autocommit


class AsyncDatabase:
    """Hands out connections; opens its pool at the first use."""

    def __init__(self, options: RunnerOptions) -> None:
        pool = options.pool
        if pool is not None and not isinstance(pool, AsyncConnectionPool):
            raise ConfigurationError(
                f"pool must be a psycopg_pool.AsyncConnectionPool, got {type(pool).__name__}"
            )
        self._options = options
        self._given = pool
        # A pool works where it was opened: in its event loop (asyncio.run() makes a new one each
        # time), or, for the sync twin, in its process (a web server forks its workers).
        self._own: dict[object, AsyncConnectionPool[Any]] = {}
        self._used: WeakKeyDictionary[AsyncConnection[Any], float] = WeakKeyDictionary()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[AsyncConnection[Any]]:
        """Give a connection until the block ends.

        Raises:
            ConfigurationError: no database is named.
            DatabaseUnavailableError: the server cannot be reached, or all connections are in use.
        """
        pool = self._given or await self._pool()
        try:
            connection = await pool.getconn()
        except PoolTimeout:
            await self._probe()
            raise DatabaseUnavailableError(
                f"All {pool.max_size} connections of the pool have been in use for "
                f"{pool.timeout:g} s. Raise max_pool_size; inside transaction(), use tx.enqueue."
            ) from None
        try:
            if connection.autocommit:
                yield connection
            else:  # the application's pool
                async with connection:
                    yield connection
        finally:
            await pool.putconn(connection)

    async def _pool(self) -> AsyncConnectionPool[Any]:
        home = asyncio.get_running_loop()
        if home not in self._own:
            for gone in [other for other in self._own if is_gone(other)]:
                del self._own[gone]
            pool = await self._open()
            if self._own.setdefault(home, pool) is not pool:
                await pool.close()  # another caller was faster
        return self._own[home]

    async def _open(self) -> AsyncConnectionPool[Any]:
        await self._probe()
        pool: AsyncConnectionPool[Any] = AsyncConnectionPool(
            self._conninfo(),
            kwargs={
                "autocommit": True,  # one statement is one round trip, not three
                "prepare_threshold": 5 if self._options.prepared_statements else None,
            },
            configure=spare_pooler,
            min_size=0,
            max_size=self._options.max_pool_size or 4,
            timeout=PATIENCE,
            open=False,
            check=self._check,
        )
        await pool.open()
        return pool

    async def _check(self, connection: AsyncConnection[Any]) -> None:
        """Ask the server whether a connection still works, if there is any reason to doubt it.

        A server that closes a connection says so, and PostgreSQL says nothing else to an idle one:
        if there is something to read, or the network may have forgotten it, one round trip tells.
        Otherwise it would double the time of an enqueue.
        """
        now = monotonic()
        used = self._used.get(connection, -math.inf)
        self._used[connection] = now
        if now - used > TRUSTED or is_readable(connection.fileno()):
            await AsyncConnectionPool.check_connection(connection)

    async def _probe(self) -> None:
        """Connect once: a pool only says that it timed out, a plain connection says why."""
        conninfo = self._conninfo()
        try:
            await (await AsyncConnection.connect(conninfo)).close()
        except (
            psycopg.OperationalError,
            UnicodeError,
        ) as error:  # UnicodeError: of the host's name
            raise unavailable(conninfo, error) from error

    def _conninfo(self) -> str:
        given = self._given.conninfo if self._given else None
        return with_defaults(
            given if isinstance(given, str) else resolve_conninfo(self._options.connection_string),
            application_name="zodworker",
            connect_timeout=str(PATIENCE),
            client_encoding="UTF8",
        )

    def stats(self) -> dict[str, int]:
        """Return the connections of the pool, `size`, those `in_use`, and callers `waiting` for one.

        All are 0 before the first use. May be called by any thread.
        """
        pools = [self._given] if self._given else [*self._own.values()]
        found = [pool.get_stats() for pool in pools]
        size = sum(each.get("pool_size", 0) for each in found)
        return {
            "size": size,
            "in_use": size - sum(each.get("pool_available", 0) for each in found),
            "waiting": sum(each.get("requests_waiting", 0) for each in found),
        }

    async def close(self) -> None:
        """Close our own pool; the application's is left alone."""
        pool = self._own.pop(asyncio.get_running_loop(), None)
        if pool is not None:
            await pool.close()
