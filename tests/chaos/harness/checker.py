"""Judges a ledger: was a job lost, stuck, run beside another of its queue, or repeated for no reason? Pure."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import groupby, pairwise
from operator import attrgetter

from attrs import Factory, frozen
from harness.ledger import Ledger, Run

UNWRITTEN = 5 * 10**9
"""Nanoseconds: how long before a fault a run may have ended whose result was not written yet."""


@frozen(kw_only=True)
class Verdict:
    """What a ledger shows."""

    problems: list[str]
    jobs: int = 0
    """Committed ones."""
    runs: int = 0
    repeated: Counter[str] = Factory(Counter)
    """Fault -> runs that were repeated although they succeeded, or may have."""
    overlapped: Counter[str] = Factory(Counter)
    """Fault -> runs that were still going on when the next of the job, or of its queue, began."""


def check(ledger: Ledger) -> Verdict:
    """Return what is wrong in a ledger, and count what at-least-once allows."""
    repeated: Counter[str] = Counter()
    overlapped: Counter[str] = Counter()
    problems = [
        *_lost(ledger),
        *_ghosts(ledger),
        *_unended(ledger),
        *_repeated(ledger, repeated),
        *_overlapped(ledger, overlapped),
        *(f"stuck: {row}" for row in ledger.left if not _is_failed(row)),
    ]
    return Verdict(
        problems=problems,
        jobs=len(ledger.committed),
        runs=len(ledger.runs),
        repeated=repeated,
        overlapped=overlapped,
    )


def _is_failed(row: dict[str, object]) -> bool:
    """Whether a row is that of a job which failed for good, and says why."""
    return bool(
        row.get("last_error")
        and row.get("locked_by") is None
        and "attempts" in row
        and row["attempts"] == row["max_attempts"]
    )


def _lost(ledger: Ledger) -> Iterator[str]:
    succeeded = {run.token for run in ledger.runs if run.outcome == "ok"}
    for token in sorted(ledger.committed - succeeded):
        outcomes = [run.outcome for run in ledger.attempts().get(token, [])]
        yield f"lost: {token} was committed, and never ran to its end (runs: {outcomes})"


def _ghosts(ledger: Ledger) -> Iterator[str]:
    for token in sorted({run.token for run in ledger.runs}):
        if token in ledger.rolled_back:
            yield f"ghost: {token} was rolled back, and ran"
        elif token not in ledger.intended:
            yield f"ghost: {token} ran, and nobody enqueued it"


def _unended(ledger: Ledger) -> Iterator[str]:
    for run in ledger.runs:
        if run.end is None and run.process not in ledger.deaths:
            yield f"hung: {run} never ended, and its process was not killed"


def _repeated(ledger: Ledger, counts: Counter[str]) -> Iterator[str]:
    """A run that failed, or was cancelled to be given back, has a next one; others need an excuse."""
    for runs in ledger.attempts().values():
        for run, following in pairwise(runs):
            if run.outcome in {"raised", "cancelled"}:
                continue
            if fault := _excuse(ledger, run):
                counts[fault] += 1
            else:
                yield f"repeated: {run} was followed by {following}"


def _overlapped(ledger: Ledger, counts: Counter[str]) -> Iterator[str]:
    by_token = attrgetter("token")
    queued = [run for run in ledger.runs if run.queue is not None]
    by_queue = attrgetter("queue")
    for runs, key in ((ledger.runs, by_token), (queued, by_queue)):
        for _, group in groupby(sorted(runs, key=key), key):
            for run, following in _overlaps(ledger, group):
                if fault := _excuse(ledger, run, overlap=True):
                    counts[fault] += key is by_token or run.token != following.token
                else:
                    yield f"overlapped: {following} began before {run} ended"


def _overlaps(ledger: Ledger, runs: Iterable[Run]) -> Iterator[tuple[Run, Run]]:
    """Yield each pair (a run, one that began before it ended)."""
    going_on: list[Run] = []
    for run in sorted(runs, key=attrgetter("start")):
        going_on = [other for other in going_on if _end(ledger, other) > run.start]
        yield from ((other, run) for other in going_on)
        going_on.append(run)


def _end(ledger: Ledger, run: Run) -> float:
    """Return when a run ended: with its process at the latest."""
    return run.end if run.end is not None else ledger.deaths.get(run.process, math.inf)


def _excuse(ledger: Ledger, run: Run, *, overlap: bool = False) -> str | None:
    """Return the fault that a run was touched by, before its result was surely written."""
    for excuse in ledger.excuses:
        is_touched = run.start <= excuse.until and _end(ledger, run) + UNWRITTEN >= excuse.since
        if is_touched and excuse.process in {None, run.process} and excuse.overlap >= overlap:
            return excuse.fault
    return None
