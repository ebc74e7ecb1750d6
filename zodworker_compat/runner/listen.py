"""Hears of new jobs at once; the polling of the claimer does not depend on it."""

import asyncio
import json
from collections.abc import Callable
from typing import Any, Final

import psycopg
from psycopg import AsyncConnection

from zodworker_compat.database import queue
from zodworker_compat.database.connect import address
from zodworker_compat.errors import DatabaseUnavailableError
from zodworker_compat.runner.outage import Outage
from zodworker_compat.runner.pool import Pool, logger

JOBS: Final = "jobs:insert"
MIGRATIONS: Final = "worker:migrate"
NEWEST_REVISION: Final = 19
"""The newest revision of graphile-worker's schema that we know to be compatible."""
CHECK_TIMEOUT: Final = 5.0
"""Seconds the server may take to show that the connection is alive, or to pass a notification on."""


class Listener:
    """A connection of its own that is checked each poll interval and replaced when lost.

    A pooler in transaction mode answers LISTEN, and passes nothing on: that is found out, said once,
    and left to polling.
    """

    def __init__(
        self,
        pool: Pool,
        on_jobs: Callable[[], None],
        on_breaking_migration: Callable[[int], None],
        on_doubt: Callable[[], None],
    ) -> None:
        """`on_doubt` is called when the connection is lost: the server may have crashed."""
        self._on_jobs = on_jobs
        self._on_doubt = on_doubt
        self._on_breaking_migration = on_breaking_migration
        self._pool = pool
        self._session = pool.session()
        self._interval = pool.options.poll_interval.total_seconds()
        self._outage = Outage(logger, "listen for new jobs (polling goes on)")
        self.tried = asyncio.Event()
        """Set when LISTEN is up, or known to be down."""

    async def run(self) -> None:
        """Listen until cancelled, or until a pooler is found that passes nothing on."""
        try:
            while True:
                try:
                    await self._listen()
                except (psycopg.Error, DatabaseUnavailableError, TimeoutError) as error:
                    self._pool.emit("pool:listen:error", error=error)
                    delay = self._outage.failed(error)
                    self.tried.set()
                    self._on_doubt()
                    await self._session.close()
                    await asyncio.sleep(delay)
                else:
                    return
        finally:
            await self._session.close()

    async def _listen(self) -> None:
        self._pool.emit("pool:listen:connecting", attempts=self._outage.failures)
        connection = await self._session.connection()
        if not self._session.is_direct:
            self.tried.set()
            if not await self._hears(connection):
                self._warn()
                return
        await queue.listen(connection, JOBS, MIGRATIONS)
        self._outage.worked()
        self._pool.emit("pool:listen:success")
        self.tried.set()
        self._on_jobs()  # whatever came while nobody listened
        while True:
            async for channel, payload in queue.notifications(connection, self._interval):
                self._received(channel, payload)
            with self._session.patience(CHECK_TIMEOUT):
                await queue.check(connection)

    async def _hears(self, connection: AsyncConnection[Any]) -> bool:
        sender = self._pool.session()
        try:
            async with asyncio.timeout(CHECK_TIMEOUT):
                sending = await sender.connection()
            return await queue.hears(connection, sending, CHECK_TIMEOUT)
        finally:
            await sender.close()

    def _warn(self) -> None:
        logger.warning(
            "No notification comes through: a pooler in transaction mode is between this worker and "
            "PostgreSQL (%s). New jobs are found by polling, each %g s (poll_interval), not at once. "
            "To change that, give the worker a connection_string to PostgreSQL itself, or to a pooler "
            "in session mode; whoever only enqueues may stay behind this one",
            address(self._pool.conninfo),
            self._interval,
        )

    def _received(self, channel: str, payload: str) -> None:
        self._pool.emit("pool:listen:notification", channel=channel, payload=payload)
        if channel == JOBS:
            if job_count(payload) > 0:
                self._on_jobs()
        elif (revision := breaking_revision(payload)) > NEWEST_REVISION:
            self._on_breaking_migration(revision)


def job_count(payload: str) -> int:
    """Return how many jobs a notification announces; 1 if it does not say, as graphile-worker."""
    count = _members(payload).get("count", 1)
    return count if isinstance(count, int) else 1


def breaking_revision(payload: str) -> int:
    """Return the revision that a notification of a breaking migration names, else 0."""
    members = _members(payload)
    revision = members.get("migrationNumber")
    return revision if members.get("breaking") is True and isinstance(revision, int) else 0


def _members(payload: str) -> dict[str, Any]:
    try:
        members = json.loads(payload)
    except (ValueError, RecursionError):  # any role may notify, of anything
        return {}
    return members if isinstance(members, dict) else {}
