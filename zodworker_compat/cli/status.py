"""`zodworker status`, `tasks`, `queues` and `workers`: numbers of one snapshot."""

from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

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
from zodworker_compat.cli.selection import STATES, STATES_HELP

if TYPE_CHECKING:
    from zodworker_compat.database.status import Counts, Status, WorkerView

MOST = {"tasks": 8, "queues": 3, "workers": 5, "errors": 3, "findings": 6}
"""Lines of `status`, so that it fits on one screen."""
Function = TypeVar("Function", bound=Callable[..., Any])


def watch_options(function: Function) -> Function:
    """Add `--watch` and `--interval`."""
    watch = click.option(
        "--watch",
        is_flag=True,
        help="Show it again and again until Ctrl-C: on the whole terminal, or in a pipe one line each "
        "time.",
    )
    interval = click.option(
        "--interval",
        type=click.FloatRange(min=0.1),
        default=2.0,
        show_default=True,
        metavar="SECONDS",
        help="With --watch, the pause.",
    )
    return watch(interval(function))


@click.command(
    cls=Verb,
    short_help="Show what waits, runs and failed, and what needs a look.",
    sections={
        "States": STATES_HELP,
        "Examples": """
      zodworker status
      zodworker status --watch
      zodworker status --watch --interval 60 >> status.log
      zodworker status --schema my_queue --database-url postgresql://localhost/app
      zodworker status --json | jq .jobs.ready
    """,
    },
)
@watch_options
@json_option
@timeout_option
@database_options
def status(
    database_url: str | None,
    schema: str | None,
    json: bool,
    timeout: float,
    watch: bool,
    interval: float,
) -> None:
    """Show how many jobs wait, run and failed, and what needs a look.

    Every job is counted once. Below the numbers stands what looks wrong, each with the command
    that shows more or mends it: locks of dead workers, queues that are stuck, tasks that nobody
    handles, backlogs, failures.

    It is two passes over the jobs, without locks: 0.4 s for a million.
    """
    with admin(database_url, schema, timeout) as found:
        if watch:
            _refuse_json(json)
            show_again(found.status, _overview, _summary, interval)
            return
        read = found.status(queues=1000 if json else 20)
    _warn(read)
    if json:
        from attrs import asdict  # noqa: PLC0415 - start-up time

        from zodworker_compat.client.reasons import findings  # noqa: PLC0415

        print_json({**asdict(read), "findings": [asdict(one) for one in findings(read)]})
    else:
        show(_overview(read))


@click.command(
    cls=Verb,
    short_help="Count jobs by state for every task.",
    sections={
        "States": STATES_HELP,
        "Examples": """
      zodworker tasks
      zodworker tasks --json | jq -r 'select(.failed > 0) | .identifier'
    """,
    },
)
@watch_options
@json_lines_option
@timeout_option
@database_options
def tasks(
    database_url: str | None,
    schema: str | None,
    json: bool,
    timeout: float,
    watch: bool,
    interval: float,
) -> None:
    """Count the jobs of every task by state, and say which living Python workers handle it.

    Tasks without jobs are left out. Node's workers do not say what they handle.
    """
    with admin(database_url, schema, timeout) as found:
        if watch:
            _refuse_json(json)
            read_again = partial(found.status, queues=0, errors=0)
            show_again(read_again, lambda read: [_tasks(read)], _summary, interval)
            return
        read = found.status(queues=0, errors=0)
    _warn(read)
    if json:
        from attrs import asdict  # noqa: PLC0415 - start-up time

        handlers = _handlers(read)
        print_json_lines(
            {**asdict(one), "workers": handlers.get(one.identifier, [])} for one in read.tasks
        )
    else:
        show([_tasks(read)])


@click.command(
    cls=Verb,
    short_help="Show named queues: their depth, and who locks them since when.",
    sections={
        "Examples": """
      zodworker queues --locked
      zodworker queues --queue customer-17
      zodworker queues --json --limit 100000 | jq -r 'select(.ready > 100) | .queue_name'
    """
    },
)
@click.option("--queue", multiple=True, metavar="NAME", help="Only this queue.")
@click.option("--locked", is_flag=True, help="Only queues that are locked.")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=50,
    show_default=True,
    metavar="N",
    help="How many queues to show.",
)
@watch_options
@json_lines_option
@timeout_option
@database_options
def queues(
    database_url: str | None,
    schema: str | None,
    json: bool,
    timeout: float,
    watch: bool,
    interval: float,
    queue: tuple[str, ...],
    locked: bool,
    limit: int,
) -> None:
    """Show named queues that have jobs, or are locked.

    Jobs of one named queue run one at a time: a queue is locked while one of its jobs runs.
    Locked queues with ready jobs behind them come first, then the deepest.
    A queue that is locked though none of its jobs is running is marked as left behind: its worker
    died, or has just ended the job and will free the queue in a moment.
    """
    with admin(database_url, schema, timeout) as found:

        def read() -> "Status":
            return found.status(
                queues=limit, queue_names=queue or None, only_locked=locked, errors=0
            )

        if watch:
            _refuse_json(json)
            show_again(read, lambda shown: [_queues(shown)], _queues_line, interval)
            return
        shown = read()
    _warn(shown)
    if json:
        from attrs import asdict  # noqa: PLC0415 - start-up time

        print_json_lines({**asdict(one), "is_stuck": one.is_stuck} for one in shown.queues)
    elif shown.queues:
        show([_queues(shown)])
    else:
        click.echo("No named queue is locked or has jobs." if not queue else "No such queue.")


