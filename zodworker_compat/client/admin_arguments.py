"""What the admin calls take, checked before any SQL. No I/O."""

from collections.abc import Iterable
from typing import Any, TypeVar

from zodworker_compat.database.cleanup import CLEANUP_TASKS, CleanupTask
from zodworker_compat.database.job_filter import job_id
from zodworker_compat.errors import OptionError, shown
from zodworker_compat.options import (
    check_attempts,
    check_max_attempts,
    check_priority,
    check_run_at,
    check_text,
)

T = TypeVar("T")


def job_ids(ids: Iterable[str | int]) -> list[int]:
    """Return the ids as numbers.

    Raises:
        OptionError: one is not a job id.
    """
    return [job_id(value) for value in _listed("ids", ids)]


def texts(option: str, values: Iterable[str]) -> list[str]:
    """Return the strings as a list.

    Raises:
        OptionError: one is not a string that PostgreSQL can store.
    """
    found = _listed(option, values)
    for value in found:
        check_text(option, value)
    return found


def changes(**given: Any) -> dict[str, Any]:
    """Return the arguments of `reschedule_jobs`; None leaves a column as it is.

    Raises:
        OptionError: a value does not fit its column.
    """
    checks = {
        "run_at": check_run_at,
        "priority": check_priority,
        "attempts": check_attempts,
        "max_attempts": check_max_attempts,
    }
    for name, value in given.items():
        if value is not None:
            checks[name](value)
    return given


def cleanup_tasks(tasks: Iterable[str]) -> list[CleanupTask]:
    """Return the cleanup tasks in the order in which they run, each once.

    Raises:
        OptionError: there is no such task; the text is graphile-worker 0.16.6's.
    """
    wanted = texts("tasks", tasks)
    if not set(wanted) <= set(CLEANUP_TASKS):
        provided = "', '".join(wanted)
        raise OptionError(
            "tasks",
            "Invalid cleanup tasks; allowed values: 'GC_TASK_IDENTIFIERS', 'GC_JOB_QUEUES', "
            f"'DELETE_PERMAFAILED_JOBS'; you provided: '{provided}'",
        )
    return [task for task in CLEANUP_TASKS if task in wanted]


def _listed(option: str, values: Iterable[T]) -> list[T]:
    # A string is an iterable too: "123" would be the jobs 1, 2 and 3.
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise OptionError(option, f"expected a list, got {shown(values)}")
    return list(values)
