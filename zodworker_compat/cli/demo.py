"""`zodworker demo`."""

import sys
from contextlib import nullcontext
from pathlib import Path

import click

from zodworker_compat.cli.base import Verb, run_async

PLAIN_WIDTH = 120
"""Columns of the output in a pipe, where there is no terminal to ask."""


@click.command(
    cls=Verb,
    short_help="See it work; needs no server.",
    sections={
        "Examples": """
        zodworker demo
        zodworker demo --database-url postgresql://localhost/scratch
        """
    },
)
@click.option(
    "--database-url",
    metavar="URL",
    envvar=["ZODWORKER_DATABASE_URL", "DATABASE_URL"],
    help="A database to use, for a role that may create schemas. Default: ZODWORKER_DATABASE_URL, "
    "then DATABASE_URL, then a PostgreSQL that is started for the demo and thrown away.",
)
@click.option(
    "--events",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The events to process, one JSON object in each line. Default: the package's own.",
)
def demo(database_url: str | None, events: Path | None) -> None:
    """Run a real workload of trigger.dev's tasks, and check every number of its outcome.

    Without a database it starts a PostgreSQL of its own. In a database of yours it works in two
    new schemas with random names. It cleans up after itself, also when it is interrupted. The exit
    status is 0 if every number is right, and 1 if one is not.
    """
    from rich.console import Console  # noqa: PLC0415 - start-up time

    from zodworker_compat.database.connect import resolve_conninfo  # noqa: PLC0415 - start-up time
    from zodworker_compat.demo import run  # noqa: PLC0415 - start-up time
    from zodworker_compat.embedded import EmbeddedPostgres  # noqa: PLC0415 - start-up time

    console = Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH)
    with EmbeddedPostgres() if database_url is None else nullcontext() as server:
        conninfo = server.dsn() if server else resolve_conninfo(database_url)
        report = run_async(run(conninfo, events=events, console=console))
    click.get_current_context().exit(report.exit_code)