@click.command(
    cls=Verb,
    short_help="Show who works on the queue, and what they hold since when.",
    sections={
        "States": """
    alive    a Python worker with a heartbeat
    dead     its heartbeat has stopped; others free what it held, or `zodworker unlock`
    unknown  holds locks, and has no heartbeat: a Node worker, or one that is long gone
    """,
        "Examples": """
      zodworker workers
      zodworker workers --json | jq -r 'select(.state == "dead") | .locked_by'
    """,
    },
)
@watch_options
@json_lines_option
@timeout_option
@database_options
def workers(
    database_url: str | None,
    schema: str | None,
    json: bool,
    timeout: float,
    watch: bool,
    interval: float,
) -> None:
    """Show Python workers by their heartbeats, and everybody who holds jobs or queues.

    Node's workers have no heartbeat: they are seen by their locks alone, so that one which is idle
    is not seen, and one that is dead looks like one that is busy.
    """
    with admin(database_url, schema, timeout) as found:
        if watch:
            _refuse_json(json)
            read_again = partial(found.status, queues=0, errors=0)
            show_again(read_again, lambda read: [_workers(read)], _workers_line, interval)
            return
        read = found.status(queues=0, errors=0)
    _warn(read)
    if json:
        from attrs import asdict  # noqa: PLC0415 - start-up time

        print_json_lines(map(asdict, read.workers))
    elif read.workers:
        show([_workers(read)])
    else:
        click.echo("No worker holds a job or a queue, and none has a heartbeat.")


def _refuse_json(json: bool) -> None:
    if json:
        raise click.UsageError("Give either --watch or --json.")


def _warn(read: "Status") -> None:
    if read.hidden_from:
        click.echo(
            f"Warning: row level security hides jobs from the role {read.hidden_from!r}, so these "
            f"numbers may be too small. Connect as their owner, {read.owner!r}.",
            err=True,
        )


def _overview(read: "Status") -> Iterator[Block]:
    from zodworker_compat.client.reasons import findings  # noqa: PLC0415 - start-up time
    from zodworker_compat.client.wording import plural  # noqa: PLC0415

    yield Line(
        f"Schema {read.schema} of database {read.database}, revision {read.revision}: "
        f"{plural(read.jobs.total, 'job')} at {moment(read.read_at)}",
        "bold",
    )
    for state, about in _about(read).items():
        count = getattr(read.jobs, state)
        yield Line(f"  {count:>11,} {state:<9}  {about}".rstrip(), _style(state, count))
    yield Line("")
    found = findings(read)
    if found:
        yield Line("Needs a look", "bold")
    for one in found[: MOST["findings"]]:
        yield Line(f"  ! {one.problem}", "yellow")
        yield Line(f"      {one.command}")
    if (rest := len(found) - MOST["findings"]) > 0:
        yield Line(f"  ... and {rest} more: zodworker status --json")
    if found:
        yield Line("")
    yield from _sections(read)


def _summary(read: "Status") -> str:
    """Return the states in one line, for a pipe."""
    from zodworker_compat.client.wording import duration  # noqa: PLC0415 - start-up time

    counts = ", ".join(f"{getattr(read.jobs, state)} {state}" for state in STATES)
    oldest = read.jobs.oldest_ready
    return counts + (f", the oldest due for {duration(oldest)}" if oldest else "")


def _queues_line(read: "Status") -> str:
    from zodworker_compat.client.wording import plural  # noqa: PLC0415 - start-up time

    locked = sum(one.locked_at is not None for one in read.queues)
    ready = sum(one.ready for one in read.queues)
    return f"{plural(len(read.queues), 'queue')}, {locked} locked, {plural(ready, 'ready job')} in them"


