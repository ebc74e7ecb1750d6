"""Compares what a demo came to with what it should. Pure."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from attrs import frozen

from zodworker_compat.demo.outcome import WORKER_OF, Outcome


@frozen
class Check:
    """One line of the check list."""

    ok: bool
    text: str


def check(expected: Outcome, observed: Outcome) -> list[Check]:
    """Return every check, failed or not, in the order of the flow."""
    return [
        _equal("events read", expected.read, observed.read),
        _same_lines(expected.refused, observed.refused),
        _equal(
            "enqueues that replaced a waiting job of their key (debounced)",
            expected.debounced,
            observed.debounced,
        ),
        *(
            _equal(f"{identifier}:", expected.counts[identifier], observed.counts[identifier])
            for identifier in WORKER_OF
        ),
        _same_rows(
            "events", expected.events, observed.events, "delivered once, in their last version"
        ),
        _same_rows("runs", expected.runs, observed.runs, _statuses(expected.runs)),
        _same_rows("tasks", expected.tasks, observed.tasks, _statuses(expected.tasks)),
        _same_rows("e-mails", expected.outbox, observed.outbox, _sent(expected.outbox)),
        _same_rows(
            "jobs failed for good",
            expected.failed_jobs,
            observed.failed_jobs,
            "kept with their last_error",
        ),
        _flawless(
            "serial queue",
            "runs, {:,} of them beside another",
            (expected.serial, expected.overlaps),
            (observed.serial, observed.overlaps),
        ),
        _flawless(
            "delayed tasks",
            "completed, {:,} of them before their time",
            (expected.delayed, expected.early),
            (observed.delayed, observed.early),
        ),
        _equal("jobs left to do", expected.unfinished, observed.unfinished),
        _equal("jobs or queues left locked", expected.locks, observed.locks),
    ]


def _equal(what: str, expected: object, observed: object) -> Check:
    shown = f"{observed:,}" if isinstance(observed, int) else str(observed)
    text = f"{what} {shown}" if what.endswith(":") else f"{shown} {what}"
    if expected == observed:
        return Check(ok=True, text=text)
    return Check(ok=False, text=f"{text}; expected {expected}")


def _flawless(what: str, how: str, expected: tuple[int, int], observed: tuple[int, int]) -> Check:
    text = f"{what}: {observed[0]:,} {how.format(observed[1])}"
    if expected == observed:
        return Check(ok=True, text=text)
    return Check(ok=False, text=f"{text}; expected {expected[0]:,}, and {expected[1]:,}")


def _same_lines(expected: frozenset[int], observed: frozenset[int]) -> Check:
    text = f"{len(observed):,} refused at enqueue, nothing of them stored"
    if expected == observed:
        return Check(ok=True, text=text)
    lines = ", ".join(map(str, sorted(expected ^ observed)[:5]))
    return Check(ok=False, text=f"{text}; expected {len(expected):,}: see line {lines}")


def _same_rows(
    what: str, expected: Mapping[str, Any], observed: Mapping[str, Any], detail: str
) -> Check:
    if expected == observed:
        return Check(ok=True, text=f"{len(observed):,} {what}: {detail}")
    wrong = sorted(
        key for key in expected.keys() | observed.keys() if expected.get(key) != observed.get(key)
    )
    first = wrong[0]
    return Check(
        ok=False,
        text=f"{len(observed):,} {what}; expected {len(expected):,}. {len(wrong):,} differ: {first} "
        f"is {observed.get(first, 'missing')!r}, expected {expected.get(first, 'none')!r}",
    )


def _statuses(rows: Mapping[str, str]) -> str:
    return ", ".join(
        f"{count:,} {status}" for status, count in Counter(rows.values()).most_common()
    )


def _sent(rows: Mapping[str, str]) -> str:
    sent = sum(row.endswith(", sent") for row in rows.values())
    return f"{sent:,} sent once, {len(rows) - sent:,} not (the mail server refused)"
