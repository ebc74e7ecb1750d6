"""Recurring tasks as an application states them: when they fire, and what then runs."""

import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypedDict

from attrs import field, fields, frozen

from zodworker_compat.catalog import RecurringTask, recurring_codec
from zodworker_compat.client.prepare import Preparer
from zodworker_compat.cron import (
    CatchUp,
    CronItem,
    CronOptions,
    CrontabError,
    Match,
    job_of,
    parse_cron_item,
    parse_crontab,
)
from zodworker_compat.errors import (
    ConfigurationError,
    OptionError,
    PayloadValidationError,
    UnknownTaskError,
)
from zodworker_compat.options import JobKeyMode, refuse_unknown
from zodworker_compat.runner.task import RunnableTask, RunOptions


class CronKeywords(TypedDict, total=False):
    """`CronOptions` as keyword arguments; see there."""

    backfill_period: timedelta | float
    max_attempts: int | None
    queue_name: str | None
    priority: int | None
    job_key: str | None
    job_key_mode: JobKeyMode | None
    time_zone: str
    catch_up: CatchUp


@frozen
class CronRun:
    """What the handler of a recurring task gets as its payload: the row's `_cron`."""

    ts: datetime
    """The minute it was scheduled for, in UTC; it may run later."""
    backfilled: bool
    """Whether it was missed, and made up for when a worker started."""


@frozen(kw_only=True)
class RecurringTaskSpec:
    """One value of `ZodWorker(recurring_tasks={identifier: ...})`."""

    match: Match | str | None
    """Five cron fields, or a function of a `Digest`; None is the catalog's."""
    handler: Callable[..., Any]
    """Async or sync; takes `run`, `(run, job)` or `(run, job, helpers)`, run being a `CronRun`."""
    options: CronOptions | Mapping[str, Any] = field(factory=CronOptions)
    run_options: RunOptions = field(factory=RunOptions)

    @classmethod
    def of(
        cls, identifier: str, given: "RecurringTaskSpec | Mapping[str, Any]"
    ) -> "RecurringTaskSpec":
        """Return a spec, given as one or as a mapping of its fields.

        Raises:
            ConfigurationError: a field is missing or unknown.
        """
        if isinstance(given, cls):
            return given
        where = f"Recurring task {identifier!r}"
        if not isinstance(given, Mapping):
            raise ConfigurationError(
                f"{where}: expected a RecurringTaskSpec or a mapping, got {given!r:.60}"
            )
        if "pattern" in given:
            raise CrontabError("Please rename the 'pattern' property to 'match'")
        try:
            refuse_unknown(given, [attribute.name for attribute in fields(cls)])
        except OptionError as error:
            raise ConfigurationError(f"{where}: {error}") from error
        if "handler" not in given:
            raise ConfigurationError(f"{where} has no handler.")
        return cls(**{"match": None, **given})


_MILLISECONDS: Final = "backfillPeriod"


def cron_item(
    identifier: str,
    match: Match | str | None,
    options: CronOptions | Mapping[str, Any],
    listed: RecurringTask | None = None,
) -> CronItem:
    """Return the cron item of a recurring task: identifier, task and key are one (P-54).

    Args:
        identifier: the recurring task.
        match: when it fires; None is the catalog's.
        options: override the catalog's.
        listed: the catalog's entry.

    Raises:
        CrontabError: the match or an option is wrong, or there is no match.
    """
    where = f"recurring task {identifier!r}"
    if listed is not None:
        match = listed.match if match is None else match
        if isinstance(options, Mapping):
            options = {**_options_of(listed.options), **options}
    return parse_cron_item({"task": identifier, "match": match, "options": options}, where)


def _options_of(words: Mapping[str, Any]) -> dict[str, Any]:
    """Return a catalog's options, which are in graphile-worker's words and milliseconds."""
    return {
        re.sub("[A-Z]", lambda letter: f"_{letter[0].lower()}", word): value / 1000
        if word == _MILLISECONDS
        else value
        for word, value in words.items()
    }


def read_crontab(text: str | None, file: str | Path | None) -> list[CronItem]:
    """Return the items of a crontab, given as text or as a file, or neither.

    Raises:
        ConfigurationError: both are given, or the file cannot be read.
        CrontabError: the crontab is wrong.
    """
    if file is None:
        return parse_crontab(text or "")
    if text is not None:
        raise ConfigurationError("Give either crontab or crontab_file; not both.")
    try:
        return parse_crontab(Path(file).read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"The crontab {file} cannot be read: {error}") from error


def check_command(item: CronItem, prepare: Preparer) -> None:
    """Check that a crontab's item is a task of the catalog, and its payload one that the task takes.

    Raises:
        CrontabError: it is not; every job of it would fail, or wait for ever.
    """
    payload = job_of(item, datetime.now(UTC), backfilled=False).payload or "null"
    try:
        task = prepare.task(item.task)
        if prepare.validate:
            task.codec.check(json.loads(payload))
    except (UnknownTaskError, PayloadValidationError) as error:
        raise CrontabError(f"Item {item.identifier!r} of the crontab: {error}") from error


def recurring_task(
    identifier: str,
    handler: Callable[..., Any],
    options: RunOptions,
    kind: str = "recurring",
) -> RunnableTask:
    """Return what the runner runs: a failure is always kept (P-45), no limiter sees it (P-53).

    Args:
        identifier: the recurring task.
        handler: takes a `CronRun`.
        options: how its jobs are run.
        kind: "recurring" or "cleanup", for the error about a malformed payload.

    Raises:
        ConfigurationError: the handler takes no argument, or more than three.
    """
    return RunnableTask(
        identifier=identifier,
        decode=run_decoder(identifier, kind),
        handler=handler,
        options=options,
        keep_failed=True,
        is_limited=False,
    )


def run_decoder(identifier: str, kind: str = "recurring") -> Callable[[Any], CronRun]:
    """Return the function that makes a `CronRun` of a stored payload.

    Args:
        identifier: named in errors.
        kind: the same; "recurring" or "cleanup", as in ZodWorker.
    """
    codec = recurring_codec(identifier)

    def decode(value: Any) -> CronRun:
        try:
            return CronRun(**codec.decode(value)["_cron"])
        except PayloadValidationError as error:
            problems = "; ".join(map(str, error.problems))
            error.args = (f"Failed to parse {kind} task payload: {problems}",)
            raise

    return decode
