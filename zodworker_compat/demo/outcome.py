"""What a demo comes to: what it should (`expected.py`) or what it did (`observe.py`)."""

from collections.abc import Mapping
from typing import Any, Final

from attrs import frozen

WORKER_OF: Final = {
    "deliverEvent": "workerQueue",
    "events.invokeDispatcher": "workerQueue",
    "startRun": "workerQueue",
    "performRunExecutionV2": "executionWorker",
    "performTaskOperation": "taskOperationWorker",
    "scheduleEmail": "workerQueue",
}
"""The tasks of the flow, first to last, and their workers."""


@frozen(kw_only=True)
class Counts:
    """What became of the jobs of one task."""

    enqueued: int = 0
    """Jobs; an enqueue that replaced a waiting job is not one more."""
    done: int = 0
    retried: int = 0
    """Attempts that failed and were repeated."""
    failed: int = 0
    """Jobs that failed on their last attempt."""

    def __str__(self) -> str:
        return (
            f"{self.enqueued:,} enqueued, {self.done:,} done, "
            f"{self.retried:,} retried, {self.failed:,} failed"
        )


@frozen(kw_only=True)
class Outcome:
    """Every number and every row that the demo checks."""

    read: int
    """Lines of the input."""
    refused: frozenset[int]
    """Lines whose payload `deliverEvent` refused."""
    debounced: int
    """Enqueues that replaced a waiting job of the same key."""
    counts: Mapping[str, Counts]
    """By task identifier."""
    events: Mapping[str, Any]
    """Event id -> its payload, and whether it was delivered."""
    runs: Mapping[str, str]
    """Run id -> status."""
    tasks: Mapping[str, str]
    """Task id -> status."""
    outbox: Mapping[str, str]
    """Task id -> "magic_link to ada@…, sent"."""
    failed_jobs: Mapping[str, str]
    """Task identifier and id -> `last_error` of the row that stays in the queue."""
    serial: int
    """Runs executed in the serial queue."""
    overlaps: int = 0
    """Those of them that began before the one before had ended."""
    delayed: int
    """Delayed tasks that were completed."""
    early: int = 0
    """Those of them that were completed before their time."""
    unfinished: int = 0
    """Jobs left in the queue that are not meant to be there."""
    locks: int = 0
    """Jobs and queues left locked."""
