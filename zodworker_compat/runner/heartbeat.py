"""Keeps the pool alive in the eyes of the others, and gives back the jobs of those that died."""

import asyncio
import os
import socket
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import suppress
from datetime import timedelta
from functools import partial
from threading import Thread
from time import monotonic
from typing import Any, Final

import psycopg
from psycopg import AsyncConnection, errors

from zodworker_compat.database import heartbeat
from zodworker_compat.database.heartbeat import Beat, Recovery, Silent, WorkerRow
from zodworker_compat.errors import DatabaseUnavailableError, MigrationError
from zodworker_compat.runner.outage import Outage
from zodworker_compat.runner.pool import Pool, logger

RETRIES: Final = 3
"""Tries in the time of a beat, while the database does not answer."""
SHORTEST_PATIENCE: Final = 1.0
"""Seconds that the database has at least to answer a beat."""
CONNECT_SHARE: Final = 1 / 3
"""Part of `dead_after` that connecting again may take: the others may judge us before a second try."""
LEAST_CONNECT_TIMEOUT: Final = 2
"""Seconds; libpq's."""
FAREWELL_TIMEOUT: Final = 5.0
"""Seconds that the thread has to end; if it cannot, the others find this worker silent."""
LONGEST_PAUSE: Final = 60.0
"""Seconds until jobs of dead pools are tried again whose rows somebody holds."""


