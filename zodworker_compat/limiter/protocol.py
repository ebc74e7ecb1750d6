"""What a rate limiter is to the worker: ZodWorker's `ZodWorkerRateLimiter`."""

from collections.abc import Awaitable, Callable, Collection
from typing import Any, Protocol, TypeAlias, runtime_checkable

from zodworker_compat.job import Job
from zodworker_compat.runner_options import RunnerOptions

Task: TypeAlias = Callable[[Any, Job, Any], Awaitable[None]]
"""`await task(payload, job, helpers)` checks the stored payload and runs the handler."""

Reschedule: TypeAlias = Callable[[Any, Job], Awaitable[None]]
"""`await reschedule(payload, job)` puts a job back as a new one, in one transaction.

The new job has the row's queue, key, priority, flags and run_at, no attempts used, and as many left
as the old one had (P-51, P-52). It is never lost to the key mode `unsafe_dedupe` (departure 6). The
old job is gone then: what its task does afterwards changes nothing.
"""


class RateLimiter(Protocol):
    """Says before each claim which jobs to skip, and has the last word when one starts."""

    async def forbidden_flags(self) -> Collection[str]:
        """Return flags whose jobs must not be claimed now; awaited before each claim (P-50).

        If it raises, nothing is claimed; the error is logged, and it is asked again.
        """

    def wrap_task(self, task: Task, reschedule: Reschedule) -> Task:
        """Return what runs in place of `task`: once per task, for those of the catalog (P-53).

        The result must end in `task` or in `reschedule`; if it does neither, the job counts as done.
        """


@runtime_checkable
class ManagedRateLimiter(RateLimiter, Protocol):
    """A limiter that is opened before its worker claims, and closed after its last job."""

    async def open(self, options: RunnerOptions) -> None:
        """Get ready; `options` are the worker's."""

    async def close(self) -> None:
        """Let go of what `open` took."""
