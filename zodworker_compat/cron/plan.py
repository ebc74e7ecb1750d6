"""Which jobs recurring tasks owe: now, after a late timer, and at start."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, Final, Literal, TypeAlias

from attrs import frozen

from zodworker_compat.cron.clock import MINUTE, floor_minute, newest, occurrences
from zodworker_compat.cron.item import CronItem
from zodworker_compat.options import JobSpec
from zodworker_compat.payload.formats import to_json_date
from zodworker_compat.payload.stringify import stringify

Schedule: TypeAlias = list[tuple[datetime, list[CronItem]]]
"""Minutes in UTC, ascending, each with the items that fire in it, in the order they were given."""

LONGEST_LATENESS: Final = timedelta(days=7)
"""How far a late timer makes up for an item, unless its `backfill_period` is longer: a clock that
was set forward by years must not enqueue a million jobs, as it does in graphile-worker."""
LONGEST_CATCH_UP: Final = timedelta(days=366)
"""How far anything is made up for, whatever its `backfill_period`: half a million minutes."""


@frozen(kw_only=True)
class KnownCrontab:
    """One row of `_private_known_crontabs`; times are aware datetimes."""

    identifier: str
    known_since: datetime
    last_execution: datetime | None


@frozen
class Tick:
    """What a timer that was set for the minute `expected` found; minutes are in UTC."""

    state: Literal["premature", "on time", "overdue"]
    expected: datetime
    current: datetime

    @property
    def minutes(self) -> list[datetime]:
        """Every minute to go through, missed ones first; none if the timer was premature."""
        passed = (self.current - self.expected) // MINUTE
        return [self.expected + index * MINUTE for index in range(passed + 1)]

    @property
    def next_expected(self) -> datetime:
        """The minute to set the timer for now."""
        return self.expected if self.state == "premature" else self.current + MINUTE


def plan_tick(expected: datetime, now: datetime) -> Tick:
    """Compare a timer with the clock, as graphile-worker 0.16.6.

    Args:
        expected: the minute that the timer was set for.
        now: the process clock, an aware datetime.
    """
    expected, current = floor_minute(expected), floor_minute(now)
    if current < expected:
        return Tick("premature", expected, current)
    return Tick("overdue" if current > expected else "on time", expected, current)


def time_until(expected: datetime, now: datetime) -> timedelta:
    """Return how long to set the timer for: one millisecond into the minute, and at least that."""
    return max(expected - now, timedelta(0)) + timedelta(milliseconds=1)


def due(item: CronItem, since: datetime, until: datetime) -> list[datetime]:
    """Return the minutes to enqueue `item` for now, ascending, by its `catch_up` policy.

    Args:
        item: the recurring task.
        since: the first minute that has not been gone through.
        until: the current minute; it is never "missed", and included.
    """
    options = item.options
    period = {
        "graphile": max(options.backfill_period, LONGEST_LATENESS),
        "skip": timedelta(0),
        "latest": until - since,
        "all": options.backfill_period,
    }[options.catch_up]
    return _times(item, _bounded(since, until, period), until + MINUTE)


def schedule(items: Iterable[CronItem], tick: Tick) -> Schedule:
    """Return what to enqueue in a tick: nothing if it was premature."""
    return _by_minute((item, due(item, tick.expected, tick.current)) for item in items)


def missed(item: CronItem, known: KnownCrontab, start: datetime) -> list[datetime]:
    """Return the minutes before `start` to make up for, ascending, by the `catch_up` policy.

    As graphile-worker 0.16.6: not older than `backfill_period`, and not before the last execution
    or, if there was none, before the item became known. The minute of the last execution itself is
    among them; the statement that enqueues refuses it. `latest` leaves it out.

    Args:
        item: the recurring task.
        known: its row.
        start: when cron starts, by the process clock.
    """
    policy, period = item.options.catch_up, item.options.backfill_period
    since = known.last_execution or known.known_since
    if policy == "latest":
        since += MINUTE if known.last_execution and since < start else timedelta(0)
        period = period or start - since
    if policy == "skip" or since >= start:  # by a clock that was ahead, or for ever ('infinity')
        return []
    return _times(item, _bounded(since, start, period), start)


def backfill(items: Iterable[tuple[CronItem, KnownCrontab]], start: datetime) -> Schedule:
    """Return what to enqueue at start, as graphile-worker 0.16.6: see `missed`.

    Args:
        items: the recurring tasks with their rows. One that has just become known owes nothing.
        start: when cron starts, by the process clock.
    """
    return _by_minute((item, missed(item, known, start)) for item, known in items)


def job_payload(payload: Any, minute: datetime, *, backfilled: bool) -> dict[str, Any]:
    """Return the payload of one job: the item's, and `_cron`, which wins.

    Args:
        payload: a mapping or None.
        minute: the scheduled minute, not the time of enqueuing.
        backfilled: whether it was made up for at start.
    """
    return {**(payload or {}), "_cron": {"ts": to_json_date(minute), "backfilled": backfilled}}


def job_of(item: CronItem, minute: datetime, *, backfilled: bool) -> JobSpec:
    """Return the job of one minute, as graphile-worker's cron gives it to `add_job`."""
    options = item.options
    return JobSpec(
        identifier=item.task,
        payload=stringify(job_payload(item.payload, minute, backfilled=backfilled)),
        queue_name=options.queue_name or None,
        run_at=minute,
        max_attempts=options.max_attempts,
        job_key=options.job_key or None,
        priority=options.priority,
        job_key_mode=options.job_key_mode or None,
    )


def _times(item: CronItem, since: datetime, until: datetime) -> list[datetime]:
    zone = item.options.zone
    if item.options.catch_up == "latest":
        last = newest(item.match, zone, since, until)
        return [last] if last else []
    return list(occurrences(item.match, zone, since, until))


def _bounded(since: datetime, until: datetime, period: timedelta) -> datetime:
    return until - min(period, LONGEST_CATCH_UP, until - since)


def _by_minute(times: Iterable[tuple[CronItem, list[datetime]]]) -> Schedule:
    due_items: dict[datetime, list[CronItem]] = {}
    for item, minutes in times:
        for minute in minutes:
            due_items.setdefault(minute, []).append(item)
    return sorted(due_items.items(), key=lambda entry: entry[0])
