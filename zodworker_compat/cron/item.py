"""A recurring task: what to enqueue, when, and what to do about times that were missed."""

from collections.abc import Iterable, Mapping
from datetime import timedelta, tzinfo
from itertools import pairwise
from typing import Any, Final, Literal, TypeAlias, get_args

from attrs import Attribute, field, fields, frozen

from zodworker_compat.cron.clock import time_zone
from zodworker_compat.cron.errors import CrontabError
from zodworker_compat.cron.pattern import Match, Pattern, parse_pattern
from zodworker_compat.errors import OptionError, PayloadSerialisationError, shown
from zodworker_compat.options import (
    JobKeyMode,
    check_job_key,
    check_job_key_mode,
    check_max_attempts,
    check_priority,
    check_queue_name,
    check_text,
    refuse_unknown,
)
from zodworker_compat.payload.stringify import stringify

MAX_IDENTIFIER: Final = 128
"""Characters of a task identifier, by the tables' constraint."""

CatchUp: TypeAlias = Literal["graphile", "skip", "latest", "all"]


def _duration(value: Any) -> timedelta:
    if isinstance(value, bool) or not isinstance(value, timedelta | int | float):
        raise OptionError("backfill_period", f"expected a timedelta or seconds, got {shown(value)}")
    try:
        duration = value if isinstance(value, timedelta) else timedelta(seconds=value)
    except (OverflowError, ValueError):
        raise OptionError("backfill_period", f"{shown(value)} seconds are too many") from None
    if duration < timedelta(0):
        raise OptionError("backfill_period", f"must not be negative, got {shown(value)}")
    return duration


def _check_time_zone(_item: object, _attribute: "Attribute[str]", name: Any) -> None:
    if not isinstance(name, str):
        raise OptionError("time_zone", f"expected the name of a time zone, got {shown(name)}")
    time_zone(name)


def _check_catch_up(_item: object, _attribute: "Attribute[CatchUp]", policy: object) -> None:
    if not isinstance(policy, str) or policy not in get_args(CatchUp):
        raise OptionError(
            "catch_up", f"{shown(policy)} is not one of {', '.join(get_args(CatchUp))}"
        )


@frozen(kw_only=True)
class CronOptions:
    """How the jobs of a recurring task are enqueued; `None` is the database's default.

    `time_zone` and `catch_up` are not graphile-worker's: a crontab text cannot set them. A Node
    process with an item of the same identifier would fire by its own rules, in UTC.
    """

    backfill_period: timedelta = field(default=timedelta(0), converter=_duration)
    """How far back missed times are made up for at start; a bare number is seconds (graphile-worker
    counts milliseconds). The crontab's `fill`."""
    max_attempts: int | None = None
    queue_name: str | None = None
    priority: int | None = None
    job_key: str | None = None
    """ "" is "no key"."""
    job_key_mode: JobKeyMode | None = None
    time_zone: str = field(default="UTC", validator=_check_time_zone)
    """The IANA name of the zone whose wall clock counts; see `clock` for changes of the clock."""
    catch_up: CatchUp = field(default="graphile", validator=_check_catch_up)
    """Which missed times are made up for.

    | policy     | at start                                        | after a late timer (suspend, ...)  |
    | ---------- | ----------------------------------------------- | ---------------------------------- |
    | `graphile` | every one within `backfill_period`              | every one of the last seven days,  |
    |            |                                                 | or within `backfill_period` if     |
    |            |                                                 | that is longer                     |
    | `skip`     | none                                            | none                               |
    | `latest`   | the newest (within `backfill_period`, if set)   | the newest, the current included   |
    | `all`      | every one within `backfill_period`              | every one within `backfill_period` |

    A timer is late also if the database was away when it was due: then nothing is lost that the
    policy does not skip. Nothing is made up for that is older than 366 days.
    """

    def __attrs_post_init__(self) -> None:
        for value, check in (
            (self.max_attempts, check_max_attempts),
            (self.queue_name, check_queue_name),
            (self.priority, check_priority),
            (self.job_key, check_job_key),
            (self.job_key_mode, check_job_key_mode),
        ):
            if value is not None:
                check(value)
        if self.catch_up == "all" and not self.backfill_period:
            raise OptionError("catch_up", "'all' reaches back by backfill_period; set that too")

    @property
    def zone(self) -> tzinfo:
        """The time zone itself."""
        return time_zone(self.time_zone)

    @classmethod
    def of(cls, given: "Mapping[str, Any] | CronOptions") -> "CronOptions":
        """Return keyword arguments as options.

        Raises:
            OptionError: an option is unknown or its value is wrong.
        """
        if isinstance(given, CronOptions):
            return given
        if not isinstance(given, Mapping):
            raise OptionError("options", f"expected a mapping, got {shown(given)}")
        refuse_unknown(given, [attribute.name for attribute in fields(cls)])
        return cls(**given)


