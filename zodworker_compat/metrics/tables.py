"""Gauges of what is in a queue's tables, read at most every 15 seconds.

A jobs table of more than `MOST_PAGES` is sampled, so that a reading costs the same at any size.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from threading import Event, Lock, Thread
from time import monotonic
from typing import Final

import psycopg
from attrs import evolve, frozen
from psycopg.conninfo import conninfo_to_dict

from zodworker_compat.client.admin import Admin
from zodworker_compat.client.reasons import stuck_for
from zodworker_compat.cron import CronItem
from zodworker_compat.database.connect import resolve_conninfo
from zodworker_compat.database.status import Counts, Crontab, QueueCounts, Status, TaskCounts
from zodworker_compat.errors import ZodworkerError
from zodworker_compat.observability.metrics import Families
from zodworker_compat.runner.outage import Outage
from zodworker_compat.runner_options import RunnerOptions

logger = logging.getLogger(__name__)

REFRESH: Final = 15.0
"""Seconds until the tables are read again, or `SPARE` times as long as the last reading took."""
SPARE: Final = 50
MOST_PAGES: Final = 2000
"""Pages of 8 kB: 70,000 jobs with small payloads. So a reading takes 0.1 s, of a million jobs, too,
where all of them would take 0.5 s; counts are then off by about 2 %."""
PATIENCE: Final = 5.0
"""Seconds that a statement may take."""
WAIT: Final = 2.0
"""Seconds that a scrape waits for a reading; it goes on with the one before, if there is one."""
MOST_QUEUES: Final = 20
"""Named queues that have series of their own."""
QUEUES_READ: Final = 500
"""Those that are looked at to find them."""
MOST_TASKS: Final = 100
"""Tasks, and recurring tasks, that have series of their own; the others are `OTHER`."""
OTHER: Final = "(other)"
STATES: Final = ("ready", "scheduled", "retrying", "running", "failed")
WORKER_STATES: Final = ("alive", "dead", "unknown")


@frozen
class Reading:
    """What was read."""

    status: Status
    crontabs: Sequence[Crontab]
    seconds: float
    """How long it took."""
    ended: float
    """Local time."""


class Tables:
    """Reads the tables of one queue, in a thread: whoever scrapes is never kept for long.

    Args:
        options: connection and schema.
        items: the recurring tasks whose times are known.
    """

    def __init__(self, options: RunnerOptions, items: Callable[[], Sequence[CronItem]]) -> None:
        self._options = evolve(options, pool=None)
        self._items = items
        self._admin = Admin(self._options, patience=PATIENCE)
        self._lock = Lock()
        self._done = Event()
        self._is_reading = False
        self._reading: Reading | None = None
        self._tried_at = 0.0
        self._database: str | None = None
        self._outage = Outage(logger, "read the queue's tables for metrics")

    @property
    def labels(self) -> tuple[str, str]:
        """Database and schema."""
        if self._database is None:
            given = resolve_conninfo(self._options.connection_string)
            return str(conninfo_to_dict(given).get("dbname") or ""), self._options.schema
        return self._database, self._options.schema

    def read(self) -> Reading | None:
        """Return the newest reading; None if the tables could not be read."""
        with self._lock:
            last = self._reading
            rest = max(REFRESH, SPARE * last.seconds) if last else 1.0
            if not self._is_reading and (not self._tried_at or monotonic() > self._tried_at + rest):
                self._is_reading = True
                self._done.clear()
                Thread(target=self._read, name="zodworker-tables", daemon=True).start()
        self._done.wait(WAIT)
        return self._reading

    def close(self) -> None:
        """Close the connection."""
        self._admin.close()

    def _read(self) -> None:
        began = monotonic()
        reading: Reading | None = None
        try:
            status = self._admin.status(queues=QUEUES_READ, errors=0, most_pages=MOST_PAGES)
            self._database = status.database
            crontabs = self._admin.crontabs(self._items())
            ended = monotonic()
            reading = Reading(status, crontabs, ended - began, ended)
            self._outage.worked()
        except (ZodworkerError, psycopg.Error) as error:
            self._outage.failed(error)
        finally:
            self._reading, self._tried_at, self._is_reading = reading, monotonic(), False
            self._done.set()

    def collect(self, families: Families) -> None:
        """Add the gauges."""
        reading = self.read()
        labels = self.labels
        families.add("zodworker_table_up", labels, float(reading is not None))
        if reading is not None:
            add_reading(families, labels, reading)


def add_reading(families: Families, labels: tuple[str, str], reading: Reading) -> None:
    """Add the gauges of one reading."""
    status = reading.status
    for name, value in {
        "blocked_jobs": status.jobs.blocked,
        "queues": status.jobs.queues,
        "sampled_ratio": status.sampled,
        "read_seconds": reading.seconds,
        "age_seconds": monotonic() - reading.ended,
    }.items():
        families.add(f"zodworker_table_{name}", labels, value)
    for task, counts in _bounded(status).items():
        for state in STATES:
            count = sum(getattr(one, state) for one in counts)
            families.add("zodworker_table_jobs", (*labels, task, state), count)
        oldest = max((_seconds(one.oldest_ready) for one in counts), default=0)
        families.add("zodworker_table_oldest_ready_seconds", (*labels, task), oldest)
    for queue, stuck in worst_queues(status):
        label = (*labels, queue.queue_name)
        for state in STATES:
            count = getattr(queue, state)
            families.add("zodworker_table_queue_jobs", (*label, state), count)
        oldest = _seconds(queue.oldest_ready)
        families.add("zodworker_table_queue_oldest_ready_seconds", label, oldest)
        families.add("zodworker_table_queue_stuck_seconds", label, _seconds(stuck))
    for state in WORKER_STATES:
        count = sum(_is_there(one.state, one.since is None) == state for one in status.workers)
        families.add("zodworker_table_workers", (*labels, state), count)
    for crontab in reading.crontabs[:MOST_TASKS]:
        label = (*labels, crontab.identifier)
        missed = crontab.read_at - (crontab.missed_at or crontab.read_at)
        families.add("zodworker_table_cron_missed_seconds", label, _seconds(missed))
        if crontab.last_execution is not None:
            families.add(
                "zodworker_table_cron_last_fired_timestamp_seconds",
                label,
                crontab.last_execution.timestamp(),
            )


def worst_queues(status: Status) -> list[tuple[QueueCounts, timedelta | None]]:
    """Return the named queues that have series of their own, and for how long they are stuck."""
    found = [(one, stuck_for(status, one)) for one in status.queues]
    return sorted(found, key=lambda pair: pair[1] is None)[:MOST_QUEUES]


def _bounded(status: Status) -> Mapping[str, Sequence[Counts]]:
    tasks = {one.identifier: one for one in status.tasks}
    for worker in status.workers:  # a task without jobs is 0, not unknown
        if worker.heartbeat is not None and worker.state == "alive":
            for identifier in worker.heartbeat.tasks:
                tasks.setdefault(identifier, TaskCounts(identifier=identifier))
    by_size = sorted(tasks.values(), key=lambda one: (-one.total, one.identifier))
    found: dict[str, Sequence[Counts]] = {one.identifier: [one] for one in by_size[:MOST_TASKS]}
    if by_size[MOST_TASKS:]:
        found[OTHER] = by_size[MOST_TASKS:]
    return found


def _is_there(state: str, holds_nothing: bool) -> str | None:
    """Return the state; None for a dead worker whose jobs were given back: that is over."""
    return None if state == "dead" and holds_nothing else state


def _seconds(duration: timedelta | None) -> float:
    return duration.total_seconds() if duration else 0.0
