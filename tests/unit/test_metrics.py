"""What becomes of counts and of a queue's status in metrics; what dashboard, alerts and document say of them."""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from zodworker_compat import ConfigurationError, ZodWorker
from zodworker_compat.cli.run import _metrics_of
from zodworker_compat.database.status import (
    AllCounts,
    Crontab,
    QueueCounts,
    Status,
    TaskCounts,
    WorkerView,
)
from zodworker_compat.events import Event, Events, PoolFailure, RecoveryFreed
from zodworker_compat.metrics import WorkerMetrics, tables
from zodworker_compat.metrics.tables import Reading, add_reading
from zodworker_compat.observability import health
from zodworker_compat.observability.health import Health
from zodworker_compat.observability.metrics import (
    DEFINITIONS,
    LONG,
    Families,
    WorkerCounts,
)
from zodworker_compat.observability.metrics import Histogram as OurHistogram

DOCS = Path(__file__).parents[2] / "docs"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
GIVEN_BY_PROMETHEUS = {"instance", "job", "le"}


def series(families: Families) -> dict[tuple[str, ...], float]:
    """(name, label values in the order of their names...) -> value, as a scraper reads them."""
    return scraped(families.filled())


def scraped(collected) -> dict[tuple[str, ...], float]:
    class Collected:
        def collect(self):
            return collected

    registry = CollectorRegistry()
    registry.register(Collected())
    text = generate_latest(registry).decode()
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def status(tasks=(), queues=(), workers=(), **more) -> Status:
    return Status(
        database="db",
        schema="s",
        revision=18,
        read_at=NOW,
        jobs=AllCounts(queues=len(queues), blocked=7, running_since=None),
        tasks=[*tasks],
        queues=[*queues],
        workers=[*workers],
        errors=[],
        has_heartbeats=True,
        hidden_from=None,
        owner="me",
        **more,
    )


def gauges(given: Status, *crontabs: Crontab) -> dict[tuple[str, ...], float]:
    families = Families()
    add_reading(families, ("db", "s"), Reading(given, crontabs, 0.5, 0.0))
    return series(families)


@given(st.lists(st.one_of(st.floats(0, 1e5), st.sampled_from([float(bound) for bound in LONG]))))
def test_a_histogram_counts_as_prometheus_s_own(durations):
    registry = CollectorRegistry()
    theirs = Histogram("h", "h", buckets=LONG, registry=registry)
    ours = OurHistogram(LONG)
    for duration in durations:
        theirs.observe(duration)
        ours.observe(duration)

    expected = [
        (sample.labels["le"], sample.value)
        for sample in next(iter(theirs.collect())).samples
        if sample.name == "h_bucket"
    ]

    assert ours.buckets() == expected
    assert ours.total == pytest.approx(sum(durations))


def test_runs_are_counted_by_what_became_of_them():
    counts = WorkerCounts()
    counts.enqueued(["a", "a", "b"])
    counts.claimed(NOW, 100.0, 100.25)
    for identifier in ("a", "a", "a", "a"):
        counts.started(identifier, NOW - timedelta(seconds=20), 103.0)
    for seconds in (1.0, 2.0, 3.0):
        counts.ended("a", seconds)
    counts.settled("a", failed=False, is_last=False)
    counts.settled("a", failed=True, is_last=False)
    counts.settled("a", failed=True, is_last=True)
    counts.lost("a")
    families = Families()

    counts.collect(families, "w", ["idle"])

    found = series(families)
    for name, value in {
        "enqueued": 2, "started": 4, "succeeded": 1, "retried": 1, "failed": 1, "lost": 1,
    }.items():  # fmt: skip
        assert found[f"zodworker_jobs_{name}_total", "a", "w"] == value
    assert found["zodworker_jobs_enqueued_total", "b", "w"] == 1
    assert ("zodworker_jobs_started_total", "b", "w") not in found  # it has no handler here
    assert found["zodworker_jobs_failed_total", "idle", "w"] == 0
    assert found["zodworker_jobs_running", "a", "w"] == 1
    assert found["zodworker_job_run_seconds_sum", "a", "w"] == 6
    assert found["zodworker_job_wait_seconds_sum", "a", "w"] == pytest.approx(4 * 23)
    assert found["zodworker_claim_seconds_sum", "w"] == pytest.approx(0.25)


def test_a_job_that_was_not_due_by_the_worker_s_reckoning_waited_for_nothing():
    counts = WorkerCounts()
    counts.claimed(NOW, 100.0, 100.0)
    counts.started("a", NOW + timedelta(milliseconds=1), 100.0)

    assert counts.tasks["a"].waits.total == 0


