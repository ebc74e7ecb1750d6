"""An act on many jobs: count, ask, change them in batches, and say what was done and what not."""

import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import click

from zodworker_compat.cli.base import FAILED, admin
from zodworker_compat.cli.output import print_json, progress
from zodworker_compat.cli.safe import safe

if TYPE_CHECKING:
    from zodworker_compat.client.admin import Admin
    from zodworker_compat.database.job_filter import JobFilter
    from zodworker_compat.database.status import Held, Outcome, Preview

Advance: TypeAlias = Callable[[int], object]

FEW = 10
"""So many ids that were typed are not asked about."""
MOST_SHOWN = 20
"""Tasks, ids and workers that are named; the others are counted."""


class Words(NamedTuple):
    """A verb: "retry", "retried"."""

    verb: str
    past: str


class Settings(NamedTuple):
    """What all acts are told."""

    yes: bool
    dry_run: bool
    json: bool
    timeout: float
    database_url: str | None
    schema: str | None


def act(
    words: Words,
    settings: Settings,
    where: "JobFilter",
    do: "Callable[[Admin, JobFilter, Advance], Outcome]",
) -> None:
    """Count, ask, act in batches, and say what was done and what was not."""
    with admin(settings.database_url, settings.schema, settings.timeout) as found:
        total = len(where.ids or ())
        if settings.dry_run or not 0 < total <= FEW:
            preview = found.preview(where)
            total = preview.jobs
            if settings.dry_run:
                _report_preview(words, settings, preview)
                return
            if total:
                _ask(words, settings, preview)
        batches: list[int] = []
        try:
            with progress(words.verb.capitalize(), total) as advance:

                def count(changed: int) -> None:
                    batches.append(changed)
                    advance(changed)

                outcome = do(found, where, count)
        except BaseException as error:
            if batches:  # what was done stays done
                click.echo(
                    f"Stopped: {sum(batches):,} of {total:,} jobs were {words.past} before. "
                    "Run it again for the rest.",
                    err=True,
                )
            if isinstance(error, KeyboardInterrupt):
                raise click.Abort from None
            raise
    report(words, settings, outcome)


def _ask(words: Words, settings: Settings, preview: "Preview") -> None:
    from zodworker_compat.client.wording import plural  # noqa: PLC0415 - start-up time

    if settings.yes:
        return
    jobs = plural(preview.jobs, "job")
    if not sys.stdin.isatty():
        raise click.UsageError(
            f"{jobs} would be {words.past} ({_by_task(preview)}), and there is no terminal to ask: "
            "give --yes, or look first with --dry-run."
        )
    click.echo(f"{jobs}: {_by_task(preview)}.", err=True)
    for line in _held(preview.held):
        click.echo(line, err=True)
    if not click.confirm(f"{words.verb.capitalize()} {jobs}?", err=True):
        click.echo("Nothing was changed.", err=True)
        click.get_current_context().exit(FAILED)


def _by_task(preview: "Preview") -> str:
    named = [f"{jobs:,} {safe(task)}" for task, jobs in list(preview.tasks.items())[:MOST_SHOWN]]
    if rest := len(preview.tasks) - MOST_SHOWN:
        named += [f"{rest:,} other tasks"] if rest > 0 else []
    return ", ".join(named)


def _report_preview(words: Words, settings: Settings, preview: "Preview") -> None:
    from zodworker_compat.client.wording import plural  # noqa: PLC0415 - start-up time

    if settings.json:
        from attrs import asdict  # noqa: PLC0415 - start-up time

        print_json({"dry_run": True, "jobs": preview.jobs, **asdict(preview)})
        return
    tasks = f": {_by_task(preview)}" if preview.tasks else ""
    click.echo(f"{plural(preview.jobs, 'job')} would be {words.past}{tasks}.")
    for line in (*_held(preview.held), *_missing("job", preview.missing)):
        click.echo(line)


def report(words: Words, settings: Settings, outcome: "Outcome", what: str = "job") -> None:
    """Say what was done and what was not; exit with 1 if something that was named was not."""
    from zodworker_compat.client.wording import plural  # noqa: PLC0415 - start-up time

    if settings.json:
        from attrs import asdict  # noqa: PLC0415 - start-up time

        print_json({"dry_run": False, **asdict(outcome)})
    else:
        click.echo(f"{words.past.capitalize()} {plural(outcome.changed, 'job')}.")
    for line in (*_held(outcome.held), *_missing(what, outcome.missing), *_busy(outcome.busy)):
        click.echo(line, err=True)
    if outcome.missing or outcome.busy or any(one.ids for one in outcome.held):
        click.get_current_context().exit(FAILED)


def _held(held: "list[Held]") -> list[str]:
    from zodworker_compat.client.wording import duration, plural  # noqa: PLC0415 - start-up time

    now = datetime.now(UTC)
    lines = [
        f"Left alone: {plural(one.jobs, 'running job')}, locked by {safe(one.locked_by)}, the "
        f"oldest for {duration(now - one.since)}{_ids(one.ids)}."
        for one in held[:MOST_SHOWN]
    ]
    if rest := sum(one.jobs for one in held[MOST_SHOWN:]):
        lines.append(f"Left alone: {plural(rest, 'more running job')} of other workers.")
    return lines


def _ids(ids: tuple[str, ...]) -> str:
    more = ", ..." if len(ids) > MOST_SHOWN else ""
    return f" ({', '.join(ids[:MOST_SHOWN])}{more})" if ids else ""


def _missing(what: str, names: tuple[str, ...]) -> list[str]:
    if not names:
        return []
    there_is = "There is no job" if what == "job" else "There is no job of the key"
    more = f" and {len(names) - MOST_SHOWN:,} more" if len(names) > MOST_SHOWN else ""
    named = ", ".join(map(safe, names[:MOST_SHOWN]))
    return [f"{there_is} {named}{more}: it has run, was removed, or never was."]


def _busy(ids: tuple[str, ...]) -> list[str]:
    if not ids:
        return []
    return [f"Left alone, because a transaction holds them at this moment{_ids(ids)}: try again."]
