"""What a failed run leaves in the row: its text, and when it is tried again. Pure."""

from typing import Any, Final

from attrs import frozen

from zodworker_compat.errors import PermanentFailure, RetryAfter, retry_seconds
from zodworker_compat.job import Job
from zodworker_compat.runner.retry import Retry

LONGEST_ERROR: Final = 10_000
"""Characters of `last_error`; the log has the rest."""
MOST_MEMBERS: Final = 10
"""Exceptions of a group that `last_error` names."""


@frozen(kw_only=True)
class Failure:
    """A failed run, and what is to become of its job."""

    job: Job
    error: BaseException
    message: str
    """The `last_error`."""
    delay: float | None
    """Seconds to the next attempt; None for graphile-worker's backoff."""
    is_permanent: bool
    """The attempts that are left do not count."""
    is_deleted: bool
    """The job is deleted instead of kept."""

    @property
    def is_last(self) -> bool:
        """Whether the job is not tried again."""
        return self.is_permanent or self.job.is_last_attempt


def failure_of(
    job: Job, error: BaseException, *, retry: Retry | None, delete_last: bool
) -> Failure:
    """Return what is to become of a job whose run raised `error`.

    Args:
        job: as it was claimed.
        error: what the run raised.
        retry: the policy of its task.
        delete_last: the job is deleted if it is not tried again.

    Raises:
        Exception: whatever the policy raises.
        ValueError: the policy returned no delay; TypeError: no number.
    """
    is_permanent = isinstance(error, PermanentFailure)
    delay: float | None = None
    if is_permanent:
        delay = 0
    elif isinstance(error, RetryAfter):
        delay = error.delay.total_seconds()
    elif retry is not None and (given := retry(job, error)) is not None:
        delay = retry_seconds(given)
    return Failure(
        job=job,
        error=error,
        message=error_text(error),
        delay=delay,
        is_permanent=is_permanent,
        is_deleted=delete_last and (is_permanent or job.is_last_attempt),
    )


def plain_failure(job: Job, error: BaseException, *, delete_last: bool) -> Failure:
    """Return the failure of a job, with graphile-worker's backoff; arguments as in `failure_of`."""
    return Failure(
        job=job,
        error=error,
        message=error_text(error),
        delay=None,
        is_permanent=False,
        is_deleted=delete_last and job.is_last_attempt,
    )


def error_text(error: BaseException) -> str:
    """Return `TypeName: message`, storable in PostgreSQL whatever the message holds (departure 9).

    The first exceptions of a group follow its message: that alone only counts them.
    graphile-worker 0.16.6 stores the message alone, and fails to fail on a NUL.
    """
    text = _described(error)
    if isinstance(error, BaseExceptionGroup):
        text = f"{text}: {'; '.join(_described(member) for member in _members(error))}"
    return storable(text)


def _described(error: BaseException) -> str:
    name = type(error).__name__
    try:
        message = str.__str__(str(error))  # a plain string, if it is of a class of its own
    except BaseException as broken:  # noqa: BLE001 - whatever __str__ raises must not hide the failure
        message = f"(its message cannot be read: {type(broken).__name__})"
    return f"{name}: {message}" if message else name


def _members(group: BaseExceptionGroup[Any]) -> list[BaseException]:
    """Return the first exceptions of a group that are no groups themselves."""
    found: list[BaseException] = []
    waiting: list[BaseException] = [group]
    while waiting and len(found) < MOST_MEMBERS:
        error = waiting.pop()
        if isinstance(error, BaseExceptionGroup):
            waiting += reversed(error.exceptions)
        else:
            found.append(error)
    return found


def storable(text: str) -> str:
    r"""Escape what a PostgreSQL text cannot hold, and bound the length.

    NUL becomes `\x00` and a lone surrogate `\udXXX`, both spelled out.
    """
    if len(text) > LONGEST_ERROR:
        text = f"{text[:LONGEST_ERROR]}… ({len(text) - LONGEST_ERROR} more characters)"
    return text.encode(errors="backslashreplace").decode().replace("\0", "\\x00")