def test_recovered_jobs_are_counted():
    worker = ZodWorker(name="w")
    metrics = WorkerMetrics(worker, registry=None)
    freed = RecoveryFreed(pool_id="p", job_ids=[1, 2, 3], queues=1)
    worker.events.emit("recovery:freed", freed)

    found = scraped(metrics.collect())

    assert found["zodworker_jobs_recovered_total", "w"] == 3


def test_tasks_are_bounded_and_the_rest_is_one(monkeypatch):
    monkeypatch.setattr(tables, "MOST_TASKS", 2)
    sizes = {"a": 5, "b": 30, "c": 20, "d": 1}
    waits = {"a": timedelta(seconds=9), "d": timedelta(seconds=4)}
    tasks = [
        TaskCounts(identifier=name, ready=size, failed=1, oldest_ready=waits.get(name))
        for name, size in sizes.items()
    ]

    found = gauges(status(tasks))

    jobs = {key[-1]: value for key, value in found.items() if key[:4] == ready("jobs")}
    assert jobs == {"b": 30, "c": 20, "(other)": 6}
    oldest = {key[-1]: value for key, value in found.items() if "oldest_ready" in key[0]}
    assert oldest == {"b": 0, "c": 0, "(other)": 9}


def ready(name: str) -> tuple[str, ...]:
    return (f"zodworker_table_{name}", "db", "s", "ready")


def test_queues_are_bounded_and_stuck_ones_come_first(monkeypatch):
    monkeypatch.setattr(tables, "MOST_QUEUES", 2)
    locked_at = NOW - timedelta(minutes=3)

    def queue(name, running, locked_at=locked_at):
        return QueueCounts(
            queue_name=name, ready=4, running=running, locked_by="w", locked_at=locked_at
        )

    busy = [queue("busy1", 1), queue("busy2", 1)]
    found = gauges(status(queues=[*busy, queue("stuck", 0), queue("just locked", 0, NOW)]))

    assert {key[2]: value for key, value in found.items() if "stuck_seconds" in key[0]} == {
        "stuck": 180,
        "busy1": 0,
    }


@pytest.mark.parametrize(("state", "seconds"), [("dead", 180), ("alive", 0), ("unknown", 0)])
def test_in_a_sample_only_a_dead_worker_s_queue_is_stuck(state, seconds):
    locked_at = NOW - timedelta(minutes=3)
    queue = QueueCounts(queue_name="q", ready=4, locked_by="w", locked_at=locked_at)
    holder = WorkerView(
        locked_by="w", state=state, jobs=0, queues=1, since=locked_at, heartbeat=None
    )

    found = gauges(status(queues=[queue], workers=[holder], sampled=0.5))

    assert found["zodworker_table_queue_stuck_seconds", "db", "q", "s"] == seconds
    assert found["zodworker_table_sampled_ratio", "db", "s"] == 0.5


def test_a_dead_worker_that_holds_nothing_any_more_is_over():
    def worker(name, state, since):
        return WorkerView(
            locked_by=name, state=state, jobs=0, queues=0, since=since, heartbeat=None
        )

    workers = [worker("a", "dead", None), worker("b", "dead", NOW), worker("c", "unknown", NOW)]
    found = gauges(status(workers=workers))

    states = {key[-1]: value for key, value in found.items() if "table_workers" in key[0]}
    assert states == {"alive": 0, "dead": 1, "unknown": 1}


def test_crontabs_that_missed_their_minute():
    minute = NOW - timedelta(minutes=10)
    missed = Crontab(
        identifier="a", known_since=minute, last_execution=minute, read_at=NOW, missed_at=minute
    )
    never = Crontab(identifier="b", known_since=minute, last_execution=None, read_at=NOW)

    found = gauges(status(), missed, never)

    name = "zodworker_table_cron_missed_seconds"
    assert (found[name, "db", "a", "s"], found[name, "db", "b", "s"]) == (600, 0)
    fired = {key: value for key, value in found.items() if "last_fired" in key[0]}
    assert [*fired.values()] == [minute.timestamp()]


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1))
def test_any_identifier_of_others_stays_one_label(identifier):
    found = gauges(status([TaskCounts(identifier=identifier, ready=1)]))

    assert found[(*ready("jobs"), identifier)] == 1
    assert len(found) == len(gauges(status([TaskCounts(identifier="plain", ready=1)])))


def test_workers_need_names_of_their_own_and_a_registry_without_others():
    registry = CollectorRegistry()
    one, twin = ZodWorker(name="w"), ZodWorker(name="w")
    metrics = WorkerMetrics(one, registry=registry)

    with pytest.raises(ConfigurationError, match="name of its own"):
        WorkerMetrics(one, twin)
    with pytest.raises(ConfigurationError, match="give all workers to one"):
        WorkerMetrics(twin, registry=registry)
    metrics.close()
    WorkerMetrics(twin, registry=registry)


