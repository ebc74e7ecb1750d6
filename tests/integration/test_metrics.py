"""Metrics and health of real workers on PostgreSQL: the numbers against SQL, and against what ran."""

import asyncio
import json
import re
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import psycopg
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from psycopg import sql

from zodworker_compat import PermanentFailure, RunnerOptions, ZodWorker
from zodworker_compat.client.admin import Admin
from zodworker_compat.client.reasons import findings
from zodworker_compat.database.statements import statement
from zodworker_compat.metrics import WorkerMetrics, tables
from zodworker_compat.observability.metrics import DEFINITIONS

LONG = 60
"""Seconds that a condition may take on a slow machine."""


def samples(text: str) -> dict[tuple[Any, ...], float]:
    """(name, label=value, ...) -> value."""
    return {
        (sample.name, *(f"{name}={value}" for name, value in sorted(sample.labels.items()))): value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        for value in [sample.value]
    }


def get(url: str) -> tuple[int, str]:
    try:
        with urlopen(url, timeout=LONG) as answer:  # noqa: S310 - our own
            return answer.status, answer.read().decode()
    except HTTPError as error:
        with error:
            return error.code, error.read().decode()


async def fetch(url: str) -> tuple[int, str]:
    return await asyncio.to_thread(get, url)


@pytest.fixture
def make(database: str, monkeypatch: pytest.MonkeyPatch):
    """`make("name", connection_string=...)` returns (worker, its metrics), which are closed with the test."""
    monkeypatch.setattr(tables, "REFRESH", 0.0)
    monkeypatch.setattr(tables, "SPARE", 0.0)
    made: list[WorkerMetrics] = []

    def new(name: str = "shop", patience: float = 30, **options: Any):
        options = {"connection_string": database, "poll_interval": 0.1, **options}
        worker = ZodWorker(name=name, runner_options=RunnerOptions(**options))
        metrics = WorkerMetrics(worker, registry=None, patience=patience)
        made.append(metrics)
        return worker, metrics

    yield new
    for metrics in made:
        metrics.close()


@pytest.fixture
async def stopping() -> AsyncIterator[Callable[..., Any]]:
    """`await stopping(worker)` starts a worker that is stopped with the test."""
    started: list[ZodWorker] = []

    async def start(worker: ZodWorker) -> None:
        started.append(worker)
        await worker.initialize()

    yield start
    for worker in started:
        await worker.stop()


async def collected(metrics: WorkerMetrics) -> dict[tuple[Any, ...], float]:
    """What is exposed now."""
    registry = CollectorRegistry()
    registry.register(metrics)
    return samples((await asyncio.to_thread(generate_latest, registry)).decode())


async def test_counts_are_those_of_the_ledger(make, jobs, eventually, stopping) -> None:
    worker, metrics = make(concurrency=4)
    ledger: Counter[str] = Counter()

    @worker.task("ok", schema=True)
    async def ok(payload) -> None:
        ledger["ok"] += 1

    @worker.task("flaky", schema=True, retry=lambda job, error: 0)
    def flaky(payload, job) -> None:
        ledger["flaky"] += 1
        if job.attempts < 3:
            raise ValueError

    @worker.task("bad", schema=True)
    async def bad(payload) -> None:
        ledger["bad"] += 1
        raise PermanentFailure("never")

    @worker.task("last", schema=True, max_attempts=1)
    async def last(payload) -> None:
        ledger["last"] += 1
        raise ValueError

    await worker.enqueue_many([("ok", {}) for _ in range(20)])
    for identifier in ("flaky", "flaky", "bad", "last"):
        await worker.enqueue(identifier, {})
    await asyncio.to_thread(worker.sync.enqueue, "ok", {})
    await asyncio.to_thread(worker.sync.close)
    await stopping(worker)

    async def only_failures_are_left() -> bool:
        left = await jobs.all()
        return len(left) == 2 and all(row["locked_at"] is None for row in left)

    await eventually(only_failures_are_left, timeout=LONG)
    await worker.stop()
    found = await collected(metrics)

    def counts(name: str) -> dict[str, int]:
        return {
            task: int(found[f"zodworker_{name}", f"task={task}", "worker=shop"])
            for task in ("ok", "flaky", "bad", "last")
        }

    assert ledger == {"ok": 21, "flaky": 6, "bad": 1, "last": 1}
    assert counts("jobs_started_total") == ledger
    assert counts("job_run_seconds_count") == ledger
    assert counts("job_wait_seconds_count") == ledger
    assert counts("jobs_enqueued_total") == {"ok": 21, "flaky": 2, "bad": 1, "last": 1}
    assert counts("jobs_succeeded_total") == {"ok": 21, "flaky": 2, "bad": 0, "last": 0}
    assert counts("jobs_retried_total") == {"ok": 0, "flaky": 4, "bad": 0, "last": 0}
    assert counts("jobs_failed_total") == {"ok": 0, "flaky": 0, "bad": 1, "last": 1}
    assert counts("jobs_lost_total") == dict.fromkeys(ledger, 0)
    assert counts("jobs_running") == dict.fromkeys(ledger, 0)
    labels = ("database=" + found_database(found), "schema=graphile_worker", "state=failed")
    assert found["zodworker_table_jobs", *labels, "task=bad"] == 1
    assert found["zodworker_table_jobs", *labels, "task=last"] == 1


