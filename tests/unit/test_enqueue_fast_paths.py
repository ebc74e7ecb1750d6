"""Where enqueue takes a shorter way, it comes to the same place as the long one."""

import copy
import gc
import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from enum import IntEnum, StrEnum
from threading import Barrier
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import _queries

from zodworker_compat import CLEAR, EnqueueOptions, Job, PayloadValidationError, TaskOptions
from zodworker_compat.catalog import WorkerCatalog
from zodworker_compat.client.prepare import Preparer
from zodworker_compat.database.batch import batch_parameters
from zodworker_compat.database.statements import statement
from zodworker_compat.errors import BatchError, OptionError
from zodworker_compat.garbage import no_collection
from zodworker_compat.job import deferred
from zodworker_compat.options import NO_OPTIONS, JobSpec, merge, options_of
from zodworker_compat.payload.codec import PayloadCodec
from zodworker_compat.payload.stringify import stringify, write


class Word(StrEnum):
    A = "a"


class Number(IntEnum):
    ONE = 1


class Text(str):
    __slots__ = ()


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.text("a\ud800\udc00é", max_size=3)
    | st.sampled_from(
        [Word.A, Number.ONE, Text("a"), 1.0, -0.0, 1e21, datetime(2026, 1, 1, tzinfo=UTC)]
    )
)
keys = st.sampled_from(["id", "n", "kind"]) | st.text(max_size=3) | st.just(Text("id"))
payloads = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.tuples(inner) | st.dictionaries(keys, inner, max_size=4)
    ),
    max_leaves=8,
)


