"""`zodworker retry`, `reschedule`, `fail`, `complete`, `remove` and `purge`: acts on jobs."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import click

from zodworker_compat.cli.acting import Settings, Words, act, report
from zodworker_compat.cli.base import (
    Verb,
    admin,
    database_options,
    json_option,
    timeout_option,
)
from zodworker_compat.cli.completion import complete_task
from zodworker_compat.cli.selection import filter_options, selected
from zodworker_compat.cli.values import Duration, Time

Function = TypeVar("Function", bound=Callable[..., Any])
WAITING = ("ready", "scheduled", "retrying")

CHOICE = """
    Name jobs by ID, or choose them by the options, of which all must hold. More than ten IDs, and
    what options choose, is counted and asked about; --yes answers, and --dry-run only counts.
    """
LEFT_ALONE = """
    Jobs that a worker holds, for less than four hours, and rows that a transaction has locked. They
    are counted and named, never waited for. To free the jobs of a dead worker: zodworker unlock.
    """
STATUS = """
    0  done; or nothing was chosen
    1  failed; an ID was left alone or is gone; or the answer was no
    2  called wrongly; or there is no terminal to ask and no --yes
    """


def act_options(function: Function) -> Function:
    """Add what all acts have."""
    for option in (
        database_options,
        timeout_option,
        json_option,
        click.option("--yes", is_flag=True, help="Do not ask."),
        click.option(
            "--dry-run", is_flag=True, help="Count what would be changed; change nothing."
        ),
    ):
        function = option(function)
    return function


def _sections(examples: str) -> dict[str, str]:
    return {
        "Which jobs": CHOICE,
        "What is left alone": LEFT_ALONE,
        "Exit status": STATUS,
        "Examples": examples,
    }


def _split(options: dict[str, Any]) -> tuple[Settings, dict[str, Any]]:
    own = {name: options.pop(name) for name in Settings._fields}
    return Settings(**own), options


ids_argument = click.argument("ids", metavar="[ID]...", nargs=-1)


@click.command(
    cls=Verb,
    short_help="Run jobs again, now, with all their attempts.",
    sections=_sections("""
      zodworker retry 17 18
      zodworker retry --state failed --task sendMail --dry-run
      zodworker retry --error "connection refused" --yes
      zodworker jobs --state failed --json | jq -r .job.id | xargs zodworker retry --yes
    """),
)
@ids_argument
@filter_options
@act_options
def retry(ids: tuple[str, ...], **options: Any) -> None:
    """Make jobs run now, with all their attempts before them; failed ones, and any other.

    Without --state, the options choose among failed jobs; an ID may be a job in any state. The last
    error stays with the job until it runs. Workers find the jobs at their next poll.
    """
    settings, filters = _split(options)
    _need_a_choice(ids, filters)
    if not ids:
        filters["state"] = filters["state"] or ("failed",)
    act(
        Words("retry", "retried"),
        settings,
        selected(ids, **filters),
        lambda found, where, advance: found.retry(where, progress=advance),
    )


@click.command(
    cls=Verb,
    short_help="Change when, and how often, jobs are tried.",
    sections=_sections("""
      zodworker reschedule 17 --run-at now --priority -10
      zodworker reschedule --task sendMail --state retrying --run-at +1h
      zodworker reschedule --queue customer-17 --priority 100 --yes
      zodworker reschedule 17 --max-attempts 50
    """),
)
@ids_argument
@click.option("--run-at", type=Time(), metavar="TIME", help="Not before: now, +5m, or a time.")
@click.option("--priority", type=int, metavar="N", help="Smaller runs first.")
@click.option("--attempts", type=int, metavar="N", help="How many tries count as used up.")
@click.option("--max-attempts", type=int, metavar="N", help="Tries before the job is failed.")
@filter_options
@act_options
def reschedule(
    ids: tuple[str, ...],
    run_at: datetime | None,
    priority: int | None,
    attempts: int | None,
    max_attempts: int | None,
    **options: Any,
) -> None:
    """Change when jobs run, before which others, and how often they are tried.

    What is not given stays. A failed job runs again only if it has attempts left: see also `retry`.
    """
    settings, filters = _split(options)
    _need_a_choice(ids, filters)
    changes: dict[str, Any] = {
        "run_at": run_at,
        "priority": priority,
        "attempts": attempts,
        "max_attempts": max_attempts,
    }
    if all(value is None for value in changes.values()):
        raise click.UsageError(
            "Say what to change: --run-at, --priority, --attempts or --max-attempts."
        )
    act(
        Words("reschedule", "rescheduled"),
        settings,
        selected(ids, **filters),
        lambda found, where, advance: found.reschedule(where, **changes, progress=advance),
    )


@click.command(
    cls=Verb,
    short_help="Bar jobs from being tried again, and keep them.",
    sections=_sections("""
      zodworker fail 17 --reason "payload cannot be read, ticket 4711"
      zodworker fail --task sendMail --error "no such user" --yes
    """),
)
@ids_argument
@click.option(
    "--reason",
    metavar="TEXT",
    help='Becomes the last error of the jobs. Default: "Manually marked as failed".',
)
@filter_options
@act_options
def fail(ids: tuple[str, ...], reason: str | None, **options: Any) -> None:
    """Use up the attempts of jobs: they are kept, and not tried again until somebody retries them.

    Without --state, the options choose among jobs that wait: ready, scheduled and retrying ones.
    """
    settings, filters = _split(options)
    _need_a_choice(ids, filters)
    if not ids:
        filters["state"] = filters["state"] or WAITING
    act(
        Words("fail", "failed"),
        settings,
        selected(ids, **filters),
        lambda found, where, advance: found.fail(where, reason, progress=advance),
    )


@click.command(
    cls=Verb,
    short_help="Delete jobs whose work was done in another way.",
    sections=_sections("""
      zodworker complete 17
      zodworker complete --task sendMail --error "already sent" --dry-run
    """),
)
@ids_argument
@filter_options
@act_options
def complete(ids: tuple[str, ...], **options: Any) -> None:
    """Delete jobs as if they had run, failed ones too.

    It is what `remove` does to jobs that no worker holds; use the word that says what you mean.
    """
    settings, filters = _split(options)
    _need_a_choice(ids, filters)
    act(
        Words("complete", "completed"),
        settings,
        selected(ids, **filters),
        lambda found, where, advance: found.complete(where, progress=advance),
    )


@click.command(
    cls=Verb,
    short_help="Delete jobs that are not to run.",
    sections=_sections("""
      zodworker remove 17
      zodworker remove --key welcome-42
      zodworker remove --task sendMail --state scheduled --due-before +1d
    """),
)
@ids_argument
@filter_options
@act_options
def remove(ids: tuple[str, ...], **options: Any) -> None:
    """Delete jobs. They are gone: to keep a job and not run it, use `fail`.

    With --key alone it is the library's `dequeue`: a job that is running is not stopped, but loses
    its key and is not tried again if it fails.
    """
    settings, filters = _split(options)
    _need_a_choice(ids, filters)
    words = Words("remove", "removed")
    where = selected(ids, **filters)
    others = {name: value for name, value in filters.items() if name != "key"}
    if filters["key"] and not ids and not any(others.values()) and not settings.dry_run:
        with admin(settings.database_url, settings.schema, settings.timeout) as found:
            outcome = found.remove_keys(filters["key"])
        report(words, settings, outcome, what="key")
        return
    act(
        words,
        settings,
        where,
        lambda found, where, advance: found.complete(where, progress=advance),
    )


@click.command(
    cls=Verb,
    short_help="Delete old failed jobs.",
    sections=_sections("""
      zodworker purge --older-than 30d --dry-run
      zodworker purge --older-than 7d --task sendMail --yes
    """),
)
@click.option(
    "--older-than",
    type=Duration(),
    required=True,
    metavar="AGE",
    help="Jobs that were tried last, or were to run, at least so long ago: 12h, 30d; 0s is all.",
)
@click.option(
    "--task",
    multiple=True,
    metavar="IDENT",
    shell_complete=complete_task,
    help="Only jobs of this task.",
)
@click.option("--queue", multiple=True, metavar="NAME", help="Only of this named queue.")
@click.option("--error", metavar="TEXT", help="Only jobs whose last error contains this text.")
@act_options
def purge(older_than: timedelta, **options: Any) -> None:
    """Delete jobs that are out of attempts, after a while.

    The age is counted from `run_at`, as by the `cleanup` of ZodWorker. From a timer, give --yes.
    """
    settings, filters = _split(options)
    try:
        due_before = datetime.now(UTC) - older_than
    except OverflowError:
        raise click.UsageError("--older-than is longer than the calendar.") from None
    act(
        Words("purge", "purged"),
        settings,
        selected(due_before=due_before, state=("failed",), **filters),
        lambda found, where, advance: found.complete(where, progress=advance),
    )


def _need_a_choice(ids: tuple[str, ...], filters: dict[str, Any]) -> None:
    given = [name for name, value in filters.items() if value]
    if ids and given:
        raise click.UsageError("Give either IDs or options that choose jobs, not both.")
    if not ids and not given:
        raise click.UsageError(
            "Say which jobs: IDs, or options such as --state failed; see --help."
        )