def found_database(found) -> str:
    (key,) = [key for key in found if key[0] == "zodworker_table_up"]
    return key[1].removeprefix("database=")


async def test_a_worker_with_jobs_of_all_kinds_exposes_every_metric(
    make, jobs, eventually, stopping
) -> None:
    worker, metrics = make()
    release = asyncio.Event()

    @worker.task("task", schema=True)
    async def wait(payload) -> None:
        await release.wait()

    @worker.recurring("nightly", match="0 4 * * *")
    async def nightly(run) -> None: ...

    await worker.enqueue("task", {}, queue_name="q")
    await stopping(worker)
    await eventually(jobs.locked, timeout=LONG)
    running = ("task=task", "worker=shop")
    assert (await collected(metrics))["zodworker_jobs_running", *running] == 1

    await jobs.sql("update graphile_worker._private_jobs set locked_by = 'pool-other'")
    await jobs.sql(
        "update graphile_worker._private_known_crontabs set last_execution = '2020-01-01'"
    )
    release.set()

    async def lost() -> bool:
        return (await collected(metrics))["zodworker_jobs_lost_total", *running] == 1

    await eventually(lost, timeout=LONG)
    found = await collected(metrics)
    labels = {key[0]: {label.split("=")[0] for label in key[1:]} for key in found}
    for one in DEFINITIONS:
        name = f"{one.name}_count" if one.kind == "histogram" else one.name
        assert labels[name] == {*one.labels}, one.name
    assert found["zodworker_jobs_succeeded_total", *running] == 0
    assert found["zodworker_listening", "worker=shop"] == 1
    assert found["zodworker_concurrency", "worker=shop"] == 5
    missed = [value for key, value in found.items() if key[0].endswith("cron_missed_seconds")]
    assert missed
    assert 0 < missed[0] <= 2 * 86400


async def test_the_wait_is_counted_from_run_at(make, jobs) -> None:
    worker, metrics = make()

    @worker.task("task", schema=True)
    async def run(payload) -> None: ...

    await jobs.sql(
        "select graphile_worker.add_job('task', '{}', run_at => now() - interval '1 hour')"
    )
    await worker.run_once()

    found = await collected(metrics)
    assert 3600 <= found["zodworker_job_wait_seconds_sum", "task=task", "worker=shop"] < 3700


