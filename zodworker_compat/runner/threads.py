"""The threads that run sync handlers."""

import asyncio
import contextvars
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeAlias

Outcome: TypeAlias = tuple[Any, BaseException | None]
"""What a call returned and raised. As a value: a future refuses StopIteration, and tears SystemExit
out of its loop."""
_Work: TypeAlias = tuple[Callable[[], Any], "asyncio.Future[Outcome]"]


class Threads:
    """Daemon threads, started as they are needed, at most `size`.

    Not a ThreadPoolExecutor: the interpreter joins its threads at exit, so one handler that hangs
    would keep a worker alive for ever after its shutdown deadline.
    """

    def __init__(self, size: int, name: str) -> None:
        self._size = size
        self._name = name
        self._work: SimpleQueue[_Work | None] = SimpleQueue()
        self._started = 0
        self._busy = 0

    def submit(self, function: Callable[..., Any], *arguments: Any) -> "asyncio.Future[Outcome]":
        """Call `function` in a thread, with a copy of the caller's context variables.

        Cancelling the future stops nothing: the function goes on and its outcome is dropped.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Outcome] = loop.create_future()
        context = contextvars.copy_context()
        self._busy += 1
        if self._busy > self._started < self._size:
            self._started += 1
            name = f"{self._name}-{self._started}"
            Thread(target=self._serve, args=(loop,), name=name, daemon=True).start()
        self._work.put((lambda: context.run(function, *arguments), future))
        return future

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        while (work := self._work.get()) is not None:
            function, future = work
            result, error = None, None
            try:
                result = function()
            except BaseException as raised:  # noqa: BLE001 - SystemExit too ends the job, not the thread
                error = raised
            try:
                loop.call_soon_threadsafe(self._resolve, future, result, error)
            except RuntimeError:  # the loop was closed while the handler ran
                return
            del work, function, future, result, error

    def _resolve(
        self, future: "asyncio.Future[Outcome]", result: Any, error: BaseException | None
    ) -> None:
        self._busy -= 1  # now, not when the future is cancelled: the thread went on until here
        if not future.done():
            future.set_result((result, error))

    def stop(self) -> None:
        """Let idle threads end; one that is busy ends after its handler."""
        for _ in range(self._started):
            self._work.put(None)
