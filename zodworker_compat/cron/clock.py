"""When a pattern fires, on the wall clock of a time zone.

Clocks are put forward and back. What then happens is Vixie cron's way, for jumps of any size:

| pattern                                           | skipped times           | repeated times        |
| ------------------------------------------------- | ----------------------- | --------------------- |
| certain times of day: no `*` in minutes and hours | once, in the first      | on the first pass     |
| (`30 2 * * *`, `0,30 1-3 * * 1`)                  | minute after the gap    | only                  |
| an interval: `*` or `*/n` in minutes or hours     | not at all              | on both passes        |
| (`*/5 * * * *`, `0 */2 * * *`), and functions     |                         |                       |

So a job at 02:30 runs every day, once, and one every five minutes runs every five minutes. If
several times of one pattern are skipped, or the minute after the gap is one of its own, it
still fires once in that minute.

Moments are whole minutes in UTC; all of this holds for offsets of whole minutes (since 1972).
"""

import zoneinfo
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from functools import cache
from typing import Final

from zodworker_compat.cron.pattern import Digest, Match, Pattern
from zodworker_compat.errors import OptionError, shown, suggestion

MINUTE: Final = timedelta(minutes=1)
LONGEST_GAP: Final = timedelta(days=8 * 366)
"""Between two 29 Februaries, over a year such as 2100: what has not fired by then never will."""

_WIDENING = (timedelta(hours=1), timedelta(days=1), timedelta(days=32), timedelta(days=366))


@cache
def time_zone(name: str) -> tzinfo:
    """Return the IANA time zone `name`.

    Raises:
        OptionError: this host knows no such zone.
    """
    if name == "UTC":
        return UTC  # known also where there is no time zone database
    try:
        return zoneinfo.ZoneInfo(name)
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
        known = zoneinfo.available_timezones()
        hint = suggestion(name, known) if known else " Install the package tzdata."
        raise OptionError(
            "time_zone",
            f"there is no time zone {shown(name)}; use an IANA name such as 'Europe/Berlin'.{hint}",
        ) from None


def floor_minute(moment: datetime) -> datetime:
    """Return the minute, in UTC, that an aware datetime lies in."""
    return moment.astimezone(UTC).replace(second=0, microsecond=0)


def ceil_minute(moment: datetime) -> datetime:
    """Return the first whole minute, in UTC, that is not before an aware datetime."""
    floor = floor_minute(moment)
    return floor if floor == moment else floor + MINUTE


def occurrences(match: Match, zone: tzinfo, since: datetime, until: datetime) -> Iterator[datetime]:
    """Yield the minutes in which `match` fires, ascending, in UTC: `since <= minute < until`.

    Args:
        match: a pattern, or a function, which is called for each minute.
        zone: whose wall clock counts.
        since: aware datetime.
        until: aware datetime.
    """
    minute = ceil_minute(since)
    while minute < until:
        ahead, step = _look_ahead(match, minute, minute.astimezone(zone))
        for distance in ahead:
            if minute + distance < until:
                yield minute + distance
        minute += step


def next_after(match: Match, zone: tzinfo, moment: datetime) -> datetime | None:
    """Return the first minute after `moment` in which `match` fires; None if it never does.

    A function is asked about one year only, a minute at a time.
    """
    longest = LONGEST_GAP if isinstance(match, Pattern) else timedelta(days=366)
    minute = floor_minute(moment) + MINUTE
    return next(occurrences(match, zone, minute, minute + longest), None)


def newest(match: Match, zone: tzinfo, since: datetime, until: datetime) -> datetime | None:
    """Return the last of `occurrences`, without going through all of a long time."""
    for length in (*_WIDENING, until - since):
        start = max(since, until - length)
        if last := deque(occurrences(match, zone, start, until), maxlen=1):
            return last[0]
    return None


def _look_ahead(
    match: Match, minute: datetime, wall: datetime
) -> tuple[list[timedelta], timedelta]:
    """Return how far ahead `match` fires, within a distance, and that distance.

    An hour at a time, or a day in which nothing fires, where the clock is steady: ten times as fast
    as minute by minute.
    """
    if isinstance(match, Pattern) and not wall.fold:
        digest = Digest.of(wall)
        fires_today = match.matches_day(digest)
        to_next_hour = timedelta(hours=1) - timedelta(minutes=wall.minute)
        to_midnight = to_next_hour + timedelta(hours=23 - wall.hour)
        if not fires_today and _is_steady(minute, wall, to_midnight):
            return [], to_midnight
        if _is_steady(minute, wall, to_next_hour):
            minutes = sorted(match.minutes) if fires_today and wall.hour in match.hours else []
            ahead = [(value - wall.minute) * MINUTE for value in minutes if value >= wall.minute]
            return ahead, to_next_hour
    return [timedelta(0)] if _fires(match, minute, wall) else [], MINUTE


def _fires(match: Match, minute: datetime, wall: datetime) -> bool:
    if not isinstance(match, Pattern):
        return match(Digest.of(wall))
    if match.is_interval:
        return match.matches(Digest.of(wall))
    if wall.fold:
        return False
    return match.matches(Digest.of(wall)) or any(
        match.matches(Digest.of(skipped)) for skipped in _skipped_before(minute, wall)
    )


def _skipped_before(minute: datetime, wall: datetime) -> Iterator[datetime]:
    """Yield the wall minutes that a clock put forward at `minute` never showed."""
    gap = _offset(wall) - _offset((minute - MINUTE).astimezone(wall.tzinfo))
    shown = wall.replace(tzinfo=None)
    for ahead in range(gap // MINUTE):
        yield shown - gap + ahead * MINUTE


def _is_steady(minute: datetime, wall: datetime, step: timedelta) -> bool:
    """Whether the clock is not changed, neither at `minute` nor up to and including its end."""
    return wall.tzinfo is UTC or (
        _offset((minute - MINUTE).astimezone(wall.tzinfo))
        == _offset(wall)
        == _offset((minute + step).astimezone(wall.tzinfo))
    )


def _offset(wall: datetime) -> timedelta:
    offset = wall.utcoffset()
    assert offset is not None  # noqa: S101 - astimezone made it aware
    return offset