async def test_table_gauges_are_those_of_sql(make, jobs) -> None:
    _, metrics = make()
    for number in range(7):
        await jobs.add("a", queue_name="busy" if number < 3 else None)
    await jobs.add("a", run_at="2100-01-01")
    await jobs.add('of "others"\n\x1b', run_at="2020-01-01")
    await jobs.sql(
        "update graphile_worker._private_jobs set attempts = 25 where id = (select max(id) - 2"
        " from graphile_worker._private_jobs)"
    )
    await jobs.sql(
        "update graphile_worker._private_jobs set locked_at = now(), locked_by = 'w' where id = 5"
    )
    await jobs.sql(
        "update graphile_worker._private_job_queues"
        " set locked_at = now() - interval '5 minutes', locked_by = 'worker-of-node'"
    )

    found = await collected(metrics)

    by_sql = await jobs.sql(
        "select identifier, case when locked_at is not null then 'running' when attempts >= max_attempts"
        " then 'failed' when run_at <= now() then 'ready' else 'scheduled' end as state, count(*)"
        " from graphile_worker._private_jobs as job join graphile_worker._private_tasks as task"
        " on task.id = task_id group by 1, 2"
    )
    place = ("database=" + found_database(found), "schema=graphile_worker")
    exposed = {
        (key[4].removeprefix("task="), key[3].removeprefix("state=")): value
        for key, value in found.items()
        if key[0] == "zodworker_table_jobs" and value
    }
    assert exposed == {(row["identifier"], row["state"]): row["count"] for row in by_sql}
    place_of_queue = (place[0], "queue=busy", place[1])
    assert found["zodworker_table_queue_jobs", *place_of_queue, "state=ready"] == 3
    assert 300 <= found["zodworker_table_queue_stuck_seconds", *place_of_queue] < 400
    assert found["zodworker_table_blocked_jobs", *place] == 3
    assert found["zodworker_table_sampled_ratio", *place] == 1
    oldest = found["zodworker_table_oldest_ready_seconds", *place, 'task=of "others"\n\x1b']
    assert oldest > 5 * 365 * 86400
    assert found["zodworker_table_workers", *place, "state=unknown"] == 2


FILL = """
insert into graphile_worker._private_jobs (task_id, job_queue_id, priority, run_at, attempts, payload)
select
    case n %% 3 when 0 then a.id else b.id end,
    case n %% 5 when 0 then q.id end,
    n %% 2, now() - interval '1 hour' + case n %% 4 when 0 then interval '1 day' else '0' end,
    case n %% 7 when 0 then 25 else 0 end,
    json_build_object('x', repeat('y', 200))
from generate_series(1, 30000) as n,
    (select min(id) as id from graphile_worker._private_tasks) as a,
    (select max(id) as id from graphile_worker._private_tasks) as b,
    (select min(id) as id from graphile_worker._private_job_queues) as q
"""


async def test_a_large_table_is_sampled_and_what_waits_longest_is_seen(jobs, database) -> None:
    await jobs.add("a", queue_name="q", run_at="2100-01-01")
    await jobs.add("b", run_at="2100-01-01")
    await jobs.sql(FILL)
    await jobs.add("rare", run_at="2020-01-01")
    await jobs.sql(
        "update graphile_worker._private_job_queues set locked_at = now() - interval '1 hour'"
    )
    admin = Admin(RunnerOptions(connection_string=database))
    try:
        exact = await asyncio.to_thread(admin.status, errors=0)
        sample = await asyncio.to_thread(admin.status, errors=0, most_pages=100)
        again = await asyncio.to_thread(admin.status, errors=0, most_pages=100)
    finally:
        admin.close()

    assert exact.sampled == 1
    assert 0 < sample.sampled < 0.2
    for state in ("ready", "scheduled", "failed"):
        assert getattr(sample.jobs, state) == pytest.approx(getattr(exact.jobs, state), rel=0.5)
    assert {one.identifier for one in sample.tasks} == {"a", "b", "rare"}
    (rare,) = [one for one in sample.tasks if one.identifier == "rare"]
    assert rare.ready >= 1
    assert rare.oldest_ready.days > 5 * 365
    assert sample.jobs.oldest_ready.days > 5 * 365
    # Always the same pages: a gauge does not jump between two scrapes, or from process to process.
    assert (sample.jobs.ready, sample.jobs.failed) == (again.jobs.ready, again.jobs.failed)
    # That no running job of a queue is in the sample does not mean that none runs.
    assert any("Queue q" in one.problem for one in findings(exact))
    assert not any("Queue q" in one.problem for one in findings(sample))


async def test_a_sample_reads_a_part_of_the_table_and_the_heads_an_index(jobs) -> None:
    await jobs.add("a", queue_name="q")
    await jobs.sql(FILL)
    await jobs.sql("analyze")

    async def plan(name: str, parameters: dict[str, Any]) -> str:
        async with psycopg.AsyncClientCursor(jobs.connection) as cursor:
            text = b"explain (analyze, costs off, format json) " + statement(
                name, "graphile_worker"
            )
            await cursor.execute(text, parameters)
            [(found,)] = [tuple(row.values()) for row in await cursor.fetchall()]
            return json.dumps(found)

    counts = await plan(
        "status_counts", {"percent": 5.0, "queues": 9, "queue_names": None, "only_locked": False}
    )
    heads = await plan("status_heads", {"priorities": 50, "jobs": 10})

    def scans(text: str) -> set[str]:
        return {
            *re.findall(r'"Node Type": "([^"]* Scan)"[^{}]*?"Relation Name": "_private_jobs"', text)
        }

    assert scans(counts) == {"Sample Scan"}
    assert scans(heads) == {"Index Only Scan"}


