"""Where graphile-worker has no such call, or does less: what its side must look like all the same.

Two more departures are in the rules: 7, a claim of many never takes two jobs of a queue, so it is many
claims of one; and 28, `settle` asks Node only for what the pool still holds. The numbers are those of
MIGRATING.md.
"""

import json


def as_node_can_say(payload, *, many=False):
    """Return a payload that Node's API stores as we do; see `test_what_only_our_api_can_say`."""
    if payload is None or (many and "\\u0000" in json.dumps(payload)):
        return {}
    return payload


def free_queues_of_stale_jobs(sides, ids):
    """Departure 51: the queue of a job whose lock is older than four hours is freed with it."""
    for id_ in ids:
        row = sides.jobs.get(int(id_))
        if row and row["locked_at"]:
            sides.theirs.execute(
                "update {schema}._private_job_queues set locked_at = null, locked_by = null"
                " where queue_name = %s and locked_by = %s"
                " and locked_at < now() - interval '4 hours'"
                " and %s < now() - interval '4 hours'",
                [row["queue_name"], row["locked_by"], row["locked_at"]],
            )


def change_failed(sides, run_at, delay, permanent):
    """A failure may say when the job is tried again, and that it is not."""
    for id_, before in run_at.items():
        if delay is not None:
            sides.theirs.execute(
                "update {schema}._private_jobs"
                " set run_at = greatest(now(), %s::timestamptz) + %s * interval '1 second' where id = %s",
                [before, delay, id_],
            )
        if permanent:
            sides.theirs.execute(
                "update {schema}._private_jobs set attempts = max_attempts where id = %s", [id_]
            )


def give_back(sides, pool, jobs, message):
    """0.16 cannot give jobs back, and Node never says why it did."""
    theirs = sides.theirs
    if theirs.version == "0.16":
        for job in jobs:
            theirs.execute(
                "update {schema}._private_jobs set attempts = greatest(0, attempts - 1),"
                " locked_at = null, locked_by = null where id = %s and locked_by = %s",
                [job["id"], pool],
            )
            theirs.execute(
                "update {schema}._private_job_queues set locked_at = null, locked_by = null"
                " where id = %s and locked_by = %s",
                [job["job_queue_id"], pool],
            )
    else:
        theirs.call("giveBack", pool, jobs)
    if message is not None:
        for job in jobs:
            theirs.execute(
                "update {schema}._private_jobs set last_error = %s where id = %s",
                [message, job["id"]],
            )
    return ()


def put_back(sides, pool, job, row):
    """Node's ZodWorker completes the job and adds a new one; with us it keeps its key (43 to 45)."""
    sides.theirs.call("complete", pool, [job])
    same = {
        name: row[name] for name in ("identifier", "payload", "queue_name", "run_at", "priority")
    }
    sides.theirs.function(
        "add_job",
        **same,
        job_key=row["key"],
        flags=list(row["flags"] or ()),
        max_attempts=max(1, row["max_attempts"] - (row["attempts"] - 1)),
    )
