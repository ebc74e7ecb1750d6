"""When a failed job is tried again. Pure."""

from collections.abc import Callable
from datetime import timedelta
from typing import TypeAlias

from attrs import field, frozen, validators

from zodworker_compat.errors import retry_seconds
from zodworker_compat.job import Job

Retry: TypeAlias = Callable[[Job, BaseException], timedelta | float | None]
"""What a task may say about its retries: (job, exception) -> delay.

The delay is a timedelta or seconds, 0 to 100 years, counted from the failure by the database's
clock. None leaves it to graphile-worker's backoff, exp(min(attempts, 10)) seconds, and so does a
policy that raises or returns anything else, which is logged. `job.attempts` is 1 at the first
failure. `max_attempts` rules in any case: after the last attempt the delay says nothing.
"""


@frozen(kw_only=True)
class ExponentialBackoff:
    """A policy that waits `unit`, `unit * base`, `unit * base ** 2`, …, at most `most`.

    The default is 30, 60, 120, 240, 480 s, …

    Raises:
        ValueError: a value is out of range.
    """

    base: float = field(default=2.0, validator=validators.ge(1))
    """1 waits equally long each time."""
    unit: float = field(default=30.0, converter=retry_seconds)
    """The wait after the first failure: a timedelta, or seconds; kept in seconds."""
    most: float = field(default=86400.0, converter=retry_seconds)
    """The longest wait, at most 100 years: a timedelta, or seconds; kept in seconds."""

    def __call__(self, job: Job, _error: BaseException) -> float:
        """Return the seconds to the attempt after `job.attempts`."""
        try:
            return min(self.most, self.unit * self.base ** (job.attempts - 1))
        except OverflowError:
            return self.most
