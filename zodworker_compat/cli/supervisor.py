"""`zodworker run --processes N`: starts processes, restarts what dies, passes signals on.

The supervisor imports nothing of the user's: it starts its own command line once more for each
process, and those are ordinary `zodworker run`s. The first one starts alone; when its workers run,
the others follow. So what cannot start says so once.

| a process | the supervisor |
| --- | --- |
| ends before any was ready | gives up with its exit status, as that process alone would have |
| cannot reach PostgreSQL at its start (75) | starts another one, however often it takes |
| ends later, in whatever way | starts another one in 1 s; in 2, 4, … 30 s if it ends soon again |
| is stopped by a breaking migration (57) | stops the others, and ends with 57 |
| ends with `--once` | leaves it at that |

SIGTERM, SIGINT and SIGHUP are passed on as SIGTERM each time they come; what a second and a third do,
each process decides (`zodworker_compat.signals`). Each has a process group of its own, so that
Ctrl-C reaches it through the supervisor alone: Python that is just starting answers SIGINT with a
traceback.

A socket pair joins each process to its supervisor. One byte says that its workers run. Its end says
that the supervisor is gone, killed perhaps: then the process stops as by SIGTERM.
"""

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Sequence
from contextlib import closing, suppress
from threading import Thread
from time import monotonic
from typing import Final

from zodworker_compat.cli.base import FAILED
from zodworker_compat.cli.run import BREAKING_MIGRATION, DATABASE_AWAY

logger = logging.getLogger(__name__)

LINE: Final = "ZODWORKER_SUPERVISOR"
"""The environment variable that tells a process which file descriptor leads to its supervisor."""
SOON: Final = 60.0
"""Seconds. A process that ends before has died soon."""
LONGEST_DELAY: Final = 30
THIRD: Final = 3
"""The signal that ends workers at once, see `zodworker_compat.signals`."""
MANY: Final = 3
"""Processes that died soon, one after the other, are worth an error."""


def supervise(commands: Sequence[Sequence[str]], *, once: bool) -> int:
    """Run a process for each command until a signal or, with `once`, until they have ended.

    Returns:
        The exit status: 0 if all ended cleanly, 57 if a breaking migration stopped them, else the
        greatest of theirs; 128 and the number of the signal for one that was killed.
    """
    return asyncio.run(_Supervisor(commands, once=once).run())


def delay(soon: int) -> int:
    """Return the seconds to wait after so many processes in a row that died soon."""
    return min(1 << max(0, soon - 1), LONGEST_DELAY)


