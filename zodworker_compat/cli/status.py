"""`zodworker status`."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from zodworker_compat.cli.base import (
    DEFAULT_SCHEMA,
    Verb,
    connected,
    database_options,
    json_option,
    run_async,
)
from zodworker_compat.cli.output import duration, print_json, print_table

if TYPE_CHECKING:
    from zodworker_compat.database.status import Counts, Status

MOST_QUEUES = 20
STATES = ("ready", "scheduled", "running", "failed", "total")


SECTIONS = {
    "States": """
    ready      due, and waiting for a worker (or for their named queue)
    scheduled  to run later, or waiting for a retry
    running    locked by a worker
    failed     out of attempts; they stay until they are retried or removed
    """,
    "Examples": """
      zodworker status
      zodworker status --schema my_queue --database-url postgresql://localhost/app
      zodworker status --json | jq .jobs.ready
    """,
}


@click.command(cls=Verb, sections=SECTIONS, short_help="Show what waits, runs and failed.")
@database_options
@json_option
def status(database_url: str | None, schema: str | None, json: bool) -> None:
    """Show how many jobs wait, run and failed, by task, queue and worker.

    Every job is counted once. It is one pass over the jobs, without locks.
    """
    from attrs import asdict  # noqa: PLC0415 - start-up time

    found = run_async(_read(database_url, schema or DEFAULT_SCHEMA))
    if found.hidden_from:
        click.echo(
            f"Warning: row level security hides jobs from the role {found.hidden_from!r}, so these "
            f"numbers may be too small. Connect as their owner, {found.owner!r}.",
            err=True,
        )
    if json:
        print_json(asdict(found))
    else:
        _show(found)


async def _read(database_url: str | None, schema: str) -> "Status":
    from zodworker_compat.database.status import read_status  # noqa: PLC0415 - start-up time

    async with connected(database_url) as connection:
        return await read_status(connection, schema)


def _row(name: str, counts: "Counts") -> list[object]:
    waiting = None if counts.oldest_ready is None else duration(counts.oldest_ready)
    return [name, *(getattr(counts, state) for state in STATES), waiting]


def _show(found: "Status") -> None:
    click.echo(
        f"Schema {found.schema} of database {found.database}, revision {found.revision}: "
        f"{found.jobs.total:,} jobs\n"
    )
    print_table(
        "Jobs by task",
        ["task", *STATES, "oldest ready"],
        [*(_row(one.identifier, one) for one in found.tasks), _row("(all)", found.jobs)],
    )
    if found.queues:
        largest = sorted(found.queues, key=lambda one: -one.total)[:MOST_QUEUES]
        rest = len(found.queues) - len(largest)
        print_table(
            f"Jobs by named queue (and {rest} smaller queues)" if rest else "Jobs by named queue",
            ["queue", *STATES, "oldest ready", "locked by"],
            [[*_row(one.queue_name, one), one.locked_by] for one in largest],
        )
    if found.workers:
        print_table(
            "Locks by worker",
            ["locked by", "jobs", "queues", "since"],
            [[one.locked_by, one.jobs, one.queues, _time(one.since)] for one in found.workers],
        )


def _time(value: datetime | None) -> str:
    return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC" if value else ""
