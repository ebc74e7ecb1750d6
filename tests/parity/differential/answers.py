"""What both sides say, and how they say it, made comparable."""

import json
from datetime import datetime

from differential import both_sides
from differential.both_sides import Refused
from differential.draws import LONGEST, NULL

from zodworker_compat.errors import EnqueueError

BEFORE_ANY_SQL = ("refused", None)


def answer_of(call):
    """Return ("ok", result) or ("refused", SQLSTATE); ours are refused before any SQL, too."""
    try:
        return "ok", call()
    except Refused as refusal:
        return "refused", refusal.reason
    except EnqueueError:
        return BEFORE_ANY_SQL


def given(answer):
    """Give an answer again."""
    if answer[0] == "refused":
        raise Refused(*answer[1])
    return answer[1]


def discard(_result):
    return ()


def full(value, name):
    """Return the longest name, where one stands for it."""
    if value != LONGEST:
        return value
    return "x" * {"identifier": 128, "queue_name": 128, "job_key": 512}[name]


def job_dict(job):
    return None if job is None else {name: getattr(job, name) for name in JOB_FIELDS}


JOB_FIELDS = (*both_sides.COLUMNS, "id", "task_identifier", "queue_name")


def claimed_dict(job, pool):
    flags = json.loads(job["flags"]) if isinstance(job["flags"], str) else job["flags"]
    return {
        **job,
        "payload": json.loads(job["payload"]),
        "flags": flags,
        "locked_by": pool,
        "is_available": False,
    }


def columns_of(job):
    return both_sides.columns(job)


def repr_of(job):
    return both_sides.show(dict(sorted(both_sides.columns(job).items())))


def camel(spec):
    """Return options as Node spells them."""
    names = {
        "queue_name": "queueName",
        "run_at": "runAt",
        "max_attempts": "maxAttempts",
        "job_key": "jobKey",
        "job_key_mode": "jobKeyMode",
    }
    return {
        names.get(name, name): value.isoformat() if isinstance(value, datetime) else value
        for name, value in spec.items()
    }


def in_sql(spec, **style):
    """Return a spec whose payload is JSON text, unless it is there to be refused."""
    if "payload" not in spec or spec["payload"] in (NULL, "not JSON"):
        return spec | ({"payload": None} if spec.get("payload") == NULL else {})
    return spec | {"payload": json.dumps(spec["payload"], **style)}


COMPACT = {"separators": (",", ":"), "ensure_ascii": False}
"""As `JSON.stringify`."""


def ids_and_locks(jobs):
    return [job.id for job in jobs], [job.locked_at for job in jobs]


def hold_rows(side, ids, queues):
    """Lock rows, as a session does that has not committed yet."""
    for query, names in (
        ("select from {schema}._private_jobs where id = any (%s) for update", ids),
        ("select from {schema}._private_job_queues where queue_name = any (%s) for update", queues),
    ):
        side.execute(query, [names], side.other)
