"""The `zodworker` command."""

from itertools import chain

import click

from zodworker_compat import __version__
from zodworker_compat.cli.act import complete, fail, purge, remove, reschedule, retry
from zodworker_compat.cli.base import Manual
from zodworker_compat.cli.catalog import catalog
from zodworker_compat.cli.completion import completion
from zodworker_compat.cli.cron import cron
from zodworker_compat.cli.demo import demo
from zodworker_compat.cli.enqueue import enqueue
from zodworker_compat.cli.jobs import job, jobs
from zodworker_compat.cli.migrate import migrate
from zodworker_compat.cli.run import run
from zodworker_compat.cli.status import queues, status, tasks, workers
from zodworker_compat.cli.unlock import unlock
from zodworker_compat.cli.verify import verify

VERBS = {
    "Begin": (demo, migrate, verify, run, enqueue, catalog, completion),
    "Look": (status, jobs, job, queues, tasks, cron, workers),
    "Act": (retry, reschedule, fail, complete, remove, purge, unlock),
}

SECTIONS = {
    "Examples": """
    zodworker demo                                   see it work; needs no server
    zodworker migrate                                install or adopt the schema
    zodworker enqueue startRun '{"id": "run_1"}'     enqueue a job, validated
    zodworker verify                                 see whether all is set up rightly
    zodworker run --app shop.jobs:worker             run handlers until told to stop
    zodworker status                                 see what waits, runs and failed
    zodworker jobs --state failed --sort newest      see which failed, and why
    zodworker job 17                                 see why one does not run
    zodworker retry --task startRun                  run those that failed again
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
    75  `run` cannot reach PostgreSQL: try again
    """,
}


class _Verbs(Manual, click.Group):
    """The group of all verbs."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's
        """Write the verbs, by what they are for."""
        for title, verbs in VERBS.items():
            with formatter.section(title):
                formatter.write_dl(
                    [(verb.name or "", verb.get_short_help_str(limit=100)) for verb in verbs]
                )


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


for verb in chain.from_iterable(VERBS.values()):
    cli.add_command(verb)


def main() -> None:
    """Run the command; its exit status is documented in `zodworker --help`."""
    cli(prog_name="zodworker", auto_envvar_prefix="ZODWORKER")
