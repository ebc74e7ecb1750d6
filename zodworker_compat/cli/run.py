"""`zodworker run`."""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from zodworker_compat.cli.base import Verb, database_options, run_async

if TYPE_CHECKING:
    from zodworker_compat.worker import ZodWorker

logger = logging.getLogger(__name__)


class StoppedByMigrationError(click.ClickException):
    """A breaking migration stopped the workers, as it stops graphile-worker's."""

    exit_code = 57


SECTIONS = {
    "Examples": """
      zodworker run --app shop.jobs:worker
      zodworker run --app jobs:worker_queue --app jobs:execution_worker --concurrency 20
      zodworker run --app jobs:worker --once --log-level debug
    """,
}


@click.command(
    cls=Verb, sections=SECTIONS, short_help="Run the handlers of workers until told to stop."
)
@click.option(
    "--app",
    metavar="MODULE:WORKER",
    multiple=True,
    required=True,
    help="The worker: a module and the name of a ZodWorker in it. The module is looked for in the "
    "current directory first. Several --app run in one process.",
)
@click.option("--once", is_flag=True, help="Run what is due until nothing is left, then end.")
@click.option(
    "--concurrency", type=click.IntRange(min=1), metavar="N", help="Jobs at a time, of each worker."
)
@click.option(
    "--poll-interval",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="How long an idle worker waits before it looks again if no notification came.",
)
@click.option(
    "--dead-after",
    type=click.FloatRange(min=1, max=3600),
    metavar="SECONDS",
    help="How long a worker may be silent before the others take its jobs. [default: 15]",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"], case_sensitive=False),
    default="info",
    show_default=True,
    help="The least important log lines to show.",
)
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Log lines for people, or one JSON object per line.",
)
@database_options
def run(
    app: Sequence[str],
    once: bool,
    concurrency: int | None,
    poll_interval: float | None,
    dead_after: float | None,
    log_level: str,
    log_format: str,
    database_url: str | None,
    schema: str | None,
) -> None:
    """Run the handlers of one or more workers until told to stop.

    The schema is installed if it is not there. SIGTERM or Ctrl-C stops gracefully: no new jobs
    are claimed, running ones may finish (for the worker's shutdown_timeout), nothing stays
    locked, and the exit status is 0. Options given here beat the worker's runner_options.

    The exit status is 57 if a migration to a schema that this version does not know stopped the
    workers: update the package before you start them again.
    """
    from zodworker_compat.cli.app import load_worker  # noqa: PLC0415 - start-up time
    from zodworker_compat.cli.logs import set_up_logging  # noqa: PLC0415 - start-up time

    if twice := [name for name in app if app.count(name) > 1]:
        raise click.BadParameter(
            f"{twice[0]} is given twice; for more jobs at a time use --concurrency.",
            param_hint="--app",
        )
    workers = [
        load_worker(name, database_url, schema, concurrency, poll_interval, dead_after)
        for name in app
    ]
    set_up_logging(log_level, log_format)
    run_async(_run(workers, once))


async def _run(workers: Sequence["ZodWorker"], once: bool) -> None:
    import asyncio  # noqa: PLC0415 - start-up time

    async with asyncio.TaskGroup() as group:  # one that fails stops the others
        for worker in workers:
            group.create_task(worker.run_once() if once else _serve(worker))


async def _serve(worker: "ZodWorker") -> None:
    from zodworker_compat.database.connect import address, resolve_conninfo  # noqa: PLC0415
    from zodworker_compat.errors import MigrationError  # noqa: PLC0415 - start-up time

    await worker.initialize()
    options = worker.runner_options
    logger.info(
        "[worker][%s] running on %s, schema %s, concurrency %d",
        worker.name,
        address(resolve_conninfo(options.connection_string)),
        options.schema,
        options.concurrency,
    )
    try:
        await worker.run_until_stopped()
    except MigrationError as error:
        raise StoppedByMigrationError(str(error)) from error
