"""Which jobs: what the look and act calls take. No I/O."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final, Literal, TypeAlias, get_args

from attrs import Attribute, asdict, field, frozen

from zodworker_compat.errors import OptionError, shown
from zodworker_compat.options import check_run_at, check_text

JobState: TypeAlias = Literal["ready", "scheduled", "retrying", "running", "failed"]
JOB_STATES: Final[tuple[JobState, ...]] = get_args(JobState)
"""Every job is in one of them:

- `ready`: due, and waiting for a worker (or for its named queue);
- `scheduled`: not due yet, and never tried;
- `retrying`: tried before, and not due yet;
- `running`: locked by a worker, dead or alive;
- `failed`: out of attempts: stays until somebody retries or removes it.
"""

JobSort: TypeAlias = Literal["id", "newest", "next", "due", "locked"]
JOB_SORTS: Final[tuple[JobSort, ...]] = get_args(JobSort)
"""The orders of a list of jobs:

- `id`: oldest first; `newest`: newest first. Both are quick at any size;
- `next`: as workers take them, by priority and time; only jobs that a worker may take, or will;
- `due`: by `run_at`; reads the whole table;
- `locked`: longest running first; only running jobs; reads the whole table.
"""

_BIGINT_MAX = 2**63 - 1


def job_id(value: object) -> int:
    """Return a job's id as a number.

    Raises:
        OptionError: it is not one.
    """
    is_id = isinstance(value, int) and value <= _BIGINT_MAX
    text = str(value) if is_id or isinstance(value, str) else ""
    if text.isascii() and text.isdigit() and len(text) <= len(str(_BIGINT_MAX)):
        number = int(text)
        if number <= _BIGINT_MAX:
            return number
    raise OptionError(
        "ids", f"{shown(value)} is not a job id; expected a whole number, such as Job.id"
    )


def _ids(values: Iterable[str | int] | None) -> tuple[int, ...] | None:
    return None if values is None else tuple(job_id(value) for value in _listed("ids", values))


def _states(values: Iterable[JobState] | None) -> tuple[JobState, ...] | None:
    return None if values is None else _listed("states", values)


def _texts(name: str) -> Any:
    def convert(values: Iterable[str] | None) -> tuple[str, ...] | None:
        if values is None:
            return None
        found = _listed(name, values)
        for value in found:
            check_text(name, value)
        return found

    return field(default=None, converter=convert)


def _listed(name: str, values: Iterable[Any]) -> tuple[Any, ...]:
    # A string is an iterable too: "123" would be the jobs 1, 2 and 3.
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise OptionError(name, f"expected a list, got {values!r}")
    return tuple(values)


def _check_age(_filter: object, attribute: "Attribute[Any]", value: Any) -> None:
    if value is not None and not (isinstance(value, timedelta) and value >= timedelta(0)):
        raise OptionError(attribute.name, f"expected a timedelta of 0 or more, got {value!r}")


def _check_states(_filter: object, _attribute: "Attribute[Any]", values: Any) -> None:
    for value in values or ():
        if value not in JOB_STATES:
            raise OptionError("states", f"{value!r} is not one of {', '.join(JOB_STATES)}")


def _check_time(_filter: object, _attribute: "Attribute[Any]", value: Any) -> None:
    if value is not None:
        check_run_at(value)


def _check_error(_filter: object, _attribute: "Attribute[Any]", value: Any) -> None:
    if value is not None:
        check_text("error", value)


@frozen(kw_only=True)
class JobFilter:
    """Which jobs; what is None does not matter, and all that is given must hold.

    Lists may be any iterables of strings; an empty one finds nothing.
    """

    ids: tuple[int, ...] | None = field(default=None, converter=_ids)
    """`Job.id`s, as strings or numbers."""
    keys: tuple[str, ...] | None = _texts("keys")
    tasks: tuple[str, ...] | None = _texts("tasks")
    """Task identifiers."""
    queues: tuple[str, ...] | None = _texts("queues")
    """Names of named queues."""
    states: tuple[JobState, ...] | None = field(
        default=None,
        converter=_states,
        validator=_check_states,
    )
    locked_by: tuple[str, ...] | None = _texts("locked_by")
    """Workers, as `Job.locked_by` names them."""
    locked_for: timedelta | None = field(default=None, validator=_check_age)
    """Running for at least so long."""
    older_than: timedelta | None = field(default=None, validator=_check_age)
    """Enqueued at least so long ago."""
    newer_than: timedelta | None = field(default=None, validator=_check_age)
    """Enqueued less than so long ago."""
    due_before: datetime | None = field(default=None, validator=_check_time)
    """With a `run_at` before this time; that of a failed job is about when it failed."""
    error: str | None = field(default=None, validator=_check_error)
    """Part of `last_error`; upper and lower case are the same."""

    @property
    def is_everything(self) -> bool:
        """Whether nothing is given, so that it finds all jobs."""
        return all(value is None for value in asdict(self).values())

    def parameters(self) -> Mapping[str, Any]:
        """Return the parameters of `sql/job_filter.sql`."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }
