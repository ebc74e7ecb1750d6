"""The processes that are measured: what they say, and what they cost."""

import json
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from attrs import frozen

PATIENCE = 60.0
"""Seconds until something that should happen is an error."""


class BenchmarkError(Exception):
    """A system did not do what was measured; the message says what it did instead."""


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition, looking each millisecond.

    Raises:
        BenchmarkError: it did not come.
    """
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise BenchmarkError(f"waited {PATIENCE:g} s in vain until {what}")
        time.sleep(0.001)


@frozen
class Usage:
    """What a process has used so far."""

    cpu: float
    """Seconds, user and system."""
    rss: float
    """MB, with what it shares with others."""
    pss: float
    """MB, with its part of what it shares."""


class Process:
    """An adapter or a worker's own command; its lines are read as they come. Killed at the end."""

    def __init__(self, command: Sequence[str], environ: dict[str, str], folder: Path) -> None:
        self.count = 0
        """Jobs whose handler has run."""
        self.started: list[tuple[int, int]] = []
        """(number, monotonic ns) of the probes whose handler has started."""
        self.lines: list[str] = []
        """What is not JSON."""
        self._answers: list[dict[str, Any]] = []
        self._changed = threading.Condition()
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed in __exit__
        self.begin = time.monotonic_ns()
        self._popen = subprocess.Popen(
            command,
            env=environ,
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self._popen.stdout or ():
            with self._changed:
                self._take(line)
                self._changed.notify_all()
        self._popen.wait()
        with self._changed:
            self._changed.notify_all()

    def _take(self, line: str) -> None:
        try:
            message = json.loads(line)
        except ValueError:
            message = None
        if not isinstance(message, dict):
            self.lines.append(line.strip())
        elif "count" in message:
            self.count = message["count"]
            self.started += [(number, at) for number, at in message["started"]]
        else:
            self._answers.append(message)

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until a condition on what this process said is true.

        Raises:
            BenchmarkError: the process has ended, or the condition did not come.
        """
        with self._changed:
            self._changed.wait_for(lambda: condition() or self._has_ended(), PATIENCE)
            if not condition():
                raise BenchmarkError(f"{what}: {self._last_words()}")

    def _has_ended(self) -> bool:
        return self._popen.poll() is not None

    def _last_words(self) -> str:
        self._errors.seek(0)
        text = self._errors.read()[-2000:].strip()
        return f"exit status {self._popen.poll()}, last words: {text or self.lines[-10:]}"

    def answer(self, what: str) -> dict[str, Any]:
        """Return the next message that is not a count."""
        self.wait_for(lambda: bool(self._answers), what)
        return self._answers.pop(0)

    def ask(self, **question: Any) -> dict[str, Any]:
        """Ask an enqueuer and wait for its answer."""
        stdin = self._popen.stdin
        assert stdin is not None  # noqa: S101 - it is a pipe
        stdin.write(json.dumps(question) + "\n")
        stdin.flush()
        return self.answer(f"no answer to {question}")

    def usage(self) -> Usage:
        """Return what it has used, threads and all, to the nanosecond."""
        proc = Path("/proc", str(self._popen.pid))
        cpu = sum(cpu_seconds(task) for task in (proc / "task").iterdir())
        sizes = dict(
            line.split(":", 1) for line in (proc / "smaps_rollup").read_text().splitlines()[1:]
        )
        rss, pss = (int(sizes[name].split()[0]) / 1024 for name in ("Rss", "Pss"))
        return Usage(cpu, rss, pss)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._popen.kill()
        self._popen.wait()
        self._reader.join()
        for file in (self._popen.stdin, self._popen.stdout, self._errors):
            with suppress(BrokenPipeError):
                if file is not None:
                    file.close()


def cpu_seconds(proc: Path) -> float:
    """Return the CPU time of a thread (or of a process of one thread) from its /proc folder."""
    try:
        return int((proc / "schedstat").read_text().split()[0]) / 1e9
    except (FileNotFoundError, ProcessLookupError):  # it has ended
        return 0.0