def _check_identifier(_item: object, attribute: "Attribute[str]", value: Any) -> None:
    if not isinstance(value, str) or not 0 < len(value) <= MAX_IDENTIFIER:
        raise OptionError(
            attribute.name, f"expected 1 to {MAX_IDENTIFIER} characters, got {shown(value)}"
        )
    check_text(attribute.name, value)


def _check_payload(_item: object, _attribute: "Attribute[Any]", payload: Any) -> None:
    if payload is not None and not isinstance(payload, Mapping):
        raise OptionError("payload", f"expected a mapping, to add _cron to, got {shown(payload)}")
    stringify(payload)


def _as_options(given: Mapping[str, Any] | CronOptions) -> CronOptions:
    return CronOptions.of(given)


def _as_match(value: Any) -> Match:
    return as_match(value, "parseCronItem call")


@frozen(kw_only=True)
class CronItem:
    """One recurring task, as graphile-worker's `ParsedCronItem`."""

    task: str = field(validator=_check_identifier)
    """The task identifier of its jobs."""
    match: Match = field(converter=_as_match)
    """Five cron fields as text, or a function of a `Digest` (min, hour, date, month, dow)."""
    identifier: str = field(validator=_check_identifier)
    """What processes, Node's too, agree by on who has enqueued a minute's job. Default: the task."""
    payload: Mapping[str, Any] | None = field(default=None, repr=False, validator=_check_payload)
    """Members of the payload besides `_cron`."""
    options: CronOptions = field(factory=CronOptions, converter=_as_options)

    @identifier.default
    def _task_is_identifier(self) -> str:
        return self.task


def as_match(value: Any, where: str) -> Match:
    """Return a pattern's text as a pattern, a function as it is.

    Raises:
        CrontabError: the text is wrong, or it is neither.
    """
    if isinstance(value, str):
        return parse_pattern(value, where)
    if isinstance(value, Pattern) or callable(value):
        match: Match = value
        return match
    raise CrontabError(
        f"Invalid 'match' configuration in {where}: expected five cron fields or a function,"
        f" got {shown(value)}"
    )


def parse_cron_item(
    definition: Mapping[str, Any] | CronItem, where: str = "parseCronItem call"
) -> CronItem:
    """Return a recurring task given in code.

    Args:
        definition: `task`, `match`, and if wanted `identifier`, `payload`, `options`: the
            arguments of `CronItem`.
        where: for error messages.

    Raises:
        CrontabError: graphile-worker's texts for the match; names the option otherwise.
    """
    if isinstance(definition, CronItem):
        return definition
    if not isinstance(definition, Mapping):
        raise CrontabError(
            f"Invalid cron item in {where}: expected a mapping, got {shown(definition)}"
        )
    if "pattern" in definition:
        raise CrontabError("Please rename the 'pattern' property to 'match'")
    match = as_match(definition.get("match"), where)
    try:
        refuse_unknown(definition, [attribute.name for attribute in fields(CronItem)])
        if "task" not in definition:
            raise OptionError("task", "is missing")  # noqa: TRY301 - one way out
        return CronItem(**{**definition, "match": match})
    except (OptionError, PayloadSerialisationError) as error:
        raise CrontabError(f"Invalid cron item in {where}: {error}") from error


def parse_cron_items(definitions: Iterable[Mapping[str, Any] | CronItem]) -> list[CronItem]:
    """Return recurring tasks given in code.

    Unlike graphile-worker, whose cron would fail for ever at run time, two items of the same
    identifier are refused.

    Raises:
        CrontabError: an item is wrong, names it by its index; or two have the same identifier.
    """
    if isinstance(definitions, str | bytes | Mapping) or not isinstance(definitions, Iterable):
        raise CrontabError(f"Invalid cron items: expected a list, got {shown(definitions)}")
    items = [
        parse_cron_item(definition, f"item {index} of parseCronItems call")
        for index, definition in enumerate(definitions)
    ]
    refuse_duplicates(items, "cron items", "a different 'identifier'")
    return items


def refuse_duplicates(items: list[CronItem], subject: str, remedy: str) -> None:
    """Refuse two items of one identifier: only one of them would ever run.

    Raises:
        CrontabError: names every repeat, sorted.
    """
    identifiers = sorted(item.identifier for item in items)
    if repeats := [f"'{one}'" for one, next_one in pairwise(identifiers) if one == next_one]:
        raise CrontabError(
            f"Invalid {subject}; duplicate identifiers found: {', '.join(repeats)}"
            f" - please use {remedy} to specify unique identifiers for your cron items"
        )
