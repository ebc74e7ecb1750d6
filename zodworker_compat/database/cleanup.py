"""What `cleanup` can delete, and what it has deleted."""

from typing import Final, Literal, get_args

from attrs import frozen

CleanupTask = Literal["DELETE_PERMAFAILED_JOBS", "GC_TASK_IDENTIFIERS", "GC_JOB_QUEUES"]
CLEANUP_TASKS: Final[tuple[CleanupTask, ...]] = get_args(CleanupTask)
"""In the order in which they run: each leaves more for the next."""


@frozen
class CleanupResult:
    """How many rows a `cleanup` deleted; 0 also for what was not asked for."""

    jobs: int = 0
    task_identifiers: int = 0
    queues: int = 0
