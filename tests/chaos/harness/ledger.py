"""What was enqueued and what ran, in files that no fault of the database reaches.

Each process appends to a file of its own, one JSON object per line and one `write` per line, so that
a killed process leaves whole lines. Times are nanoseconds of the machine's monotonic clock, which all
processes share, those in other network namespaces or under libfaketime too.
"""

import asyncio
import itertools
import json
import os
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attrs import Factory, define, frozen


def now() -> int:
    """Return the machine's monotonic time in nanoseconds."""
    return time.monotonic_ns()


@frozen(kw_only=True)
class Run:
    """One run of a job."""

    token: str
    """Of the job: what its enqueuer calls it."""
    process: str
    start: int
    end: int | None = None
    outcome: str | None = None
    """`ok`, `raised`, `cancelled`; None if it never ended."""
    queue: str | None = None


@frozen(kw_only=True)
class Excuse:
    """Why jobs may run again: something kept results from being written, or locks from being kept."""

    fault: str
    process: str | None
    """Whose runs it excuses; None is everybody's."""
    since: int
    until: int
    overlap: bool = False
    """Whether the next run may begin before the excused one has ended."""


@define(kw_only=True)
class Ledger:
    """All that is known about one round."""

    intended: set[str] = Factory(set)
    """Tokens that an enqueuer began to enqueue."""
    committed: set[str] = Factory(set)
    rolled_back: set[str] = Factory(set)
    runs: list[Run] = Factory(list)
    deaths: dict[str, int] = Factory(dict)
    """Process -> when it was seen dead, after a SIGKILL."""
    excuses: list[Excuse] = Factory(list)
    left: list[dict[str, Any]] = Factory(list)
    """Rows of jobs and of locked queues that were in the database at the end."""

    def read(self, folder: Path) -> None:
        """Add what all processes have written into `folder`."""
        open_runs: dict[tuple[str, int], dict[str, Any]] = {}
        for file in sorted(folder.glob("*.ledger")):
            for line in file.read_text().splitlines():
                entry = json.loads(line)
                kind = entry.pop("kind")
                if kind == "start":
                    number = entry.pop("run")
                    open_runs[file.stem, number] = {**entry, "process": file.stem}
                elif kind == "end":
                    number = entry.pop("run")
                    self.runs.append(Run(**open_runs.pop((file.stem, number)), **entry))
                else:
                    getattr(self, kind).update(entry["tokens"])
        self.runs += [Run(**fields) for fields in open_runs.values()]

    def attempts(self) -> dict[str, list[Run]]:
        """Return the runs of each token, in the order of their start."""
        found: dict[str, list[Run]] = defaultdict(list)
        for run in sorted(self.runs, key=lambda run: run.start):
            found[run.token].append(run)
        return found


class Writer:
    """Appends to the file of one process."""

    def __init__(self, folder: Path, process: str) -> None:
        path = folder / f"{process}.ledger"
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._numbers = itertools.count()

    def write(self, kind: str, **fields: Any) -> None:
        """Append a line."""
        os.write(self._file, json.dumps({"kind": kind, **fields}).encode() + b"\n")

    @contextmanager
    def run(self, token: str, queue: str | None) -> Iterator[None]:
        """Write when the block starts and how it ends."""
        number = next(self._numbers)
        self.write("start", run=number, token=token, queue=queue, start=now())
        outcome = "ok"
        try:
            yield
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        except BaseException:
            outcome = "raised"
            raise
        finally:
            self.write("end", run=number, outcome=outcome, end=now())