class _Supervisor:
    def __init__(self, commands: Sequence[Sequence[str]], *, once: bool) -> None:
        self._commands = commands
        self._once = once
        self._live: set[asyncio.subprocess.Process] = set()
        self._has_begun = asyncio.Event()
        """The first process was ready, or is not waited for any more."""
        self._is_stopping = asyncio.Event()
        self._signals = 0
        """How many were passed on."""
        self._statuses: list[int] = []

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup does
                loop.add_signal_handler(number, self._stop, number)
        await asyncio.gather(*map(self._keep, range(len(self._commands))))
        if BREAKING_MIGRATION in self._statuses:
            return BREAKING_MIGRATION
        return max(self._statuses, default=0)

    def _stop(self, number: signal.Signals) -> None:
        self._is_stopping.set()
        self._has_begun.set()
        self._signals += 1
        logger.info("[supervisor] %s: stopping %d processes", number.name, len(self._live))
        for process in self._live:
            process.terminate()

    async def _keep(self, place: int) -> None:
        """Have a process run at this place of all, until it is not to be started again."""
        if place:
            await self._has_begun.wait()
        soon = 0
        while not self._is_stopping.is_set():
            started = monotonic()
            try:
                status, was_ready = await self._run(place)
            except OSError as error:  # no memory, no process, no file descriptor is free
                logger.error("[supervisor] no process could be started: %s", error)  # noqa: TRY400 - no traceback
                status, was_ready = FAILED, False
            if self._is_stopping.is_set():
                self._statuses.append(0 if self._is_clean(status, was_ready) else status)
                return
            if self._is_final(status):
                self._statuses.append(status)
                return
            soon = soon + 1 if monotonic() - started < SOON else 1
            seconds = delay(soon)
            if soon < MANY:
                logger.warning("[supervisor] starting another process in %d s", seconds)
            else:
                logger.error(
                    "[supervisor] %d processes in a row ended within %d s of their start, so the "
                    "next one starts in %d s: see above why they end",
                    *(soon, SOON, seconds),
                )
            with suppress(TimeoutError):
                await asyncio.wait_for(self._is_stopping.wait(), seconds)

    def _is_clean(self, status: int, was_ready: bool) -> bool:
        """Whether a process that was stopped left nothing behind.

        Its workers have not begun, or have stopped already and handle no signals any more: only the
        third SIGTERM ends workers that run.
        """
        is_early = status == 128 + signal.SIGTERM and self._signals < THIRD
        return status == 0 or not was_ready or is_early

    def _is_final(self, status: int) -> bool:
        """Whether no other process takes the place of one that ended so."""
        if status == BREAKING_MIGRATION:
            self._stop(signal.SIGTERM)
            return True
        if self._has_begun.is_set() or (self._once and status == 0):
            self._has_begun.set()
            return self._once
        if status == DATABASE_AWAY and not self._once:
            return False
        logger.error(
            "[supervisor] the first process ended before it was ready, so no others are started"
        )
        self._is_stopping.set()
        self._has_begun.set()
        return True

    async def _run(self, place: int) -> tuple[int, bool]:
        """Run a process to its end; return its exit status, and whether it was ever ready."""
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *self._commands[place],
                stdin=asyncio.subprocess.DEVNULL,
                env={**os.environ, LINE: str(theirs.fileno())},
                pass_fds=[theirs.fileno()],
                process_group=0,
            )
        self._live.add(process)
        if self._is_stopping.is_set():  # the signal came meanwhile
            process.terminate()
        logger.info("[supervisor] started process %d", process.pid)
        reader, writer = await asyncio.open_connection(sock=ours)
        with closing(writer):
            ready = asyncio.create_task(self._hear(reader))
            code = await process.wait()
            self._live.discard(process)
            try:
                was_ready = await asyncio.wait_for(ready, 1)
            except TimeoutError:  # a process of its own holds the line
                was_ready = False
        if code < 0:
            how = f"was ended by signal {-code} ({signal.strsignal(-code)})"
            code = 128 - code
        else:
            how = f"ended with exit status {code}"
        level = logging.WARNING if code and not self._is_stopping.is_set() else logging.INFO
        logger.log(level, "[supervisor] process %d %s", process.pid, how)
        return code, was_ready

    async def _hear(self, reader: asyncio.StreamReader) -> bool:
        is_ready = bool(await reader.read(1))
        if is_ready:
            self._has_begun.set()
        return is_ready


class Supervised:
    """The end of the line in a process that a supervisor has started."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        Thread(target=self._listen, name="zodworker-supervisor", daemon=True).start()

    @classmethod
    def join(cls) -> "Supervised | None":
        """Take up the line to the supervisor; None if nobody supervises this process."""
        descriptor = os.environ.pop(LINE, None)
        if descriptor is None:
            return None
        line = socket.socket(fileno=int(descriptor))
        line.set_inheritable(False)  # processes of handlers must not hold it
        return cls(line)

    def ready(self) -> None:
        """Tell the supervisor that the workers run."""
        with suppress(OSError):  # it is gone, which `_listen` deals with
            self._line.send(b".")

    def _listen(self) -> None:
        with suppress(OSError):
            self._line.recv(1)
        logger.warning("[supervisor] is gone: stopping")
        os.kill(os.getpid(), signal.SIGTERM)
