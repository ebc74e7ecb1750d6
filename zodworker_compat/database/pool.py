# Generated from pool_async.py by tools/async_to_sync.py: edit that file and run `make sync`.
"""The connections that enqueue uses: the application's pool, or one of our own."""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any
from weakref import WeakKeyDictionary

import psycopg
from psycopg import Connection
from psycopg_pool import ConnectionPool, PoolTimeout

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


def spare_pooler(connection: Connection[Any]) -> None:
    """Prepare no statements behind a pooler, whose next server would not know them."""
    if connection.prepare_threshold is not None:
        is_direct = statement("is_direct", "")
        cursor = connection.execute(is_direct, {"pid": connection.info.backend_pid})
        if cursor.fetchone() == (False,):
            connection.prepare_threshold = None
        connection.commit()  # of a connection without autocommit


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
        self._used: WeakKeyDictionary[Connection[Any], float] = WeakKeyDictionary()

    @contextmanager
    def connection(self) -> Iterator[Connection[Any]]:
        """Give a connection until the block ends.

        Raises:
            ConfigurationError: no database is named.
            DatabaseUnavailableError: the server cannot be reached, or all connections are in use.
        """
        pool = self._given or self._pool()
        try:
            connection = pool.getconn()
        except PoolTimeout:
            self._probe()
            raise DatabaseUnavailableError(
                f"All {pool.max_size} connections of the pool have been in use for "
                f"{pool.timeout:g} s. Raise max_pool_size; inside transaction(), use tx.enqueue."
            ) from None
        try:
            if connection.autocommit:
                yield connection
            else:  # the application's pool
                with connection:
                    yield connection
        finally:
            pool.putconn(connection)

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
            configure=spare_pooler,
            min_size=0,
            max_size=self._options.max_pool_size or 4,
            timeout=PATIENCE,
            open=False,
            check=self._check,
        )
        pool.open()
        return pool

    def _check(self, connection: Connection[Any]) -> None:
        """Ask the server whether a connection still works, if there is any reason to doubt it.

        A server that closes a connection says so, and PostgreSQL says nothing else to an idle one:
        if there is something to read, or the network may have forgotten it, one round trip tells.
        Otherwise it would double the time of an enqueue.
        """
        now = monotonic()
        used = self._used.get(connection, -math.inf)
        self._used[connection] = now
        if now - used > TRUSTED or is_readable(connection.fileno()):
            ConnectionPool.check_connection(connection)

    def _probe(self) -> None:
        """Connect once: a pool only says that it timed out, a plain connection says why."""
        conninfo = self._conninfo()
        try:
            (Connection.connect(conninfo)).close()
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

    def close(self) -> None:
        """Close our own pool; the application's is left alone."""
        pool = self._own.pop(os.getpid(), None)
        if pool is not None:
            pool.close()
