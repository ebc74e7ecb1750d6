"""What workers do, counted for Prometheus, and the list of all metrics. Needs prometheus-client.

Counts are kept in plain numbers and become metrics when they are asked for: prometheus-client's own
objects cost ten times as much per job.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from threading import Lock
from typing import Final, Literal, TypeAlias

from attrs import define, field, frozen
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)

from zodworker_compat.events import Events, RecoveryFreed

Family: TypeAlias = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily

LONG: Final = (0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)
"""Bounds of waits and runs, in seconds."""
SHORT: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)
"""Bounds of statements, in seconds."""


@frozen
class Definition:
    """One metric."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    help: str

    def family(self) -> Family:
        """Return the metric without values."""
        kinds = {
            "counter": CounterMetricFamily,
            "gauge": GaugeMetricFamily,
            "histogram": HistogramMetricFamily,
        }
        made: Family = kinds[self.kind](self.name, self.help, labels=self.labels)
        return made


_TASK: Final = ("worker", "task")
_WORKER: Final = ("worker",)
_TABLE: Final = ("database", "schema")

DEFINITIONS: Final = (
    Definition("zodworker_jobs_enqueued_total", "counter", _TASK, "Jobs that this process added."),
    Definition("zodworker_jobs_started_total", "counter", _TASK, "Runs that began."),
    Definition(
        "zodworker_jobs_succeeded_total", "counter", _TASK, "Runs that succeeded, once written."
    ),
    Definition(
        "zodworker_jobs_retried_total",
        "counter",
        _TASK,
        "Runs that failed, once written, whose job will be tried again.",
    ),
    Definition(
        "zodworker_jobs_failed_total",
        "counter",
        _TASK,
        "Runs that failed, once written, whose job will not be tried again.",
    ),
    Definition(
        "zodworker_jobs_lost_total",
        "counter",
        _TASK,
        "Runs whose result changed nothing, because the job's lock was taken away.",
    ),
    Definition("zodworker_jobs_running", "gauge", _TASK, "Runs under way in this process."),
    Definition(
        "zodworker_job_wait_seconds", "histogram", _TASK, "Time from run_at to the start of a run."
    ),
    Definition("zodworker_job_run_seconds", "histogram", _TASK, "Duration of a run."),
    Definition("zodworker_claim_seconds", "histogram", _WORKER, "Duration of a claim."),
    Definition(
        "zodworker_settle_seconds",
        "histogram",
        _WORKER,
        "Duration of a statement that settles jobs.",
    ),
    Definition("zodworker_claim_errors_total", "counter", _WORKER, "Claims that failed."),
    Definition(
        "zodworker_last_claim_age_seconds",
        "gauge",
        _WORKER,
        "Time since the last claim; it grows while all slots are taken.",
    ),
    Definition(
        "zodworker_concurrency", "gauge", _WORKER, "Jobs that may run at a time in this process."
    ),
    Definition(
        "zodworker_listening",
        "gauge",
        _WORKER,
        "1 if notifications of new jobs are heard; 0 if they are found by polling alone.",
    ),
    Definition(
        "zodworker_pool_connections",
        "gauge",
        (*_WORKER, "state"),
        "Connections of the pool that enqueue uses: in_use, idle.",
    ),
    Definition(
        "zodworker_pool_waiting",
        "gauge",
        _WORKER,
        "Callers that wait for a connection of the pool.",
    ),
    Definition(
        "zodworker_heartbeat_outages_total",
        "counter",
        _WORKER,
        "Times that signs of life began to get no answer.",
    ),
    Definition(
        "zodworker_declared_dead_total",
        "counter",
        _WORKER,
        "Times that the other workers took this one for dead.",
    ),
    Definition(
        "zodworker_dead_workers_found_total",
        "counter",
        _WORKER,
        "Other workers that this one declared dead.",
    ),
    Definition(
        "zodworker_jobs_recovered_total",
        "counter",
        _WORKER,
        "Jobs of dead workers that this one gave back.",
    ),
    Definition(
        "zodworker_table_jobs", "gauge", (*_TABLE, "task", "state"), "Jobs in the table, by task."
    ),
    Definition(
        "zodworker_table_oldest_ready_seconds",
        "gauge",
        (*_TABLE, "task"),
        "How long the task's ready job that was due first has been due; 0 if none is ready.",
    ),
    Definition(
        "zodworker_table_blocked_jobs",
        "gauge",
        _TABLE,
        "Ready jobs whose named queue is locked now.",
    ),
    Definition(
        "zodworker_table_queue_jobs",
        "gauge",
        (*_TABLE, "queue", "state"),
        "Jobs in the table, of the named queues that most need a look.",
    ),
    Definition(
        "zodworker_table_queue_oldest_ready_seconds",
        "gauge",
        (*_TABLE, "queue"),
        "How long the queue's ready job that was due first has been due; 0 if none is ready.",
    ),
    Definition(
        "zodworker_table_queue_stuck_seconds",
        "gauge",
        (*_TABLE, "queue"),
        "How long the queue has been locked although none of its jobs runs; 0 if it is not.",
    ),
    Definition(
        "zodworker_table_queues", "gauge", _TABLE, "Named queues that have jobs, or are locked."
    ),
    Definition(
        "zodworker_table_workers",
        "gauge",
        (*_TABLE, "state"),
        "Workers: alive, dead (silent for too long), unknown (of Node, holding something).",
    ),
    Definition(
        "zodworker_table_cron_missed_seconds",
        "gauge",
        (*_TABLE, "identifier"),
        "Time since the last minute in which a recurring task should have fired and did not; else 0.",
    ),
    Definition(
        "zodworker_table_cron_last_fired_timestamp_seconds",
        "gauge",
        (*_TABLE, "identifier"),
        "The last minute in which a recurring task fired.",
    ),
    Definition(
        "zodworker_table_sampled_ratio",
        "gauge",
        _TABLE,
        "Part of the jobs table that was read: below 1, counts are estimates.",
    ),
    Definition(
        "zodworker_table_read_seconds", "gauge", _TABLE, "How long it took to read the tables."
    ),
    Definition(
        "zodworker_table_age_seconds", "gauge", _TABLE, "How long ago the tables were read."
    ),
    Definition(
        "zodworker_table_up",
        "gauge",
        _TABLE,
        "1 if the tables could be read; else no other zodworker_table_ metric is there.",
    ),
)
"""Every metric."""


