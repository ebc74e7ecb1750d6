"""`zodworker verify`."""

from datetime import timedelta
from typing import TYPE_CHECKING

import click

from zodworker_compat.cli.base import (
    DEFAULT_SCHEMA,
    FAILED,
    Verb,
    database_options,
    json_option,
    run_async,
    timeout_option,
)
from zodworker_compat.cli.output import Block, Line, print_json, show

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zodworker_compat.client.checks import Check

STYLES = {"ok": "", "warning": "yellow", "error": "red"}


@click.command(
    cls=Verb,
    short_help="Find what is set up wrongly, and how to mend it.",
    sections={
        "What is looked at": """
    database       reached, not a standby, not read-only
    durability     fsync, synchronous_commit, an unlogged table
    clock          of this machine, against the database's
    connections    how many more can be opened
    notifications  whether one comes through: a pooler may swallow them
    schema         graphile-worker's revision: too old, too new, half installed
    rights         of the role, as a worker needs them; row level security that hides jobs
    tables         columns, indexes, functions and triggers that were changed by hand
    recovery       the table of heartbeats, which gives back the jobs of killed workers
    vacuum         autovacuum, dead rows, old transactions
    workers        who is alive, who is dead and holds locks, which generation of Node's is seen
    tasks          jobs that wait, and whose task no living worker handles
    handlers       with --app: what it has handlers for, and what its crontab enqueues without one
    payloads       with --app: whether the next 200 waiting jobs match their schemas
    """,
        "Levels": """
    ok       as it should be
    warning  it works, but not as it should
    error    it does not work, or loses jobs
    """,
        "Exit status": """
    0  no error, and with --strict no warning either
    1  there is one, or the module of --app cannot be imported
    2  called wrongly
    """,
        "Examples": """
      zodworker verify
      zodworker verify --app shop.jobs:worker --strict
      zodworker verify --json | jq -r '.checks[] | select(.level != "ok") | .found'
    """,
    },
)
@click.option(
    "--app",
    metavar="MODULE:WORKER",
    help="The worker that is to run: its database, its handlers, its schemas.",
)
@click.option("--strict", is_flag=True, help="Warnings count as errors.")
@json_option
@timeout_option
@database_options
def verify(
    app: str | None,
    strict: bool,
    json: bool,
    timeout: float,
    database_url: str | None,
    schema: str | None,
) -> None:
    """Find what is set up wrongly, and say how to mend it.

    Run it where the worker will run, with its connection: before the first start, after a change
    of roles or poolers, in a deployment. It reads only, and locks nothing; counting a million jobs
    takes half a second. What is stuck at the moment, `zodworker status` says.
    """
    from zodworker_compat.client.verify import verify as look  # noqa: PLC0415 - start-up time
    from zodworker_compat.runner_options import RunnerOptions  # noqa: PLC0415

    patience = timedelta(seconds=timeout)
    if app is not None:
        from zodworker_compat.cli.app import load_worker  # noqa: PLC0415 - start-up time

        worker = load_worker(app, database_url, schema)
        found = run_async(
            look(
                client=worker,
                handled=worker.handled,
                scheduled=[item.task for item in worker.cron_items],
                patience=patience,
            )
        )
    else:
        options = RunnerOptions(connection_string=database_url, schema=schema or DEFAULT_SCHEMA)
        found = run_async(look(options, patience=patience))
    counts = {level: sum(one.level == level for one in found) for level in STYLES}
    if json:
        from attrs import asdict  # noqa: PLC0415 - start-up time

        print_json({**counts, "checks": [asdict(one) for one in found]})
    else:
        show(_lines(found, counts))
    if counts["error"] or (strict and counts["warning"]):
        click.get_current_context().exit(FAILED)


def _lines(found: "list[Check]", counts: dict[str, int]) -> "Iterator[Block]":
    from zodworker_compat.client.wording import plural  # noqa: PLC0415 - start-up time

    for one in found:
        yield Line(f"{one.level:<8} {one.subject + ':':<15}{one.found}", STYLES[one.level])
        if one.mend:
            yield Line(f"         {'mend it:':<15}{one.mend}")
    yield Line("")
    yield Line(
        f"{plural(len(found), 'check')}: {plural(counts['error'], 'error')}, "
        f"{plural(counts['warning'], 'warning')}.",
        "bold",
    )
