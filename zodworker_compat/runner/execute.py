"""Runs jobs: a fixed number of slots, each taking one job after the other."""

import asyncio
import contextvars
import inspect
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from time import monotonic
from typing import Any, Final

from zodworker_compat.database.queue import Claimed
from zodworker_compat.payload.stored import read_payload
from zodworker_compat.runner.buffer import Buffer
from zodworker_compat.runner.failure import failure_of, plain_failure
from zodworker_compat.runner.helpers import Abort, MakeHelpers
from zodworker_compat.runner.limits import Limits
from zodworker_compat.runner.pool import Pool, logger
from zodworker_compat.runner.settle import Settler
from zodworker_compat.runner.task import RunnableTask
from zodworker_compat.runner.threads import Outcome, Threads
from zodworker_compat.runner.throttle import RescheduledError, Throttle

LONGEST_TURN: Final = 0.0005
"""Seconds a slot may go from job to job without letting the event loop do anything else."""
ABORT_AFTER: Final = 5.0
"""Seconds after which a shutdown sets the abort signals, or half of its time if that is less, as
graphile-worker's gracefulShutdownAbortTimeout: handlers that listen have the rest to finish."""
CANCEL_GRACE: Final = 1.0
"""Seconds a cancelled handler has to clean up before its job is given back without it."""
CANCEL_AGAIN: Final = 5.0
"""Seconds after its timeout, and between two tries, until a handler that goes on is cancelled again:
before Python 3.12, `asyncio.wait_for` may swallow a cancellation."""


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
        self._meters = pool.events.meters
        self._context = contextvars.copy_context()
        self._slots: dict[asyncio.Task[None], Claimed | None] = {}
        """Slot -> the job that it runs, or ran last."""
        self._running: dict[int, Claimed] = {}
        """Job id -> the claim whose run may still say what becomes of the job."""
        self._aborts: set[Abort] = set()
        self._is_cancelling = False
        """Of runs that have a timeout."""
        self._turn_ends = 0.0
        self._is_turn_ending = False
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
        self._slots[slot] = None
        slot.add_done_callback(self._slot_ended)

    def _slot_ended(self, slot: asyncio.Task[None]) -> None:
        self._slots.pop(slot, None)
        if not slot.cancelled() and (error := slot.exception()):
            logger.critical("A slot of the worker crashed; starting another", exc_info=error)
        if not self._buffer.closed:
            self._start_slot()

    def jobs(self) -> list[Claimed]:
        """The jobs that run; may be called by any thread."""
        return [*self._running.values()]

    async def drain(self, hurry: asyncio.Event) -> bool:
        """Wait for the running jobs; once `hurry` is set cancel them and give them back.

        The buffer must be closed.

        Returns:
            Whether no job had to be given back.
        """
        self._told_at = monotonic()
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
            await asyncio.wait([*self._slots], timeout=CANCEL_GRACE)
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

    def abandon(self) -> None:
        """Forget what runs, and cancel it: the pool has lost its jobs.

        A thread cannot be cancelled: it is told by its abort signal, and keeps its slot until it ends.
        """
        lost, self._running = self._running, {}
        for job in lost.values():
            self._settler.report_lost(job)
        self._ask_to_abort()
        self._pool.abort, self._pool.abort_threads = asyncio.Event(), threading.Event()
        for slot, ran in [*self._slots.items()]:
            if ran is not None and lost.get(ran.id) is ran and self._task(ran).is_async:
                slot.cancel()

    def is_called_by_handler(self) -> bool:
        """Whether the current task runs a job."""
        return asyncio.current_task() in self._slots

    def _task(self, job: Claimed) -> RunnableTask:
        return self._pool.tasks[self._pool.identifiers[job.task_id]]

    def _ask_to_abort(self) -> None:
        for abort in (self._pool.abort, self._pool.abort_threads, *self._aborts):
            abort.set()

    async def _slot(self) -> None:
        slot = asyncio.current_task()
        assert slot is not None  # noqa: S101 - we are in a task
        clean = contextvars.copy_context()
        while (job := await self._buffer.take()) is not None:
            if older := self._running.get(job.id):  # it was swept, and claimed by us again
                self._settler.report_lost(older)
            self._running[job.id] = self._slots[slot] = job
            started = monotonic()
            try:
                if started > self._pool.vigil.fence:  # it may be another's by now
                    self._settler.give_back([job])
                else:
                    await self._execute(job, started)
            finally:
                self._release(job)
                self._limits.release(job)
                now = monotonic()
                self._buffer.done(now - started)
            if slot.cancelling() or contextvars.copy_context() != clean:
                return  # a fresh slot: what one job did to its task must not reach the next
            if now > self._turn_ends:
                self._end_turn()
                await asyncio.sleep(0)

    def _end_turn(self) -> None:
        if not self._is_turn_ending:
            self._is_turn_ending = True
            asyncio.get_running_loop().call_soon(self._begin_turn)

    def _begin_turn(self) -> None:
        self._is_turn_ending = False
        self._turn_ends = monotonic() + LONGEST_TURN

    def _release(self, job: Claimed) -> bool:
        """Whether this run still says what becomes of its job; it does so once."""
        if self._running.get(job.id) is not job:
            return False
        del self._running[job.id]
        return True

    async def _execute(self, job: Claimed, started: float) -> None:
        task = self._task(job)
        self._pool.emit_job("job:start", job)
        for meter in self._meters:
            meter.started(task.identifier, job.run_at, started)
        try:
            raw = read_payload(task.identifier, job.payload)
            if self._throttle is not None and self._throttle.wraps(task.identifier):
                full = self._pool.job(job, raw)
                helpers = self._make_helpers(full, self._pool.abort)  # a limiter is async
                await self._throttle.run(raw, full, helpers, partial(self._run, task, job))
            else:
                await self._run(task, job, raw)
        except RescheduledError:
            self._release(job)
        except BaseException as error:  # SystemExit ends a job, never the worker
            if isinstance(error, GeneratorExit) and not _has_loop():
                raise  # this coroutine is thrown away: nothing can be awaited any more
            self._ended_by(error, job, task)
        else:
            if self._release(job):
                self._settler.complete(job, monotonic() - started)
                self._pool.emit_job("job:success", job)
        for meter in self._meters:
            meter.ended(task.identifier, monotonic() - started)

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
        if not task.is_async:
            await _finish(await self._threads.submit(task.handler, *arguments))
        elif (result := await task.handler(*arguments)) is not None:
            await _finish((result, None))

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
                    with _cancelled_again(seconds + CANCEL_AGAIN):
                        await _finish((await task.handler(*arguments), None))
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
        started = monotonic()
        await asyncio.wait([thread])
        logger.warning(
            "The handler of job %d ended %.1f s after its timeout; its result changed nothing",
            job.id,
            monotonic() - started,
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
        full = self._pool.job_of(job)
        delete_last = (
            self._pool.delete_failed_jobs and not task.keep_failed and _is_valid(task, job)
        )
        broken: BaseException | None = None
        try:
            failure = failure_of(full, error, retry=task.options.retry, delete_last=delete_last)
        except BaseException as policys:  # noqa: BLE001 - the failure must be written all the same
            broken = policys
            failure = plain_failure(full, error, delete_last=delete_last)
        # First of all: what is logged and told may be the application's, and raise.
        self._settler.fail(job, failure)
        if broken is not None:
            logger.error(
                "The retry policy of %s gave no delay; graphile-worker's is used",
                task.identifier,
                exc_info=broken,
            )
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
        self._pool.emit("job:error", job=full, error=error)
        if failure.is_last:
            self._pool.emit("job:failed", job=full, error=error)

    def _give_back(self, job: Claimed) -> None:
        self._is_clean = False
        seconds = monotonic() - self._told_at
        task = self._task(job)
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


@contextmanager
def _cancelled_again(seconds: float) -> Iterator[None]:
    """Cancel the current task in `seconds`, and then every `CANCEL_AGAIN`, until the block ends."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None  # noqa: S101 - we are in one
    timer: asyncio.TimerHandle

    def cancel() -> None:
        nonlocal timer
        task.cancel()
        timer = loop.call_later(CANCEL_AGAIN, cancel)

    timer = loop.call_later(seconds, cancel)
    try:
        yield
    finally:
        timer.cancel()


async def _finish(outcome: Outcome) -> None:
    """Raise what a handler raised; await what it returned: JavaScript's handlers return promises.

    Raises:
        TypeError: it returned a generator, of whose body nothing has run.
    """
    result, error = outcome
    if error is not None:
        raise error
    if result is None:
        return
    if inspect.isawaitable(result):
        await result
    elif inspect.isgenerator(result) or inspect.isasyncgen(result):
        raise TypeError("the handler returned a generator, so nothing of its body has run")


def _has_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _is_valid(task: RunnableTask, job: Claimed) -> bool:
    """Whether the payload reaches the handler: a failure before that is never deleted (P-44)."""
    try:
        task.decode(read_payload(task.identifier, job.payload))
    except Exception:  # noqa: BLE001 - whatever kept the payload from its handler
        return False
    return True
