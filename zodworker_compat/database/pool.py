# Generated from pool_async.py by tools/async_to_sync.py: edit that file and run `make sync`.
"""The connections that enqueue uses: the application's pool, or one of our own."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import psycopg
from psycopg import Connection
from psycopg_pool import ConnectionPool, PoolTimeout

from zodworker_compat.database.connect import is_gone, resolve_conninfo, unavailable, with_defaults
from zodworker_compat.errors import ConfigurationError, DatabaseUnavailableError
from zodworker_compat.runner_options import RunnerOptions

PATIENCE = 10
"""Seconds until an unreachable server, or a pool without a free connection, is an error."""


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
        # A pool works where it was opened: in its event loop (asyncio.run() makes a new one each
        # time), or, for the sync twin, in its process (a web server forks its workers).
        self._own: dict[object, ConnectionPool[Any]] = {}

    @contextmanager
    def connection(self) -> Iterator[Connection[Any]]:
        """Give a connection until the block ends.

        Raises:
            ConfigurationError: no database is named.
            DatabaseUnavailableError: the server cannot be reached, or all connections are in use.
        """
        pool = self._given or self._pool()
        with ExitStack() as stack:
            try:
                connection = stack.enter_context(pool.connection())
            except PoolTimeout:
                self._probe()
                raise DatabaseUnavailableError(
                    f"All {pool.max_size} connections of the pool have been in use for "
                    f"{pool.timeout:g} s. Raise max_pool_size; inside transaction(), use tx.enqueue."
                ) from None
            yield connection

    def _pool(self) -> ConnectionPool[Any]:
        home = os.getpid()
        if home not in self._own:
            for gone in [other for other in self._own if is_gone(other)]:
                del self._own[gone]
            pool = self._open()
            if self._own.setdefault(home, pool) is not pool:
                pool.close()  # another caller was faster
        return self._own[home]

    def _open(self) -> ConnectionPool[Any]:
        self._probe()
        pool: ConnectionPool[Any] = ConnectionPool(
            self._conninfo(),
            kwargs={
                "autocommit": True,  # one statement is one round trip, not three
                "prepare_threshold": 5 if self._options.prepared_statements else None,
            },
            min_size=0,
            max_size=self._options.max_pool_size or 4,
            timeout=PATIENCE,
            open=False,
            check=ConnectionPool.check_connection,
        )
        pool.open()
        return pool

    def _probe(self) -> None:
        """Connect once: a pool only says that it timed out, a plain connection says why."""
        conninfo = self._conninfo()
        try:
            (Connection.connect(conninfo)).close()
        except psycopg.OperationalError as error:
            raise unavailable(conninfo, error) from error

    def _conninfo(self) -> str:
        given = self._given.conninfo if self._given else None
        return with_defaults(
            given if isinstance(given, str) else resolve_conninfo(self._options.connection_string),
            application_name="zodworker",
            connect_timeout=str(PATIENCE),
            client_encoding="UTF8",
        )

    def close(self) -> None:
        """Close our own pool; the application's is left alone."""
        pool = self._own.pop(os.getpid(), None)
        if pool is not None:
            pool.close()
