"""What the Python adapters share: their roles, and how they tell the harness what they do.

``python -m benchmarks.adapters.NAME install|work|enqueue URL SETTINGS``
"""

import asyncio
import json
import os
import random
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

TELL_EVERY = 0.005
"""Seconds; the count is told at most this much late, and costs nothing while nothing runs."""

Payload = dict[str, Any]


def payload(number: int) -> Payload:
    """The three fields of a trivial job; the harness fills tables with the same."""
    return {"id": f"job_{number}", "n": number, "urgent": False}


def say(**message: Any) -> None:
    """Print one line of JSON."""
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


class Tally:
    """Counts jobs as their handlers run, and tells the harness."""

    def __init__(self) -> None:
        self._count = 0
        self._started: list[tuple[int, int]] = []
        self._is_due = False
        self._loop = asyncio.get_running_loop()

    def add(self, jobs: int = 1) -> None:
        """Count jobs."""
        self._count += jobs
        if not self._is_due:
            self._is_due = True
            self._loop.call_later(TELL_EVERY, self._tell)

    def probe(self, number: int) -> None:
        """Note when the handler of a probe started."""
        self._started.append((number, time.monotonic_ns()))
        self.add()

    def _tell(self) -> None:
        self._is_due = False
        started, self._started = self._started, []
        say(count=self._count, started=started)


class Handlers:
    """What the jobs of each task do, in every system alike."""

    def __init__(self) -> None:
        self._tally = Tally()
        self.count = self._tally.add

    async def trivial(self, _payload: Any) -> None:
        """Do nothing."""
        self._tally.add()

    async def wait(self, _payload: Any) -> None:
        """Wait for a millisecond, as for another service."""
        await asyncio.sleep(0.001)
        self._tally.add()

    async def flaky(self, given: Payload) -> None:
        """Fail for one job in ten."""
        self._tally.add()
        if given["n"] % 10 == 0:
            raise ValueError("one job in ten fails")

    async def probe(self, given: Payload) -> None:
        """Note the time."""
        self._tally.probe(given["n"])


class Enqueuer(Protocol):
    """How a system adds jobs."""

    shared: bool
    """Whether concurrent callers may use one enqueuer."""

    async def one(self, task: str, given: Payload) -> None:
        """Add a job and wait for its commit."""

    async def bulk(self, task: str, given: list[Payload]) -> None:
        """Add many jobs in the fastest documented way."""


async def one_by_one(enqueuer: Enqueuer, jobs: int) -> None:
    for number in range(jobs):
        await enqueuer.one("trivial", payload(number))


async def probe(enqueuer: Enqueuer, jobs: int) -> list[tuple[int, int, int]]:
    """Add probes one after another; returns their numbers, and when each call began and ended."""
    sent = []
    for number in range(jobs):
        begin = time.monotonic_ns()
        await enqueuer.one("probe", payload(number))
        sent.append((number, begin, time.monotonic_ns()))
        await asyncio.sleep(random.uniform(0.008, 0.012))  # noqa: S311 - not in step with any timer
    return sent


async def serve(connect: Callable[[], Awaitable[Enqueuer]]) -> None:
    """Answer the harness's questions until standard input is closed."""
    loop = asyncio.get_running_loop()
    callers = [await connect()]
    say(ready=True)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        question = json.loads(line)
        kind, jobs, wanted = question["do"], question["jobs"], question.get("callers", 1)
        if kind == "probe":
            say(sent=await probe(callers[0], jobs))
            continue
        while len(callers) < wanted:
            callers.append(callers[0] if callers[0].shared else await connect())
        given = [payload(number) for number in range(jobs)]
        begin = time.perf_counter()
        if kind == "bulk":
            await callers[0].bulk("trivial", given)
        else:
            await asyncio.gather(*(one_by_one(one, jobs // wanted) for one in callers[:wanted]))
        say(seconds=time.perf_counter() - begin)


def end_with_harness() -> None:
    """End this process when the harness closes standard input, however it ended."""

    def watch() -> None:
        sys.stdin.read()
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


def main(
    install: Callable[[str, dict[str, Any]], Awaitable[None]],
    work: Callable[[str, dict[str, Any], Handlers], Awaitable[None]],
    connect: Callable[[str, dict[str, Any]], Awaitable[Enqueuer]],
    run: Callable[[Any], Any] = asyncio.run,
) -> None:
    """Play the role that the arguments name; `run` is asyncio's or uvloop's."""
    role, url, settings = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])

    async def play() -> None:
        if role == "install":
            await install(url, settings)
        elif role == "work":
            end_with_harness()
            await work(url, settings, Handlers())
        else:
            await serve(lambda: connect(url, settings))

    run(play())
