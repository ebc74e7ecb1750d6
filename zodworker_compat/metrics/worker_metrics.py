"""`WorkerMetrics`: metrics and health of workers, in a registry and over HTTP."""

import json
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from threading import Lock
from time import monotonic
from typing import Any, Final

import psycopg
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from psycopg.conninfo import make_conninfo

from zodworker_compat.cron import CronItem
from zodworker_compat.database.connect import resolve_conninfo, unavailable
from zodworker_compat.errors import ConfigurationError, ZodworkerError
from zodworker_compat.events import JobEvent
from zodworker_compat.metrics.tables import Tables
from zodworker_compat.observability.health import Health
from zodworker_compat.observability.metrics import DEFINITIONS, Families, Family, WorkerCounts
from zodworker_compat.observability.metrics_server import MetricsServer, Response
from zodworker_compat.runner_options import as_timedelta
from zodworker_compat.worker import ZodWorker

CONNECT_TIMEOUT: Final = "2"
"""Seconds; libpq's least."""
PROBED: Final = 1.0
"""Seconds for which an answer of the database holds, however many probes ask."""


class _Watched:
    """A worker, and what is noted of it: a `Meter`."""

    def __init__(self, worker: ZodWorker, patience: float) -> None:
        self.worker = worker
        self.counts = WorkerCounts()
        self.health = Health(worker.events, patience)
        self.enqueued = self.counts.enqueued
        self.started = self.counts.started
        self.ended = self.counts.ended
        self.settled = self.counts.settled
        self.wrote = self.counts.wrote
        self.counts.listen(worker.events)
        worker.events.on("job:lost", self._lost)
        worker.events.meters.append(self)

    def claimed(self, clock: datetime | None, began: float, ended: float) -> None:
        """See `Meter`."""
        self.counts.claimed(clock, began, ended)
        self.health.claimed(clock, began, ended)

    def cron_items(self) -> Sequence[CronItem]:
        """Return the worker's recurring tasks."""
        return self.worker.cron_items

    def _lost(self, event: JobEvent) -> None:
        self.counts.lost(event.job.task_identifier)

    def collect(self, families: Families) -> None:
        """Add the metrics of the worker."""
        worker, name = self.worker, (self.worker.name,)
        self.counts.collect(families, worker.name, worker.handled)
        families.add("zodworker_concurrency", name, worker.runner_options.concurrency)
        families.add("zodworker_listening", name, float(self.health.listener == "listening"))
        if (age := self.health.claim_age()) is not None:
            families.add("zodworker_last_claim_age_seconds", name, age)
        pool = worker.pool_stats()
        idle = pool["size"] - pool["in_use"]
        families.add("zodworker_pool_connections", (*name, "in_use"), pool["in_use"])
        families.add("zodworker_pool_connections", (*name, "idle"), idle)
        families.add("zodworker_pool_waiting", name, pool["waiting"])


