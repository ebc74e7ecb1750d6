"""P-37 to P-49: what a handler gets, and what becomes of its job."""

import asyncio
from datetime import UTC, datetime

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from zodworker_compat import PayloadValidationError

ID = {"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]}
DUE = "run_at = now()"


def fails(payload) -> None:
    raise ValueError("h")


async def test_p37_a_handler_gets_payload_job_and_helpers(make_worker) -> None:
    seen = []

    async def all_three(payload, job, helpers) -> None:
        seen.append((payload, job.id, helpers.job is job))

    worker = make_worker({"handler": all_three})
    job = await worker.enqueue("t", {"id": "p1"})
    await worker.run_once()
    assert seen == [({"id": "p1"}, job.id, True)]


async def test_p37_a_handler_may_take_fewer_arguments(make_worker) -> None:
    # As a JavaScript function may: handlers that were written for two arguments still run.
    seen = []

    async def one(payload) -> None:
        seen.append(payload)

    async def two(payload, job) -> None:
        seen.append(job.payload)

    worker = make_worker(tasks={"one": {"handler": one}, "two": {"handler": two}})
    for payload, identifier in enumerate(("one", "two"), 1):
        await worker.enqueue(identifier, payload)
    await worker.run_once()
    assert sorted(seen) == [1, 2]


async def test_p38_unknown_keys_are_stripped_and_stay_in_the_jobs_payload(make_worker) -> None:
    seen = []

    async def handler(payload, job) -> None:
        seen.append((payload, job.payload))

    worker = make_worker({"handler": handler}, schema=ID)
    await worker.enqueue("t", {"id": "p1", "x": 1})
    await worker.run_once()
    assert seen == [({"id": "p1"}, {"id": "p1", "x": 1})]


async def test_p39_attempts_count_from_one_to_max_attempts(make_worker, table) -> None:
    seen, jobs = [], []

    async def handler(payload, job, helpers) -> None:
        seen.append((job.attempts, job.max_attempts, job.is_last_attempt))
        jobs.append(job)
        assert not helpers.abort_signal.is_set()
        raise ValueError("h")

    worker = make_worker({"handler": handler})
    added = await worker.enqueue("t", max_attempts=3, job_key="k")
    for _ in range(4):
        await worker.run_once()
        await table.set(DUE)
    assert seen == [(1, 3, False), (2, 3, False), (3, 3, True)]
    assert (jobs[0].id, jobs[0].key, jobs[0].run_at) == (added.id, "k", added.run_at)


async def test_p40_what_a_handler_returns_is_discarded(make_worker, table) -> None:
    # graphile-worker 0.16 would keep those items of a batch whose promises are rejected.
    ended = asyncio.get_running_loop().create_future()
    ended.set_exception(ValueError("rejected"))

    async def handler(payload):
        return [ended, asyncio.get_running_loop().create_future()]

    worker = make_worker({"handler": handler})
    await worker.enqueue("t", ["first", "second"])
    await worker.run_once()
    assert await table.empty()
    assert str(ended.exception()) == "rejected"


async def test_p41_a_failed_job_is_retried_after_graphile_workers_delay(make_worker, table) -> None:
    worker = make_worker({"handler": fails, "maxAttempts": 3})
    await worker.enqueue("t")
    for attempts, delay in [(1, 2.718), (2, 7.389)]:
        await table.set(DUE)
        [before] = await table.sql("select now() as now")
        await worker.run_once()
        row = await table.row()
        [after] = await table.sql("select now() as now")
        assert (row["attempts"], row["locked_at"], row["locked_by"]) == (attempts, None, None)
        assert (row["run_at"] - after["now"]).total_seconds() <= delay + 0.01
        assert (row["run_at"] - before["now"]).total_seconds() >= delay


class Odd(BaseException):
    """As JavaScript throws what is no Error."""


@pytest.mark.parametrize(
    ("raised", "stored"),
    [
        (ValueError("h"), "ValueError: h"),
        (Odd("str"), "Odd: str"),
        (SystemExit(3), "SystemExit: 3"),
        (ValueError("a\0b"), r"ValueError: a\x00b"),
    ],
    ids=["an exception", "no Exception", "an exit", "a NUL"],
)
async def test_p41_the_error_is_stored_with_its_type_departure_9(
    make_worker, table, raised, stored
) -> None:
    # A message alone says little, and one with a NUL cannot be stored: the job would hang.
    async def handler(payload) -> None:
        raise raised

    worker = make_worker({"handler": handler})
    await worker.enqueue("t")
    await worker.run_once()
    assert (await table.row())["last_error"] == stored


async def test_p42_a_failure_of_the_last_attempt_deletes_the_job_if_asked(
    make_worker, table
) -> None:
    worker = make_worker({"handler": fails, "maxAttempts": 2}, delete_failed_jobs=True)
    await worker.enqueue("t")
    await worker.run_once()
    assert (await table.row())["attempts"] == 1
    await table.set(DUE)
    await worker.run_once()
    assert await table.empty()


async def test_p42_a_failure_of_the_last_attempt_keeps_the_job_departure_3(
    make_worker, table
) -> None:
    # Failures vanished, and nothing was left to retry.
    worker = make_worker({"handler": fails, "maxAttempts": 2})
    await worker.enqueue("t")
    await worker.run_once()
    await table.set(DUE)
    await worker.run_once()
    row = await table.row()
    assert (row["attempts"], row["last_error"], row["locked_at"]) == (2, "ValueError: h", None)


async def test_p43_a_task_of_one_attempt_leaves_no_row_if_asked(make_worker, table) -> None:
    worker = make_worker(catalog="workerQueue", delete_failed_jobs=True)
    worker.task("probeEndpoint")(fails)
    assert (await worker.enqueue("probeEndpoint", {"id": "e1"})).max_attempts == 1
    await worker.run_once()
    assert await table.empty()


async def test_p43_a_task_of_one_attempt_keeps_its_failure_departure_3(make_worker, table) -> None:
    # As P-42: who has one attempt needs to know most that it failed.
    worker = make_worker({"handler": fails, "maxAttempts": 1})
    await worker.enqueue("t")
    await worker.run_once()
    assert (await table.row())["last_error"] == "ValueError: h"


async def test_p44_a_wrong_payload_is_retried_and_never_swallowed(make_worker, table) -> None:
    seen = []
    worker = make_worker(
        {"handler": seen.append, "maxAttempts": 2},
        schema=ID,
        validate_on_enqueue=False,
        delete_failed_jobs=True,
    )
    await worker.enqueue("t", {"id": 123})
    for attempts in (1, 2):
        await worker.run_once()
        row = await table.row()
        assert (row["attempts"], row["max_attempts"], row["locked_at"]) == (attempts, 2, None)
        await table.set(DUE)
    assert seen == []


async def test_p44_the_stored_error_names_the_place_departure_9(make_worker, table) -> None:
    # ZodWorker stores zod's issues as JSON; there is no zod here, and people read it.
    worker = make_worker({"handler": fails}, schema=ID, validate_on_enqueue=False)
    await worker.enqueue("t", {"id": 123})
    await worker.run_once()
    error = (await table.row())["last_error"]
    assert error.startswith("PayloadValidationError: The payload of 't' does not match its schema:")
    assert "/id: " in error


async def test_p45_a_recurring_failure_is_never_swallowed(make_worker, table) -> None:
    recurring = {"r": {"match": "* * * * *", "handler": fails}}
    worker = make_worker(recurring_tasks=recurring, delete_failed_jobs=True)
    await table.sql(
        """select graphile_worker.add_job('r', max_attempts => 1,
           payload => '{"_cron": {"ts": "2024-06-01T12:00:00.000Z", "backfilled": false}}')"""
    )
    await worker.run_once()
    row = await table.row()
    assert (row["attempts"], row["last_error"], row["locked_at"]) == (1, "ValueError: h", None)


async def test_p45_a_recurring_job_has_25_attempts(make_worker, table, eventually) -> None:
    # It is made up for, so that no minute has to pass.
    await table.sql(
        "insert into graphile_worker._private_known_crontabs"
        " values ('r', now() - interval '1 day', date_trunc('minute', now() - interval '3 minutes'))"
    )
    recurring = {"match": "* * * * *", "handler": fails, "options": {"backfill_period": 600}}
    await make_worker(recurring_tasks={"r": recurring}).initialize()

    async def failed_once():
        return [row for row in await table.rows() if row["last_error"] == "ValueError: h"]

    [row, *_] = await eventually(failed_once)
    assert (row["attempts"], row["max_attempts"], row["priority"], row["key"]) == (1, 25, 0, None)


@pytest.fixture
def tracing() -> tuple[TracerProvider, InMemorySpanExporter]:
    """A provider for a worker, and where its finished spans go."""
    provider, exporter = TracerProvider(), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider, exporter


async def run_span(worker, exporter) -> ReadableSpan:
    job = await worker.enqueue("t", {"id": "p1", "x": 1}, flags=["f"])
    await worker.run_once()
    [span] = [span for span in exporter.get_finished_spans() if span.kind is SpanKind.CONSUMER]
    assert (span.name, span.attributes["job.id"]) == ("Run t", job.id)
    return span


async def test_p46_the_handler_runs_in_a_span(make_worker, tracing) -> None:
    provider, exporter = tracing
    worker = make_worker(
        {"handler": lambda payload: None, "maxAttempts": 3},
        name="wq",
        tracer_provider=provider,
        trace_payloads=True,
    )
    span = await run_span(worker, exporter)
    assert {
        "job.task_identifier": "t",
        "job.payload.id": "p1",
        "job.payload.x": 1,
        "job.priority": 0,
        "job.attempts": 1,
        "job.max_attempts": 3,
        "job.revision": 0,
        "job.flags.f": True,
        "worker.name": "wq",
    }.items() <= span.attributes.items()
    moments = {"job.run_at", "job.created_at", "job.updated_at", "job.locked_at", "job.locked_by"}
    assert moments <= span.attributes.keys()
    assert span.instrumentation_scope.name == "zodWorker"
    assert (span.events, span.status.status_code) == ((), StatusCode.UNSET)


async def test_p46_a_failure_sets_the_status_of_its_span_departure(make_worker, tracing) -> None:
    # ZodWorker records the exception and leaves the status unset, so that no tool counts it.
    provider, exporter = tracing
    span = await run_span(make_worker({"handler": fails}, tracer_provider=provider), exporter)
    [event] = span.events
    assert (event.name, event.attributes["exception.message"]) == ("exception", "h")
    assert span.status.status_code is StatusCode.ERROR
    assert span.end_time is not None


async def test_p46_payloads_stay_out_of_the_spans_departure(make_worker, tracing) -> None:
    # They may hold personal data; trace_payloads=True writes them.
    provider, exporter = tracing
    span = await run_span(make_worker({"handler": print}, tracer_provider=provider), exporter)
    assert not [name for name in span.attributes if name.startswith("job.payload")]


DEPLOYMENT = {
    "to": "a@example.com",
    "email": "alert-deployment-failure",
    "version": "1",
    "environment": "prod",
    "organization": "o",
    "shortCode": "s",
    "failedAt": datetime(2024, 1, 2, tzinfo=UTC),
    "error": {"name": "E", "message": "m"},
    "deploymentLink": "https://example.com",
}


async def test_p47_a_date_that_is_not_coerced_is_read_departure(make_worker, table) -> None:
    # JSON has no dates, so zod refuses every one: the original's mails of deployments never left.
    seen = []

    async def handler(payload) -> None:
        seen.append(payload["failedAt"])

    worker = make_worker(catalog="workerQueue")
    worker.task("scheduleEmail")(handler)
    await worker.enqueue("scheduleEmail", DEPLOYMENT)
    with pytest.raises(PayloadValidationError, match="/failedAt"):
        await worker.enqueue("scheduleEmail", {**DEPLOYMENT, "failedAt": "no date"})
    await worker.run_once()
    assert seen == [DEPLOYMENT["failedAt"]]


async def test_p48_a_source_without_a_version_has_version_1(make_worker, table) -> None:
    seen = []

    async def handler(payload, job) -> None:
        seen.append((payload, job.payload))

    worker = make_worker(catalog="workerQueue")
    worker.task("activateSource")(handler)
    await worker.enqueue("activateSource", {"id": "s1"})
    await worker.run_once()
    assert seen == [({"version": "1", "id": "s1"}, {"id": "s1"})]


async def test_p49_jobs_of_other_workers_are_left_alone(make_worker, table) -> None:
    seen = []
    first = make_worker(tasks={"a": {"handler": seen.append}, "b": {}}, name="first")
    second = make_worker(tasks={"b": {"handler": seen.append}}, name="second")
    await first.enqueue("b", "of the second")
    await table.sql("select graphile_worker.add_job('ofNobody')")
    before = await table.rows()
    await first.run_once()
    assert await table.rows() == before
    await second.run_once()
    assert seen == ["of the second"]
    assert await table.rows() == before[1:]
