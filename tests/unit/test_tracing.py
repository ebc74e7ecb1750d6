"""What spans say, where the trace travels, and that nothing of it is needed."""

import json
import subprocess
import sys
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import NoOpTracerProvider, SpanKind, StatusCode, get_current_span

from zodworker_compat.job import Job
from zodworker_compat.observability.spans import (
    DEEPEST,
    LONGEST_TEXT,
    MOST_MEMBERS,
    flattened,
    parent_of,
    with_trace,
)
from zodworker_compat.observability.tracing import Tracing
from zodworker_compat.options import JobSpec

VECTORS = json.loads((Path(__file__).parent.parent / "vectors" / "run_vectors.json").read_text())
NOON = datetime(2024, 6, 1, 12, tzinfo=UTC)
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def job_of(**changes) -> Job:
    values = {
        "id": 7, "task_identifier": "t", "queue_name": None, "payload": {"id": "p1", "x": 1},
        "priority": 0, "run_at": NOON, "attempts": 1, "max_attempts": 3, "last_error": None,
        "created_at": NOON, "updated_at": NOON, "key": None, "locked_at": NOON,
        "locked_by": "worker-1", "revision": 0, "flags": None, "job_queue_id": None, "task_id": 1,
        "is_available": False,
    }  # fmt: skip
    return Job(**{**values, **changes})


def spec_of(identifier: str, payload: str | None = None, **options) -> JobSpec:
    return JobSpec(identifier=identifier, payload=payload, **options)


@pytest.fixture
def exporter():
    return InMemorySpanExporter()


@pytest.fixture
def provider(exporter):
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider


@pytest.fixture
def tracing(provider):
    return Tracing(provider, payloads=True, worker_name="wq")


def recorded(case: str) -> dict:
    [vector] = [vector for vector in VECTORS["vectors"] if vector["case"] == case]
    [span] = vector["spans"]
    return span


def run(tracing, job, handler, recurring=False):
    traced = tracing.run(handler, arity=1, is_async=False, recurring=recurring)
    return traced(job.payload, job, None)


@pytest.mark.parametrize(
    ("case", "changes", "recurring"),
    [
        ("valid payload, extra key", {}, False),
        ("handler throws attempt 1/3", {}, False),
        ("handler throws attempt 3/3", {"attempts": 3}, False),
        ("recurring ok", {"task_identifier": "r"}, True),
        ("recurring handler throws last attempt", {"task_identifier": "r", "attempts": 3}, True),
    ],
)
def test_a_run_s_span_is_zodworker_s(tracing, exporter, case, changes, recurring):
    expected = recorded(case)
    message = "".join(expected["exceptions"])

    def handler(payload):
        if message:
            raise ValueError(message)

    if message:
        with pytest.raises(ValueError, match=message):
            run(tracing, job_of(**changes), handler, recurring)
    else:
        run(tracing, job_of(**changes), handler, recurring)

    [span] = exporter.get_finished_spans()
    assert (span.name, span.kind) == (expected["name"], SpanKind[expected["kind"]])
    assert dict(span.attributes) == expected["attrs"]
    assert [event.attributes["exception.message"] for event in span.events] == expected[
        "exceptions"
    ]
    assert (span.status.status_code is StatusCode.ERROR) == bool(message)  # a departure


def test_an_enqueue_s_span_is_zodworker_s_but_for_its_payload(tracing, exporter):
    expected = recorded("reschedule via limiter attempts 2/5 run_at past key flags")
    spec = JobSpec(
        identifier="t", payload='{"id":"p1"}', run_at=NOON, max_attempts=4, job_key="kk",
        priority=4, flags=["rl:a"],
    )  # fmt: skip

    with tracing.enqueue(spec):
        pass

    [span] = exporter.get_finished_spans()
    assert (span.name, span.kind) == (expected["name"], SpanKind[expected["kind"]])
    attributes = {**expected["attrs"], "job.flags": ("rl:a",), "job.payload.id": "p1"}
    del attributes["job.payload"]
    assert dict(span.attributes) == attributes


def test_an_enqueue_that_fails_is_an_error(tracing, exporter):
    with pytest.raises(ValueError, match="pg"), tracing.enqueue(spec_of("t")):
        raise ValueError("pg")

    [span] = exporter.get_finished_spans()
    assert span.status.status_code is StatusCode.ERROR
    assert [event.name for event in span.events] == ["exception"]


def test_payloads_are_left_out_unless_they_are_asked_for(provider, exporter):
    tracing = Tracing(provider)
    with tracing.enqueue(spec_of("t", '{"id":"secret"}')):
        pass
    run(tracing, job_of(), lambda payload: None)

    for span in exporter.get_finished_spans():
        assert not [name for name in span.attributes if name.startswith("job.payload")]


