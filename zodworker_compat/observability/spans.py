"""The spans of `tracing`, and what they say. Needs opentelemetry-api (extra `tracing`)."""

import inspect
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final, Self

from attrs import evolve, frozen
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from zodworker_compat.job import Job
from zodworker_compat.options import JobSpec
from zodworker_compat.payload.formats import to_json_date

TRACER: Final = ("zodWorker", "3.0.0.dp.1")
"""Name and version of the tracer, as ZodWorker's."""
FLAG: Final = "traceparent:"
MOST_MEMBERS: Final = 64
"""Values of a payload that become attributes."""
LONGEST_TEXT: Final = 1024
DEEPEST: Final = 16
_NO_PROVIDER: Final = (trace.ProxyTracerProvider, trace.NoOpTracerProvider)
_W3C: Final = TraceContextTextMapPropagator()

Attributes = dict[str, Any]


@frozen
class Spans:
    """Makes spans with one tracer."""

    _tracer: trace.Tracer
    _payloads: bool
    _worker_name: str | None

    @classmethod
    def of(
        cls, provider: trace.TracerProvider | None, payloads: bool, worker_name: str | None
    ) -> Self | None:
        """Return one for a provider; None if that is OpenTelemetry's "there is none"."""
        provider = provider or trace.get_tracer_provider()
        if isinstance(provider, _NO_PROVIDER):
            return None
        return cls(provider.get_tracer(*TRACER), payloads, worker_name)

    @contextmanager
    def enqueue(self, spec: JobSpec) -> Iterator[JobSpec]:
        """See `Tracing.enqueue`."""
        with self._span(f"Enqueue {spec.identifier}", SpanKind.PRODUCER) as span:
            if span.is_recording():
                span.set_attributes(self._named(enqueue_attributes(spec)))
                if self._payloads and spec.payload is not None:
                    span.set_attributes(flattened("job.payload", json.loads(spec.payload)))
            yield with_trace(spec, traceparent(span))

    @contextmanager
    def enqueue_many(self, specs: Sequence[JobSpec]) -> Iterator[list[JobSpec]]:
        """See `Tracing.enqueue_many`."""
        with self._span("Enqueue many", SpanKind.PRODUCER) as span:
            if span.is_recording():
                identifiers = sorted({spec.identifier for spec in specs})[:MOST_MEMBERS]
                attributes = {"job.count": len(specs), "job.task_identifier": identifiers}
                span.set_attributes(self._named(attributes))
            value = traceparent(span)
            yield [with_trace(spec, value) for spec in specs]

    def run(
        self, handler: Callable[..., Any], *, arity: int, is_async: bool, recurring: bool
    ) -> Callable[..., Any]:
        """See `Tracing.run`."""

        async def traced_async(payload: Any, job: Job, helpers: Any) -> Any:
            with self._run(job, recurring):
                return await handler(*(payload, job, helpers)[:arity])

        def traced(payload: Any, job: Job, helpers: Any) -> Any:
            span = self._start(job, recurring)
            with _active(span):
                result = handler(*(payload, job, helpers)[:arity])
            if inspect.isawaitable(result):  # a sync wrapper around an async function
                return _finish(span, result)
            span.end()
            return result

        return traced_async if is_async else traced

    @contextmanager
    def _span(self, name: str, kind: SpanKind) -> Iterator[Span]:
        span = self._tracer.start_span(name, kind=kind)
        with _active(span):
            yield span
        span.end()

    @contextmanager
    def _run(self, job: Job, recurring: bool) -> Iterator[None]:
        span = self._start(job, recurring)
        with _active(span):
            yield
        span.end()

    def _start(self, job: Job, recurring: bool) -> Span:
        # Its parent is the job's alone: slots inherit what was current when the worker started.
        span = self._tracer.start_span(
            f"Run {job.task_identifier}{' recurring' if recurring else ''}",
            context=parent_of(job),
            kind=SpanKind.CONSUMER,
        )
        if span.is_recording():
            span.set_attributes(self._named(run_attributes(job)))
            if self._payloads:
                span.set_attributes(flattened("job.payload", job.payload))
        return span

    def _named(self, attributes: Attributes) -> Attributes:
        if self._worker_name is not None:
            attributes["worker.name"] = self._worker_name
        return attributes


