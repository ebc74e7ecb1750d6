"""`zodworker jobs` and `zodworker job`."""

import json as jsonlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from zodworker_compat.cli.base import (
    Verb,
    admin,
    database_options,
    json_lines_option,
    json_option,
    timeout_option,
)
from zodworker_compat.cli.output import (
    Block,
    Line,
    Table,
    moment,
    print_json,
    print_json_lines,
    show,
    show_again,
)
from zodworker_compat.cli.safe import safe
from zodworker_compat.cli.selection import STATES_HELP, filter_options, lock_options, selected
from zodworker_compat.cli.status import watch_options

if TYPE_CHECKING:
    from zodworker_compat.database.status import JobPage, JobReport, ListedJob

SORTS = ("id", "newest", "next", "due", "locked")
LONGEST_PAYLOAD = 10_000
"""Characters of a payload, and of an error, that `job` shows."""


@click.command(
    cls=Verb,
    short_help="List jobs, by state, task, queue, key, age or error.",
    sections={
        "States": STATES_HELP,
        "Orders": """
    id      oldest first
    newest  newest first
    next    as workers will take them: by priority, then time
    due     by the time they run, or ran, at
    locked  running jobs, the longest running first
    """,
        "Examples": """
      zodworker jobs --state failed --sort newest
      zodworker jobs --state running --locked-for 1h --sort locked
      zodworker jobs --error timeout --newer-than 30m --task sendMail
      zodworker jobs --queue customer-17 --sort next --watch
      zodworker jobs --state failed --json --limit 1000 | jq -r .job.id
    """,
    },
)
@click.argument("ids", metavar="[ID]...", nargs=-1)
@filter_options
@lock_options
@click.option(
    "--sort",
    type=click.Choice(SORTS),
    default="id",
    show_default=True,
    help="The order; see below.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=50,
    show_default=True,
    metavar="N",
    help="How many jobs to show.",
)
@click.option(
    "--after",
    metavar="CURSOR",
    help="Go on after this place: the end of the list before says which; in JSON it is `cursor`.",
)
@watch_options
@json_lines_option
@timeout_option
@database_options
def jobs(
    ids: tuple[str, ...],
    sort: Any,
    limit: int,
    after: str | None,
    watch: bool,
    interval: float,
    json: bool,
    timeout: float,
    database_url: str | None,
    schema: str | None,
    **filters: Any,
) -> None:
    """List jobs. What is given must all hold; without anything, all jobs are listed.

    The first page takes milliseconds also at a million jobs, but for what no index serves: rare
    states, errors, queues, and the orders due and locked read the table once, 0.2 s for a million.

    With --json, each line holds one job with its payload: "job" with its columns, "state",
    "queue_locked_by", and "cursor", which is where --after goes on.
    """
    where = selected(ids, **filters)
    if watch and json:
        raise click.UsageError("Give either --watch or --json.")
    with admin(database_url, schema, timeout) as found:

        def read() -> "JobPage":
            return found.jobs(where, sort=sort, limit=limit, after=after)

        if watch:
            show_again(read, _list, _summary, interval)
            return
        page = read()
    if json:
        print_json_lines(_plain(one) for one in page.jobs)
    else:
        show(_list(page))


@click.command(
    cls=Verb,
    short_help="Show all about one job, and why it does not run now.",
    sections={
        "Examples": """
      zodworker job 17
      zodworker job 17 --json | jq .job.payload
    """
    },
)
@click.argument("number", metavar="ID")
@json_option
@timeout_option
@database_options
def job(
    number: str, json: bool, timeout: float, database_url: str | None, schema: str | None
) -> None:
    """Show all about one job: payload, error, lock, and why it does not run now.

    Why not: it is not due yet, out of attempts, locked and by whom since when, its named queue is
    locked and by which job, no living Python worker handles its task, a flag of it is paused, other
    jobs come first.
    """
    from zodworker_compat.client.reasons import reasons  # noqa: PLC0415 - start-up time

    with admin(database_url, schema, timeout) as found:
        report = found.job(number)
    if report is None:
        raise click.ClickException(
            f"There is no job {number}: it has run, was removed, or never was."
        )
    if json:
        from attrs import asdict  # noqa: PLC0415 - start-up time

        around = asdict(report)
        around.pop("listed")
        print_json({**_plain(report.listed), "reasons": reasons(report), **around})
    else:
        show(_describe(report))


