"""Whether calls are traced. OpenTelemetry is not imported before the application does.

Tracing is on once the application has set a tracer provider, globally or by `tracer_provider=`;
workers look when they start, `enqueue` looks at each call. There is nothing else to turn on, and
without a provider an enqueue costs a fraction of a microsecond more and a run nothing.

| span | kind | what |
| --- | --- | --- |
| `Enqueue <identifier>` | PRODUCER | the statement of one enqueue |
| `Enqueue many` | PRODUCER | that of one `enqueue_many` |
| `Run <identifier>` | CONSUMER | one run of the handler |
| `Run <identifier> recurring` | CONSUMER | the same, of a recurring task |

Names and attributes are ZodWorker's, but for this:

- The run continues the trace of its enqueue. Its context travels as one of the job's `flags`,
  `traceparent:<W3C value>`: the payload belongs to its schema, and the table has no other place.
  Workers, limiters and Node see it like any flag. It is added only if the span is sampled; without
  tracing a job's flags are what the caller said. A keyed replace brings the new trace, a limiter's
  reschedule keeps the old one. Baggage and tracestate are not carried.
- An exception of the handler sets the status of its span to ERROR. ZodWorker records the exception
  and leaves the status unset, so that no tool counts it.
- `job.payload.*` is left out unless `trace_payloads=True`: payloads hold personal data. It is
  flattened with dots for both spans (ZodWorker gives `Enqueue` an object, which OpenTelemetry
  drops) and bounded: `MOST_MEMBERS` values, `LONGEST_TEXT` characters each.
"""

import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from zodworker_compat.options import JobSpec

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

    from zodworker_compat.observability.spans import Spans


class Tracing:
    """Makes the spans of one worker or client; does nothing while no provider is set.

    Args:
        provider: of OpenTelemetry; None is the global one.
        payloads: whether spans carry the payload.
        worker_name: becomes the attribute `worker.name`.
    """

    def __init__(
        self,
        provider: "TracerProvider | None" = None,
        *,
        payloads: bool = False,
        worker_name: str | None = None,
    ) -> None:
        self._provider = provider
        self._payloads = payloads
        self._worker_name = worker_name
        self._spans: Spans | None = None
        self._make: Callable[..., Spans | None] | None = None

    def enqueue(self, spec: JobSpec) -> AbstractContextManager[JobSpec]:
        """Trace an enqueue; enter it to get the arguments with the trace among their flags."""
        spans = self._on()
        return nullcontext(spec) if spans is None else spans.enqueue(spec)

    def enqueue_many(self, specs: Sequence[JobSpec]) -> AbstractContextManager[Sequence[JobSpec]]:
        """Trace an `enqueue_many`, as `enqueue`: its jobs are children of one span."""
        spans = self._on()
        return nullcontext(specs) if spans is None else spans.enqueue_many(specs)

    def run(
        self,
        handler: Callable[..., Any],
        *,
        arity: int,
        is_async: bool,
        recurring: bool = False,
    ) -> Callable[..., Any]:
        """Return a handler that runs in a span; the same handler if tracing is off.

        Args:
            handler: takes the first `arity` of payload, job, helpers; the result takes all three.
            arity: 1, 2 or 3.
            is_async: whether calling it gives a coroutine; the result is alike.
            recurring: whether the task is one of cron's.
        """
        spans = self._on()
        if spans is None:
            return handler
        return spans.run(handler, arity=arity, is_async=is_async, recurring=recurring)

    def _on(self) -> "Spans | None":
        if self._spans is None and (
            self._provider is not None or "opentelemetry.trace" in sys.modules
        ):
            if self._make is None:
                from zodworker_compat.observability.spans import Spans  # noqa: PLC0415 - see above

                self._make = Spans.of
            self._spans = self._make(self._provider, self._payloads, self._worker_name)
        return self._spans
