"""What is in the queue: jobs by state, task, queue and worker; single jobs; crontabs."""

from datetime import datetime, timedelta
from typing import Literal

from attrs import field, frozen

from zodworker_compat.database.job_filter import JobState
from zodworker_compat.job import Job


@frozen(kw_only=True)
class Counts:
    """Jobs by state. The states exclude each other: every job is counted once."""

    ready: int = 0
    """Due, and waiting for a worker (or for its named queue)."""
    scheduled: int = 0
    """Not due yet, and never tried."""
    retrying: int = 0
    """Tried before, and not due yet."""
    running: int = 0
    """Locked by a worker, dead or alive."""
    failed: int = 0
    """Out of attempts: they stay until somebody retries or removes them."""
    oldest_ready: timedelta | None = None
    """How long the job that was due first has been due."""
    next_due: datetime | None = None
    """When the next of those that are not due yet will be."""
    total: int = field(init=False)

    @total.default
    def _sum(self) -> int:
        return self.ready + self.scheduled + self.retrying + self.running + self.failed


@frozen(kw_only=True)
class AllCounts(Counts):
    """All jobs of a queue."""

    queues: int
    """Named queues that have jobs, or are locked."""
    blocked: int
    """Those of the ready jobs that wait for a named queue which is locked now."""
    running_since: datetime | None
    """When the job that is running longest was locked."""


@frozen(kw_only=True)
class TaskCounts(Counts):
    """Jobs of one task; only tasks that have any."""

    identifier: str


@frozen(kw_only=True)
class QueueCounts(Counts):
    """Jobs of one named queue; only queues that have any, or are locked."""

    queue_name: str
    locked_by: str | None
    """The worker that runs a job of it now."""
    locked_at: datetime | None

    @property
    def is_stuck(self) -> bool:
        """Whether it is locked though none of its jobs is running: its worker died, or is just done."""
        return self.locked_at is not None and self.running == 0


@frozen(kw_only=True)
class Heartbeat:
    """A Python worker that says that it lives: one row of `zodworker_workers`."""

    pool_id: str
    name: str
    host: str
    pid: int
    version: str
    concurrency: int
    tasks: tuple[str, ...]
    """The identifiers that it handles."""
    started_at: datetime
    beat_at: datetime
    silent_for: timedelta
    """Since its last heartbeat, by the database's clock."""
    is_dead: bool
    """Silent for longer than it said it ever would be, or declared dead by another."""
    recovered_at: datetime | None
    """When a dead one held nothing any more."""


@frozen(kw_only=True)
class WorkerView:
    """A worker that holds locks, or has a heartbeat, or both."""

    locked_by: str
    """The name it locks with: the pool id of Python workers and of Node since 0.17, the worker id of
    Node before; "(nobody)" for locks without a name."""
    state: Literal["alive", "dead", "unknown"]
    """By its heartbeat; unknown without one: Node's workers, and Python's whose row is gone."""
    jobs: int
    queues: int
    since: datetime | None
    """When it took the oldest of its locks, by the database's clock."""
    heartbeat: Heartbeat | None = None


@frozen(kw_only=True)
class ErrorCount:
    """One error message, and how many waiting or failed jobs ended in it."""

    task_identifier: str
    error: str
    """The first line, at most 200 characters."""
    jobs: int
    failed: int
    """How many of the jobs are out of attempts; the others will be tried again."""


@frozen(kw_only=True)
class Status:
    """One snapshot of a queue."""

    database: str
    schema: str
    revision: int | None
    read_at: datetime
    """The database's clock."""
    jobs: AllCounts
    tasks: list[TaskCounts]
    queues: list[QueueCounts]
    """Those that most need a look first: locked ones with ready jobs behind them."""
    workers: list[WorkerView]
    errors: list[ErrorCount]
    """The most frequent first."""
    sampled: float = 1.0
    """The part of the jobs table that was read: below 1, the counts are estimates."""
    has_heartbeats: bool
    """Whether Python workers say here that they live."""
    hidden_from: str | None
    """The role, if row level security keeps jobs from it: then the numbers may be too small."""
    owner: str
    """The role that sees every job."""


@frozen(kw_only=True)
class ListedJob:
    """A job in a list, and what the tables say about it at that moment."""

    job: Job
    payload_text: str = field(repr=False)
    """The payload as it is stored; Python may be unable to read it, then `job.payload` is None."""
    state: JobState
    queue_locked_by: str | None
    """Who holds its named queue, if anybody does."""
    queue_locked_at: datetime | None
    read_at: datetime
    """The database's clock."""
    cursor: str
    """`after` of the page that follows this job."""


@frozen(kw_only=True)
class JobPage:
    """Some jobs, and where to go on."""

    jobs: list[ListedJob]
    after: str | None
    """What to give as `after` for the next page; None if this is the last."""


@frozen(kw_only=True)
class JobReport:
    """All that the tables say about one job."""

    listed: ListedJob
    holder: WorkerView | None
    """Who holds it or, if nobody does, its named queue."""
    running_in_queue: tuple[str, ...]
    """The other jobs of its named queue that are running; at most ten ids."""
    ahead: int
    """Ready jobs that workers take before this one, counted up to `MOST_AHEAD`."""
    handled_by: tuple[Heartbeat, ...]
    """The living Python workers that handle its task."""
    has_heartbeats: bool
    """Whether any Python worker says here that it lives."""
    paused_flags: tuple[str, ...]
    """Its flags that a rate limiter in the database has paused."""


@frozen(kw_only=True)
class Crontab:
    """A recurring task: what the tables know of it and, if its item is given, when it fires."""

    identifier: str
    known_since: datetime | None
    """None: no worker has ever run with it."""
    last_execution: datetime | None
    """The last minute whose job was enqueued."""
    read_at: datetime
    """The database's clock."""
    pattern: str | None = None
    """Its five fields; None if it is not given, "(function)" for one in code."""
    time_zone: str | None = None
    next_at: datetime | None = None
    missed_at: datetime | None = None
    """The last minute in which it should have fired, if it did not."""


@frozen(kw_only=True)
class Held:
    """Jobs that an act leaves alone: a worker locked them in the last four hours."""

    locked_by: str
    jobs: int
    since: datetime
    ids: tuple[str, ...] = ()
    """Which, if the act was told ids."""


@frozen(kw_only=True)
class Preview:
    """What an act would do."""

    tasks: dict[str, int]
    """Jobs it would change, by task identifier, most first."""
    held: list[Held]
    missing: tuple[str, ...] = ()
    """Ids that it was told, and no job has."""

    @property
    def jobs(self) -> int:
        """How many jobs it would change."""
        return sum(self.tasks.values())


@frozen(kw_only=True)
class Outcome:
    """What an act did, and what it left alone."""

    changed: int
    held: list[Held] = field(factory=list)
    missing: tuple[str, ...] = ()
    """Ids or keys that it was told, and no job has."""
    busy: tuple[str, ...] = ()
    """Ids of jobs that an open transaction held, or that changed at this moment: try again."""


@frozen(kw_only=True)
class Unlocked:
    """What `unlock` did."""

    freed: list[WorkerView]
    """With what they held."""
    skipped: list[WorkerView]
    """Not known to be dead; with `force`, they are freed too."""
    missing: tuple[str, ...]
    """Hold nothing."""