async def test_scrapes_beside_a_load_are_whole_and_end_with_all_counts(
    make, jobs, eventually
) -> None:
    worker, metrics = make(concurrency=10)
    count = 600

    @worker.task("task", schema=True)
    async def run(payload) -> None: ...

    server = metrics.serve(port=0)
    done = threading.Event()
    seen: list[float] = []

    def scrape() -> None:
        while not done.is_set():
            status, text = get(f"{server.url}/metrics")
            assert status == 200
            found = samples(text)
            buckets = [
                value
                for key, value in found.items()
                if key[0] == "zodworker_job_run_seconds_bucket"
            ]
            assert buckets == sorted(buckets)
            seen.append(found["zodworker_jobs_succeeded_total", "task=task", "worker=shop"])

    scrapers = [asyncio.create_task(asyncio.to_thread(scrape)) for _ in range(3)]
    try:
        await jobs.add_many(count)
        await worker.run_once()
        await eventually(lambda: seen and max(seen) == count, timeout=LONG)
    finally:
        done.set()
        await asyncio.gather(*scrapers)
    found = await collected(metrics)
    assert found["zodworker_jobs_started_total", "task=task", "worker=shop"] == count
    assert found["zodworker_job_run_seconds_count", "task=task", "worker=shop"] == count


async def test_live_says_when_the_event_loop_is_blocked(make, eventually) -> None:
    worker, metrics = make(patience=1)
    blocked, release = threading.Event(), threading.Event()

    @worker.task("task", schema=True)
    async def block(payload) -> None:
        blocked.set()
        release.wait(LONG)  # in the event loop, where nobody must wait

    server = metrics.serve(port=0)
    assert (await fetch(f"{server.url}/live"))[0] == 200  # it has not started
    await worker.enqueue("task", {})
    await worker.close()  # of this loop
    running = asyncio.create_task(asyncio.to_thread(asyncio.run, worker.run_once()))
    try:
        await eventually(blocked.is_set, timeout=LONG)

        async def answers(path: str, status: int) -> str | None:
            found, text = await fetch(f"{server.url}{path}")
            return text if found == status else None

        live = json.loads(await eventually(lambda: answers("/live", 503), timeout=LONG))
        assert live["live"] is False
        assert live["workers"]["shop"]["loop_blocked_seconds"] >= 1
        ready = json.loads(await eventually(lambda: answers("/ready", 503), timeout=LONG))
        assert "event loop has been blocked" in ready["problems"][0]
        assert (await fetch(f"{server.url}/metrics"))[0] == 200
    finally:
        release.set()
        await running
    assert (await fetch(f"{server.url}/live"))[0] == 200


async def test_ready_says_what_is_wrong(make, server, database, eventually, stopping) -> None:
    worker, metrics = make()

    @worker.task("task", schema=True)
    async def run(payload) -> None: ...

    http = metrics.serve(port=0)

    async def ready() -> dict[str, Any]:
        status, text = await fetch(f"{http.url}/ready")
        body = json.loads(text)
        assert body["ready"] is (status == 200)
        return body

    async def is_ready() -> bool:
        return (await ready())["ready"]

    assert (await ready())["problems"] == ["shop: the worker is not started"]
    await stopping(worker)
    await eventually(is_ready, timeout=LONG)
    found = (await ready())["workers"]["shop"]
    assert (found["state"], found["listener"]) == ("running", "listening")
    assert found["last_claim_seconds"] < LONG

    name = urlsplit(database).path[1:]
    async with await psycopg.AsyncConnection.connect(server.dsn(), autocommit=True) as superuser:

        async def allow(what: bool) -> None:
            text = sql.SQL("alter database {} with allow_connections {}")
            await superuser.execute(text.format(sql.Identifier(name), sql.Literal(what)))

        await allow(False)
        try:

            async def says_why() -> bool:
                await superuser.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s",
                    [name],
                )
                problems = "\n".join((await ready())["problems"])
                return (
                    "PostgreSQL cannot be reached" in problems and "cannot claim jobs" in problems
                )

            await eventually(says_why, timeout=LONG)
            lost = (await ready())["workers"]["shop"]
            assert lost["listener"] == "connecting" or lost["listener"].startswith("lost: ")

            async def tables_are_down() -> bool:
                found = await collected(metrics)
                up = [value for key, value in found.items() if key[0] == "zodworker_table_up"]
                return up == [0] and not any(key[0] == "zodworker_table_jobs" for key in found)

            await eventually(tables_are_down, timeout=LONG)
        finally:
            await allow(True)
        await eventually(is_ready, timeout=LONG)
    await worker.stop()
    assert (await ready())["problems"] == ["shop: the worker is stopped"]


