"""Spans of real jobs: from enqueue through a handler to the jobs it enqueues."""

import asyncio
import time
from itertools import pairwise

import psycopg
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from zodworker_compat import MigrationError, RunnerOptions, ZodWorker


@pytest.fixture
def exporter():
    return InMemorySpanExporter()


@pytest.fixture
def worker(database, exporter):
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return ZodWorker(
        name="wq",
        schema={"first": True, "second": True},
        tasks={"first": {"flags": ["a"]}, "second": {}},
        runner_options=RunnerOptions(connection_string=database),
        tracer_provider=provider,
    )


def spans(exporter):
    return {span.name: span for span in exporter.get_finished_spans()}


async def test_one_trace_leads_through_all_jobs(worker, exporter):
    @worker.task("first")
    async def first(payload, job, helpers):
        await helpers.enqueue("second", {"n": 2})

    @worker.task("second")
    def second(payload):
        time.sleep(0)

    job = await worker.enqueue("first", {"n": 1})
    await worker.run_once()

    found = spans(exporter)
    chain = ["Enqueue first", "Run first", "Enqueue second", "Run second"]
    assert sorted(found) == sorted(chain)
    for parent, child in pairwise(chain):
        assert found[child].parent.span_id == found[parent].context.span_id
    assert found["Run first"].attributes["job.id"] == job.id
    assert found["Run first"].attributes["worker.name"] == "wq"
    assert found["Enqueue first"].attributes["job.flags"] == ("a",)


async def test_sync_helpers_continue_the_trace(worker, exporter):
    @worker.task("first")
    def first(payload, job, helpers):
        helpers.enqueue_many([("second", 1), ("second", 2)])

    @worker.task("second")
    async def second(payload):
        await asyncio.sleep(0)

    await worker.enqueue("first")
    await worker.run_once()

    finished = exporter.get_finished_spans()
    assert len({span.context.trace_id for span in finished}) == 1
    many = spans(exporter)["Enqueue many"]
    runs = [span for span in finished if span.name == "Run second"]
    assert [run.parent.span_id for run in runs] == [many.context.span_id] * 2


def test_the_sync_twin_traces_too(worker, exporter):
    job = worker.sync.enqueue("first", job_key="k")
    again = worker.sync.enqueue("first", job_key="k")
    worker.sync.close()

    one, two = exporter.get_finished_spans()
    assert [flag for flag in job.flags if f"{one.context.trace_id:032x}" in flag]
    assert again.id == job.id
    assert len(again.flags) == 2
    assert [flag for flag in again.flags if f"{two.context.trace_id:032x}" in flag]


async def test_a_failed_run_and_a_refused_enqueue_are_errors(worker, exporter, database):
    @worker.task("first", max_attempts=1)
    async def first(payload):
        raise ValueError("broken")

    await worker.enqueue("first")
    await worker.run_once()
    with psycopg.connect(database) as connection:
        connection.execute("drop schema graphile_worker cascade")
    with pytest.raises(MigrationError):
        await worker.enqueue("second")
    await worker.close()

    found = spans(exporter)
    assert not found["Run first"].status.is_ok
    assert found["Run first"].events[0].attributes["exception.message"] == "broken"
    assert not found["Enqueue second"].status.is_ok


async def test_without_tracing_the_flags_are_the_caller_s(database):
    worker = ZodWorker(
        name="w",
        schema={"t": True},
        tasks={"t": {}},
        runner_options=RunnerOptions(connection_string=database),
    )
    assert (await worker.enqueue("t")).flags is None
    await worker.close()
