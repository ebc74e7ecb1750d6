# Generated from look_async.py by tools/async_to_sync.py: edit that file and run `make sync`.
"""What is in the queue, read on one connection; nothing is locked or changed.

Every call is one transaction, which gives up after a while, so that a look at a large queue cannot
stay behind on the server.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final

from psycopg import Connection
from psycopg import errors as errors_of

from zodworker_compat.database.job_filter import JobFilter, JobSort
from zodworker_compat.database.rows import cursor_of, job_of
from zodworker_compat.database.statements import statement
from zodworker_compat.database.status import (
    AllCounts,
    ErrorCount,
    Heartbeat,
    Held,
    JobPage,
    JobReport,
    ListedJob,
    Preview,
    QueueCounts,
    Status,
    TaskCounts,
    WorkerView,
)
from zodworker_compat.errors import MigrationError, OptionError

MOST_AHEAD: Final = 1000
"""Jobs before a given one are counted so far: the index is read for each."""
_MOST_HEARTBEATS: Final = 1000
_MOST_PRIORITIES: Final = 50
_MOST_IN_HEAD: Final = 500
"""Ready jobs of each priority that are read beside a sample."""
_MOST_CRONTABS: Final = 10_000
_STATES: Final = ("ready", "scheduled", "retrying", "running", "failed")
_WORKERS: Final = "zodworker_workers"
_PAUSED: Final = "zodworker_paused_flags"


def read_status(
    connection: Connection[Any],
    schema: str,
    *,
    queues: int = 20,
    queue_names: Sequence[str] | None = None,
    only_locked: bool = False,
    errors: int = 0,
    most_pages: int | None = None,
    patience: timedelta = timedelta(0),
) -> Status:
    """Read a queue's status: one pass over its jobs, and one more if `errors` are wanted.

    Args:
        connection: in autocommit, or in a transaction of its own.
        schema: the queue's schema.
        queues: how many named queues to return, those first that most need a look.
        queue_names: only these; None is all.
        only_locked: only queues that are locked.
        errors: how many of the most frequent errors to return.
        most_pages: of a jobs table with more pages, read about so many, always the same ones, and
            estimate the counts; None reads all.
        patience: how long a statement may take; 0 is for ever.

    Raises:
        MigrationError: the schema holds no queue.
        psycopg.Error: the role may not read it.
    """
    with _looking(connection, patience):
        about = _one(connection, schema, "status_schema", {"schema": schema})
        if about is None:
            raise MigrationError(f"The schema {schema!r} has no table _private_jobs.")
        sampled = 1.0 if most_pages is None else min(1.0, most_pages / max(about["pages"], 1))
        parameters = {
            "percent": 100 * sampled,
            "queues": queues,
            "queue_names": None if queue_names is None else list(queue_names),
            "only_locked": only_locked,
        }
        rows: dict[str, list[dict[str, Any]]] = {"all": [], "task": [], "queue": [], "worker": []}
        without = "sampled" if sampled == 1 else None
        for row in _all(connection, schema, "status_counts", parameters, without=without):
            rows[row["kind"]].append(_scaled(row, 1 / sampled))
        if sampled < 1:
            heads = {"priorities": _MOST_PRIORITIES, "jobs": _MOST_IN_HEAD}
            _add_heads(rows, _all(connection, schema, "status_heads", heads))
        heartbeats = _heartbeats(connection, schema)
        found = _all(connection, schema, "look_errors", {"limit": errors}) if errors else []
    [everything] = rows["all"]
    return Status(
        database=about["database"],
        schema=schema,
        revision=about["revision"],
        read_at=about["read_at"],
        jobs=AllCounts(
            queues=everything["queues"],
            blocked=everything["blocked"],
            running_since=everything["since"],
            **_counts(everything),
        ),
        tasks=[TaskCounts(identifier=row["name"], **_counts(row)) for row in rows["task"]],
        queues=[
            QueueCounts(
                queue_name=row["name"],
                locked_by=row["locked_by"],
                locked_at=row["since"],
                **_counts(row),
            )
            for row in rows["queue"]
        ],
        workers=_workers(rows["worker"], heartbeats or []),
        errors=[ErrorCount(**row) for row in found],
        sampled=sampled,
        has_heartbeats=bool(heartbeats),
        hidden_from=about["role"] if about["row_security"] else None,
        owner=about["owner"],
    )


def list_jobs(
    connection: Connection[Any],
    schema: str,
    where: JobFilter,
    *,
    sort: JobSort = "id",
    limit: int = 50,
    after: str | None = None,
    patience: timedelta = timedelta(0),
) -> JobPage:
    """Read one page of jobs.

    Args:
        connection: see `read_status`.
        schema: see `read_status`.
        where: which jobs.
        sort: in which order.
        limit: how many at most.
        after: `JobPage.after` or `ListedJob.cursor` of a list in the same order.
        patience: see `read_status`.

    Raises:
        OptionError: `after` is not such a text.
    """
    parameters = {
        **where.parameters(),
        **_position(sort, after),
        "sort": sort,
        "limit": limit + 1,
    }
    try:
        with _looking(connection, patience):
            rows = _all(connection, schema, "look_jobs", parameters)
    except errors_of.DataError as error:
        if after is None:
            raise
        raise _no_position(sort, after) from error  # what else is given was checked before
    jobs = [_listed(row, sort) for row in rows[:limit]]
    return JobPage(jobs=jobs, after=jobs[-1].cursor if jobs and len(rows) > limit else None)


def read_job(
    connection: Connection[Any],
    schema: str,
    number: int,
    *,
    patience: timedelta = timedelta(0),
) -> JobReport | None:
    """Read all that the tables say about one job; None if there is none of this id."""
    where = JobFilter(ids=[number])
    parameters = {**where.parameters(), **_position("id", None), "sort": "id", "limit": 1}
    with _looking(connection, patience):
        rows = _all(connection, schema, "look_jobs", parameters)
        around = _one(connection, schema, "look_job", {"id": number, "most_ahead": MOST_AHEAD})
        if not rows or around is None:
            return None
        listed = _listed(rows[0], "id")
        heartbeats = _heartbeats(connection, schema)
        paused = []
        if listed.job.flags and _PAUSED in _own_tables(connection, schema):
            flags = {"flags": [*listed.job.flags]}
            paused = _all(connection, schema, "look_paused", flags)
    held_by = listed.job.locked_by or listed.queue_locked_by
    lock = {
        "name": held_by,
        "running": int(listed.job.locked_at is not None),
        "queues": int(listed.queue_locked_at is not None),
        "since": listed.job.locked_at or listed.queue_locked_at,
    }
    known = heartbeats or []
    return JobReport(
        listed=listed,
        holder=next(
            (one for one in _workers([lock], known) if one.locked_by == held_by and lock["since"]),
            None,
        ),
        running_in_queue=tuple(map(str, around["running_in_queue"])),
        ahead=around["ahead"],
        handled_by=tuple(
            one for one in known if listed.job.task_identifier in one.tasks and not one.is_dead
        ),
        has_heartbeats=any(not one.is_dead for one in known),
        paused_flags=tuple(row["flag"] for row in paused),
    )


def read_crontabs(
    connection: Connection[Any], schema: str, *, patience: timedelta = timedelta(0)
) -> list[dict[str, Any]]:
    """Read the known crontabs: `identifier`, `known_since`, `last_execution`, `read_at`."""
    with _looking(connection, patience):
        return _all(connection, schema, "look_crontabs", {"limit": _MOST_CRONTABS})


def preview(
    connection: Connection[Any],
    schema: str,
    where: JobFilter,
    *,
    patience: timedelta = timedelta(0),
) -> Preview:
    """Count the jobs that an act on `where` would change, and those it would leave alone."""
    with _looking(connection, patience):
        rows = _all(connection, schema, "look_preview", where.parameters())
    free = [row for row in rows if row["locked_by"] is None]
    held: dict[str, Held] = {}
    for row in rows:
        if (name := row["locked_by"]) is not None:
            before = held.get(name)
            held[name] = Held(
                locked_by=name,
                jobs=row["jobs"] + (before.jobs if before else 0),
                since=min(row["since"], before.since) if before else row["since"],
                ids=(*(before.ids if before else ()), *map(str, row["ids"] or ())),
            )
    seen = {number for row in rows for number in row["ids"] or ()}
    return Preview(
        tasks={row["task_identifier"]: row["jobs"] for row in free},
        held=list(held.values()),
        missing=tuple(
            str(number) for number in dict.fromkeys(where.ids or ()) if number not in seen
        ),
    )


@contextmanager
def _looking(connection: Connection[Any], patience: timedelta) -> Iterator[None]:
    with connection.transaction():
        limits = {"milliseconds": str(int(patience.total_seconds() * 1000))}
        connection.execute(statement("look_limits", ""), limits)
        yield


def _all(
    connection: Connection[Any],
    schema: str,
    name: str,
    parameters: Mapping[str, Any],
    *,
    without: str | None = None,
) -> list[dict[str, Any]]:
    text = statement(name, schema, without=without)
    with cursor_of(connection) as cursor:
        # Not prepared: the plan must be for these values, see `job_filter.sql`.
        cursor.execute(text, parameters, prepare=False)
        return cursor.fetchall()


def _one(
    connection: Connection[Any], schema: str, name: str, parameters: Mapping[str, Any]
) -> dict[str, Any] | None:
    rows = _all(connection, schema, name, parameters)
    return rows[0] if rows else None


def _own_tables(connection: Connection[Any], schema: str) -> set[str]:
    rows = _all(connection, schema, "look_own_tables", {"schema": schema})
    return {row["name"] for row in rows}


def _heartbeats(connection: Connection[Any], schema: str) -> list[Heartbeat] | None:
    if _WORKERS not in _own_tables(connection, schema):
        return None
    rows = _all(connection, schema, "look_heartbeats", {"limit": _MOST_HEARTBEATS})
    return [Heartbeat(**{**row, "tasks": tuple(row["tasks"])}) for row in rows]


def _workers(
    locks: Iterable[Mapping[str, Any]], heartbeats: Iterable[Heartbeat]
) -> list[WorkerView]:
    """Return who holds something and who lives, by name."""
    beats = {one.pool_id: one for one in heartbeats}
    held = {row["name"]: row for row in locks}
    return [
        WorkerView(
            locked_by=name,
            state="unknown" if beat is None else "dead" if beat.is_dead else "alive",
            jobs=row["running"] if row else 0,
            queues=row["queues"] if row else 0,
            since=row["since"] if row else None,
            heartbeat=beat,
        )
        for name in sorted({*held, *beats} - {None})
        for beat, row in [(beats.get(name), held.get(name))]
    ]


def _scaled(row: dict[str, Any], scale: float) -> dict[str, Any]:
    counts = {name: round(row[name] * scale) for name in (*_STATES, "blocked") if row[name]}
    return {**row, **counts}


def _add_heads(rows: dict[str, list[dict[str, Any]]], heads: Iterable[Mapping[str, Any]]) -> None:
    """Put what is known of the ready jobs that come first into the rows of a sample."""
    known = {(row["kind"], row["name"]): row for kind in rows.values() for row in kind}
    for head in heads:
        row = known.get((head["kind"], head["name"]))
        if row is not None:
            row["ready"] = max(row["ready"], head["ready"])
            row["oldest_ready"] = max(
                row["oldest_ready"] or head["oldest_ready"], head["oldest_ready"]
            )
        elif head["kind"] == "task":
            rows["task"].append({**dict.fromkeys(_STATES, 0), "next_due": None, **head})


def _counts(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in (*_STATES, "oldest_ready", "next_due")}


def _listed(row: dict[str, Any], sort: JobSort) -> ListedJob:
    columns = dict(row)
    around = {
        name: columns.pop(name)
        for name in ("state", "queue_locked_by", "queue_locked_at", "read_at")
    }
    time = columns.pop("position")
    job = job_of(columns)
    cursor = {"next": [job.priority, time, job.id], "due": [time, job.id], "locked": [time, job.id]}
    return ListedJob(
        job=job,
        payload_text=row["payload"],
        cursor=",".join(map(str, cursor.get(sort, [job.id]))),
        **around,
    )


def _position(sort: JobSort, after: str | None) -> dict[str, Any]:
    """Return the parameters that say where a page begins."""
    names = {
        "next": ("after_priority", "after_time", "after_id"),
        "due": ("after_time", "after_id"),
        "locked": ("after_time", "after_id"),
    }.get(sort, ("after_id",))
    found = dict.fromkeys(("after_priority", "after_time", "after_id"))
    if after is None:
        return found
    values = after.split(",")
    if len(values) != len(names):
        raise _no_position(sort, after)
    return {**found, **dict(zip(names, values, strict=True))}


def _no_position(sort: JobSort, after: str | None) -> OptionError:
    return OptionError("after", f"{after!r} is not where a page in the order {sort!r} ends")
