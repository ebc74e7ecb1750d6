"""Log records: who writes them, and what they carry.

Only the standard library's `logging`; nothing is configured but by the command. Every record of a
job or a worker has its facts as attributes too (`extra`), so that a JSON formatter can write them:
`FIELDS` lists them.

| logger | level | records | fields |
| --- | --- | --- | --- |
| `zodworker_compat.client` | debug | "Enqueued worker task", "Enqueued worker tasks", "dequeued worker task", "could not remove job, job_key did not exist" | job, duration_ms, payload, job_key, count |
| `zodworker_compat.runner` | debug | "Received worker task, calling handler", "Received recurring task, calling handler" | job, payload |
| | info | "Completed job …", a connection that works again | job, duration_ms |
| | warning | a job that was given back or was not ours any more, a lost connection, stale locks | job |
| | error | "Failed job …" with the traceback, "Job failed after max attempts" (deleted) | job, error |
| | critical | a part of the worker crashed | |
| `zodworker_compat.worker` | debug | "[worker][<name>] started", "[worker][<name>] stopped" | worker |
| | info, warning | "[worker][<name>] SIGTERM: …" | worker |
| `zodworker_compat.signals` | critical | the process had to be ended | |

"job" stands for job_id, task_identifier, attempt, queue_name and worker.

The texts are ZodWorker's where it had them, at its level, but for one: it deletes a job that has
failed for good with a line at debug; here that is an error. A payload is on no record above debug,
and there only as the field `payload`. No record holds a connection string or a password.
"""

from typing import Final

from zodworker_compat.job import Job

FIELDS: Final = (
    "worker",
    "job_id",
    "task_identifier",
    "attempt",
    "queue_name",
    "job_key",
    "count",
    "duration_ms",
    "error",
    "payload",
)
"""The names of all fields."""


def milliseconds(seconds: float) -> float:
    """Return a duration for `duration_ms`, in steps of a microsecond."""
    return round(seconds * 1000, 3)


def job_fields(job: Job) -> dict[str, object]:
    """Return what log records say about a job."""
    return {
        "job_id": job.id,
        "task_identifier": job.task_identifier,
        "attempt": job.attempts,
        "queue_name": job.queue_name,
    }
