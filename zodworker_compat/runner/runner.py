"""The runner: starts the parts, stops them in the right order."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, Final

import psycopg

from zodworker_compat.cron import CronItem
from zodworker_compat.database.queue import Claimed
from zodworker_compat.database.refusals import explained
from zodworker_compat.errors import (
    ConfigurationError,
    DatabaseUnavailableError,
    MigrationError,
)
from zodworker_compat.events import Events
from zodworker_compat.job import Job
from zodworker_compat.limiter import RateLimiter
from zodworker_compat.runner.alarm import Alarm
from zodworker_compat.runner.buffer import Buffer
from zodworker_compat.runner.cron import Clock, Cron
from zodworker_compat.runner.execute import Executor
from zodworker_compat.runner.fetch import Claimer
from zodworker_compat.runner.heartbeat import Heartbeat
from zodworker_compat.runner.helpers import Connections, helpers_factory
from zodworker_compat.runner.limits import Limits
from zodworker_compat.runner.listen import NEWEST_REVISION, Listener
from zodworker_compat.runner.pool import Intervals, Pool, logger, new_pool_id
from zodworker_compat.runner.settle import Settler
from zodworker_compat.runner.sweep import Sweeper
from zodworker_compat.runner.task import RunnableTask
from zodworker_compat.runner.throttle import Throttle
from zodworker_compat.runner_options import RunnerOptions

FLUSH_TIMEOUT: Final = 10.0
"""Seconds that the last results have to reach PostgreSQL, once no job runs any more."""


class Runner:
    """Claims, runs and settles the jobs of the tasks it is given, until it is stopped.

    A job that ends is deleted; one that fails is postponed by graphile-worker's backoff. Nothing
    stays locked after `stop`, as long as PostgreSQL can be reached.
    """

    def __init__(
        self,
        *,
        name: str,
        conninfo: str,
        options: RunnerOptions,
        tasks: Mapping[str, RunnableTask],
        enqueuer: Any,
        shutdown_timeout: timedelta = timedelta(seconds=60),
        delete_failed_jobs: bool = False,
        rate_limiter: RateLimiter | None = None,
        cron_items: Sequence[CronItem] = (),
        clock: Clock | None = None,
        events: Events | None = None,
        on_error: Callable[[Job, BaseException], Any] | None = None,
        intervals: Intervals | None = None,
    ) -> None:
        """Set the runner up; nothing is connected yet.

        Args:
            name: shown in `application_name` and logs.
            conninfo: a finished libpq connection string.
            options: schema, concurrency, poll interval.
            tasks: identifier -> task; jobs of other tasks are left alone (P-49).
            enqueuer: what `helpers.enqueue` and its kin delegate to.
            shutdown_timeout: how long `stop` waits for running jobs; 0 is for ever (P-58).
            delete_failed_jobs: delete a job whose handler fails on the last attempt, as
                trigger.dev did from 2024-05 (P-42); payload failures are kept all the same.
            rate_limiter: says which jobs must not run now (P-50…P-53).
            cron_items: enqueued when they are due, but not by `run_once`; no identifier twice.
            clock: by which they are due; None is the real one.
            events: who listens to what the runner does.
            on_error: called with (job, exception) when a failed run is written; sync or async.
            intervals: of background work; for tests.
        """
        if not tasks:
            raise ConfigurationError(f"The worker {name!r} has no handlers: register a task first.")
        self._pool = pool = Pool(
            name=name,
            conninfo=conninfo,
            options=options,
            tasks=tasks,
            shutdown_timeout=shutdown_timeout,
            delete_failed_jobs=delete_failed_jobs,
            intervals=intervals or Intervals(),
            events=events or Events(),
            on_error=on_error,
        )
        self._enqueuer = enqueuer
        self._alarm = Alarm()
        # Jobs claimed ahead would start long after the limiter let them pass.
        self._buffer = Buffer(
            options.concurrency, self._alarm.pulse, claim_ahead=rate_limiter is None
        )
        self._settler = Settler(pool, self._settled, self._doubt)
        self._connections = Connections(pool)
        self._throttle = (
            None if rate_limiter is None else Throttle(pool, rate_limiter, self._connections)
        )
        self._limits = Limits(pool)
        self._claimer = Claimer(
            pool,
            self._buffer,
            self._settler,
            self._alarm,
            self._limits,
            self._throttle,
            self._running,
        )
        self._listener = Listener(pool, self._claimer.notified, self._refuse_migration, self._doubt)
        self._heartbeat = Heartbeat(
            pool,
            held=self._running_ids,
            on_death=self._declared_dead,
            on_relief=self._claimer.notified,
            on_doubt=self._doubt,
            on_crash=partial(self._crashed, "heartbeat"),
        )
        self._cron = Cron(pool, cron_items, clock) if cron_items else None
        self._executor: Executor | None = None
        self._loops: dict[str, asyncio.Task[None]] = {}
        self._once = False
        self._stop: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()
        self.is_clean = True
        """Whether no running job had to be given back."""
        self._stopped = asyncio.Event()
        self._fatal: BaseException | None = None

    @property
    def pool_id(self) -> str:
        """What stands in `locked_by` of the jobs and queues that this runner holds."""
        return self._pool.id

    async def start(self) -> None:
        """Connect, look the tasks up and start to work; returns when it hears of new jobs.

        Raises:
            DatabaseUnavailableError: PostgreSQL cannot be reached.
        """
        await self._open()
        if self._stop is not None:  # told to stop while it connected
            return
        self._start_loop("claim", self._claimer.run())
        self._start_loop("listen", self._listener.run())
        self._start_loop("sweep", Sweeper(self._pool).run())
        if self._cron is not None:
            self._start_loop("cron", self._cron.run())
        await self._listener.tried.wait()

    async def run_once(self) -> None:
        """Run jobs until none is available, then stop; as `graphile-worker --once`.

        Raises:
            DatabaseUnavailableError: PostgreSQL cannot be reached.
        """
        self._once = True
        await self._open()
        if self._stop is None:  # else told to stop while it connected
            claiming = self._loops["claim"] = asyncio.create_task(self._claimer.run_once())
            try:
                await asyncio.wait([claiming])
            finally:
                await self.stop()
            if not claiming.cancelled():
                claiming.result()
        await self.wait()

    async def wait(self) -> None:
        """Wait until the runner has stopped.

        Raises:
            MigrationError: a newer graphile-worker has changed the schema.
            Exception: what ended the runner, if nobody asked it to stop.
        """
        await self._stopped.wait()
        if self._fatal is not None:
            raise self._fatal

    async def stop(self) -> None:
        """Stop claiming, give back what has not started, wait for what runs, write the results.

        Jobs that run longer than the shutdown timeout are cancelled and given back. A second call
        waits for the first; one in a handler does not wait, or it would wait for itself.
        """
        self._pool.events.leave()
        if self.is_called_by_handler():
            self._begin_stop()
            return
        await asyncio.shield(self._begin_stop())

    def is_called_by_handler(self) -> bool:
        """Whether the current task runs a job."""
        return self._executor is not None and self._executor.is_called_by_handler()

    def begin_stop(self) -> None:
        """Do what `stop` does, and do not wait for it."""
        self._begin_stop()

    def hasten(self) -> None:
        """Stop, and give running jobs back now; `wait` returns when that is written."""
        self._hurry.set()
        self._begin_stop()

    async def _open(self) -> None:
        """Connect, unless told to stop: then the connections are closed here, not by `stop`."""
        opening = self._loops["open"] = asyncio.create_task(self._connect())
        try:
            await asyncio.wait([opening])
        finally:
            await self._cancel("open")
        if not opening.cancelled():
            opening.result()

    async def _connect(self) -> None:
        self._pool.emit("pool:create")
        try:
            with explained(self._pool.options.schema):
                await self._claimer.connect()
            await self._settler.connect()
            await self._heartbeat.start()
        except BaseException:
            await self._heartbeat.stop(holds_nothing=True)
            await self._claimer.close()
            await self._settler.disconnect()
            raise
        make_helpers = helpers_factory(self._enqueuer, self._connections)
        self._executor = Executor(
            self._pool, self._buffer, self._settler, self._limits, make_helpers, self._throttle
        )
        self._executor.start()
        self._start_loop("settle", self._settler.run())

    def _start_loop(self, name: str, loop: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(loop, name=f"zodworker:{self._pool.name}:{name}")
        self._loops[name] = task
        task.add_done_callback(self._loop_ended)

    def _loop_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            self._crashed(task.get_name().rpartition(":")[2], error)

    def _crashed(self, action: str, error: BaseException) -> None:
        name = f"zodworker:{self._pool.name}:{action}"
        logger.critical("%s crashed; the worker stops", name, exc_info=error)
        self._end(error, action)

    def _end(self, error: BaseException, action: str) -> None:
        self._pool.emit("pool:fatalError", error=error, action=action)
        self._fatal = self._fatal or error
        self._begin_stop()

    def _begin_stop(self) -> asyncio.Task[None]:
        if self._stop is None:
            self._pool.emit("stop")
            self._stop = asyncio.create_task(self._shut_down())
        return self._stop

    def _settled(self, freed_queues: set[int]) -> None:
        if freed_queues:
            self._claimer.freed(freed_queues)
        elif self._once or self._buffer.is_low:
            self._alarm.pulse()

    def _doubt(self) -> None:
        self._claimer.doubt()

    def _running(self) -> list[Claimed]:
        return self._executor.jobs() if self._executor is not None else []

    def _running_ids(self) -> set[int]:
        """The jobs that run or are being settled; may be called by any thread."""
        return {*(job.id for job in self._running()), *self._settler.ids()}

    def _declared_dead(self) -> None:
        """Drop what we held, which is others' by now, and go on as another pool."""
        dead, self._pool.id = self._pool.id, new_pool_id()
        logger.error(
            "The other workers took this one for dead: it gave no sign of life for more than %g s. "
            "What it ran is cancelled and runs again elsewhere; it goes on as %s, no longer as %s",
            self._pool.vigil.dead_after,
            self._pool.id,
            dead,
        )
        self._pool.emit("pool:declaredDead", pool_id=dead, new_pool_id=self._pool.id)
        self._limits.release(*self._buffer.drain())
        self._settler.abandon()
        if self._executor is not None:
            self._executor.abandon()

    def _refuse_migration(self, revision: int) -> None:
        self._end(
            MigrationError(
                f"Database is using Graphile Worker schema revision {revision} which includes "
                f"breaking migration {revision}, but the currently running worker only supports "
                f"up to revision {NEWEST_REVISION}. It would be unsafe to continue; please ensure "
                "all versions of Graphile Worker are compatible."
            ),
            "listen",
        )

    async def _shut_down(self) -> None:
        """Stop the parts in the order of a job's way, so that none is left between two of them."""
        self._pool.emit("pool:gracefulShutdown", message="Worker is stopping")
        try:
            await self._cancel("open", "listen", "sweep", "cron")
            self._claimer.stop()
            await self._join("claim", FLUSH_TIMEOUT)
            self._settler.give_back(self._buffer.close())
            if self._executor is not None:
                if seconds := self._pool.shutdown_timeout.total_seconds():
                    asyncio.get_running_loop().call_later(seconds, self._hurry.set)
                self.is_clean = await self._executor.drain(self._hurry)
            self._settler.close(FLUSH_TIMEOUT)
            await self._join("settle", FLUSH_TIMEOUT)
            await self._return_lost()
            await self._heartbeat.stop(
                holds_nothing=self._claimer.is_sure and not self._settler.ids()
            )
            await self._connections.close()
        except BaseException as error:
            self._pool.emit("pool:gracefulShutdown:error", error=error)
            raise
        else:
            self._pool.emit("pool:gracefulShutdown:complete")
        finally:
            await self._heartbeat.stop(holds_nothing=False)
            self._pool.emit("pool:release")
            await self._pool.events.close(FLUSH_TIMEOUT)
            self._listener.tried.set()  # start() may still be waiting for it
            self._stopped.set()

    async def _return_lost(self) -> None:
        """Let nothing stay locked, whatever has become of claims and results."""
        if self._executor is None:  # it never claimed
            return
        self._doubt()
        try:
            async with asyncio.timeout(FLUSH_TIMEOUT):
                await self._claimer.check_locks()
                await self._claimer.hand_over()
        except (psycopg.Error, DatabaseUnavailableError, TimeoutError) as error:
            logger.error(
                "Cannot see whether jobs are still locked; they would be recovered: %s: %s",
                type(error).__name__,
                error,
            )
        finally:
            await self._claimer.close()

    async def _join(self, name: str, seconds: float) -> None:
        if task := self._loops.get(name):
            await asyncio.wait([task], timeout=seconds)
            await self._cancel(name)

    async def _cancel(self, *names: str) -> None:
        tasks = [self._loops[name] for name in names if name in self._loops]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
