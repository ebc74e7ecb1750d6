"""Which jobs: the arguments and options that the verbs on jobs share."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from zodworker_compat.cli.completion import complete_task
from zodworker_compat.cli.values import Duration, Time

if TYPE_CHECKING:
    from zodworker_compat.database.job_filter import JobFilter

Function = TypeVar("Function", bound=Callable[..., Any])

STATES = ("ready", "scheduled", "retrying", "running", "failed")

STATES_HELP = """
    ready      due, and waiting for a worker (or for their named queue)
    scheduled  not due yet, and never tried
    retrying   tried before, and not due yet
    running    locked by a worker
    failed     out of attempts; they stay until they are retried or removed
    """

_FILTERS = (
    click.option(
        "--state",
        type=click.Choice(STATES),
        multiple=True,
        help="Jobs in this state; may be repeated, as may --task, --queue and --key.",
    ),
    click.option(
        "--task",
        multiple=True,
        metavar="IDENT",
        shell_complete=complete_task,
        help="Jobs of this task.",
    ),
    click.option("--queue", multiple=True, metavar="NAME", help="Jobs of this named queue."),
    click.option("--key", multiple=True, metavar="KEY", help="The job of this key."),
    click.option(
        "--error",
        metavar="TEXT",
        help="Jobs whose last error contains this text, in upper or lower case.",
    ),
    click.option(
        "--older-than",
        type=Duration(),
        metavar="AGE",
        help="Jobs enqueued at least so long ago: 90s, 5m, 1h30m, 30d.",
    ),
    click.option(
        "--newer-than", type=Duration(), metavar="AGE", help="Jobs enqueued less than so long ago."
    ),
    click.option(
        "--due-before",
        type=Time(),
        metavar="TIME",
        help="Jobs to run before this time: now, +5m, -2h, 2026-01-31T12:00:00Z. For a failed job "
        "that is about when it failed.",
    ),
)
_LOCKS = (
    click.option(
        "--locked-by", multiple=True, metavar="WORKER", help="Jobs that this worker runs."
    ),
    click.option(
        "--locked-for", type=Duration(), metavar="AGE", help="Jobs running for at least so long."
    ),
)


def filter_options(function: Function) -> Function:
    """Add the options that say which jobs to act on."""
    for option in reversed(_FILTERS):
        function = option(function)
    return function


def lock_options(function: Function) -> Function:
    """Add the options that say which running jobs to look at."""
    for option in reversed(_LOCKS):
        function = option(function)
    return function


def selected(ids: tuple[str, ...] = (), **given: Any) -> "JobFilter":
    """Return the filter that the options mean; an empty list is none given."""
    from zodworker_compat.database.job_filter import JobFilter  # noqa: PLC0415 - start-up time
    from zodworker_compat.errors import OptionError  # noqa: PLC0415

    lists = {"state": "states", "task": "tasks", "queue": "queues", "key": "keys"}
    options = {lists.get(name, name): value or None for name, value in given.items()}
    try:
        return JobFilter(ids=ids or None, **options)
    except OptionError as problem:
        raise click.UsageError(str(problem)) from problem