@contextmanager
def _active(span: Span) -> Iterator[None]:
    """Make a span current; if an exception leaves, record it and end the span.

    Not OpenTelemetry's own: that takes a handler's SystemExit for a success.
    """
    try:
        with trace.use_span(span, record_exception=False, set_status_on_exception=False):
            yield
    except BaseException as error:
        span.record_exception(error)
        span.set_status(Status(StatusCode.ERROR, type(error).__name__))
        span.end()
        raise


async def _finish(span: Span, result: Any) -> Any:
    with _active(span):
        value = await result
    span.end()
    return value


def traceparent(span: Span) -> str | None:
    """Return the W3C value of a span; None if it is not sampled."""
    if not (span.is_recording() and span.get_span_context().trace_flags.sampled):
        return None
    carrier: dict[str, str] = {}
    _W3C.inject(carrier, trace.set_span_in_context(span, Context()))
    return carrier.get("traceparent")


def with_trace(spec: JobSpec, value: str | None) -> JobSpec:
    """Return the arguments with the trace among their flags, in the place of an older one."""
    if value is None:
        return spec
    flags = [flag for flag in spec.flags or () if not flag.startswith(FLAG)]
    return evolve(spec, flags=[*flags, FLAG + value])


def parent_of(job: Job) -> Context:
    """Return the context of the enqueue that made the job; empty if it was not traced."""
    for flag in job.flags or ():
        if flag.startswith(FLAG):
            return _W3C.extract({"traceparent": flag[len(FLAG) :]}, Context())
    return Context()


def enqueue_attributes(spec: JobSpec) -> Attributes:
    """Return what ZodWorker says of an enqueue: the arguments that are set."""
    return _set(
        {
            "job.task_identifier": spec.identifier,
            "job.priority": spec.priority,
            "job.run_at": _iso(spec.run_at),
            "job.jobKey": spec.job_key,
            "job.flags": spec.flags,
            "job.max_attempts": spec.max_attempts,
        }
    )


def run_attributes(job: Job) -> Attributes:
    """Return what ZodWorker says of a run."""
    attributes = {
        "job.task_identifier": job.task_identifier,
        "job.id": job.id,
        "job.queue_id": job.job_queue_id,
        "job.priority": job.priority,
        "job.run_at": _iso(job.run_at),
        "job.attempts": job.attempts,
        "job.max_attempts": job.max_attempts,
        "job.created_at": _iso(job.created_at),
        "job.updated_at": _iso(job.updated_at),
        "job.key": job.key,
        "job.revision": job.revision,
        "job.locked_at": _iso(job.locked_at),
        "job.locked_by": job.locked_by,
    }
    for flag, value in (job.flags or {}).items():
        if not flag.startswith(FLAG):
            attributes[f"job.flags.{flag}"] = value
    return _set(attributes)


def flattened(prefix: str, value: Any) -> Attributes:
    """Return JSON values as attributes: `prefix.items.0.id`; nulls and empty ones are left out."""
    attributes: Attributes = {}

    def add(name: str, member: Any, depth: int) -> None:
        if len(attributes) >= MOST_MEMBERS or depth > DEEPEST or member is None:
            return
        if isinstance(member, dict | list):
            pairs = member.items() if isinstance(member, dict) else enumerate(member)
            for key, inner in pairs:
                if len(attributes) >= MOST_MEMBERS:
                    return
                add(f"{name}.{key}", inner, depth + 1)
        else:
            attributes[_text(name)] = _legal(member)

    add(prefix, value, 0)
    return attributes


def _legal(value: Any) -> bool | int | float | str:
    if isinstance(value, bool | float):
        return value
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return value
    return _text(str(value))


def _text(text: str) -> str:
    return text[:LONGEST_TEXT].encode(errors="backslashreplace").decode()


def _set(attributes: Attributes) -> Attributes:
    return {name: value for name, value in attributes.items() if value is not None}


def _iso(value: datetime | None) -> str | None:
    if value is None:
        return None
    try:
        return to_json_date(value)
    except OverflowError:  # tracing refuses nothing
        return value.isoformat()