class Families:
    """Metrics that are being filled."""

    def __init__(self) -> None:
        self._all = {one.name: one.family() for one in DEFINITIONS}

    def add(self, name: str, labels: Sequence[str], value: float) -> None:
        """Add one value of a counter or gauge."""
        family = self._all[name]
        assert not isinstance(family, HistogramMetricFamily)  # noqa: S101 - `observed` is for these
        family.add_metric(labels, value)

    def observed(self, name: str, labels: Sequence[str], histogram: "Histogram") -> None:
        """Add one histogram."""
        family = self._all[name]
        assert isinstance(family, HistogramMetricFamily)  # noqa: S101
        family.add_metric(labels, histogram.buckets(), histogram.total)

    def filled(self) -> list[Family]:
        """Return those that have values."""
        return [family for family in self._all.values() if family.samples]


class Histogram:
    """Counts durations."""

    __slots__ = ("_bounds", "_counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.total = 0.0
        """Sum of all durations."""

    def observe(self, seconds: float) -> None:
        """Count one."""
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self.total += seconds

    def buckets(self) -> list[tuple[str, float]]:
        """Return (upper bound, how many are not longer), as Prometheus has them."""
        found, count = [], 0
        bounds = [*map(float, self._bounds), "+Inf"]
        for bound, more in zip(bounds, [*self._counts], strict=True):
            count += more
            found.append((str(bound), float(count)))
        return found


def _long() -> Histogram:
    return Histogram(LONG)


@define
class TaskCounts:
    """What happened to the jobs of one task."""

    started: int = 0
    ended: int = 0
    succeeded: int = 0
    retried: int = 0
    failed: int = 0
    lost: int = 0
    waits: Histogram = field(factory=_long)
    runs: Histogram = field(factory=_long)


class _Tasks(dict[str, TaskCounts]):
    def __missing__(self, identifier: str) -> TaskCounts:
        return self.setdefault(identifier, TaskCounts())


class WorkerCounts:
    """A `Meter` of one worker; also told its events by `listen`.

    Only the worker's event loop writes, but for `enqueued`; any thread may read.
    """

    def __init__(self) -> None:
        self.tasks = _Tasks()
        self.claims = Histogram(SHORT)
        self.settles = Histogram(SHORT)
        self.claim_errors = 0
        self.heartbeat_outages = 0
        self.declared_dead = 0
        self.dead_found = 0
        self.recovered = 0
        self._enqueued: Counter[str] = Counter()
        self._lock = Lock()
        self._clock = 0.0
        """The database's time at zero of `time.monotonic`: so clocks may differ between hosts."""

    def listen(self, events: Events) -> None:
        """Count the events that are rare enough to be events."""
        events.on("worker:getJob:error", lambda _: self._add("claim_errors"))
        events.on("pool:heartbeat:error", lambda _: self._add("heartbeat_outages"))
        events.on("pool:declaredDead", lambda _: self._add("declared_dead"))
        events.on("recovery:dead", lambda _: self._add("dead_found"))

        @events.on("recovery:freed")
        def freed(event: RecoveryFreed) -> None:
            self.recovered += len(event.job_ids)

    def _add(self, name: str) -> None:
        setattr(self, name, getattr(self, name) + 1)

    def enqueued(self, identifiers: Iterable[str]) -> None:
        """See `Meter`."""
        with self._lock:
            self._enqueued.update(identifiers)

    def claimed(self, clock: datetime | None, began: float, ended: float) -> None:
        """See `Meter`."""
        self.claims.observe(ended - began)
        if clock is not None:
            self._clock = clock.timestamp() - began

    def started(self, identifier: str, run_at: datetime, at: float) -> None:
        """See `Meter`."""
        counts = self.tasks[identifier]
        counts.started += 1
        counts.waits.observe(max(0.0, at + self._clock - run_at.timestamp()))

    def ended(self, identifier: str, seconds: float) -> None:
        """See `Meter`."""
        counts = self.tasks[identifier]
        counts.ended += 1
        counts.runs.observe(seconds)

    def settled(self, identifier: str, *, failed: bool, is_last: bool) -> None:
        """See `Meter`."""
        counts = self.tasks[identifier]
        if not failed:
            counts.succeeded += 1
        elif is_last:
            counts.failed += 1
        else:
            counts.retried += 1

    def lost(self, identifier: str) -> None:
        """Count a run whose job's lock was taken away."""
        self.tasks[identifier].lost += 1

    def wrote(self, seconds: float) -> None:
        """See `Meter`."""
        self.settles.observe(seconds)

    def collect(self, families: Families, worker: str, handled: Iterable[str]) -> None:
        """Add all counts; of the tasks in `handled` zeros, too, so that the first job is an increase."""
        with self._lock:
            enqueued: Mapping[str, int] = dict(self._enqueued)
        tasks = dict(self.tasks)
        for identifier in sorted({*tasks, *enqueued, *handled}):
            labels = (worker, identifier)
            families.add("zodworker_jobs_enqueued_total", labels, enqueued.get(identifier, 0))
            if identifier in tasks or identifier in handled:
                _add_task(families, labels, tasks.get(identifier) or TaskCounts())
        families.observed("zodworker_claim_seconds", (worker,), self.claims)
        families.observed("zodworker_settle_seconds", (worker,), self.settles)
        for name, count in {
            "claim_errors": self.claim_errors,
            "heartbeat_outages": self.heartbeat_outages,
            "declared_dead": self.declared_dead,
            "dead_workers_found": self.dead_found,
            "jobs_recovered": self.recovered,
        }.items():
            families.add(f"zodworker_{name}_total", (worker,), count)


def _add_task(families: Families, labels: Sequence[str], counts: TaskCounts) -> None:
    ended = counts.ended  # first: a run that starts meanwhile must not make the difference negative
    families.add("zodworker_jobs_running", labels, counts.started - ended)
    for name in ("started", "succeeded", "retried", "failed", "lost"):
        families.add(f"zodworker_jobs_{name}_total", labels, getattr(counts, name))
    families.observed("zodworker_job_wait_seconds", labels, counts.waits)
    families.observed("zodworker_job_run_seconds", labels, counts.runs)
