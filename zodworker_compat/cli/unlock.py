"""`zodworker unlock`."""

import sys
from typing import TYPE_CHECKING

import click

from zodworker_compat.cli.base import (
    FAILED,
    Verb,
    admin,
    database_options,
    json_option,
    timeout_option,
)
from zodworker_compat.cli.output import print_json
from zodworker_compat.cli.safe import safe

if TYPE_CHECKING:
    from zodworker_compat.database.status import Unlocked, WorkerView


@click.command(
    cls=Verb,
    short_help="Free what dead workers hold.",
    sections={
        "The danger": """
    A worker that lives does not notice that it was unlocked until its jobs end. They run a second
    time, at the same time, and jobs of its named queues run side by side. So without --force only
    workers are unlocked whose heartbeat says that they are dead. Before you force a worker, end its
    process, and see that it has ended.
    """,
        "Exit status": """
    0  done; or nobody is dead
    1  failed; a worker was left alone or holds nothing; or the answer was no
    2  called wrongly; or there is no terminal to ask and no --yes
    """,
        "Examples": """
      zodworker unlock
      zodworker unlock pool-3f2a --dry-run
      zodworker unlock --force worker-0a1b2c
    """,
    },
)
@click.argument("workers", metavar="[WORKER]...", nargs=-1)
@click.option(
    "--force", is_flag=True, help="Unlock the workers also if they are not known to be dead."
)
@click.option("--dry-run", is_flag=True, help="Say what would be freed; change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask before forcing.")
@json_option
@timeout_option
@database_options
def unlock(
    workers: tuple[str, ...],
    force: bool,
    dry_run: bool,
    yes: bool,
    json: bool,
    timeout: float,
    database_url: str | None,
    schema: str | None,
) -> None:
    """Free the jobs and named queues that dead workers hold; without WORKER, of all that are dead.

    WORKER is the name that stands in `zodworker workers`. The jobs become ready again; the attempt
    that was under way stays counted. Living Python workers do this by themselves for dead Python
    workers, in seconds; for Node's, every worker does it after four hours.
    """
    if force and not workers:
        raise click.UsageError("--force needs the names of the workers: see `zodworker workers`.")
    with admin(database_url, schema, timeout) as found:
        chosen = found.unlock(workers or None, force=force, dry_run=True)
        risky = [one for one in chosen.freed if one.state != "dead"]
        if risky and not dry_run and not yes:
            _ask(risky)
        if not dry_run:
            chosen = found.unlock(workers or None, force=force)
    if json:
        from attrs import asdict  # noqa: PLC0415 - start-up time

        print_json({"dry_run": dry_run, **asdict(chosen)})
    else:
        _show(chosen, dry_run)
    for one in chosen.skipped:
        click.echo(_why_not(one), err=True)
    for name in chosen.missing:
        click.echo(f"{safe(name)} holds no job and no queue.", err=True)
    if chosen.skipped or chosen.missing:
        click.get_current_context().exit(FAILED)


def _ask(risky: "list[WorkerView]") -> None:
    names = ", ".join(safe(one.locked_by) for one in risky)
    danger = f"Not known to be dead: {names}. What a living worker is running would run twice."
    if not sys.stdin.isatty():
        raise click.UsageError(f"{danger} There is no terminal to ask: give --yes if it has ended.")
    click.echo(danger, err=True)
    if not click.confirm("Have their processes ended?", err=True):
        click.echo("Nothing was changed.", err=True)
        click.get_current_context().exit(FAILED)


def _show(chosen: "Unlocked", dry_run: bool) -> None:
    from zodworker_compat.client.wording import plural  # noqa: PLC0415 - start-up time

    verb = "Would unlock" if dry_run else "Unlocked"
    for one in chosen.freed:
        held = f"{plural(one.jobs, 'job')} and {plural(one.queues, 'queue')}"
        click.echo(f"{verb} {safe(one.locked_by)}: {held}.")
    if not (chosen.freed or chosen.skipped or chosen.missing):
        click.echo("No worker that is dead holds anything.")


def _why_not(one: "WorkerView") -> str:
    from zodworker_compat.client.wording import duration  # noqa: PLC0415 - start-up time

    name = safe(one.locked_by)
    if one.heartbeat is None:
        return (
            f"Left alone: {name} has no heartbeat, as Node's workers have none, so nobody can know "
            "whether it is dead. If its process has ended: zodworker unlock --force " + name
        )
    return (
        f"Left alone: {name} is alive, with a heartbeat {duration(one.heartbeat.silent_for)} ago "
        f"({safe(one.heartbeat.host)}, process {one.heartbeat.pid}). What it runs would run twice."
    )
