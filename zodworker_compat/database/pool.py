# Generated from pool_async.py by tools/async_to_sync.py: edit that file and run `make sync`.
"""The connections that enqueue uses: the application's pool, or one of our own."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import Connection
from psycopg_pool import ConnectionPool

from zodworker_compat.database.connect import resolve_conninfo, unavailable
from zodworker_compat.errors import ConfigurationError
from zodworker_compat.runner_options import RunnerOptions

CONNECT_TIMEOUT = 10
"""Seconds until an unreachable server is an error."""


class Database:
    """Hands out connections; opens its pool at the first use."""

    def __init__(self, options: RunnerOptions) -> None:
        pool = options.pool
        if pool is not None and not isinstance(pool, ConnectionPool):
            raise ConfigurationError(
                f"pool must be a psycopg_pool.ConnectionPool, got {type(pool).__name__}"
            )
        self._options = options
        self._given = pool
        self._own: ConnectionPool[Any] | None = None
        self._home: object = None

    @contextmanager
    def connection(self) -> Iterator[Connection[Any]]:
        """Give a connection until the block ends.

        Raises:
            ConfigurationError: no database is named.
            DatabaseUnavailableError: the server cannot be reached.
        """
        pool = self._given or self._pool()
        with pool.connection() as connection:
            yield connection

    def _pool(self) -> ConnectionPool[Any]:
        # A pool works where it was opened: in its event loop (asyncio.run() makes a new one each
        # time), or, for the sync twin, in its process (a web server forks its workers).
        home = os.getpid()
        if self._own is None or self._home != home:
            pool = self._open()
            if self._own is None or self._home != home:
                self._own, self._home = pool, home
            else:
                pool.close()  # another caller was faster
        return self._own

    def _open(self) -> ConnectionPool[Any]:
        conninfo = resolve_conninfo(self._options.connection_string)
        settings: dict[str, Any] = {
            "autocommit": True,  # one statement is one round trip, not three
            "application_name": "zodworker",
            "prepare_threshold": 5 if self._options.prepared_statements else None,
            "connect_timeout": CONNECT_TIMEOUT,
        }
        try:
            # A pool only says that it timed out; one plain connection says why.
            (Connection.connect(conninfo, **settings)).close()
        except psycopg.OperationalError as error:
            raise unavailable(conninfo, error) from error
        pool: ConnectionPool[Any] = ConnectionPool(
            conninfo,
            kwargs=settings,
            min_size=0,
            max_size=self._options.max_pool_size or 4,
            open=False,
            check=ConnectionPool.check_connection,
        )
        pool.open()
        return pool

    def close(self) -> None:
        """Close our own pool; the application's is left alone."""
        if self._own is not None:
            own, self._own = self._own, None
            own.close()
