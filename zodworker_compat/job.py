"""A job: one row of the jobs table."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import field, fields, frozen

T = TypeVar("T")


def _utc(value: datetime | None) -> datetime | None:
    return None if value is None else value.astimezone(UTC)


class _Deferred:
    """A job of a large batch is read from PostgreSQL's answer when it is first looked at.

    Reading costs 8 us, and most callers of `enqueue_many` look at few of the jobs, or none.
    """

    __slots__ = ("_read", "_row", "_spec")

    if not TYPE_CHECKING:  # a type checker would accept any attribute

        def __getattr__(self, name: str) -> Any:
            """Read all attributes; Python asks here for those that are not set."""
            if name not in _NAMES:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            read = object.__getattribute__(self, "_read")
            if read is not None:
                job = read(self._spec, self._row)
                for field_name in _NAMES:
                    object.__setattr__(self, field_name, getattr(job, field_name))
                object.__setattr__(self, "_read", None)
            return object.__getattribute__(self, name)  # else another thread has just read it


@frozen(kw_only=True)
class Job(_Deferred):
    """One row of graphile-worker's `_private_jobs`, as `add_job` returns it and a handler sees it.

    Every column is here under its own name, with the two names that the row only refers to
    (`task_identifier`, `queue_name`). Times are aware datetimes in UTC. `payload` is the stored
    JSON, before validation and stripping. `id` is a string, as ZodWorker's is (P-22).
    """

    id: str = field(converter=str)
    task_identifier: str
    queue_name: str | None
    payload: Any = field(repr=False)  # may hold personal data; reprs end in logs
    priority: int
    run_at: datetime = field(converter=_utc)
    attempts: int
    """1 during the first run: counted when the job is claimed."""
    max_attempts: int
    last_error: str | None
    created_at: datetime = field(converter=_utc)
    updated_at: datetime = field(converter=_utc)
    key: str | None
    locked_at: datetime | None = field(converter=_utc)
    locked_by: str | None
    revision: int
    flags: dict[str, bool] | None
    job_queue_id: int | None
    task_id: int
    is_available: bool

    @property
    def is_last_attempt(self) -> bool:
        """Whether a failure of this run leaves the job failed for good."""
        return self.attempts >= self.max_attempts


_NAMES = tuple(attribute.name for attribute in fields(Job))
_set_read, _set_spec, _set_row = (
    vars(_Deferred)[name].__set__ for name in ("_read", "_spec", "_row")
)


def deferred(read: Callable[[T, int], Job], spec: T, row: int) -> Job:
    """Return a job that becomes equal to `read(spec, row)` when one of its attributes is read."""
    job = Job.__new__(Job)
    _set_read(job, read)
    _set_spec(job, spec)
    _set_row(job, row)
    return job
