"""`zodworker cron`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from zodworker_compat.cli.base import (
    Verb,
    admin,
    database_options,
    json_lines_option,
    timeout_option,
)
from zodworker_compat.cli.output import Table, moment, print_json_lines, show

if TYPE_CHECKING:
    from zodworker_compat.cron import CronItem
    from zodworker_compat.database.status import Crontab


@click.command(
    cls=Verb,
    short_help="Show recurring tasks: when they fired last, and fire next.",
    sections={
        "Examples": """
      zodworker cron
      zodworker cron --app shop.jobs:worker
      zodworker cron --crontab crontab --json | jq 'select(.missed_at)'
    """
    },
)
@click.option(
    "--app",
    metavar="MODULE:WORKER",
    help="The worker whose recurring tasks and crontab to compare with, and its database.",
)
@click.option(
    "--crontab",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The crontab to compare with, in graphile-worker's syntax.",
)
@json_lines_option
@timeout_option
@database_options
def cron(
    app: str | None,
    crontab: Path | None,
    json: bool,
    timeout: float,
    database_url: str | None,
    schema: str | None,
) -> None:
    """Show recurring tasks that a worker of this queue, Python or Node, has ever run with.

    The tables know when each fired last. They do not know its pattern: give the worker or the
    crontab to see when it fires next, and whether it missed the last time it should have fired
    (more than two minutes ago). Then no worker with it was running, or the database was away.
    """
    if app and crontab:
        raise click.UsageError("Give either --app or --crontab.")
    items = _items(app, crontab)
    with admin(database_url, schema, timeout, app) as found:
        crontabs = found.crontabs(items)
    if json:
        from attrs import asdict  # noqa: PLC0415 - start-up time

        print_json_lines(map(asdict, crontabs))
    elif crontabs:
        rows = [
            [
                one.identifier,
                one.pattern or ("not in it" if items else None),
                one.time_zone if one.time_zone != "UTC" else None,
                _fired(one),
                moment(one.next_at),
                moment(one.missed_at),
            ]
            for one in crontabs
        ]
        columns = ["task", "pattern", "time zone", "fired last", "fires next", "missed"]
        show([Table("Recurring tasks", columns, rows)])
    else:
        click.echo("No worker of this queue has ever run with a recurring task.")


def _fired(one: "Crontab") -> str:
    from zodworker_compat.client.wording import duration  # noqa: PLC0415 - start-up time

    if one.last_execution is None:
        return "never" if one.known_since else "not known yet"
    return f"{moment(one.last_execution)}, {duration(one.read_at - one.last_execution, 1)} ago"


def _items(app: str | None, crontab: Path | None) -> "list[CronItem]":
    if crontab is not None:
        from zodworker_compat.cron import parse_crontab  # noqa: PLC0415 - start-up time

        return parse_crontab(crontab.read_text("utf-8"))
    if app is not None:
        from zodworker_compat.cli.app import load_worker  # noqa: PLC0415 - start-up time

        return load_worker(app).cron_items
    return []
