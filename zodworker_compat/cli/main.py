"""The `zodworker` command."""

import click

from zodworker_compat import __version__
from zodworker_compat.cli.base import Manual
from zodworker_compat.cli.catalog import catalog
from zodworker_compat.cli.demo import demo
from zodworker_compat.cli.enqueue import enqueue
from zodworker_compat.cli.migrate import migrate
from zodworker_compat.cli.run import run
from zodworker_compat.cli.status import status

VERBS = (demo, migrate, run, enqueue, status, catalog)

SECTIONS = {
    "Examples": """
    zodworker demo                                   see it work; needs no server
    zodworker migrate                                install or adopt the schema
    zodworker enqueue startRun '{"id": "run_1"}'     enqueue a job, validated
    zodworker run --app shop.jobs:worker             run handlers until told to stop
    zodworker status                                 see what waits, runs and failed
    """,
    "Environment": """
    DATABASE_URL, PGHOST, PGDATABASE, ...      the database, unless --database-url names it
    ZODWORKER_DATABASE_URL, ZODWORKER_SCHEMA   --database-url and --schema of every verb
    ZODWORKER_<VERB>_<OPTION>                  any other option: ZODWORKER_RUN_CONCURRENCY=10
    NO_COLOR                                   no colours
    """,
    "Exit status": """
    0   done
    1   failed; the reason is on standard error
    2   called wrongly
    57  `run` was stopped by a migration to a schema that this version does not know
    """,
}


class _Verbs(Manual, click.Group):
    """The group of all verbs."""


@click.group(
    cls=_Verbs,
    sections=SECTIONS,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="zodworker", message="%(prog)s %(version)s")
@click.pass_context
def cli(context: click.Context) -> None:
    """Typed jobs on graphile-worker's PostgreSQL tables, beside Node or without it.

    `zodworker VERB --help` explains a verb and shows examples.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


for verb in VERBS:
    cli.add_command(verb)


def main() -> None:
    """Run the command; its exit status is documented in `zodworker --help`."""
    cli(prog_name="zodworker", auto_envvar_prefix="ZODWORKER")