def _workers_line(read: "Status") -> str:
    from zodworker_compat.client.wording import plural  # noqa: PLC0415 - start-up time

    states = [one.state for one in read.workers]
    counts = ", ".join(f"{states.count(state)} {state}" for state in ("alive", "dead", "unknown"))
    return f"{counts}; {plural(read.jobs.running, 'job')} running"


def _style(state: str, count: int) -> str:
    return "red" if count and state == "failed" else "" if count else "dim"


def _about(read: "Status") -> dict[str, str]:
    from zodworker_compat.client.wording import duration  # noqa: PLC0415 - start-up time

    jobs = read.jobs
    ready = [f"the oldest due for {duration(jobs.oldest_ready)}"] if jobs.oldest_ready else []
    if jobs.blocked:
        ready.append(f"{jobs.blocked:,} behind a locked queue")
    due = f"the next due in {duration(jobs.next_due - read.read_at)}" if jobs.next_due else ""
    since = jobs.running_since
    return {
        "ready": ", ".join(ready),
        "scheduled": due if jobs.scheduled else "",
        "retrying": "" if jobs.scheduled else due,
        "running": f"the longest for {duration(read.read_at - since)}" if since else "",
        "failed": "",
    }


def _sections(read: "Status") -> Iterator[Block]:
    if read.errors:
        yield Table(
            "Most frequent errors of jobs that failed or wait for a retry",
            ["jobs", "failed", "task", "error"],
            [
                [one.jobs, one.failed, one.task_identifier, one.error]
                for one in read.errors[: MOST["errors"]]
            ],
            "error",
        )
    if read.tasks:
        yield _tasks(read, MOST["tasks"])
    if read.queues:
        yield _queues(read, MOST["queues"])
    if read.workers:
        yield _workers(read, MOST["workers"])


def _title(what: str, shown: int, total: int, verb: str) -> str:
    rest = total - shown
    return f"{what} (and {rest:,} more: zodworker {verb})" if rest > 0 else what


def _tasks(read: "Status", most: int | None = None) -> Table:
    handlers = _handlers(read)
    worst = sorted(
        read.tasks, key=lambda one: (-one.failed, -one.ready, -one.total, one.identifier)
    )
    rows = [
        [*_row(one.identifier, one), len(handlers.get(one.identifier, [])) or None]
        for one in worst[:most]
    ]
    title = _title("Jobs by task", len(rows), len(read.tasks), "tasks")
    return Table(title, ["task", *STATES, "oldest", "workers"], rows)


def _handlers(read: "Status") -> dict[str, list[str]]:
    """Return the living Python workers of each task."""
    found: dict[str, list[str]] = {}
    for one in read.workers:
        if one.heartbeat is not None and one.state == "alive":
            for task in one.heartbeat.tasks:
                found.setdefault(task, []).append(one.locked_by)
    return found


def _queues(read: "Status", most: int | None = None) -> Table:
    shown = read.queues[:most]
    return Table(
        _title("Jobs by named queue", len(shown), read.jobs.queues, "queues"),
        ["queue", *STATES, "oldest", "for", "locked by"],
        [
            [
                *_row(one.queue_name, one),
                _since(read, one.locked_at),
                f"{one.locked_by}, left behind" if one.is_stuck else one.locked_by,
            ]
            for one in shown
        ],
    )


def _workers(read: "Status", most: int | None = None) -> Table:
    found = sorted(
        read.workers,
        key=lambda one: (one.state != "dead", one.since is None, one.state, one.locked_by),
    )
    rows = [_worker(read, one) for one in found[:most]]
    title = _title("Workers", len(rows), len(found), "workers")
    columns = ["worker", "state", "jobs", "queues", "for", "tasks", "process"]
    return Table(title, columns, rows, "process")


def _worker(read: "Status", one: "WorkerView") -> list[object]:
    from zodworker_compat.client.wording import duration  # noqa: PLC0415 - start-up time

    held = [one.jobs, one.queues, _since(read, one.since)]
    beat = one.heartbeat
    if beat is None:
        return [one.locked_by, one.state, *held, None, None]
    state = f"dead for {duration(beat.silent_for, 1)}" if beat.is_dead else one.state
    process = f"{beat.name} {beat.version} on {beat.host}, {beat.pid}"
    return [one.locked_by, state, *held, len(beat.tasks), process]


def _row(name: str, counts: "Counts") -> list[object]:
    from zodworker_compat.client.wording import duration  # noqa: PLC0415 - start-up time

    waiting = None if counts.oldest_ready is None else duration(counts.oldest_ready, 1)
    return [name, *(getattr(counts, state) for state in STATES), waiting]


def _since(read: "Status", value: datetime | None) -> str | None:
    from zodworker_compat.client.wording import duration  # noqa: PLC0415 - start-up time

    return None if value is None else duration(read.read_at - value, 1)
