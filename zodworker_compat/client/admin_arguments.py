"""What the admin calls take, checked before any SQL. No I/O."""

import re
from collections.abc import Iterable
from typing import Any, TypeVar

from zodworker_compat.database.cleanup import CLEANUP_TASKS, CleanupTask
from zodworker_compat.errors import OptionError
from zodworker_compat.options import (
    check_attempts,
    check_max_attempts,
    check_priority,
    check_run_at,
    check_text,
)

T = TypeVar("T")
_BIGINT_MAX = 2**63 - 1


def job_ids(ids: Iterable[str | int]) -> list[int]:
    """Return the ids as numbers.

    Raises:
        OptionError: one is not a job id.
    """
    return [_job_id(value) for value in _listed("ids", ids)]


def _job_id(value: object) -> int:
    if isinstance(value, str | int) and re.fullmatch("[0-9]{1,19}", str(value)):
        number = int(value)
        if number <= _BIGINT_MAX:
            return number
    raise OptionError("ids", f"{value!r} is not a job id; expected a whole number, such as Job.id")


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
    wanted = _listed("tasks", tasks)
    if not set(wanted) <= set(CLEANUP_TASKS):
        provided = "', '".join(map(str, wanted))
        raise OptionError(
            "tasks",
            "Invalid cleanup tasks; allowed values: 'GC_TASK_IDENTIFIERS', 'GC_JOB_QUEUES', "
            f"'DELETE_PERMAFAILED_JOBS'; you provided: '{provided}'",
        )
    return [task for task in CLEANUP_TASKS if task in wanted]


def _listed(option: str, values: Iterable[T]) -> list[T]:
    # A string is an iterable too: "123" would be the jobs 1, 2 and 3.
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise OptionError(option, f"expected a list, got {values!r}")
    return list(values)
