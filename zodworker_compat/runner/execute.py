"""Runs jobs: a fixed number of slots, each taking one job after the other."""

import asyncio
import contextvars
import inspect
import json
from collections.abc import Callable
from time import perf_counter
from typing import Any, Final

from zodworker_compat.database.queue import Claimed
from zodworker_compat.job import Job
from zodworker_compat.runner.buffer import Buffer
from zodworker_compat.runner.failure import error_text
from zodworker_compat.runner.pool import Pool, logger
from zodworker_compat.runner.settle import Settler
from zodworker_compat.runner.task import RunnableTask
from zodworker_compat.runner.threads import Threads

LONGEST_TURN: Final = 0.005
"""Seconds a slot may go from job to job without letting the event loop do anything else."""
CANCEL_GRACE: Final = 1.0
"""Seconds a cancelled handler has to clean up before its job is given back without it."""


class Executor:
    """`concurrency` slots. A slot is one asyncio task for many jobs: a task each costs 6 µs."""

    def __init__(
        self,
        pool: Pool,
        buffer: Buffer,
        settler: Settler,
        make_helpers: Callable[[Job, bool], Any],
    ) -> None:
        self._pool = pool
        self._buffer = buffer
        self._settler = settler
        self._make_helpers = make_helpers
        self._threads = Threads(pool.options.concurrency, f"zodworker-{pool.name}")
        self._context = contextvars.copy_context()
        self._running: dict[asyncio.Task[None], Claimed | None] = {}
        self._abandoned = False

    def start(self) -> None:
        """Start the slots."""
        for _ in range(self._pool.options.concurrency):
            self._start_slot()

    def _start_slot(self) -> None:
        slot = asyncio.get_running_loop().create_task(
            self._slot(), name=f"zodworker:{self._pool.name}:slot", context=self._context.copy()
        )
        self._running[slot] = None
        slot.add_done_callback(self._slot_ended)

    def _slot_ended(self, slot: asyncio.Task[None]) -> None:
        del self._running[slot]
        if not slot.cancelled() and (error := slot.exception()):
            logger.critical("A slot of the worker crashed; starting another", exc_info=error)
        if not self._buffer.closed:
            self._start_slot()

    async def drain(self, seconds: float) -> None:
        """Wait for the running jobs; after `seconds` cancel them and give them back.

        The buffer must be closed.
        """
        if self._running:
            await asyncio.wait(self._running, timeout=seconds)
        self._pool.abort.set()
        self._pool.abort_threads.set()
        if self._running:
            for slot in self._running:
                slot.cancel()
            await asyncio.wait(self._running, timeout=CANCEL_GRACE)
        self._abandoned = True
        for job in filter(None, self._running.values()):
            logger.warning(
                "Job %d goes on although it was cancelled", job.id, extra=self._extra(job)
            )
            self._give_back(job)
        self._threads.stop()

    async def _slot(self) -> None:
        slot = asyncio.current_task()
        assert slot is not None  # noqa: S101 - we are in a task
        clean = contextvars.copy_context()
        turn = perf_counter()
        while (job := await self._buffer.take()) is not None:
            self._running[slot] = job
            started = perf_counter()
            try:
                await self._execute(job, started)
            finally:
                self._running[slot] = None
                now = perf_counter()
                self._buffer.done(now - started)
            if slot.cancelling() or contextvars.copy_context() != clean:
                return  # a fresh slot: what one job did to its task must not reach the next
            if now - turn > LONGEST_TURN:
                await asyncio.sleep(0)
                turn = perf_counter()

    async def _execute(self, job: Claimed, started: float) -> None:
        deletable = False
        try:
            task = self._pool.tasks[self._pool.identifiers[job.task_id]]
            raw = json.loads(job.payload)
            payload = task.decode(raw)
            deletable = self._pool.delete_failed_jobs and job.attempts >= job.max_attempts
            await self._call(task, job, raw, payload)
        except GeneratorExit:  # the loop is gone: nothing can be awaited any more
            raise
        except BaseException as error:  # noqa: BLE001 - SystemExit ends a job, never the worker
            self._ended_by(error, job, deletable=deletable)
        else:
            if not self._abandoned:
                self._settler.complete(job, perf_counter() - started)

    async def _call(self, task: RunnableTask, job: Claimed, raw: Any, payload: Any) -> None:
        arguments: tuple[Any, ...] = (payload,)
        if task.arity > 1:
            full = self._pool.job(job, raw)
            helpers = (self._make_helpers(full, task.is_async),) if task.arity > 2 else ()  # noqa: PLR2004
            arguments = (payload, full, *helpers)
        if task.is_async:
            await task.handler(*arguments)
            return
        result = await self._threads.run(task.handler, *arguments)
        if inspect.isawaitable(result):  # a sync wrapper around an async function
            await result

    def _ended_by(self, error: BaseException, job: Claimed, *, deletable: bool) -> None:
        if self._abandoned:
            return
        if isinstance(error, asyncio.CancelledError) and self._pool.abort.is_set():
            self._give_back(job)
            return
        logger.error(
            "Failed job %d (%s, attempt %d of %d): %s",
            job.id,
            self._pool.identifiers[job.task_id],
            job.attempts,
            job.max_attempts,
            type(error).__name__,
            exc_info=error,
            extra=self._extra(job),
        )
        settle = self._settler.delete_failed if deletable else self._settler.fail
        settle(job, error_text(error))

    def _give_back(self, job: Claimed) -> None:
        task = self._pool.tasks[self._pool.identifiers[job.task_id]]
        seconds = self._pool.shutdown_timeout.total_seconds()
        logger.warning(
            "Job %d (%s) was still running %g s after the worker was told to stop; given back%s",
            job.id,
            task.identifier,
            seconds,
            "" if task.is_async else ", although its thread cannot be cancelled and goes on",
            extra=self._extra(job),
        )
        self._settler.give_back(
            [job], f"Worker shutdown: still running {seconds:g} s after the worker was told to stop"
        )

    def _extra(self, job: Claimed) -> dict[str, object]:
        return {
            "job_id": job.id,
            "task_identifier": self._pool.identifiers[job.task_id],
            "attempt": job.attempts,
        }