def _plain(one: "ListedJob") -> dict[str, Any]:
    from attrs import asdict  # noqa: PLC0415 - start-up time

    found = asdict(one)
    text = found.pop("payload_text")
    if one.job.payload is None and text != "null":
        found["payload_text"] = text  # Python cannot read it
    return found


def _list(page: "JobPage") -> Iterator[Block]:
    if not page.jobs:
        yield Line("No such job.")
        return
    yield Table(
        "Jobs",
        ["id", "task", "state", "when", "tries", "queue", "key", "note"],
        [_row(one) for one in page.jobs],
        "note",
    )
    if page.after is not None:
        yield Line(f"There are more: the same with --after {page.after}")


def _summary(page: "JobPage") -> str:
    """Return a page in one line, for a pipe."""
    states = [one.state for one in page.jobs]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    more = ", and more" if page.after is not None else ""
    return f"{counts}{more}" if page.jobs else "no such job"


def _row(one: "ListedJob") -> list[Any]:
    job = one.job
    return [
        job.id,
        job.task_identifier,
        one.state,
        _when(one),
        f"{job.attempts}/{job.max_attempts}",
        job.queue_name,
        job.key,
        _note(one),
    ]


def _when(one: "ListedJob") -> str:
    from zodworker_compat.client.wording import duration  # noqa: PLC0415 - start-up time

    job = one.job
    if job.locked_at is not None:
        return f"for {duration(one.read_at - job.locked_at, 1)}"
    if job.run_at > one.read_at:
        return f"in {duration(job.run_at - one.read_at, 1)}"
    return f"{duration(one.read_at - job.run_at, 1)} ago"


def _note(one: "ListedJob") -> str:
    job = one.job
    if job.locked_at is not None:
        return f"locked by {job.locked_by or '(nobody)'}"
    if one.state == "ready" and one.queue_locked_at is not None:
        return f"its queue is locked by {one.queue_locked_by or '(nobody)'}"
    return (job.last_error or "").partition("\n")[0]


def _describe(report: "JobReport") -> Iterator[Block]:
    from zodworker_compat.client.reasons import reasons  # noqa: PLC0415 - start-up time

    listed, job = report.listed, report.listed.job
    yield Line(f"Job {job.id}, {job.task_identifier}: {listed.state}", "bold")
    for sentence in reasons(report):
        yield Line(f"  {sentence}")
    yield Line("")
    facts = {
        "enqueued": moment(job.created_at),
        "changed": moment(job.updated_at),
        "runs at": moment(job.run_at),
        "attempts": f"{job.attempts} of {job.max_attempts}",
        "priority": str(job.priority),
        "key": job.key,
        "queue": job.queue_name,
        "flags": ", ".join(sorted(job.flags or ())),
        "locked": job.locked_at and f"{moment(job.locked_at)} by {job.locked_by or '(nobody)'}",
        "handled by": ", ".join(one.pool_id for one in report.handled_by),
    }
    for name, fact in facts.items():
        if fact:
            yield Line(f"  {name + ':':<12}{fact}")
    if job.last_error:
        yield Line("")
        yield Line("Last error", "bold")
        yield from _indented(job.last_error)
    yield Line("")
    yield Line("Payload", "bold")
    yield from _indented(_pretty(listed))


def _pretty(listed: "ListedJob") -> str:
    if listed.job.payload is None:
        return listed.payload_text
    try:
        return jsonlib.dumps(listed.job.payload, indent=2, ensure_ascii=False)
    except RecursionError:
        return listed.payload_text


def _indented(text: str) -> Iterator[Line]:
    shown = text[:LONGEST_PAYLOAD]
    for line in safe(shown, lines=True).splitlines():
        yield Line(f"  {line}")
    if rest := len(text) - len(shown):
        yield Line(f"  ... and {rest:,} more characters: --json shows all")
