"""The five time fields of a crontab line, in graphile-worker's syntax."""

import re
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Final, NamedTuple, TypeAlias

from attrs import field, frozen

from zodworker_compat.cron.errors import CrontabError

SPACES: Final = (
    "\t\n\v\f\r \xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000\ufeff"
)
"""JavaScript's white space; Python has other ideas of `\\s` and `strip()`."""

FIELDS: Final = {
    "minutes": range(60),
    "hours": range(24),
    "dates": range(1, 32),
    "months": range(1, 13),
    "days of week": range(7),
}
SUNDAY: Final = 7
"""As a day of the week, also inside ranges, 7 is 0."""

_FIVE_FIELDS = re.compile(f"[{SPACES}]+".join(5 * ["([0-9*/,-]+)"]))
_NUMBERS = re.compile("([0-9]+)(?:-([0-9]+))?")
_WILDCARD = re.compile(r"\*(?:/([0-9]+))?")


class Digest(NamedTuple):
    """What a pattern looks at in a wall clock's minute; `dow` 0 is Sunday."""

    min: int
    hour: int
    date: int
    month: int
    dow: int

    @classmethod
    def of(cls, wall: datetime) -> "Digest":
        """Return the digest of what `wall` shows, whatever its time zone."""
        return cls(wall.minute, wall.hour, wall.day, wall.month, wall.isoweekday() % 7)


@frozen
class Pattern:
    """Five fields, as the sets of values that they allow."""

    text: str
    minutes: frozenset[int] = field(repr=False)
    hours: frozenset[int] = field(repr=False)
    dates: frozenset[int] = field(repr=False)
    months: frozenset[int] = field(repr=False)
    dows: frozenset[int] = field(repr=False)
    is_interval: bool = field(repr=False)
    """Whether minutes or hours hold a `*`: a beat, rather than certain times of day."""

    def matches(self, digest: Digest) -> bool:
        """Return whether a minute is one of the pattern's, as graphile-worker 0.16.6."""
        return digest.min in self.minutes and digest.hour in self.hours and self.matches_day(digest)

    def matches_day(self, digest: Digest) -> bool:
        """Return whether the day matches: if both dates and days of week restrict, either will do."""
        if digest.month not in self.months:
            return False
        if len(self.dates) == len(FIELDS["dates"]):
            return digest.dow in self.dows
        if len(self.dows) == len(FIELDS["days of week"]):
            return digest.date in self.dates
        return digest.date in self.dates or digest.dow in self.dows


Match: TypeAlias = Pattern | Callable[[Digest], bool]
"""When an item is due: a pattern, or a function of the minute."""


def parse_pattern(text: str, where: str) -> Pattern:
    """Compile five fields.

    Args:
        text: `minutes hours dates months dows`, with white space between, none around.
        where: the end of the error messages: "line 1 of crontab".

    Raises:
        CrontabError: not five fields, or one is wrong; graphile-worker's texts.
    """
    if not (fields := _FIVE_FIELDS.fullmatch(text)):
        raise CrontabError(f"Invalid cron pattern '{text}' in {where}")
    return compile_fields(fields.groups(), where)


def compile_fields(fields: tuple[str, ...], where: str) -> Pattern:
    """Compile five fields that are already apart; otherwise as `parse_pattern`."""
    minutes, hours, dates, months, dows = (
        frozenset(
            value
            for part in text.split(",")
            for value in _values(part, allowed, f"{name} range in {where}")
        )
        for text, (name, allowed) in zip(fields, FIELDS.items(), strict=True)
    )
    is_interval = "*" in fields[0] + fields[1]
    return Pattern(" ".join(fields), minutes, hours, dates, months, dows, is_interval)


def _values(part: str, allowed: range, where: str) -> Iterator[int]:
    if numbers := _NUMBERS.fullmatch(part):
        first, last = whole(numbers[1]), whole(numbers[2] or numbers[1])
        if numbers[2] and last <= first:
            raise CrontabError(
                f"Invalid range '{part}' in {where}: destination is not larger than source"
            )
        for value in range(first, last + 1):
            yield _checked(value, allowed, where)
    elif wildcard := _WILDCARD.fullmatch(part):
        divisor = whole(wildcard[1] or "1")
        if not divisor:
            raise CrontabError(
                f"Invalid wildcard expression '{part}' in {where}:"
                f" divisor '{wildcard[1]}' expected to be greater than zero"
            )
        yield from allowed[::divisor]
    else:
        raise CrontabError(
            f"Unsupported syntax '{part}' in {where}:"
            " this doesn't appear to be a number, range or wildcard"
        )


def _checked(value: int, allowed: range, where: str) -> int:
    if value == SUNDAY and allowed == FIELDS["days of week"]:
        return 0
    if value not in allowed:
        raise CrontabError(
            f"Too {'small' if value < allowed[0] else 'large'} value '{value}' in {where}:"
            f" expected values in the range {allowed[0]}-{allowed[-1]}."
        )
    return value


def whole(digits: str) -> int:
    """Return the number that decimal digits spell."""
    return int(digits[:4300])  # int() refuses more; as a number of days or minutes it is the same