async def test_claims_that_are_refused_are_a_problem(make, jobs, eventually, stopping) -> None:
    worker, metrics = make()

    @worker.task("task", schema=True)
    async def run(payload) -> None: ...

    await stopping(worker)
    await eventually(lambda: metrics.ready()["ready"], timeout=LONG)
    await jobs.sql("alter table graphile_worker._private_jobs rename to away")
    await eventually(lambda: not metrics.ready()["ready"], timeout=LONG)
    assert "cannot claim jobs: UndefinedTable" in metrics.ready()["problems"][0]

    async def errors_go_on() -> bool:
        return (await collected(metrics))["zodworker_claim_errors_total", "worker=shop"] > 2

    await eventually(errors_go_on, timeout=LONG)
    await jobs.sql("alter table graphile_worker.away rename to _private_jobs")
    await eventually(lambda: metrics.ready()["ready"], timeout=LONG)


async def test_nothing_secret_is_told(make) -> None:
    url = "postgresql://me:pa55word@127.0.0.1:1/shop"
    _, metrics = make(connection_string=url)
    server = metrics.serve(port=0)

    texts = [(await fetch(f"{server.url}/{path}"))[1] for path in ("metrics", "live", "ready")]

    assert "port 1, database shop" in texts[2]
    assert 'zodworker_table_up{database="shop",schema="graphile_worker"} 0.0' in texts[0]
    assert not any("pa55word" in text for text in texts)


async def test_workers_on_one_queue_read_it_once(make, database) -> None:
    options = RunnerOptions(connection_string=database)
    workers = [ZodWorker(name=name, runner_options=options) for name in ("a", "b")]
    metrics = WorkerMetrics(*workers, registry=None)
    try:
        found = await collected(metrics)
    finally:
        metrics.close()

    assert {key[1] for key in found if key[0] == "zodworker_concurrency"} == {
        "worker=a",
        "worker=b",
    }
    assert len([key for key in found if key[0] == "zodworker_table_up"]) == 1


async def test_a_task_without_jobs_that_a_worker_handles_is_zero(make, stopping) -> None:
    worker, metrics = make()

    @worker.task("idle", schema=True)
    async def run(payload) -> None: ...

    await stopping(worker)
    found = await collected(metrics)

    (ready,) = [v for k, v in found.items() if k[-2:] == ("state=ready", "task=idle")]
    assert ready == 0


async def test_other_paths_and_methods(make) -> None:
    _, metrics = make()
    server = metrics.serve(port=0)

    status, text = await fetch(f"{server.url}/nothing")
    assert (status, text) == (404, "There is: /metrics /live /ready\n")
    assert (await fetch(f"{server.url}/live?from=probe"))[0] == 200

    def head() -> tuple[int, bytes]:
        with urlopen(Request(f"{server.url}/live", method="HEAD"), timeout=LONG) as answer:  # noqa: S310
            return answer.status, answer.read()

    assert await asyncio.to_thread(head) == (200, b"")


async def test_without_metrics_a_worker_meters_nothing(database) -> None:
    worker = ZodWorker(name="w", runner_options=RunnerOptions(connection_string=database))
    assert worker.events.meters == []
    metrics = WorkerMetrics(worker, registry=None, patience=timedelta(seconds=5))
    assert len(worker.events.meters) == 1
    metrics.close()
    assert worker.events.meters == []
