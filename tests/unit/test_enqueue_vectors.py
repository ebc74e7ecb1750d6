"""What reached `add_job` in ZodWorker, at two dates, is what reaches it here.

`tests/vectors/enqueue_vectors.json` was recorded from ZodWorker itself. Where we depart on
purpose, the vector stands in `DEPARTURES` with what happens instead.
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from zodworker_compat.catalog import WorkerCatalog
from zodworker_compat.client.prepare import UNDEFINED, Preparer
from zodworker_compat.errors import OptionError, PayloadValidationError, UnknownTaskError
from zodworker_compat.options import CLEAR, as_dict, options_of

VECTORS = json.loads(
    (Path(__file__).parent.parent / "vectors" / "enqueue_vectors.json").read_text()
)["vectors"]
NAMES = {
    "runAt": "run_at",
    "maxAttempts": "max_attempts",
    "jobKey": "job_key",
    "jobKeyMode": "job_key_mode",
    "queueName": "queue_name",
}


def boom(_payload: object) -> str:
    raise RuntimeError("boom")


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "p=>`fn:${p.id}`": lambda payload: f"fn:{payload['id']}",
    "p=>`q:${p.id}`": lambda payload: f"q:{payload['id']}",
    "p=>undefined": lambda _payload: None,
    "p=>''": lambda _payload: "",
    "(...a)=>`args=${a.length}:${a[1]}`": lambda *arguments: f"args={len(arguments)}:undefined",
    "p=>{throw new Error('boom')}": boom,
}
ANY_ID = {"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]}

# Named queues were removed from ZodWorker on 2024-06-06; here they work as before (DESIGN §6).
QUEUES_2026 = {
    "static queueName": "internal-queue",
    "call queueName beats static queueName": "q2",
    "call explicit undefined keeps task default": "q",
    "function queueName": "q:p1",
    "function queueName beats call queueName": "q:p1",
    "function queueName(payload, jobKey) args": "args=1:undefined",
}
# Departure 4: a static job key of the catalog is honoured.
STATIC_KEY = {"static string task.jobKey": "static-key"}
REFUSED = {
    "call maxAttempts 0 over task 3": (OptionError, "at least 1"),  # departure 5
    "call maxAttempts -1": (OptionError, "at least 1"),  # PostgreSQL refused it then, 23514
    "unknown option key ignored": (OptionError, "no such option"),
    "runAt Invalid Date": (OptionError, "datetime"),  # 2023: stored what Prisma made of it
    "function task.jobKey throws": (RuntimeError, "boom"),
    "unknown identifier": (UnknownTaskError, "'nope'"),
    "unknown identifier with options": (UnknownTaskError, "'nope'"),
}


def python(value: Any) -> Any:
    """A recorded JavaScript value as its Python counterpart."""
    if isinstance(value, dict) and "__date__" in value:
        return datetime.fromisoformat(value["__date__"])
    if value is None:
        return CLEAR
    return None if value == "__undefined__" else value


def preparer(vector: dict[str, Any], *, validate: bool = False) -> Preparer:
    task = {
        name: FUNCTIONS.get(value, value) if isinstance(value, str) else value
        for name, value in vector["task"].items()
    }
    catalog = WorkerCatalog.of(
        name="vectors", schema={"t": ANY_ID}, tasks={"t": {**task, "handler": print}}
    )
    return Preparer(catalog, validate=validate)


def arguments(vector: dict[str, Any], *, validate: bool = False) -> dict[str, Any]:
    options = vector["options"] if isinstance(vector["options"], dict) else {}
    call = {NAMES.get(name, name): python(value) for name, value in options.items() if name != "tx"}
    payload = UNDEFINED if vector["payload"] == "__undefined__" else vector["payload"]
    spec = preparer(vector, validate=validate).spec(vector["identifier"], payload, options_of(call))
    return as_dict(spec)


@pytest.mark.parametrize(
    "vector", VECTORS, ids=lambda vector: f"{vector['era'][:4]}-{vector['case']}"
)
def test_vector(vector: dict[str, Any]) -> None:
    case = vector["case"]
    if case in REFUSED:
        error, message = REFUSED[case]
        with pytest.raises(error, match=message):
            arguments(vector)
        return
    expected = {
        name: None if value == "__undefined__" else value for name, value in vector["args"].items()
    }
    expected.setdefault("queue_name", None)
    if isinstance(expected["run_at"], dict):
        expected["run_at"] = datetime(2024, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
    if vector["era"].startswith("2026"):
        expected["queue_name"] = QUEUES_2026.get(case)
    if case in STATIC_KEY:
        expected["job_key"] = STATIC_KEY[case]
    actual = arguments(vector)
    # ZodWorker binds NULL for priority 0; the row holds 0 either way.
    actual["priority"] = actual["priority"] or None
    assert actual == expected


def test_departure_1_a_payload_is_validated_at_enqueue() -> None:
    vector = next(v for v in VECTORS if v["case"] == "invalid payload NOT rejected at enqueue")
    with pytest.raises(PayloadValidationError, match=r"/id: "):
        arguments(vector, validate=True)


def test_no_vector_is_left_out() -> None:
    cases = {vector["case"] for vector in VECTORS}
    assert len(VECTORS) == 88
    assert cases >= {*QUEUES_2026, *STATIC_KEY, *REFUSED}
