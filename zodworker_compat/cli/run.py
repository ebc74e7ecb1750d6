"""`zodworker run`."""

import logging
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import click

from zodworker_compat.cli.base import Verb, database_options, run_async

if TYPE_CHECKING:
    from zodworker_compat.worker import ZodWorker

logger = logging.getLogger(__name__)

BREAKING_MIGRATION: Final = 57
"""Exit status of workers whose schema was migrated away from under them, as graphile-worker 0.16.6."""
DATABASE_AWAY: Final = 75
"""Exit status of workers that could not reach PostgreSQL: EX_TEMPFAIL of sysexits.h."""


class StoppedByMigrationError(click.ClickException):
    """A breaking migration stopped the workers, as it stops graphile-worker's."""

    exit_code = BREAKING_MIGRATION


class DatabaseAwayError(click.ClickException):
    """PostgreSQL could not be reached: trying again may help, unlike with other errors."""

    exit_code = DATABASE_AWAY


SECTIONS = {
    "Signals": """
    SIGTERM, SIGINT, SIGHUP   stop: claim nothing more, let running jobs finish, leave nothing locked
    the second                5 s later or more: cancel running jobs, and give them back
    the third                 5 s later or more: end at once
    """,
    "Several processes": """
    A process runs Python on one core: for more, give --processes, and count concurrency and
    connections for each. The supervisor imports none of your code. It starts the first process alone,
    and the others once its workers run, so that what cannot start says so once, with its exit status.
    Later, a process that ends is replaced in 1 s; in 2, 4, ... 30 s if its successors end soon, too.
    SIGTERM, SIGINT and SIGHUP are passed on to all, as SIGTERM, each time they come. If the
    supervisor is killed, the processes stop as well.
    """,
    "Exit status": """
    0    stopped by a signal; or, with --once, nothing is left
    1    a worker cannot start or has failed; the reason is on standard error
    2    called wrongly
    57   stopped by a migration to a schema that this version does not know: update it first
    75   PostgreSQL cannot be reached at the start; a supervisor may just try again, as --processes
         does. Later outages are waited out
    143  ended by the third SIGTERM, 130 by the third SIGINT
    With --processes it is 57, or else the greatest of theirs.
    """,
    "Examples": """
      zodworker run --app shop.jobs:worker
      zodworker run --app shop.jobs:worker --processes 4 --concurrency 20
      zodworker run --app jobs:worker_queue --app jobs:execution_worker
      zodworker run --app jobs:worker --once --log-level debug
      zodworker run --app jobs:worker --metrics-port 9000 --metrics-host 0.0.0.0
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
    "--processes",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="Run so many processes, and restart those that die; see below.",
)
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
@click.option(
    "--metrics-port",
    type=click.IntRange(min=0, max=65535),
    metavar="PORT",
    help="Serve /metrics for Prometheus, and /live and /ready for probes; 0 takes any free port. With "
    "--processes, each process has a port of its own: PORT, PORT+1, ...",
)
@click.option(
    "--metrics-host",
    default="127.0.0.1",
    show_default=True,
    metavar="ADDRESS",
    help="Where to serve them; 0.0.0.0 is every address, in a container.",
)
@database_options
def run(
    app: Sequence[str],
    once: bool,
    processes: int,
    concurrency: int | None,
    poll_interval: float | None,
    dead_after: float | None,
    log_level: str,
    log_format: str,
    metrics_port: int | None,
    metrics_host: str,
    database_url: str | None,
    schema: str | None,
) -> None:
    """Run the handlers of one or more workers until told to stop.

    The schema is installed if it is not there. SIGTERM or Ctrl-C stops gracefully: no new jobs
    are claimed, running ones may finish (for the worker's shutdown_timeout), nothing stays
    locked, and the exit status is 0. Options given here beat the worker's runner_options.

    Safe to run beside any number of others, Node's too: each job is claimed by one of them. If a
    worker is killed, the others take its jobs in less than 20 seconds.
    """
    from zodworker_compat.cli.app import load_worker  # noqa: PLC0415 - start-up time
    from zodworker_compat.cli.logs import set_up_logging  # noqa: PLC0415 - start-up time
    from zodworker_compat.cli.supervisor import Supervised, supervise  # noqa: PLC0415

    if twice := [name for name in app if app.count(name) > 1]:
        raise click.BadParameter(
            f"{twice[0]} is given twice; for more jobs at a time use --concurrency.",
            param_hint="--app",
        )
    if processes > 1:
        set_up_logging(log_level, log_format, with_process=True)
        # This very command, as it was typed; of an option that is given twice the last one counts.
        command = [sys.executable, *sys.orig_argv[1:], "--processes", "1"]
        commands = [command + _metrics_of(number, metrics_port) for number in range(processes)]
        click.get_current_context().exit(supervise(commands, once=once))
    supervised = Supervised.join()
    workers = [
        load_worker(name, database_url, schema, concurrency, poll_interval, dead_after)
        for name in app
    ]
    set_up_logging(log_level, log_format, with_process=supervised is not None)
    if metrics_port is not None:
        _serve_metrics(workers, metrics_host, metrics_port)
    run_async(_run(workers, once, supervised.ready if supervised else lambda: None))


def _metrics_of(number: int, port: int | None) -> list[str]:
    """Return the option that gives the process of this number a port of its own."""
    return [] if port is None else ["--metrics-port", str(port and port + number)]


def _serve_metrics(workers: Sequence["ZodWorker"], host: str, port: int) -> None:
    try:
        from zodworker_compat.metrics import WorkerMetrics  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise click.ClickException(f"--metrics-port: {error}") from error
    logger.info("Metrics and health are on %s", WorkerMetrics(*workers).serve(host, port).url)


async def _run(workers: Sequence["ZodWorker"], once: bool, ready: Callable[[], None]) -> None:
    import asyncio  # noqa: PLC0415 - start-up time

    starting = len(workers)

    def started(_event: object = None) -> None:
        nonlocal starting
        starting -= 1
        if not starting:
            ready()

    async with asyncio.TaskGroup() as group:  # one that fails stops the others
        for worker in workers:
            group.create_task((_run_once if once else _serve)(worker, started))


async def _run_once(worker: "ZodWorker", started: Callable[[object], None]) -> None:
    from zodworker_compat.errors import DatabaseUnavailableError  # noqa: PLC0415 - start-up time

    worker.events.on("pool:create", started)
    try:
        await worker.run_once()
    except DatabaseUnavailableError as error:
        raise DatabaseAwayError(str(error)) from error


async def _serve(worker: "ZodWorker", started: Callable[[], None]) -> None:
    from zodworker_compat.database.connect import address, resolve_conninfo  # noqa: PLC0415
    from zodworker_compat.errors import DatabaseUnavailableError, MigrationError  # noqa: PLC0415

    try:
        await worker.initialize()
    except DatabaseUnavailableError as error:
        raise DatabaseAwayError(str(error)) from error
    options = worker.runner_options
    logger.info(
        "[worker][%s] running on %s, schema %s, concurrency %d",
        worker.name,
        address(resolve_conninfo(options.connection_string)),
        options.schema,
        options.concurrency,
    )
    started()
    try:
        await worker.run_until_stopped()
    except MigrationError as error:
        raise StoppedByMigrationError(str(error)) from error