def is_the_same(one: Any, other: Any) -> bool:
    """Whether two values are equal, their types included."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(
            type(a) is type(b) and is_the_same(one[a], other[b])
            for a, b in zip(one, other, strict=True)
        )
    if isinstance(one, list):
        return len(one) == len(other) and all(map(is_the_same, one, other))
    return one == other


@given(payloads)
def test_a_payload_that_is_said_to_read_back_does(payload: Any) -> None:
    text, reads_back = write(payload)
    assert text == stringify(payload)
    if reads_back:
        assert is_the_same(json.loads(text), payload)


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(0.1, 0.9) | st.text("aé"),
    lambda inner: st.lists(inner) | st.dictionaries(st.text("aé"), inner),
    max_leaves=8,
))  # fmt: skip
def test_a_payload_of_plain_values_reads_back(payload: Any) -> None:
    assert write(payload)[1]


SCHEMAS = [
    {"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]},
    {"properties": {"n": {"type": "integer", "minimum": 0}, "id": {"maxLength": 1}}},
    {"type": ["array", "integer", "null"]},
    {"const": 1},
    {"enum": ["a", 0, None, [1], {"id": "a"}]},
    {"type": "number", "multipleOf": 0.5},
    {"type": "string", "format": "date-time"},
    {"type": "string", "pattern": "^a"},
    {"type": "array", "uniqueItems": True, "items": {"type": ["integer", "string"]}},
    {"not": {"type": "boolean"}, "additionalProperties": {"type": "integer"}},
]
CODECS = [PayloadCodec.compile("t", schema) for schema in SCHEMAS]


@given(st.sampled_from(CODECS), payloads)
def test_a_payload_is_judged_by_the_text_that_is_stored(codec: PayloadCodec, payload: Any) -> None:
    def problems(check: Any) -> Any:
        try:
            check()
        except PayloadValidationError as error:
            return error.problems
        return None

    stored = json.loads(stringify(payload))
    assert problems(lambda: codec.encode(payload)) == problems(lambda: codec.check(stored))


task_options = st.builds(
    TaskOptions,
    max_attempts=st.none() | st.integers(1, 3),
    job_key=st.sampled_from([None, "", "k", "k:{payload.id}", lambda payload: payload["id"]]),
    job_key_mode=st.sampled_from([None, "", "replace", "unsafe_dedupe"]),
    priority=st.none() | st.integers(-1, 1),
    flags=st.sampled_from([None, [], ["a"], ("b", "a")]),
    queue_name=st.sampled_from([None, "", "q", "q:{payload.id}", lambda payload: None]),
)
call_options = st.fixed_dictionaries(
    {},
    optional={
        "priority": st.sampled_from([None, CLEAR, 0, 5]),
        "job_key": st.sampled_from([None, CLEAR, "", "c"]),
        "queue_name": st.sampled_from([None, CLEAR, "", "c"]),
        "flags": st.sampled_from([None, CLEAR, [], ["c"]]),
        "run_at": st.sampled_from([None, CLEAR, datetime(2030, 1, 1, tzinfo=UTC)]),
    },
)


@given(task_options, task_options, call_options, st.booleans())
def test_options_that_are_merged_once_are_those_of_each_call(
    task: TaskOptions, defaults: TaskOptions, call: dict[str, Any], in_batch: bool
) -> None:
    prepare = Preparer(WorkerCatalog.of(schema={"t": True}, tasks={"t": task}), defaults)
    payload = {"id": "x"}
    expected = merge(task.over(defaults), EnqueueOptions(**call), payload)
    requests = [("t", payload, call) if call else ("t", payload)]
    for _ in range(2):  # the second finds what the first has kept
        if in_batch:
            [spec] = prepare.specs(requests)
        else:
            spec = prepare.spec("t", payload, options_of(call))
        assert spec == JobSpec(identifier="t", payload='{"id":"x"}', **expected)


def test_no_options_are_the_same_whatever_form_they_have() -> None:
    assert options_of(None) is options_of({}) is NO_OPTIONS
    assert EnqueueOptions() == NO_OPTIONS


def test_an_identifier_that_cannot_be_a_name_is_told_as_before() -> None:
    prepare = Preparer(WorkerCatalog.of(schema={"t": True}, tasks={"t": {}}))
    with pytest.raises(BatchError) as caught:
        prepare.specs([(["t"], 1), (None, 1)])  # type: ignore[list-item]
    assert [type(error) for _, error in caught.value.failures] == [OptionError] * 2


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=4)
specs = st.builds(
    JobSpec,
    identifier=texts,
    payload=st.none() | st.sampled_from(['{"a":"\\u0000\\ud800"}', "[1, 2]", '"é\\""', "null"]),
    queue_name=st.none() | texts,
    run_at=st.none() | st.datetimes(timezones=st.just(UTC)),
    max_attempts=st.none() | st.integers(1, 32767),
    job_key=st.none() | texts,
    priority=st.none() | st.integers(-32768, 32767),
    flags=st.none() | st.lists(texts, max_size=2),
)


@given(st.lists(specs, min_size=1, max_size=5) | st.builds(lambda spec: [spec] * 3, specs))
def test_the_documents_of_a_batch_say_what_its_specs_say(batch: list[JobSpec]) -> None:
    parameters: dict[str, Any] = batch_parameters(batch)
    shared = json.loads(parameters["shared"])
    options = json.loads(parameters["options"]) or [{}] * len(batch)
    assert parameters["payloads"] == f"[{','.join(spec.payload or '{}' for spec in batch)}]"
    assert parameters["count"] == len(batch)
    for spec, own in zip(batch, options, strict=True):
        said = {**shared, **own}
        said["identifier"] = parameters["identifiers"][said.pop("task") - 1]
        if "queue" in said:
            said["queue_name"] = parameters["queue_names"][said.pop("queue") - 1]
        if "run_at" in said:
            said["run_at"] = datetime.fromisoformat(said["run_at"])
        said["payload"] = spec.payload
        assert said == {"payload": None} | {
            name: value for name, value in attrs.asdict(spec).items() if value is not None
        }


def test_the_mode_of_a_job_without_a_key_is_not_that_of_the_batch() -> None:
    keyed = JobSpec(identifier="t", payload="1", job_key="k")
    odd = JobSpec(identifier="t", payload="2", job_key_mode="preserve_run_at")
    assert batch_parameters([keyed, odd])["preserve_run_at"] is False
    assert batch_parameters([attrs.evolve(odd, job_key="l")])["preserve_run_at"] is True


NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def make_job(spec: str = "x", row: int = 1) -> Job:
    return Job(
        id=row, task_identifier=spec, queue_name=None, payload={"a": [1]}, priority=0, run_at=NOW,
        attempts=0, max_attempts=25, last_error=None, created_at=NOW, updated_at=NOW, key=None,
        locked_at=None, locked_by=None, revision=0, flags=None, job_queue_id=None, task_id=1,
        is_available=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    "use",
    [
        lambda job: job,
        repr,
        str,
        copy.copy,
        copy.deepcopy,
        lambda job: pickle.loads(pickle.dumps(job)),  # noqa: S301 - our own
        attrs.asdict,
        attrs.astuple,
        lambda job: attrs.evolve(job, priority=7),
        lambda job: [getattr(job, field.name) for field in attrs.fields(Job)],
        lambda job: job.is_last_attempt,
        lambda job: (job.id, job.run_at),
        lambda job: job == make_job(),
        lambda job: make_job() == job,
        lambda job: job != make_job("y"),
        lambda job: isinstance(job, Job),
    ],
)
def test_a_job_that_is_read_later_is_like_any_other(use: Any) -> None:
    assert use(deferred(make_job, "x", 1)) == use(make_job())


def test_a_job_is_read_once_and_only_when_it_is_looked_at() -> None:
    read: list[int] = []

    def count(spec: str, row: int) -> Job:
        read.append(row)
        return make_job(spec, row)

    jobs = [deferred(count, "x", row) for row in range(3)]
    assert read == []
    assert (jobs[1].id, jobs[1].task_identifier, jobs[1].payload) == ("1", "x", {"a": [1]})
    assert read == [1]


def test_a_job_has_no_other_attributes_and_cannot_be_changed() -> None:
    for job in (deferred(make_job, "x", 1), make_job()):
        with pytest.raises(AttributeError, match="'Job' object has no attribute 'paylod'"):
            job.paylod  # type: ignore[attr-defined] # noqa: B018
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            job.priority = 3  # type: ignore[misc]


def test_threads_that_look_at_one_job_at_once_see_it_whole() -> None:
    for _ in range(50):
        job, start = deferred(make_job, "x", 1), Barrier(4)

        def look(job: Job = job, start: Barrier = start) -> tuple[Any, ...]:
            start.wait()
            return job.id, job.payload, job.is_available

        with ThreadPoolExecutor(4) as threads:
            seen = [threads.submit(look) for _ in range(4)]
        assert {repr(each.result()) for each in seen} == {"('1', {'a': [1]}, True)"}


def test_the_collector_is_left_as_it_was() -> None:
    assert gc.isenabled()
    with pytest.raises(ZeroDivisionError), no_collection():
        assert not gc.isenabled()
        raise ZeroDivisionError
    assert gc.isenabled()
    gc.disable()
    try:
        with no_collection():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_a_schema_name_is_quoted_in_literals_too() -> None:
    text = statement("insert_job", """it's "odd" %""").decode()
    assert """'"it''s ""odd"" %%"._private_jobs'::regclass""" in text
    assert """insert into "it's ""odd"" %%"._private_jobs as job""" in text


def test_only_the_statement_for_keys_has_their_clause() -> None:
    for name in ("insert_job", "insert_jobs"):
        assert b"on conflict (key) do update" in statement(name, "g")
        assert b"conflict" not in statement(name, "g", without="keyed")


def test_psycopg_keeps_the_parsed_claim() -> None:
    for name in ("claim", "insert_job", "insert_jobs", "complete", "fail"):
        text = statement(name, "graphile_worker", without="limited")
        assert len(text) <= _queries.MAX_CACHED_STATEMENT_LENGTH
