"""What ZodWorker did when a job reached it is what is done here.

`tests/vectors/run_vectors.json` was recorded from ZodWorker itself, in its last version, which
swallows a handler's last failure: `delete_failed_jobs=True` here (departure 3).
"""

import json
from pathlib import Path
from typing import Any

import pytest

from zodworker_compat import CatalogError, RunnerOptions, ZodWorker

VECTORS = {
    vector["case"]: vector
    for vector in json.loads(
        (Path(__file__).parent.parent / "vectors" / "run_vectors.json").read_text()
    )["vectors"]
}
SCHEMA = {"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]}
VALID, INVALID = {"id": "p1", "x": 1}, {"id": 7}


class StrError(Exception):
    """JavaScript throws strings; Python throws exceptions only."""


# case -> payload, attempts before the run, what the handler raises, `last_error` (None: row gone)
RUNS: dict[str, tuple[Any, int, Exception | None, str | None]] = {
    "valid payload, extra key": (VALID, 0, None, None),
    "invalid payload attempt 1/3": (INVALID, 0, None, "PayloadValidationError: "),
    "invalid payload last attempt 3/3": (INVALID, 2, None, "PayloadValidationError: "),
    "handler throws attempt 1/3": (VALID, 0, ValueError("h"), "ValueError: h"),
    "handler throws attempt 3/3": (VALID, 2, ValueError("h"), None),
    "handler throws non-Error string 1/3": (VALID, 0, StrError("str"), "StrError: str"),
}
NO_SCHEMA = "task present in tasks but not in schema"
ELSEWHERE = {  # not the run of a catalog's job
    "recurring ok",
    "recurring bad payload",
    "recurring handler throws last attempt",
    "cleanup",
    "cleanup bad payload",
    "reporter",
    "cron items",
    "dequeue row",
    "dequeue null row (unparseable)",
    "dequeue SQL error",
    "enqueue SQL error",
    "enqueue null row (unparseable)",
    "enqueue empty result set",
    "reschedule via limiter attempts 2/5 run_at past key flags",
    "signal + stop",
}


def test_every_vector_is_checked_somewhere() -> None:
    assert VECTORS.keys() == {*RUNS, NO_SCHEMA, *ELSEWHERE}


@pytest.mark.parametrize("case", RUNS)
async def test_a_run(database, jobs, case) -> None:
    payload, attempts, error, last_error = RUNS[case]
    calls = []

    async def handler(*arguments) -> None:
        calls.append(arguments)
        if error is not None:
            raise error

    worker = ZodWorker(
        name="wq",
        schema={"t": SCHEMA},
        tasks={"t": {"handler": handler}},
        runner_options=RunnerOptions(connection_string=database),
        delete_failed_jobs=True,
    )
    job_id = await jobs.add("t", payload, max_attempts=3)
    await jobs.sql("update graphile_worker._private_jobs set attempts = %s", attempts)
    await worker.run_once()

    vector = VECTORS[case]
    seen = [{"argc": len(arguments), "arg0": arguments[0]} for arguments in calls]
    assert seen == vector["handlerCalls"]
    for _payload, job, _helpers in calls:
        assert (job.payload, job.attempts, job.max_attempts) == (payload, attempts + 1, 3)
    assert (last_error is None) == (vector["result"] == "resolves")
    if last_error is None:
        assert await jobs.empty()
    else:
        row = await jobs.row(job_id)
        assert row["last_error"].startswith(last_error)
        assert (row["attempts"], row["locked_at"]) == (attempts + 1, None)


def test_a_task_without_a_schema_is_refused_before_it_runs() -> None:
    assert "Unknown message type: u" in VECTORS[NO_SCHEMA]["result"]
    with pytest.raises(CatalogError, match="'u'"):
        ZodWorker(name="wq", schema={"t": SCHEMA}, tasks={"t": {}, "u": {}})
