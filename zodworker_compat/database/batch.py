"""The documents of a batch, and which row of the answer belongs to which spec.

graphile-worker returns the rows in no order (trap T6), and fewer than asked for when a keyed row
is being locked (T5). A keyed row is found by its key; unkeyed rows are told apart by everything a
spec says, and two specs that say the same are interchangeable.
"""

import json
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from json.encoder import encode_basestring as quote  # the C function where there is one
from typing import Any, TypeAlias

from psycopg import AsyncCursor, Cursor
from psycopg.adapt import Transformer
from psycopg.pq.abc import PGresult
from psycopg.rows import dict_row

from zodworker_compat.job import Job, deferred
from zodworker_compat.options import JobSpec, as_dict
from zodworker_compat.payload.stored import payload_or_none, read_flags

Row: TypeAlias = Mapping[str, Any]


def document(specs: Iterable[JobSpec]) -> str:
    """Return the specs as the JSON document that `add_jobs.sql` reads."""
    return json.dumps(
        [as_dict(spec) for spec in specs], default=datetime.isoformat, ensure_ascii=False
    )


def batch_parameters(specs: Sequence[JobSpec]) -> dict[str, object]:
    """Return the parameters of `insert_jobs.sql`."""
    tasks = _places(spec.identifier for spec in specs)
    queues = _places(spec.queue_name for spec in specs if spec.queue_name is not None)
    options = [_options(spec, tasks, queues) for spec in specs]
    are_equal = options.count(options[0]) == len(options)
    return {
        "payloads": f"[{','.join([spec.payload or '{}' for spec in specs])}]",
        "options": "[]" if are_equal else f"[{','.join(options)}]",
        "shared": options[0] if are_equal else "{}",
        "identifiers": list(tasks),
        "queue_names": list(queues),
        "preserve_run_at": any(
            spec.job_key and spec.job_key_mode == "preserve_run_at" for spec in specs
        ),
        "count": len(specs),
    }


def _places(names: Iterable[str]) -> dict[str, int]:
    """Return the place of each name in the list of the distinct names, from 1 as in SQL."""
    return {name: place for place, name in enumerate(dict.fromkeys(names), 1)}


def _options(spec: JobSpec, tasks: Mapping[str, int], queues: Mapping[str, int]) -> str:
    """Return a JSON object of the options that are set; `json.dumps` would take three times as long."""
    text = f'{{"task":{tasks[spec.identifier]}'
    if spec.queue_name is not None:
        text += f',"queue":{queues[spec.queue_name]}'
    if spec.run_at is not None:
        text += f',"run_at":"{spec.run_at.isoformat()}"'
    if spec.max_attempts is not None:
        text += f',"max_attempts":{spec.max_attempts}'
    if spec.job_key is not None:
        text += f',"job_key":{quote(spec.job_key)}'
    if spec.priority is not None:
        text += f',"priority":{spec.priority}'
    if spec.flags is not None:
        text += f',"flags":[{",".join(map(quote, spec.flags))}]'
    return text + "}"


def added_job(spec: JobSpec, row: Row) -> Job:
    """Return the job that `insert_job.sql` or `insert_jobs.sql` has stored.

    Args:
        spec: what was asked for.
        row: what `job_added.sql` returns.
    """
    created_at = row["created_at"]
    payload = row.get("payload") or spec.payload or "{}"
    return Job(
        id=row["id"],
        task_identifier=spec.identifier,
        queue_name=spec.queue_name,
        payload=payload_or_none(payload),
        priority=spec.priority or 0,
        run_at=row.get("run_at") or spec.run_at or created_at,
        attempts=0,
        max_attempts=spec.max_attempts or 25,
        last_error=None,
        created_at=created_at,
        updated_at=row.get("updated_at", created_at),
        key=spec.job_key,
        locked_at=None,
        locked_by=None,
        revision=row.get("revision", 0),
        flags=dict.fromkeys(sorted(spec.flags, key=_in_jsonb), True) if spec.flags else None,
        job_queue_id=row["job_queue_id"],
        task_id=row["task_id"],
        is_available=True,
    )


def _in_jsonb(flag: str) -> tuple[int, bytes]:
    """Return what jsonb sorts the keys of an object by."""
    return len(flag.encode()), flag.encode()


_KEY = 8
"""The column of the key in the answer, see `job_added.sql`."""


def added_jobs(
    specs: Sequence[JobSpec], cursor: Cursor[Any] | AsyncCursor[Any]
) -> list[Job | None]:
    """Return the job of each spec, in the specs' order; None for a spec that has no row.

    Args:
        specs: what was asked for.
        cursor: has the answer of `insert_job.sql` or `insert_jobs.sql`, which is kept until every job was looked at.
    """
    answer = cursor.pgresult
    if answer is None or not answer.ntuples:
        return [None] * len(specs)
    rows = Transformer(cursor)
    rows.set_pgresult(answer)
    as_row = dict_row(cursor)

    def read(spec: JobSpec, row: int) -> Job:
        return added_job(spec, rows.load_rows(row, row + 1, as_row)[0])

    return [
        None if row is None else deferred(read, spec, row)
        for spec, row in zip(specs, _rows_of(specs, answer, cursor), strict=True)
    ]


def _rows_of(
    specs: Sequence[JobSpec], answer: PGresult, cursor: Cursor[Any] | AsyncCursor[Any]
) -> Iterable[int | None]:
    if not any(spec.job_key for spec in specs):
        return range(len(specs))
    encoding = cursor.connection.info.encoding
    by_key = {answer.get_value(row, _KEY): row for row in range(answer.ntuples)}
    unkeyed = iter(range(sum(1 for key in by_key if key is not None), answer.ntuples))
    return [
        by_key.get(spec.job_key.encode(encoding)) if spec.job_key else next(unkeyed, None)
        for spec in specs
    ]


def assign(specs: Sequence[JobSpec], rows: Iterable[Row]) -> list[Row | None]:
    """Return the row of each spec, in the specs' order; None for a spec that has no row."""
    found: dict[object, deque[Row]] = defaultdict(deque)
    for row in rows:
        found[_identity_of_row(row)].append(row)
    assigned = [_take(found[_identity_of_spec(spec)]) for spec in specs]
    # A trigger may have changed what a spec said; an unkeyed job is there all the same.
    left = deque(row for unclaimed in found.values() for row in unclaimed if row["key"] is None)
    return [
        row or (_take(left) if spec.job_key is None else None)
        for spec, row in zip(specs, assigned, strict=True)
    ]


def _take(rows: deque[Row]) -> Row | None:
    return rows.popleft() if rows else None


def _identity_of_spec(spec: JobSpec) -> object:
    return spec.job_key or (
        spec.identifier,
        "{}" if spec.payload is None else spec.payload,
        spec.queue_name,
        spec.run_at,
        25 if spec.max_attempts is None else spec.max_attempts,
        spec.priority or 0,
        frozenset(spec.flags or ()),
    )


def _identity_of_row(row: Row) -> object:
    return row["key"] or (
        row["task_identifier"],
        row["payload"],
        row["queue_name"],
        None if row["run_at"] == row["created_at"] else row["run_at"],  # both now() by default
        row["max_attempts"],
        row["priority"],
        frozenset(read_flags(row["flags"]) or ()),
    )
