"""The errors people see: what was wrong, where, and what to do about it.

How to tell them apart, where you enqueue and in `on_error`:

- the task is unknown: `UnknownTaskError`;
- the payload is wrong: `PayloadValidationError`, `PayloadSerialisationError`; a run that meets one
  is retried like any other, since the next version of the worker may accept it;
- the job must not be tried again: `PermanentFailure`, raised by a handler;
- the job is to be tried again: `RetryAfter` and every other exception of a handler, `TimeoutError`
  for one that ran longer than its task allows;
- the database is away: `DatabaseUnavailableError`, `psycopg.OperationalError`. The runner itself
  waits for it to come back;
- all that this package raises on purpose is a `ZodworkerError`; what keeps a job from being
  enqueued is an `EnqueueError`.
"""

from collections.abc import Collection, Sequence
from datetime import timedelta
from difflib import get_close_matches

from attrs import frozen

LONGEST_VALUE = 200
"""Characters of a value that a message shows."""


class ZodworkerError(Exception):
    """The base of every error this package raises on purpose."""


class ConfigurationError(ZodworkerError):
    """The worker, its connection or its environment is set up wrongly."""


class DatabaseUnavailableError(ZodworkerError):
    """PostgreSQL could not be reached."""


class MigrationError(ZodworkerError):
    """The schema cannot be installed, adopted or used."""


class RateLimiterError(ZodworkerError):
    """The rate limiter cannot say which jobs must not run; none is claimed."""


class TransactionError(ZodworkerError):
    """The connection or session given as `tx` cannot carry an enqueue."""


class EnqueueError(ZodworkerError):
    """A job was not enqueued; nothing was written."""


class OptionError(EnqueueError, ValueError):
    """An enqueue or catalog option has a value that the jobs table cannot hold."""

    def __init__(self, option: str, problem: str) -> None:
        super().__init__(f"{option}: {problem}")
        self.option = option


class UnknownTaskError(EnqueueError, LookupError):
    """The catalog has no task of that identifier."""

    def __init__(self, identifier: str, known: Collection[str], catalog: str) -> None:
        super().__init__(
            f"Unknown task identifier {shown(identifier)} in catalog {catalog!r}."
            f"{suggestion(identifier, known)}"
        )
        self.identifier = identifier

    def __str__(self) -> str:  # LookupError's subclasses quote their argument
        return str(self.args[0])


@frozen
class Problem:
    """One violation of a schema: the JSON pointer to the value, and what is wrong with it."""

    pointer: str
    message: str

    def __str__(self) -> str:
        return f"{self.pointer or '(the payload itself)'}: {self.message}"


class PayloadValidationError(EnqueueError, ValueError):
    """A payload does not match the JSON Schema of its task."""

    def __init__(self, identifier: str, problems: Sequence[Problem]) -> None:
        lines = "".join(f"\n  {problem}" for problem in problems)
        super().__init__(f"The payload of {identifier!r} does not match its schema:{lines}")
        self.identifier = identifier
        self.problems = tuple(problems)


class PayloadSerialisationError(EnqueueError, ValueError):
    """A payload holds something that JSON cannot: NaN, a naive datetime, an object, a cycle."""

    def __init__(self, pointer: str, problem: str) -> None:
        super().__init__(
            f"The payload cannot be written as JSON at {pointer or 'its root'}: {problem}"
        )
        self.pointer = pointer


class BatchError(EnqueueError, ValueError):
    """Some items of an `enqueue_many` are wrong; none was enqueued.

    `failures` holds (index into the batch, error) for every bad item.
    """

    def __init__(self, failures: Sequence[tuple[int, Exception]], size: int) -> None:
        lines = "".join(f"\n  item {index}: {error}" for index, error in failures)
        super().__init__(f"{len(failures)} of {size} jobs cannot be enqueued; none was:{lines}")
        self.failures = tuple(failures)


class RetryAfter(ZodworkerError):  # noqa: N818 - it says what to do, and may be no error at all
    """Raised by a handler: try the job again after `delay`; the attempt counts.

    On the last attempt the job fails for good, as with any other exception.

    Args:
        delay: 0 or more, at most 100 years, by the database's clock; a bare number is seconds.
        reason: for people, in `last_error`.

    Raises:
        ValueError: the delay is negative, not finite or too long.
    """

    def __init__(self, delay: timedelta | float, reason: str = "") -> None:
        seconds = retry_seconds(delay)
        super().__init__(f"{reason} (in {seconds:g} s)" if reason else f"in {seconds:g} s")
        self.delay = timedelta(seconds=seconds)
        self.reason = reason


class PermanentFailure(ZodworkerError):  # noqa: N818 - as people call it
    """Raised by a handler: do not try the job again, whatever attempts are left.

    The job is kept with its `last_error` and `attempts` of `max_attempts`, as graphile-worker's
    `permanently_fail_jobs` leaves it; with `delete_failed_jobs` it is deleted.

    Args:
        reason: for people, in `last_error`.
    """

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = reason


class CatalogError(ConfigurationError):
    """A catalog or schema file is wrong: names the file, the identifier and the JSON pointer."""

    def __init__(
        self,
        problem: str,
        *,
        file: str | None = None,
        identifier: str | None = None,
        pointer: str | None = None,
    ) -> None:
        places = [file, f"task {identifier!r}" if identifier else None, pointer]
        where = ", ".join(place for place in places if place)
        super().__init__(f"{where}: {problem}" if where else problem)
        self.file, self.identifier, self.pointer = file, identifier, pointer


def shown(value: object) -> str:
    """Return `repr(value)` for a message: cut to 200 characters, whatever the value is."""
    try:
        text = repr(value)
    except Exception as error:  # noqa: BLE001 - a number of 5,000 digits, a list in itself, a __repr__
        return f"a value of type {type(value).__name__} (its repr() raises {type(error).__name__})"
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}…"


def suggestion(word: str, known: Collection[str]) -> str:
    """Return " Did you mean …?" for the nearest of `known`, or the known names if they are few."""
    if near := get_close_matches(word, known, n=3, cutoff=0.6):
        return f" Did you mean {' or '.join(map(repr, near))}?"
    if lower := [name for name in known if name.lower() == word.lower()]:
        return f" Did you mean {lower[0]!r}?"
    if 0 < len(known) <= 12:  # noqa: PLR2004 - a screen line
        return f" Known: {', '.join(sorted(known))}."
    return ""


_LONGEST_RETRY = timedelta(days=36525)


def retry_seconds(delay: timedelta | float) -> float:
    """Return a delay in seconds.

    Raises:
        ValueError: it is negative, not finite, or longer than 100 years.
    """
    seconds = delay.total_seconds() if isinstance(delay, timedelta) else float(delay)
    if not 0 <= seconds <= _LONGEST_RETRY.total_seconds():
        raise ValueError(f"A retry is delayed by 0 s to 100 years, not by {delay!r}")
    return seconds
