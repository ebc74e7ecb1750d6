"""SIGTERM, SIGINT and SIGHUP for every worker of a process: stop, hurry, and at last end the process.

| when | what happens | exit status |
| --- | --- | --- |
| first signal | every worker stops claiming and waits for its running jobs (P-59) | 0 |
| again within `QUIET` (5 s) | nothing: supervisors and terminals signal twice | |
| again after that | running handlers are cancelled, their jobs given back at once | 0 |
| again 5 s later | the process ends as if nobody handled the signal | 143, 130, 129 |
| after `shutdown_timeout` | as the second one; a timeout of 0 waits for ever (P-58) | 0 |
| `EXIT_GRACE` (12 s) later | the process is ended, whatever hangs | 0; 1 if a worker still stops |

SIGHUP, which a terminal sends when it closes, is graphile-worker's; under `nohup` it is ignored.
The first and the two about the timeout are ZodWorker's, which exits with 0 at the timeout and
leaves its jobs locked; the others are graphile-worker 0.16.6's, which has no timeout and ends by
the signal (143). The last holds for an event loop that a handler blocks, and for a handler that
was cancelled and goes on: `asyncio.run` would wait for it. It is called off when all workers have
stopped without giving a running job back. `ZodWorker.stop()` without a signal never ends the
process. A supervisor should wait `shutdown_timeout` and 15 s before it kills.
"""

import asyncio
import logging
import os
import signal
from collections.abc import Callable
from queue import Empty, SimpleQueue
from threading import Thread
from time import monotonic
from types import FrameType
from typing import Any, Final, Protocol, TypeAlias

from attrs import frozen

logger = logging.getLogger(__name__)

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
QUIET = 5.0
"""Seconds after a signal that counts in which others do not."""
EXIT_GRACE = 12.0
"""Seconds in which cancelled handlers must end and their jobs be given back: 1 and 10, and 1."""


OnSignal: TypeAlias = Callable[[signal.Signals], None]


class Forget(Protocol):
    """Ends a subscription; told whether all jobs that ran have ended by themselves."""

    def __call__(self, clean: bool = True, /) -> None:
        """End it."""


@frozen
class _Listener:
    begin: OnSignal
    hasten: OnSignal
    seconds: float


def listen(begin: OnSignal, hasten: OnSignal | None = None, *, seconds: float = 0.0) -> Forget:
    """Listen to SIGTERM, SIGINT and SIGHUP until the returned function is called.

    Outside the main thread Python cannot handle signals: then nothing is installed, and whoever
    runs the loop stops the workers.

    Args:
        begin: called with the first signal; stops gracefully, and returns at once.
        hasten: called with the second that counts; gives running jobs back.
        seconds: how long a graceful stop may take; 0 is for ever.
    """
    global _group  # noqa: PLW0603 - signal handlers belong to the process
    loop = asyncio.get_running_loop()
    if _group is None or _group.loop is not loop:
        group = _Group(loop)
        try:
            group.install()
        except (ValueError, RuntimeError):
            logger.debug("signals are not handled outside the main thread")
            return lambda _clean=True, /: None
        _group = group
    return _group.add(_Listener(begin, hasten or (lambda _number: None), seconds))


class _Group:
    """The workers of one event loop, and how far their shutdown is."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._listeners: list[_Listener] = []
        self._previous: dict[signal.Signals, Any] = {}
        self._exit = _Exit(lambda: not self._listeners)
        self._step = 0
        self._quiet_until = 0.0
        self._clean = True

    def install(self) -> None:
        for number in SIGNALS:
            previous = signal.getsignal(number)
            if number == signal.SIGHUP and previous == signal.SIG_IGN:
                continue  # nohup
            self.loop.add_signal_handler(number, lambda: None)  # so that signals wake the loop
            signal.signal(number, self._received)
            self._previous[number] = previous

    def add(self, listener: _Listener) -> Forget:
        self._listeners.append(listener)
        if self._step:  # it was starting when the others were told
            self.loop.call_soon(listener.begin, SIGNALS[0])

        def forget(clean: bool = True, /) -> None:
            if listener in self._listeners:
                self._clean = self._clean and clean
                self._listeners.remove(listener)
                if not self._listeners:
                    self._uninstall()

        return forget

    def _uninstall(self) -> None:
        global _group  # noqa: PLW0603 - as in listen
        if _group is self:
            _group = None
        for number, previous in self._previous.items():
            if not self.loop.is_closed():
                self.loop.remove_signal_handler(number)
            signal.signal(number, previous)
        if self._clean or not self._step:
            self._exit.cancel()

    def _received(self, number: int, _frame: FrameType | None) -> None:
        """Count the signal. Runs between any two instructions, even if the loop is blocked.

        So it takes no lock: it does not log, and starts no thread.
        """
        if monotonic() < self._quiet_until:
            self._tell(self._ignored, number)
            return
        self._step += 1
        self._quiet_until = monotonic() + QUIET
        if self._step == 1:
            limits = [listener.seconds for listener in self._listeners]
            if limits and all(limits):
                self._exit.after(max(limits, default=0) + EXIT_GRACE)
            self._tell(self._each, "begin", number)
        elif self._step == 2:  # noqa: PLR2004 - the second that counts
            self._exit.after(EXIT_GRACE)
            self._tell(self._each, "hasten", number)
        else:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    def _tell(self, function: Callable[..., None], *arguments: Any) -> None:
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(function, *arguments)

    def _each(self, what: str, number: int) -> None:
        for listener in list(self._listeners):
            getattr(listener, what)(signal.Signals(number))

    @staticmethod
    def _ignored(number: int) -> None:
        name = signal.Signals(number).name
        logger.info("%s again: shutting down already; send it later to end running jobs", name)


class _Exit:
    """A thread that ends the process when its time has come; it needs no event loop."""

    def __init__(self, all_stopped: Callable[[], bool]) -> None:
        self._all_stopped = all_stopped
        self._orders: SimpleQueue[float | None] = SimpleQueue()  # put() is safe in a signal handler
        Thread(target=self._wait, name="zodworker-exit", daemon=True).start()

    def after(self, seconds: float) -> None:
        """End the process in `seconds`, if that is earlier than it was to be."""
        self._orders.put(monotonic() + seconds)

    def cancel(self) -> None:
        """Never end it."""
        self._orders.put(None)

    def _wait(self) -> None:
        deadline = self._orders.get()
        while deadline is not None:
            try:
                order = self._orders.get(timeout=max(0.0, deadline - monotonic()))
            except Empty:
                self._end()
            else:
                deadline = None if order is None else min(order, deadline)

    def _end(self) -> None:
        status = 0 if self._all_stopped() else 1
        # In a thread, because what hangs may hold a lock of the log.
        last_words = Thread(target=self._explain, args=(status,), daemon=True)
        last_words.start()
        last_words.join(1)
        os._exit(status)

    @staticmethod
    def _explain(status: int) -> None:
        logger.critical(
            "The process did not end after its shutdown timeout: something blocks the event loop, "
            "or ignores its cancellation. Ending it now; %s",
            "its jobs are not locked any more"
            if status == 0
            else "jobs that ran stay locked until they are recovered",
        )


_group: _Group | None = None
