"""Any value in any place of an enqueue: it is prepared, or refused with one of our errors."""

import copy
import json
import math
import uuid
from collections import OrderedDict, UserDict, UserString
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from types import MappingProxyType, SimpleNamespace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from zodworker_compat.catalog import WorkerCatalog
from zodworker_compat.client.client_async import AsyncClient
from zodworker_compat.client.prepare import JobRequest
from zodworker_compat.errors import (
    BatchError,
    ConfigurationError,
    EnqueueError,
    OptionError,
    PayloadValidationError,
)
from zodworker_compat.options import OPTION_NAMES, JobSpec
from zodworker_compat.payload.stored import payload_or_none, read_flags, read_payload


class Mute:
    def __repr__(self) -> str:
        raise RuntimeError("no words")

    __str__ = __repr__


class Unequal:
    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("not to be compared")


class Colour(Enum):
    RED = object()


class Number(IntEnum):
    ONE = 1


class Text(str):
    __slots__ = ()


def nested(depth: int) -> list:
    value: list = []
    for _ in range(depth):
        value = [value]
    return value


def circular() -> dict:
    value: dict = {}
    value["again"] = [value]
    return value


ODD = [
    10**5000,
    -(10**400),
    math.nan,
    math.inf,
    -0.0,
    1e400,
    "\0",
    "\ud800",
    "x" * 1_000_000,
    b"bytes",
    bytearray(b"x"),
    memoryview(b"x"),
    Decimal("1.5"),
    Decimal("NaN"),
    1j,
    datetime.min,  # noqa: DTZ901
    datetime.max,  # noqa: DTZ901
    datetime.min.replace(tzinfo=timezone(timedelta(hours=14))),
    datetime.max.replace(tzinfo=timezone(timedelta(hours=-12))),
    datetime(2024, 1, 1, tzinfo=UTC),
    date(2024, 1, 1),
    timedelta.max,
    uuid.UUID(int=0),
    Mute(),
    Unequal(),
    Mute,
    Colour.RED,
    Number.ONE,
    Text("text"),
    UserString("text"),
    UserDict({"a": 1}),
    OrderedDict(a=1),
    MappingProxyType({"a": 1}),
    SimpleNamespace(a=1),
    {1: 2},
    {None: 2},
    {Text("a"): 1},
    {"a", 1},
    frozenset("ab"),
    (1, 2),
    range(3),
    iter([1]),
    (n for n in [1]),
    nested(127),
    nested(200),
    nested(100_000),
    circular(),
    lambda: 1,
    print,
    NotImplemented,
    ...,
    object(),
    type,
    Exception("x"),
    [Mute()],
    {"a": Mute()},
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
ANYTHING = JSON | st.sampled_from(ODD) | st.binary() | st.datetimes() | st.decimals()
CATALOG = WorkerCatalog.of(
    schema={
        "any": True,
        "strict": {
            "type": "object",
            "properties": {
                "n": {"type": "integer", "multipleOf": 3, "maximum": 10**30},
                "f": {"type": "number", "multipleOf": 0.5},
                "at": {"x-zod": "coerce.date"},
                "u": {"type": "string", "format": "uri", "pattern": "^[a-z]", "maxLength": 5},
                "items": {"type": "array", "uniqueItems": True, "contains": {"const": 1}},
                "either": {"anyOf": [{"type": "null"}, {"enum": ["a", 1, 1.5, None]}]},
                "self": {"$ref": "#"},
            },
        },
        "keyed": True,
    },
    tasks={
        "any": {},
        "strict": {},
        "keyed": {"job_key": "{payload.a.b}", "queue_name": lambda payload: payload["queue"]},
    },
)
CLIENT = AsyncClient(CATALOG)


def prepared(*arguments: object, **options: object) -> None:
    """Prepare a job; what is accepted can be sent to PostgreSQL, what is refused says why."""
    try:
        spec = CLIENT.prepare(*arguments, **options)
    except EnqueueError as error:
        refusal = str(error)
    else:
        can_be_sent(spec)
        return
    assert 0 < len(refusal) < 20_000


def can_be_sent(spec: JobSpec) -> None:
    assert len(spec.identifier) <= 128
    assert spec.payload is None or json.loads(spec.payload.encode()) != ...
    for text in (spec.job_key, spec.queue_name, *(spec.flags or ())):
        assert text is None or "\0" not in text.encode().decode()
    assert spec.run_at is None or spec.run_at.utcoffset() is not None
    assert -(2**15) <= (spec.priority or 0) < 2**15
    assert 0 < (spec.max_attempts or 1) < 2**15


@pytest.mark.parametrize("identifier", ["any", "strict"])
@pytest.mark.parametrize("value", ODD, ids=lambda value: type(value).__name__)
def test_an_odd_payload_is_prepared_or_refused(identifier, value) -> None:
    prepared(identifier, value)
    prepared(identifier, {"self": {"n": value, "f": value, "at": value, "u": value}})
    prepared(identifier, {"items": [value, value], "either": value})


@pytest.mark.parametrize("value", ODD, ids=lambda value: type(value).__name__)
def test_an_odd_identifier_or_option_is_refused(value) -> None:
    prepared(value, {})
    for name in OPTION_NAMES:
        prepared("any", {}, **{name: value})
    prepared("any", {}, flags=[value])
    prepared("any", {}, **{"no such option": value})


@given(st.sampled_from(["any", "strict"]), ANYTHING)
def test_any_payload_is_prepared_or_refused(identifier, payload) -> None:
    prepared(identifier, payload)


MEMBERS = ["n", "f", "at", "u", "items", "either", "self"]


@given(st.dictionaries(st.sampled_from(MEMBERS), ANYTHING))
@example({"f": 10**400})
@example({"n": 10**400})
@example({"items": [[], {}, 1, 1.0, True]})
def test_any_member_is_prepared_or_refused(payload) -> None:
    prepared("strict", payload)


@given(ANYTHING, st.dictionaries(st.sampled_from(OPTION_NAMES), ANYTHING))
def test_any_identifier_and_options_are_prepared_or_refused(identifier, options) -> None:
    prepared(identifier, {}, **options)
    prepared("any", {}, **options)


@given(ANYTHING)
def test_any_batch_is_prepared_or_refused(batch) -> None:
    try:
        CLIENT._prepare.specs(batch)
    except EnqueueError as error:
        str(error)
    try:
        CLIENT._prepare.specs([batch, ("any", batch), ("any", {}, batch), JobRequest("any", batch)])
    except BatchError as error:
        str(error)


@pytest.mark.parametrize("value", ODD, ids=lambda value: type(value).__name__)
def test_an_odd_batch_is_refused(value) -> None:
    with pytest.raises(EnqueueError):
        CLIENT._prepare.specs([("any", {}, value), ("nothing", value)])
    for bad in (value, [value], [("any", {}, {"flags": value})]):
        try:
            CLIENT._prepare.specs(copy.copy(bad) if isinstance(bad, list) else bad)
        except EnqueueError as error:
            str(error)


@pytest.mark.parametrize("value", ODD, ids=lambda value: type(value).__name__)
async def test_an_odd_argument_of_an_admin_call_is_refused_before_any_sql(value) -> None:
    """There is no database here: the first statement would say so."""
    for call in (
        lambda: CLIENT.dequeue(value),
        lambda: CLIENT.complete_jobs(value),
        lambda: CLIENT.complete_jobs([value]),
        lambda: CLIENT.permanently_fail_jobs([1], value),
        lambda: CLIENT.reschedule_jobs([1], run_at=value, attempts=value),
        lambda: CLIENT.force_unlock_workers([value]),
        lambda: CLIENT.cleanup([value]),
        lambda: CLIENT.cleanup(task_identifiers_to_keep=[value]),
    ):
        with pytest.raises((OptionError, ConfigurationError)) as caught:
            await call()
        refused = isinstance(caught.value, OptionError)
        assert refused or "No database is named" in str(caught.value)


STORED = st.text() | st.sampled_from(
    ["[" * 100_000, "9" * 5000, '{"a":' * 2000, "NaN", "1e400", '"\\ud800"', '{"a":1,"a":2}', ""]
)


@given(STORED | JSON.map(json.dumps))
def test_any_stored_text_is_read_or_refused(text) -> None:
    payload_or_none(text)
    flags = read_flags(text)
    assert flags is None or all(isinstance(name, str) for name in flags)
    refusal = "payload of 'task'"
    try:
        read_payload("task", text)
    except PayloadValidationError as error:
        refusal = str(error)
    assert "payload of 'task'" in refusal
