"""Runs jobs: a fixed number of slots, each taking one job after the other."""

import asyncio
import contextvars
import inspect
import json
import logging
import threading
from functools import partial
from time import perf_counter
from typing import Any, Final

from zodworker_compat.database.queue import Claimed
from zodworker_compat.runner.buffer import Buffer
from zodworker_compat.runner.failure import failure_of
from zodworker_compat.runner.helpers import Abort, MakeHelpers
from zodworker_compat.runner.limits import Limits
from zodworker_compat.runner.pool import Pool, logger
from zodworker_compat.runner.settle import Settler
from zodworker_compat.runner.task import RunnableTask
from zodworker_compat.runner.threads import Outcome, Threads
from zodworker_compat.runner.throttle import RescheduledError, Throttle

LONGEST_TURN: Final = 0.005
"""Seconds a slot may go from job to job without letting the event loop do anything else."""
ABORT_AFTER: Final = 5.0
"""Seconds after which a shutdown sets the abort signals, or half of its time if that is less, as
graphile-worker's gracefulShutdownAbortTimeout: handlers that listen have the rest to finish."""
CANCEL_GRACE: Final = 1.0
"""Seconds a cancelled handler has to clean up before its job is given back without it."""


class Executor:
    """`concurrency` slots. A slot is one asyncio task for many jobs: a task each costs 6 µs."""

    def __init__(
        self,
        pool: Pool,
        buffer: Buffer,
        settler: Settler,
        limits: Limits,
        make_helpers: MakeHelpers,
        throttle: Throttle | None = None,
    ) -> None:
        self._pool = pool
        self._buffer = buffer
        self._settler = settler
        self._limits = limits
        self._make_helpers = make_helpers
        self._throttle = throttle
        self._threads = Threads(pool.options.concurrency, f"zodworker-{pool.name}")
        self._context = contextvars.copy_context()
        self._slots: set[asyncio.Task[None]] = set()
        self._running: dict[int, Claimed] = {}
        """Job id -> the claim whose run may still say what becomes of the job."""
        self._aborts: set[Abort] = set()
        self._is_cancelling = False
        """Of runs that have a timeout."""
        self._is_clean = True
        self._told_at = 0.0
        """When the worker was told to stop."""

    def start(self) -> None:
        """Start the slots."""
        for _ in range(self._pool.options.concurrency):
            self._start_slot()

    def _start_slot(self) -> None:
        slot = asyncio.get_running_loop().create_task(
            self._slot(), name=f"zodworker:{self._pool.name}:slot", context=self._context.copy()
        )
        self._slots.add(slot)
        slot.add_done_callback(self._slot_ended)

    def _slot_ended(self, slot: asyncio.Task[None]) -> None:
        self._slots.discard(slot)
        if not slot.cancelled() and (error := slot.exception()):
            logger.critical("A slot of the worker crashed; starting another", exc_info=error)
        if not self._buffer.closed:
            self._start_slot()

    def ids(self) -> set[int]:
        """The jobs that run."""
        return {*self._running}

    async def drain(self, hurry: asyncio.Event) -> bool:
        """Wait for the running jobs; once `hurry` is set cancel them and give them back.

        The buffer must be closed.

        Returns:
            Whether no job had to be given back.
        """
        self._told_at = perf_counter()
        seconds = self._pool.shutdown_timeout.total_seconds() or 2 * ABORT_AFTER
        warning = asyncio.get_running_loop().call_later(
            min(ABORT_AFTER, seconds / 2), self._ask_to_abort
        )
        hurried = asyncio.ensure_future(hurry.wait())
        while self._slots and not hurried.done():
            await asyncio.wait([*self._slots, hurried], return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        warning.cancel()
        self._ask_to_abort()
        self._is_cancelling = True
        if self._slots:
            for slot in self._slots:
                slot.cancel()
            await asyncio.wait(self._slots, timeout=CANCEL_GRACE)
        for job in [*self._running.values()]:
            logger.warning(
                "Job %d goes on although it was cancelled",
                job.id,
                extra=self._pool.log_fields(job),
            )
            self._give_back(job)
        self._running.clear()
        self._threads.stop()
        return self._is_clean

    def _ask_to_abort(self) -> None:
        for abort in (self._pool.abort, self._pool.abort_threads, *self._aborts):
            abort.set()

    async def _slot(self) -> None:
        slot = asyncio.current_task()
        assert slot is not None  # noqa: S101 - we are in a task
        clean = contextvars.copy_context()
        turn = perf_counter()
        while (job := await self._buffer.take()) is not None:
            if older := self._running.get(job.id):  # it was swept, and claimed by us again
                self._settler.report_lost(older)
            self._running[job.id] = job
            started = perf_counter()
            try:
                await self._execute(job, started)
            finally:
                self._release(job)
                self._limits.release(job)
                now = perf_counter()
                self._buffer.done(now - started)
            if slot.cancelling() or contextvars.copy_context() != clean:
                return  # a fresh slot: what one job did to its task must not reach the next
            if now - turn > LONGEST_TURN:
                await asyncio.sleep(0)
                turn = perf_counter()

    def _release(self, job: Claimed) -> bool:
        """Whether this run still says what becomes of its job; it does so once."""
        if self._running.get(job.id) is not job:
            return False
        del self._running[job.id]
        return True

    async def _execute(self, job: Claimed, started: float) -> None:
        task = self._pool.tasks[self._pool.identifiers[job.task_id]]
        self._pool.emit_job("job:start", job)
        try:
            raw = json.loads(job.payload)
            if self._throttle is not None and self._throttle.wraps(task.identifier):
                full = self._pool.job(job, raw)
                helpers = self._make_helpers(full, self._pool.abort)  # a limiter is async
                await self._throttle.run(raw, full, helpers, partial(self._run, task, job))
            else:
                await self._run(task, job, raw)
        except RescheduledError:
            self._release(job)
        except GeneratorExit:  # the loop is gone: nothing can be awaited any more
            raise
        except BaseException as error:  # noqa: BLE001 - SystemExit ends a job, never the worker
            self._ended_by(error, job, task)
        else:
            if self._release(job):
                self._settler.complete(job, perf_counter() - started)
                self._pool.emit_job("job:success", job)

    async def _run(self, task: RunnableTask, job: Claimed, raw: Any) -> None:
        payload = task.decode(raw)
        if logger.isEnabledFor(logging.DEBUG):
            kind = "worker" if task.is_limited else "recurring"
            fields = {**self._pool.log_fields(job), "payload": raw}
            logger.debug("Received %s task, calling handler", kind, extra=fields)
        if task.options.timeout is not None:
            await self._run_in_time(task, job, raw, payload, task.options.timeout.total_seconds())
            return
        arguments = self._arguments(task, job, raw, payload, self._abort(task))
        if task.is_async:
            await task.handler(*arguments)
        else:
            await _finish(await self._threads.submit(task.handler, *arguments))

    def _abort(self, task: RunnableTask) -> Abort:
        return self._pool.abort if task.is_async else self._pool.abort_threads

    def _arguments(
        self, task: RunnableTask, job: Claimed, raw: Any, payload: Any, abort: Abort
    ) -> tuple[Any, ...]:
        if task.arity == 1:
            return (payload,)
        full = self._pool.job(job, raw)
        helpers = (self._make_helpers(full, abort),) if task.arity > 2 else ()  # noqa: PLR2004
        return (payload, full, *helpers)

    async def _run_in_time(
        self, task: RunnableTask, job: Claimed, raw: Any, payload: Any, seconds: float
    ) -> None:
        """Call a handler that may take `seconds`.

        Raises:
            TimeoutError: it took longer.
        """
        abort: Abort = asyncio.Event() if task.is_async else threading.Event()
        arguments = self._arguments(task, job, raw, payload, abort)
        thread: asyncio.Future[Outcome] | None = None
        ended_by: BaseException | None = None
        timer = asyncio.timeout(seconds)
        alarm = asyncio.get_running_loop().call_later(seconds, abort.set)
        self._aborts.add(abort)
        try:
            async with timer:
                if task.is_async:
                    await task.handler(*arguments)
                else:
                    thread = self._threads.submit(task.handler, *arguments)
                    await _finish(await asyncio.shield(thread))
        except BaseException as error:
            if not timer.expired() or self._is_cancelling:
                raise
            ended_by = error
        finally:
            alarm.cancel()
            self._aborts.discard(abort)
        if timer.expired():
            late = TimeoutError(f"the run took longer than the {seconds:g} s that its task allows")
            late.__cause__ = ended_by
            if thread is None or thread.done():
                raise late
            self._ended_by(late, job, task)
            await self._outlast(thread, job)

    async def _outlast(self, thread: "asyncio.Future[Outcome]", job: Claimed) -> None:
        """Wait for a handler that cannot be stopped; what it does changes nothing any more."""
        started = perf_counter()
        await asyncio.wait([thread])
        logger.warning(
            "The handler of job %d ended %.1f s after its timeout; its result changed nothing",
            job.id,
            perf_counter() - started,
            extra=self._pool.log_fields(job),
        )
        result, _ = thread.result()
        if inspect.iscoroutine(result):
            result.close()

    def _ended_by(self, error: BaseException, job: Claimed, task: RunnableTask) -> None:
        if not self._release(job):
            return
        if isinstance(error, asyncio.CancelledError) and self._is_cancelling:
            self._give_back(job)
            return
        logger.error(
            "Failed job %d (%s, attempt %d of %d): %s",
            job.id,
            task.identifier,
            job.attempts,
            job.max_attempts,
            type(error).__name__,
            exc_info=error,
            extra=self._pool.log_fields(job),
        )
        full = self._pool.job_of(job)
        delete_last = (
            self._pool.delete_failed_jobs and not task.keep_failed and _is_valid(task, job)
        )
        try:
            failure = failure_of(full, error, retry=task.options.retry, delete_last=delete_last)
        except Exception:  # noqa: BLE001 - the job's failure must be written all the same
            logger.exception(
                "The retry policy of %s gave no delay; graphile-worker's is used", task.identifier
            )
            failure = failure_of(full, error, retry=None, delete_last=delete_last)
        self._settler.fail(job, failure)
        self._pool.emit("job:error", job=full, error=error)
        if failure.is_last:
            self._pool.emit("job:failed", job=full, error=error)

    def _give_back(self, job: Claimed) -> None:
        self._is_clean = False
        seconds = perf_counter() - self._told_at
        task = self._pool.tasks[self._pool.identifiers[job.task_id]]
        logger.warning(
            "Job %d (%s) was still running %.2f s after the worker was told to stop; given back%s",
            job.id,
            task.identifier,
            seconds,
            "" if task.is_async else ", although its thread cannot be cancelled and goes on",
            extra=self._pool.log_fields(job),
        )
        self._settler.give_back(
            [job],
            f"Worker shutdown: still running {seconds:.2f} s after the worker was told to stop",
        )


async def _finish(outcome: Outcome) -> None:
    """Raise what a sync handler raised; await what it returned: it may wrap an async function."""
    result, error = outcome
    if error is not None:
        raise error
    if inspect.isawaitable(result):
        await result


def _is_valid(task: RunnableTask, job: Claimed) -> bool:
    """Whether the payload reaches the handler: a failure before that is never deleted (P-44)."""
    try:
        task.decode(json.loads(job.payload))
    except Exception:  # noqa: BLE001 - whatever kept the payload from its handler
        return False
    return True
