"""`zodworker enqueue`."""

import time
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING, Any

import click

from zodworker_compat.cli.base import DEFAULT_SCHEMA, Verb, database_options, json_option
from zodworker_compat.cli.completion import complete_catalog, complete_task
from zodworker_compat.cli.output import moment, print_json, progress
from zodworker_compat.cli.safe import safe
from zodworker_compat.cli.values import Time, read_payload

if TYPE_CHECKING:
    from zodworker_compat.client.client import Client
    from zodworker_compat.job import Job

JOB_KEY_MODES = ("replace", "preserve_run_at", "unsafe_dedupe")


SECTIONS = {
    "A line of a file": """
  {"identifier": "startRun", "payload": {"id": "run_1"}, "job_key": "run_1", "priority": 10}
    """,
    "Examples": """
      zodworker enqueue startRun '{"id": "run_1"}'
      zodworker enqueue startRun @payload.json --run-at +5m --job-key run_1
      zodworker enqueue sendMail '{"to": "a@b.example"}' --app shop.jobs:worker
      zodworker enqueue --from jobs.jsonl --dry-run
      generate-jobs | zodworker enqueue --from -
    """,
}


@click.command(cls=Verb, sections=SECTIONS, short_help="Enqueue a job, or a file of jobs.")
@click.argument("identifier", metavar="[IDENT]", required=False, shell_complete=complete_task)
@click.argument("payload", metavar="[PAYLOAD]", required=False)
@click.option(
    "--run-at",
    type=Time(),
    metavar="TIME",
    help="Not before this time: 2026-01-31T12:00:00Z, now, or +5m, +1h30m, +2d from now.",
)
@click.option("--max-attempts", type=int, metavar="N", help="Tries before the job is failed.")
@click.option("--job-key", metavar="KEY", help='Replaces the waiting job of this key. "" is none.')
@click.option(
    "--job-key-mode",
    type=click.Choice(JOB_KEY_MODES),
    help="What happens to a waiting job of the same key.",
)
@click.option("--priority", type=int, metavar="N", help="Smaller runs first.")
@click.option("--flag", multiple=True, metavar="FLAG", help="A label; may be repeated.")
@click.option(
    "--queue-name",
    metavar="NAME",
    help='Jobs of one named queue run one at a time. "" is none, whatever the catalog says.',
)
@click.option(
    "--catalog",
    metavar="NAME|PATH",
    shell_complete=complete_catalog,
    help="The catalog of the task: one of the package's, or a file. Default: all of the package's.",
)
@click.option(
    "--app", metavar="MODULE:WORKER", help="The worker whose catalog and database to use."
)
@click.option(
    "--from",
    "source",
    envvar="ZODWORKER_ENQUEUE_FROM",
    type=click.File("rb"),
    metavar="FILE",
    help="A file of jobs, one JSON object in each line; - is standard input.",
)
@click.option("--dry-run", is_flag=True, help="Check everything, and enqueue nothing.")
@json_option
@database_options
def enqueue(
    identifier: str | None,
    payload: str | None,
    catalog: str | None,
    app: str | None,
    source: IO[bytes] | None,
    dry_run: bool,
    json: bool,
    database_url: str | None,
    schema: str | None,
    flag: Sequence[str],
    **options: Any,
) -> None:
    """Enqueue a job, or a file of jobs.

    IDENT is the task, as its catalog spells it. PAYLOAD is JSON, @FILE, or - for standard input;
    without it the job gets {}. The payload is checked against the task's schema first. Options
    that are not given are the catalog's.

    A file of jobs holds one JSON object in each line: "identifier", "payload", and options named
    as here with underscores (run_at, max_attempts, job_key, job_key_mode, priority, flags,
    queue_name). Every line is checked first, and all are enqueued in one transaction: if one is
    wrong or the connection breaks, nothing is.
    """
    if flag:
        options["flags"] = list(flag)
    options = {name: value for name, value in options.items() if value is not None}
    if bool(identifier) == bool(source):
        raise click.UsageError("Give either the IDENT of a task, or --from FILE.")
    if source and options:
        name = next(iter(options)).replace("_", "-").replace("flags", "flag")
        raise click.UsageError(
            f"--{name} does not go with --from: options stand in the file's lines."
        )
    if app and catalog:
        raise click.UsageError("Give either --app or --catalog: a worker has a catalog.")
    client = _client(app, catalog, database_url, schema)
    try:
        if source:
            _enqueue_file(client, source, dry_run, json)
        else:
            _enqueue_one(client, identifier or "", payload, options, dry_run, json)
    finally:
        client.close()


def _client(
    app: str | None, catalog: str | None, database_url: str | None, schema: str | None
) -> "Client":
    from zodworker_compat.cli.app import load_catalog, load_worker  # noqa: PLC0415 - start-up time
    from zodworker_compat.client.client import Client  # noqa: PLC0415 - start-up time
    from zodworker_compat.runner_options import RunnerOptions  # noqa: PLC0415 - start-up time

    if app:
        return load_worker(app, database_url, schema).sync
    options = RunnerOptions(connection_string=database_url, schema=schema or DEFAULT_SCHEMA)
    return Client(load_catalog(catalog), runner_options=options)


def _enqueue_one(
    client: "Client",
    identifier: str,
    payload: str | None,
    options: dict[str, Any],
    dry_run: bool,
    json: bool,
) -> None:
    from attrs import asdict  # noqa: PLC0415 - start-up time

    arguments = [identifier] if payload is None else [identifier, read_payload(payload)]
    if dry_run:
        spec = client.prepare(*arguments, **options)
        if json:
            print_json(asdict(spec))
        else:
            click.echo(f"{identifier} is valid; nothing was enqueued.")
        return
    job = client.enqueue(*arguments, **options)
    if json:
        print_json(asdict(job))
    else:
        click.echo(_sentence(job))


def _sentence(job: "Job") -> str:
    from zodworker_compat.client.wording import plural  # noqa: PLC0415 - start-up time

    parts = [
        f"at {moment(job.run_at)}"
        if job.run_at > job.created_at
        else "as soon as a worker is free",
        f"priority {job.priority}",
        f"at most {plural(job.max_attempts, 'attempt')}",
    ]
    if job.key:
        parts.append(f"key {job.key}")
    if job.queue_name:
        parts.append(f"queue {job.queue_name}")
    if job.flags:
        parts.append(f"flags {', '.join(job.flags)}")
    return safe(f"Enqueued job {job.id}, {job.task_identifier}: {', '.join(parts)}.")


def _enqueue_file(client: "Client", source: IO[bytes], dry_run: bool, json: bool) -> None:
    from zodworker_compat.cli import bulk  # noqa: PLC0415 - start-up time
    from zodworker_compat.client.wording import plural  # noqa: PLC0415

    started = time.monotonic()
    name = source.name.strip("<>")  # <stdin>
    with bulk.readable_twice(source) as file:
        with progress("Checking", bulk.size(file), is_bytes=True) as advance:
            count = bulk.check(client, file, name, advance)
        if not dry_run:
            file.seek(0)
            with progress("Enqueueing", count) as advance:
                bulk.enqueue_all(client, file, advance)
    if json:
        print_json({"valid": count, "enqueued": 0 if dry_run else count})
    elif dry_run:
        jobs = f"The job in {name} is" if count == 1 else f"All {count:,} jobs in {name} are"
        click.echo(f"{jobs} valid; nothing was enqueued.")
    else:
        seconds = time.monotonic() - started
        click.echo(f"Enqueued {plural(count, 'job')} from {name} in {seconds:.1f} s.")
