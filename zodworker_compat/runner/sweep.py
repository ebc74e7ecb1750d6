"""Frees what workers left locked more than four hours ago, as every graphile-worker does."""

import asyncio
from datetime import timedelta

import psycopg

from zodworker_compat.database import queue
from zodworker_compat.errors import DatabaseUnavailableError
from zodworker_compat.runner.pool import Pool, logger


class Sweeper:
    """Sweeps after a random part of a minute, then each eight to ten minutes."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def run(self) -> None:
        """Sweep until cancelled. A failure is logged and left to the next turn."""
        await asyncio.sleep(self._pool.intervals.first_sweep())
        while True:
            pause = self._pool.intervals.sweep()
            delay = timedelta(seconds=pause)
            self._pool.emit("resetLocked:started")
            try:
                await self._sweep()
            except (psycopg.Error, DatabaseUnavailableError) as error:
                logger.warning("Cannot sweep stale locks, next try in minutes: %s", error)
                self._pool.emit("resetLocked:failure", error=error, delay=delay)
            else:
                self._pool.emit("resetLocked:success", delay=delay)
            await asyncio.sleep(pause)

    async def _sweep(self) -> None:
        session = self._pool.session()
        try:
            connection = await session.connection()
            jobs, queues = await queue.sweep(connection, self._pool.options.schema)
        finally:
            await session.close()
        if jobs or queues:
            logger.warning(
                "Freed %d jobs and %d queues that had been locked for more than four hours; "
                "the workers that held them are gone",
                jobs,
                queues,
            )