def test_the_trace_travels_from_the_enqueue_to_the_run(tracing, exporter):
    with tracing.enqueue(spec_of("t", flags=["a", f"traceparent:{TRACE}"])) as spec:
        pass
    run(tracing, job_of(flags=dict.fromkeys(spec.flags, True)), lambda payload: None)

    enqueue, ran = exporter.get_finished_spans()
    assert spec.flags[0] == "a"
    assert len(spec.flags) == 2
    assert ran.parent.span_id == enqueue.context.span_id
    assert ran.context.trace_id == enqueue.context.trace_id != int(TRACE.split("-")[1], 16)
    assert [name for name in ran.attributes if "flags" in name] == ["job.flags.a"]


def test_a_batch_is_one_span_whose_children_are_the_runs(tracing, exporter):
    specs = [spec_of("b"), spec_of("a"), spec_of("a")]
    with tracing.enqueue_many(specs) as traced:
        pass

    [span] = exporter.get_finished_spans()
    assert (span.name, span.kind) == ("Enqueue many", SpanKind.PRODUCER)
    assert dict(span.attributes) == {
        "job.count": 3, "job.task_identifier": ("a", "b"), "worker.name": "wq",
    }  # fmt: skip
    assert len({spec.flags[0] for spec in traced}) == 1


def test_a_run_without_a_trace_starts_one_wherever_its_worker_was_started(tracing, provider):
    parents = []
    with provider.get_tracer("app").start_as_current_span("start-up"):
        run(tracing, job_of(), lambda payload: parents.append(get_current_span().parent))
    assert parents == [None]


def test_what_is_not_sampled_leaves_the_flags_alone():
    tracing = Tracing(TracerProvider(sampler=ALWAYS_OFF))
    spec = spec_of("t")
    with tracing.enqueue(spec) as traced:
        assert traced is spec
    with tracing.enqueue_many([spec]) as [traced]:
        assert traced is spec


@pytest.mark.parametrize("provider", [None, NoOpTracerProvider()])
def test_without_a_provider_nothing_is_changed(provider):
    tracing, spec = Tracing(provider), spec_of("t")
    with tracing.enqueue(spec) as traced:
        assert traced is spec
    assert tracing.run(print, arity=1, is_async=False) is print


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), ValueError("x")])
async def test_whatever_ends_a_handler_is_recorded(tracing, exporter, error):
    async def handler(payload):
        raise error

    traced = tracing.run(handler, arity=1, is_async=True)
    with pytest.raises(type(error)):
        await traced({}, job_of(), None)
    [span] = exporter.get_finished_spans()
    assert span.status.status_code is StatusCode.ERROR
    assert span.events[0].attributes["exception.type"] == type(error).__name__


async def test_a_sync_wrapper_of_an_async_handler_is_traced_to_its_end(tracing, exporter):
    async def inner(payload):
        assert get_current_span().is_recording()
        assert not exporter.get_finished_spans()

    traced = tracing.run(partial(inner), arity=1, is_async=False)
    await traced({}, job_of(), None)
    [span] = exporter.get_finished_spans()
    assert span.status.status_code is StatusCode.UNSET


def test_payloads_are_flattened():
    payload = {"a": {"b": [1, {"c": None}, "x"]}, "d": True, "e": 1.5, "f": [], "g": 2**63}
    assert flattened("p", payload) == {
        "p.a.b.0": 1, "p.a.b.2": "x", "p.d": True, "p.e": 1.5, "p.g": "9223372036854775808",
    }  # fmt: skip
    assert flattened("p", "text") == {"p": "text"}
    assert flattened("p", None) == {}


def test_what_a_payload_may_add_is_bounded():
    deep: object = 1
    for _ in range(DEEPEST + 1):
        deep = [deep]
    assert flattened("p", deep) == {}
    assert len(flattened("p", list(range(1000)))) == MOST_MEMBERS
    [text] = flattened("p", "x" * 5000).values()
    assert len(text) == LONGEST_TEXT
    assert flattened("p", "\ud800") == {"p": "\\ud800"}


@pytest.mark.parametrize("flag", ["traceparent:", "traceparent:nonsense", "traceparent:00-1-2-3"])
def test_a_broken_trace_is_no_trace(flag):
    assert parent_of(job_of(flags={flag: True})) == parent_of(job_of())


def test_without_a_trace_the_flags_are_the_caller_s():
    spec = spec_of("t", flags=["a"])
    assert with_trace(spec, None) is spec


def test_it_works_without_opentelemetry_and_does_not_import_it():
    program = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        assert not name.startswith("opentelemetry"), name
sys.meta_path.insert(0, Absent())
from zodworker_compat import ZodWorker
from zodworker_compat.options import JobSpec
worker = ZodWorker(name="w")
spec = JobSpec(identifier="t", payload=None)
with worker._tracing.enqueue(spec) as traced:
    assert traced is spec
assert worker._tracing.run(print, arity=1, is_async=False) is print
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