class WorkerMetrics(Collector):
    """Counts what workers do, and serves it; make it before the workers start.

    A job costs about a microsecond more. The tables are read when somebody asks for the metrics, at
    most every 15 seconds, on a connection of its own that is opened then.

    Args:
        workers: one or more, each with a name of its own: it becomes the label `worker`.
        registry: where to put the metrics; None is one of its own, for `serve` alone.
        patience: how long an event loop may stand still before `/live` says so; a bare number is
            seconds.

    Raises:
        ConfigurationError: two workers have one name, or the registry has such metrics already.
    """

    def __init__(
        self,
        *workers: ZodWorker,
        registry: CollectorRegistry | None = REGISTRY,
        patience: timedelta | float = timedelta(seconds=30),
    ) -> None:
        names = [worker.name for worker in workers]
        if not workers or len({*names}) < len(names):
            raise ConfigurationError(
                f"WorkerMetrics takes workers, each with a name of its own; got {names}."
            )
        self._registry = CollectorRegistry() if registry is None else registry
        try:
            self._registry.register(self)
        except ValueError as error:
            raise ConfigurationError(
                "The registry has metrics of workers already: give all workers to one "
                "WorkerMetrics(...), or each a registry of its own."
            ) from error
        seconds = as_timedelta(patience).total_seconds()
        self._watched = [_Watched(worker, seconds) for worker in workers]
        self._tables: dict[tuple[str, str], Tables] = {}
        self._lock, self._probing = Lock(), Lock()
        self._probed: tuple[float, list[str]] | None = None
        self._server: MetricsServer | None = None

    def describe(self) -> Iterable[Family]:
        """Return all metrics without values; the registry asks."""
        return [definition.family() for definition in DEFINITIONS]

    def collect(self) -> Iterable[Family]:
        """Return all metrics; may be called by any thread, and takes some seconds at most."""
        families = Families()
        for watched in self._watched:
            watched.collect(families)
        found = {tables.labels: tables for tables in self._sources()}  # a label only once
        for tables in found.values():
            tables.collect(families)
        return families.filled()

    def serve(self, host: str = "127.0.0.1", port: int = 9000) -> MetricsServer:
        """Serve `/metrics`, `/live` and `/ready` in threads, until `close`.

        Args:
            host: 127.0.0.1 is this machine alone, 0.0.0.0 every address: in a container, say.
            port: 0 is any free one; `MetricsServer.port` has it.

        Raises:
            ConfigurationError: the port is taken, or the address is not this machine's.
        """
        if self._server is not None:
            raise ConfigurationError(f"The metrics are served already: {self._server.url}.")
        routes = {"/metrics": self._metrics, "/live": self._live, "/ready": self._ready}
        self._server = MetricsServer(routes, host, port)
        return self._server

    def live(self) -> dict[str, Any]:
        """Return whether the event loops turn, as `/live` says it: `live`, and `workers` by name."""
        workers = {
            each.worker.name: {"loop_blocked_seconds": round(each.health.blocked_for(), 3)}
            for each in self._watched
        }
        is_live = not any(each.health.blocked_for() for each in self._watched)
        return {"live": is_live, "workers": workers}

    def ready(self) -> dict[str, Any]:
        """Return whether the workers work, as `/ready` says it: `ready`, `problems` and `workers`.

        It connects to the database, and waits for seconds if that does not answer.
        """
        reports = {each.worker.name: each.health.report() for each in self._watched}
        problems = [
            f"{name}: {problem}"
            for name, report in reports.items()
            for problem in report["problems"]
        ]
        unreachable = self._unreachable()
        return {
            "ready": not problems and not unreachable,
            "problems": [*unreachable, *problems],
            "workers": reports,
        }

    def close(self) -> None:
        """Stop to serve and to count; the metrics leave the registry."""
        if self._server is not None:
            self._server.close()
        for watched in self._watched:
            if watched in watched.worker.events.meters:
                watched.worker.events.meters.remove(watched)
        for tables in self._tables.values():
            tables.close()
        self._registry.unregister(self)

    def _sources(self) -> Sequence[Tables]:
        """Return the queues of the workers: those of one database and schema are read once."""
        with self._lock:
            for watched in self._watched:
                options = watched.worker.runner_options
                try:
                    key = resolve_conninfo(options.connection_string), options.schema
                except ZodworkerError:  # no database is named: the worker says so, too
                    continue
                if key not in self._tables:
                    self._tables[key] = Tables(options, watched.cron_items)
            return [*self._tables.values()]

    def _unreachable(self) -> list[str]:
        with self._probing:
            if self._probed is None or monotonic() - self._probed[0] > PROBED:
                given = {each.worker.runner_options.connection_string for each in self._watched}
                found = [problem for each in given if (problem := _probe(each)) is not None]
                self._probed = monotonic(), found
            return self._probed[1]

    def _metrics(self, accept: str) -> Response:
        encode, content_type = choose_encoder(accept)
        return Response(200, content_type, encode(self._registry))

    def _live(self, _accept: str) -> Response:
        body = self.live()
        return _json(200 if body["live"] else 503, body)

    def _ready(self, _accept: str) -> Response:
        body = self.ready()
        return _json(200 if body["ready"] else 503, body)


def _probe(connection_string: str | None) -> str | None:
    """Connect once; return what is wrong."""
    try:
        conninfo = resolve_conninfo(connection_string)
        try:
            more = {"connect_timeout": CONNECT_TIMEOUT, "application_name": "zodworker:health"}
            psycopg.connect(make_conninfo(conninfo, **more)).close()
        except (psycopg.OperationalError, UnicodeError) as error:
            raise unavailable(conninfo, error) from error
    except ZodworkerError as error:
        return str(error)
    return None


def _json(status: int, body: dict[str, Any]) -> Response:
    return Response(status, "application/json", f"{json.dumps(body, indent=2)}\n".encode())
