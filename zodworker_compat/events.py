"""What a worker tells about itself while it runs: `worker.events`, with graphile-worker's names.

```python
@worker.events.on("job:failed")
async def alert(event: JobFailure) -> None: ...
```

When each event comes; `EVENTS` says what its listeners get:

- `pool:create`, `pool:release`: the runner is set up; it has stopped and holds nothing.
- `pool:listen:connecting`, `:success`, `:error`, `:notification`: of the LISTEN connection.
- `worker:getJob:start`, `:empty`: of each claim, which is for all slots of the process.
- `worker:getJob:error`: a claim failed, or what comes before and after it.
- `localQueue:getJobs:complete`: what a claim brought; not sent for an empty one.
- `localQueue:returnJobs`: claimed jobs are to be given back uncounted: they have waited too long
  for a slot, or the worker stops.
- `job:start`: before the payload is checked and the handler is called.
- `job:success`, or `job:error` and, if it will not be tried again, `job:failed`: the run has ended;
  nothing is written yet.
- `job:complete`: the result **is written**. It is not sent for a run whose result changed nothing.
- `job:lost` (ours): the result changes nothing, because the job's lock was taken away.
- `job:refused` (ours): PostgreSQL does not let us write the result; it is tried again.
- `resetLocked:started`, `:success`, `:failure`: of the sweep of locks older than four hours.
- `pool:heartbeat:error` (ours): a sign of life got no answer; sent for the first of a row.
- `pool:declaredDead` (ours): the others have taken this worker for dead, and its jobs: what ran was
  cancelled. It goes on under another id.
- `recovery:dead`, `recovery:freed` (ours): this worker has declared another one dead; it has given
  back what dead workers held.
- `pool:fatalError`: a part of the runner crashed, or the schema was migrated to a newer revision;
  the worker stops.
- `gracefulShutdown`, `forcefulShutdown`: a signal stops the worker, or a later one hurries it.
- `stop`, `pool:gracefulShutdown`, `pool:gracefulShutdown:complete` or `:error`: of a stop.
- `cron:*`: of recurring tasks.

graphile-worker's other events have nothing to tell here. One process has one pool whose slots are
not workers with a life of their own: no `worker:create`, `worker:release`, `worker:stop`,
`worker:fatalError`, `pool:gracefulShutdown:workerError`. The local queue has no modes: no
`localQueue:init`, `localQueue:setMode`, `localQueue:refetchDelay:*`. A shutdown that reaches its
deadline is still the graceful one: no `pool:forcefulShutdown*`. The LISTEN connection is not
borrowed: no `pool:listen:release`.
"""

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, Final, Protocol, TypeVar, overload

from attrs import frozen

from zodworker_compat.errors import ConfigurationError, suggestion
from zodworker_compat.job import Job

logger = logging.getLogger(__name__)


@frozen(kw_only=True)
class Event:
    """What every listener gets at least."""

    pool_id: str
    """What stands in `locked_by` of the jobs that this worker holds."""


@frozen(kw_only=True)
class PoolConnecting(Event):
    """The LISTEN connection is being opened."""

    attempts: int
    """0 for the first time and after each success."""


@frozen(kw_only=True)
class PoolNotification(Event):
    """PostgreSQL notified the worker."""

    channel: str
    payload: str
    """As it was sent; JSON from graphile-worker's functions."""


@frozen(kw_only=True)
class PoolFailure(Event):
    """Something did not work; the worker goes on, or stops in good order."""

    error: BaseException


@frozen(kw_only=True)
class PoolFatal(PoolFailure):
    """The worker cannot go on and stops."""

    action: str
    """What it was doing: `claim`, `settle`, `listen`, `sweep`, …"""


@frozen(kw_only=True)
class PoolDeclaredDead(Event):
    """The worker was silent for longer than `dead_after`; `pool_id` is the one that is dead."""

    new_pool_id: str


@frozen(kw_only=True)
class RecoveryDead(Event):
    """A worker was silent for longer than its `dead_after`."""

    dead_pool_id: str
    name: str
    host: str
    pid: int
    """Of its process."""
    silence: timedelta
    """Since its last sign of life."""


