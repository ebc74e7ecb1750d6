"""The connections that enqueue uses: the application's pool, or one of our own."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from zodworker_compat.database.connect import resolve_conninfo, unavailable
from zodworker_compat.errors import ConfigurationError
from zodworker_compat.runner_options import RunnerOptions

CONNECT_TIMEOUT = 10
"""Seconds until an unreachable server is an error."""


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
        self._own: AsyncConnectionPool[Any] | None = None
        self._home: object = None

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[AsyncConnection[Any]]:
        """Give a connection until the block ends.

        Raises:
            ConfigurationError: no database is named.
            DatabaseUnavailableError: the server cannot be reached.
        """
        pool = self._given or await self._pool()
        async with pool.connection() as connection:
            yield connection

    async def _pool(self) -> AsyncConnectionPool[Any]:
        # A pool works where it was opened: in its event loop (asyncio.run() makes a new one each
        # time), or, for the sync twin, in its process (a web server forks its workers).
        home = asyncio.get_running_loop()
        if self._own is None or self._home != home:
            pool = await self._open()
            if self._own is None or self._home != home:
                self._own, self._home = pool, home
            else:
                await pool.close()  # another caller was faster
        return self._own

    async def _open(self) -> AsyncConnectionPool[Any]:
        conninfo = resolve_conninfo(self._options.connection_string)
        settings: dict[str, Any] = {
            "autocommit": True,  # one statement is one round trip, not three
            "application_name": "zodworker",
            "prepare_threshold": 5 if self._options.prepared_statements else None,
            "connect_timeout": CONNECT_TIMEOUT,
        }
        try:
            # A pool only says that it timed out; one plain connection says why.
            await (await AsyncConnection.connect(conninfo, **settings)).close()
        except psycopg.OperationalError as error:
            raise unavailable(conninfo, error) from error
        pool: AsyncConnectionPool[Any] = AsyncConnectionPool(
            conninfo,
            kwargs=settings,
            min_size=0,
            max_size=self._options.max_pool_size or 4,
            open=False,
            check=AsyncConnectionPool.check_connection,
        )
        await pool.open()
        return pool

    async def close(self) -> None:
        """Close our own pool; the application's is left alone."""
        if self._own is not None:
            own, self._own = self._own, None
            await own.close()