class Heartbeat:
    """A thread with an event loop and a connection of its own.

    So neither a blocked event loop nor a handler that computes for minutes looks dead; only code in
    C that keeps the interpreter's lock for longer than `dead_after` does. What takes its time
    (recovery, long locks) runs beside the beats, on a second connection that is opened for it.
    """

    def __init__(
        self,
        pool: Pool,
        *,
        held: Callable[[], Iterable[int]],
        on_death: Callable[[], None],
        on_relief: Callable[[], None],
        on_doubt: Callable[[], None],
        on_crash: Callable[[BaseException], None],
    ) -> None:
        """All but `held`, which must be thread-safe, are called in the event loop that starts it.

        Args:
            pool: whose life it is.
            held: the ids of the jobs that the pool holds.
            on_death: the others have declared the pool dead; it must take another id.
            on_relief: it may claim again.
            on_doubt: the server did not answer: it may have crashed, and forgotten claims.
            on_crash: the thread has ended by an error.
        """
        self._pool = pool
        self._vigil = pool.vigil
        self._held = held
        self._on_death = on_death
        self._on_relief = on_relief
        self._on_doubt = on_doubt
        self._on_crash = on_crash
        self._session = pool.session(is_local=True)
        self._second = pool.session(is_local=True)
        self._outage = Outage(logger, "give a sign of life")
        self._chore: asyncio.Task[None] | None = None
        self._chore_outage = Outage(logger, "give back the jobs of dead workers")
        self._recover_at = 0.0
        self._pause = 0.0
        self._sweep_at = monotonic() + pool.intervals.first_sweep()
        self._refresh_at = monotonic() + pool.intervals.refresh
        self._home: asyncio.AbstractEventLoop | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._is_stopping = False
        self._is_told = False
        self._is_entered = False
        self._gone: list[WorkerRow] = []
        """Whom we were when we were declared dead, until that is written."""
        self._entered: Future[None] = Future()
        self._ended: Future[None] = Future()
        self._holds_nothing = False

    async def start(self) -> None:
        """Enter the pool; returns when it may claim.

        A role that may not have the table is warned: then nobody gives back what the pool holds if
        it is killed, and it gives back nothing of others.

        Raises:
            DatabaseUnavailableError: PostgreSQL cannot be reached.
            psycopg.Error: it refused.
        """
        self._home = asyncio.get_running_loop()
        self._vigil.begin()
        Thread(target=self._run, name=f"zodworker-{self._pool.name}-heartbeat", daemon=True).start()
        await asyncio.shield(asyncio.wrap_future(self._entered))

    async def stop(self, *, holds_nothing: bool) -> None:
        """Take the pool off the list and end the thread; a second call does nothing.

        Args:
            holds_nothing: False has the others recover at once what the pool may still hold.
        """
        if self._is_told:
            return
        self._is_told = self._is_stopping = True
        self._holds_nothing = holds_nothing
        if self._home is not None:
            with suppress(RuntimeError):  # it has ended
                if self._loop is not None:
                    self._loop.call_soon_threadsafe(self._stop.set)
            await asyncio.wait([asyncio.wrap_future(self._ended)], timeout=FAREWELL_TIMEOUT)

    def _run(self) -> None:
        try:
            asyncio.run(self._live())
        except BaseException as error:  # noqa: BLE001 - a worker without beats must stop
            if self._entered.done():
                self._tell(self._on_crash, error)
            else:
                self._entered.set_exception(error)
        finally:
            if not self._entered.done():
                self._entered.set_result(None)
            self._ended.set_result(None)

    async def _live(self) -> None:
        self._loop = asyncio.get_running_loop()
        try:
            if self._is_stopping or not await self._enter():
                return
            self._entered.set_result(None)
            while self._is_wanted():
                rest = (
                    self._vigil.interval if await self._beat() else self._vigil.interval / RETRIES
                )
                await self._wait(rest)
            if self._chore is not None:
                self._second.cut()
                await asyncio.wait([self._chore])
            if self._is_entered:
                await self._leave()
        finally:
            await self._session.close()

    def _is_wanted(self) -> bool:
        """Whether to go on: a loop that was closed without a stop runs no job any more."""
        return not (self._is_stopping or self._home is None or self._home.is_closed())

    async def _wait(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), seconds)

    def _row(self) -> WorkerRow:
        pool = self._pool
        return WorkerRow(
            pool_id=pool.id,
            name=pool.name,
            host=socket.gethostname(),
            pid=os.getpid(),
            version=sys.modules["zodworker_compat"].__version__,  # it may import us, not we it
            concurrency=pool.options.concurrency,
            tasks=sorted(pool.tasks),
            dead_after=pool.options.dead_after,
        )

    async def _enter(self) -> bool:
        """Enter the pool; False if this role may not: then it lives without recovery."""
        sent = monotonic()
        try:
            beat = await self._ask()
        except (MigrationError, psycopg.ProgrammingError) as error:
            self._do_without(error)
            return False
        await self._answered(sent, beat)
        # Only now: until the first answer nobody judges us, and the network may be slow.
        seconds = int(self._vigil.dead_after * CONNECT_SHARE)
        for session in (self._session, self._second):
            session.connect_timeout = max(LEAST_CONNECT_TIMEOUT, seconds)
        return True

    def _do_without(self, reason: Exception) -> None:
        logger.warning(
            "The jobs of this worker are not given back before four hours if it is killed, and it "
            "gives back no other's: %s",
            reason,
        )
        self._vigil.end()
        self._is_entered = False
        self._is_stopping = True

    async def _beat(self) -> bool:
        """Give a sign of life, and do what is due; False if the database did not answer."""
        sent = monotonic()
        asking = asyncio.create_task(self._ask())
        await asyncio.wait([asking], timeout=max(self._vigil.interval, SHORTEST_PATIENCE))
        if not asking.done():
            self._session.cut()
        try:
            beat = await asking
        except (MigrationError, psycopg.Error, DatabaseUnavailableError) as error:
            is_table_gone = isinstance(error, errors.UndefinedTable)
            if isinstance(error, MigrationError) or (is_table_gone and not self._is_entered):
                self._do_without(error)  # it was dropped, and cannot be made again
                return True
            await self._missed(error)
            self._is_entered = self._is_entered and not is_table_gone
            return False
        self._outage.worked()
        await self._answered(sent, beat)
        return True

    async def _ask(self) -> Beat | None:
        schema = self._pool.options.schema
        connection = await self._session.connection()
        for gone in [*self._gone]:  # its row may have been deleted
            await heartbeat.register(connection, schema, gone)
            await heartbeat.leave(connection, schema, gone.pool_id, holds_nothing=False)
            self._gone.remove(gone)
        if not self._is_entered:
            await heartbeat.register(connection, schema, self._row())
            self._is_entered = True
        return await heartbeat.beat(connection, schema, self._pool.id)

    async def _answered(self, sent: float, beat: Beat | None) -> None:
        if beat is None:
            await self._die()
            return
        was_fenced = self._vigil.is_fenced(monotonic())
        self._vigil.beaten(sent, beat.clock)
        if was_fenced:
            self._tell(self._on_relief)
        self._tend(is_any_dead=beat.is_any_dead)

    async def _die(self) -> None:
        """Take another id: the others have declared the pool dead, and the dead stay dead.

        What it held is recovered again: a claim that was under way may have come after that.
        """
        self._vigil.begin()
        self._gone.append(self._row())
        self._is_entered = False
        await self._at_home(self._on_death)

    async def _missed(self, error: Exception) -> None:
        if not self._outage.failures:
            self._tell(partial(self._pool.emit, "pool:heartbeat:error", error=error))
        self._outage.failed(error)
        self._vigil.missed()
        self._tell(self._on_doubt)
        await self._session.close()

    async def _leave(self) -> None:
        try:
            connection = await self._session.connection()
            await heartbeat.leave(
                connection,
                self._pool.options.schema,
                self._pool.id,
                holds_nothing=self._holds_nothing,
            )
        except (psycopg.Error, DatabaseUnavailableError) as error:
            logger.warning("The others will take this worker for dead: %s", error)

    def _tend(self, *, is_any_dead: bool) -> None:
        """Start what is due, beside the beats."""
        if self._chore is not None:
            if not self._chore.done():
                return
            self._chore.result()
        now = monotonic()
        if is_any_dead or now >= self._sweep_at or now >= self._refresh_at:
            self._chore = asyncio.create_task(self._do_chores(is_any_dead=is_any_dead))

    async def _do_chores(self, *, is_any_dead: bool) -> None:
        schema, now = self._pool.options.schema, monotonic()
        try:
            connection = await self._second.connection()
            if is_any_dead:
                await self._recover(connection)
            if now >= self._sweep_at:
                self._sweep_at = now + self._pool.intervals.sweep()
                self._report(await heartbeat.recover(connection, schema, again=True))
            if now >= self._refresh_at:
                self._refresh_at = now + self._pool.intervals.refresh
                await heartbeat.refresh_locks(connection, schema, self._pool.id, [*self._held()])
            self._chore_outage.worked()
        except (psycopg.Error, DatabaseUnavailableError) as error:
            self._chore_outage.failed(error)
        finally:
            await self._second.close()

    async def _recover(self, connection: AsyncConnection[Any]) -> None:
        schema = self._pool.options.schema
        watched, share = self._vigil.watch()
        silent = await heartbeat.declare_dead(
            connection, schema, self._pool.id, timedelta(seconds=watched), share
        )
        for each in silent:
            self._report_dead(each)
        if silent or monotonic() >= self._recover_at:
            recovery = await heartbeat.recover(connection, schema)
            self._report(recovery)
            is_stuck = not (recovery.job_ids or recovery.queues)
            self._pause = min(LONGEST_PAUSE, 2 * self._pause or 1.0) if is_stuck else 0.0
            self._recover_at = monotonic() + self._pause

    def _report_dead(self, dead: Silent) -> None:
        logger.warning(
            "Worker %s (%s, process %d, %s) gave no sign of life for %.1f s and is declared dead",
            dead.name,
            dead.host,
            dead.pid,
            dead.pool_id,
            dead.silence,
        )
        silence = timedelta(seconds=dead.silence)
        fields = {"dead_pool_id": dead.pool_id, "name": dead.name, "host": dead.host}
        self._tell(
            partial(self._pool.emit, "recovery:dead", **fields, pid=dead.pid, silence=silence)
        )

    def _report(self, recovery: Recovery) -> None:
        if recovery.refused:
            logger.error(
                "PostgreSQL refuses to unlock jobs %s of dead workers; tried again in minutes: %s",
                recovery.refused,
                recovery.error,
            )
        if recovery.job_ids or recovery.queues:
            logger.warning(
                "Gave back %d jobs and %d queues of dead workers",
                len(recovery.job_ids),
                recovery.queues,
            )
            fields = {"job_ids": recovery.job_ids, "queues": recovery.queues}
            self._tell(partial(self._pool.emit, "recovery:freed", **fields))

    def _tell(self, function: Callable[..., Any], *arguments: Any) -> bool:
        """Call a function in the event loop of the worker; False if that is closed."""
        assert self._home is not None  # noqa: S101 - the thread was started from there
        try:
            self._home.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            return False
        return True

    async def _at_home(self, function: Callable[[], None]) -> None:
        """Call a function in the event loop of the worker, and wait for its end."""
        done: Future[None] = Future()

        def call() -> None:
            try:
                function()
            except BaseException as error:  # noqa: BLE001 - raised in the thread
                done.set_exception(error)
            else:
                done.set_result(None)

        if self._tell(call):
            await asyncio.wrap_future(done)