@frozen(kw_only=True)
class RecoveryFreed(Event):
    """The locks of dead workers were taken away."""

    job_ids: Sequence[int]
    queues: int
    """How many named queues."""


@frozen(kw_only=True)
class PoolShutdown(Event):
    """The worker begins to stop."""

    message: str


@frozen(kw_only=True)
class Signalled(Event):
    """A signal reached the process."""

    signal: str
    """Its name, such as "SIGTERM"."""


@frozen(kw_only=True)
class JobEvent(Event):
    """Something happened to one job."""

    job: Job
    """As it was claimed. `payload` is None if it cannot be read."""


@frozen(kw_only=True)
class JobFailure(JobEvent):
    """A run of a job failed."""

    error: BaseException


@frozen(kw_only=True)
class JobComplete(JobEvent):
    """The result of a run is written."""

    error: BaseException | None
    """None if the run succeeded."""


@frozen(kw_only=True)
class LocalQueueJobs(Event):
    """Jobs were claimed, or are to be given back."""

    jobs: Sequence[Job]


@frozen(kw_only=True)
class ResetLockedSuccess(Event):
    """Stale locks were looked for."""

    delay: timedelta | None
    """Time to the next sweep; None if there is none."""


@frozen(kw_only=True)
class ResetLockedFailure(PoolFailure):
    """Stale locks could not be looked for."""

    delay: timedelta | None
    """Time to the next sweep; None if there is none."""


@frozen(kw_only=True)
class CronStart(Event):
    """Recurring tasks are being started, or have been."""

    start: datetime


@frozen(kw_only=True)
class CronBackfill(Event):
    """Recurring tasks that were missed are being enqueued."""

    items_to_backfill: Sequence[Any]
    """Cron items, with their `known_since` and `last_execution`."""
    timestamp: datetime


@frozen(kw_only=True)
class CronTimer(Event):
    """The timer of recurring tasks came too early, or too late."""

    current_timestamp: datetime
    expected_timestamp: datetime


@frozen(kw_only=True)
class CronSchedule(Event):
    """The recurring tasks of one minute are being enqueued, or have been."""

    timestamp: datetime
    jobs_and_identifiers: Sequence[tuple[Any, str]]
    """(what is enqueued, identifier of the cron item)."""


EVENTS: Final[Mapping[str, type[Event]]] = MappingProxyType(
    {
        "pool:create": Event,
        "pool:listen:connecting": PoolConnecting,
        "pool:listen:success": Event,
        "pool:listen:error": PoolFailure,
        "pool:listen:notification": PoolNotification,
        "pool:gracefulShutdown": PoolShutdown,
        "pool:gracefulShutdown:complete": Event,
        "pool:gracefulShutdown:error": PoolFailure,
        "pool:heartbeat:error": PoolFailure,
        "pool:declaredDead": PoolDeclaredDead,
        "pool:fatalError": PoolFatal,
        "pool:release": Event,
        "worker:getJob:start": Event,
        "worker:getJob:error": PoolFailure,
        "worker:getJob:empty": Event,
        "job:start": JobEvent,
        "job:success": JobEvent,
        "job:error": JobFailure,
        "job:failed": JobFailure,
        "job:complete": JobComplete,
        "job:lost": JobEvent,
        "job:refused": JobFailure,
        "recovery:dead": RecoveryDead,
        "recovery:freed": RecoveryFreed,
        "localQueue:getJobs:complete": LocalQueueJobs,
        "localQueue:returnJobs": LocalQueueJobs,
        "resetLocked:started": Event,
        "resetLocked:success": ResetLockedSuccess,
        "resetLocked:failure": ResetLockedFailure,
        "cron:starting": CronStart,
        "cron:started": CronStart,
        "cron:backfill": CronBackfill,
        "cron:prematureTimer": CronTimer,
        "cron:overdueTimer": CronTimer,
        "cron:schedule": CronSchedule,
        "cron:scheduled": CronSchedule,
        "stop": Event,
        "gracefulShutdown": Signalled,
        "forcefulShutdown": Signalled,
    }
)
"""Every event and what its listeners get."""

