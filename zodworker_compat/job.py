"""A job: one row of the jobs table."""

from datetime import UTC, datetime
from typing import Any

from attrs import field, frozen


def _utc(value: datetime | None) -> datetime | None:
    return None if value is None else value.astimezone(UTC)


@frozen(kw_only=True)
class Job:
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
