"""Which row of an `add_jobs` result belongs to which spec.

graphile-worker returns the rows in no order (trap T6), and fewer than asked for when a keyed row
is being locked (T5). A keyed row is found by its key; unkeyed rows are told apart by everything a
spec says, and two specs that say the same are interchangeable.
"""

import json
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeAlias

from zodworker_compat.options import JobSpec, as_dict

Row: TypeAlias = Mapping[str, Any]


def document(specs: Iterable[JobSpec]) -> str:
    """Return the specs as the JSON document that `add_jobs.sql` reads."""
    return json.dumps(
        [as_dict(spec) for spec in specs], default=datetime.isoformat, ensure_ascii=False
    )


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
        frozenset(json.loads(row["flags"] or "{}")),
    )