FAILED: Final = "%r failed; the worker goes on"


class Meter(Protocol):
    """Counts what a worker does: called with bare numbers, where an event costs 5 us for its `Job`.

    All but `enqueued` are called in the worker's event loop, and must be quick and not raise. Times
    and durations are in seconds of `time.monotonic`.
    """

    def enqueued(self, identifiers: Iterable[str]) -> None:
        """Jobs of these tasks were added by this program; may be called by any thread."""

    def claimed(self, clock: datetime | None, began: float, ended: float) -> None:
        """A claim was answered; `clock` is the database's time of it, if it brought jobs."""

    def started(self, identifier: str, run_at: datetime, at: float) -> None:
        """A job is about to run."""

    def ended(self, identifier: str, seconds: float) -> None:
        """A run has ended, however it did."""

    def settled(self, identifier: str, *, failed: bool, is_last: bool) -> None:
        """The result of a run is written; `is_last`: the job failed and will not be tried again."""

    def wrote(self, seconds: float) -> None:
        """A statement that settles jobs was answered."""


Listener = TypeVar("Listener", bound=Callable[[Any], Any])


class Events:
    """Calls listeners; nothing that they do or raise reaches the worker.

    A plain listener runs in the event loop, so it must be short. An async one runs beside the
    worker, which does not wait for it before it goes on, only when it stops.
    """

    def __init__(self) -> None:
        self._listeners: dict[str, list[Callable[[Any], Any]]] = {}
        self._calls: set[asyncio.Future[Any]] = set()
        self.heard: set[str] = set()
        """The events that somebody listens to: the others need not even be made."""
        self.meters: list[Meter] = []
        """Told of every job; for metrics."""

    @overload
    def on(self, name: str, listener: Listener) -> Listener: ...
    @overload
    def on(self, name: str) -> Callable[[Listener], Listener]: ...
    def on(
        self, name: str, listener: Listener | None = None
    ) -> Listener | Callable[[Listener], Listener]:
        """Call `listener`, sync or async, with each event of that name; a decorator without one.

        The order of the calls is that of the registrations; one that is registered twice is called
        twice.

        Raises:
            ConfigurationError: there is no such event.
        """
        if name not in EVENTS:
            raise ConfigurationError(f"There is no event {name!r}.{suggestion(name, EVENTS)}")
        if listener is None:
            return lambda given: self.on(name, given)
        self._listeners.setdefault(name, []).append(listener)
        self.heard.add(name)
        return listener

    def off(self, name: str, listener: Callable[[Any], Any]) -> None:
        """Take back one `on`; nothing happens if the listener is not registered."""
        listeners = self._listeners.get(name, [])
        if listener in listeners:
            listeners.remove(listener)
        if not listeners:
            self.heard.discard(name)

    def emit(self, name: str, event: Event) -> None:
        """Call the listeners of `name`."""
        for listener in [*self._listeners.get(name, ())]:
            self.call(listener, event)

    def call(self, listener: Callable[..., Any], *arguments: Any) -> None:
        """Call a function of the application's, sync or async; what it raises is logged."""
        try:
            result = listener(*arguments)
            if inspect.isawaitable(result):
                self._calls.add(call := asyncio.ensure_future(_awaited(listener, result)))
                call.add_done_callback(self._calls.discard)
        except BaseException:  # a SystemExit here would leave a job locked
            logger.exception(FAILED, listener)

    def leave(self) -> None:
        """Say that the listener which calls this is not to be waited for: it waits itself."""
        if (task := asyncio.current_task()) is not None:
            self._calls.discard(task)

    async def close(self, seconds: float) -> None:
        """Wait for async listeners that are not done; cancel them after `seconds`."""
        if self._calls:
            _, late = await asyncio.wait([*self._calls], timeout=seconds)
            for call in late:
                call.cancel()


async def _awaited(listener: Callable[..., Any], result: Awaitable[Any]) -> None:
    try:
        await result
    except asyncio.CancelledError:  # by `close`
        raise
    except BaseException:  # a SystemExit would tear the event loop down
        logger.exception(FAILED, listener)