def test_the_document_lists_the_metrics():
    rows = re.findall(
        r"^\| `(zodworker_\w+)` \| (\w+) \| (.*?) \| (.*) \|$",
        (DOCS / "monitoring.md").read_text("utf-8"),
        re.MULTILINE,
    )

    assert rows == [(one.name, one.kind, ", ".join(one.labels), one.help) for one in DEFINITIONS]


def test_the_document_explains_the_alerts():
    alerts = re.findall(r"- alert: (\w+)", (DOCS / "monitoring/alerts.yml").read_text("utf-8"))
    explained = re.findall(
        r"^\| `(Zodworker\w+)` \|", (DOCS / "monitoring.md").read_text("utf-8"), re.MULTILINE
    )
    tested = (Path(__file__).parents[1] / "monitoring/alerts_test.yml").read_text("utf-8")

    assert explained == alerts
    assert len(alerts) > 8
    assert {name for name in alerts if f"alertname: {name}" in tested} == {*alerts}


KNOWN = {
    name: {*one.labels, *(["le"] if one.kind == "histogram" else [])}
    for one in DEFINITIONS
    for name in (
        [f"{one.name}_{part}" for part in ("bucket", "sum", "count")]
        if one.kind == "histogram"
        else [one.name]
    )
}
KNOWN_LABELS = GIVEN_BY_PROMETHEUS.union(*KNOWN.values())


def expressions() -> list[str]:
    dashboard = json.loads((DOCS / "monitoring/grafana-dashboard.json").read_text("utf-8"))
    panels = [
        target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])
    ]
    variables = [
        each["query"]["query"]
        for each in dashboard["templating"]["list"]
        if each["type"] == "query"
    ]
    return [*panels, *variables, alerts_yml()]


def alerts_yml() -> str:
    text = (DOCS / "monitoring/alerts.yml").read_text("utf-8")
    return "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))


@pytest.mark.parametrize("expression", expressions())
def test_dashboard_and_alerts_ask_for_what_there_is(expression):
    for name, labels in re.findall(r"\b(zodworker_\w+)(?:\{([^}]*)\})?", expression):
        assert name in KNOWN
        for label in re.findall(r"(\w+)=~?\"", labels):
            assert label in KNOWN[name], f"{name} has no label {label}"
    for group in re.findall(r"\bby \(([^)]*)\)", expression):
        assert {label.strip() for label in group.split(",")} <= KNOWN_LABELS
    for label in re.findall(r"\$labels\.(\w+)|\{\{(\w+)\}\}", expression):
        assert "".join(label) in KNOWN_LABELS


def test_every_metric_is_in_the_dashboard_or_in_an_alert():
    asked = {
        re.sub("_bucket$", "", name)
        for expression in expressions()
        for name in re.findall(r"\bzodworker_\w+", expression)
    }

    assert {one.name for one in DEFINITIONS} == asked


def test_panels_have_ids_and_places_of_their_own():
    dashboard = json.loads((DOCS / "monitoring/grafana-dashboard.json").read_text("utf-8"))
    cells = [
        (x, y)
        for panel in dashboard["panels"]
        for place in [panel["gridPos"]]
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]

    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    assert len({*cells}) == len(cells)
    assert max(x for x, _ in cells) == 23


def test_each_process_of_the_command_has_a_port_of_its_own():
    assert [_metrics_of(number, 9000) for number in range(2)] == [
        ["--metrics-port", "9000"],
        ["--metrics-port", "9001"],
    ]
    assert _metrics_of(1, 0) == ["--metrics-port", "0"]
    assert _metrics_of(1, None) == []


async def test_a_failed_claim_is_a_problem_until_one_works_or_none_follows(monkeypatch):
    events = Events()
    looked_after = Health(events, patience=30)
    events.emit("pool:create", Event(pool_id="p"))
    assert looked_after.problems() == ["the worker is starting"]
    looked_after.claimed(None, 0.0, 1.0)
    assert looked_after.problems() == []

    failure = PoolFailure(pool_id="p", error=ValueError("no\ntable"))
    events.emit("worker:getJob:error", failure)
    assert looked_after.problems() == ["it cannot claim jobs: ValueError: no table"]
    looked_after.claimed(None, 2.0, 3.0)
    assert looked_after.problems() == []

    events.emit("worker:getJob:error", failure)
    monkeypatch.setattr(health, "OVER", 0.0)
    assert looked_after.problems() == []
    events.emit("pool:release", Event(pool_id="p"))
