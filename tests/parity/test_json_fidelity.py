"""A payload is the same text for both sides: what Python writes, Node reads; what Node writes, Python reads.

The values travel as payloads of jobs, through graphile-worker's `addJob` and `addJobs`, its task
functions, our `enqueue_many` and our handlers. `test_stringify_node.py` compares texts alone.
"""

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from attrs import define, field, frozen
from hypothesis import given, settings
from hypothesis import strategies as st

from zodworker_compat import Job, RunnerOptions, ZodWorker
from zodworker_compat.payload import UNSET, stringify

EXAMPLES = int(os.environ.get("ZODWORKER_PARITY_EXAMPLES", "10"))
AnsweringNode = Callable[..., AbstractContextManager[Callable[[str, Any], str]]]
SCRIPT = (Path(__file__).parent / "node" / "payloads.js").read_text("utf-8")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@define
class Both:
    """The two sides on one schema."""

    node: Callable[[str, Any], str]
    runner: asyncio.Runner
    connection: psycopg.Connection[Any]
    worker: ZodWorker
    handled: dict[str, Job] = field(factory=dict)

    def ask(self, question: str, value: Any) -> Any:
        answer = json.loads(self.node(question, value))
        assert "error" not in answer, answer
        return answer

    def written_by_python(self, values: list[Any]) -> list[str]:
        """Enqueue; return the ids. What the table holds is what `stringify` says."""
        jobs = self.worker.sync.enqueue_many([("python", value) for value in values])
        ids = [job.id for job in jobs]
        assert self.stored(ids) == [stringify(value) for value in values]
        assert [stringify(job.payload) for job in jobs] == self.stored(ids)
        return ids

    def read_by_node(self, ids: list[str]) -> list[str]:
        """What JSON.stringify makes of the payloads that Node's task function gets."""
        texts = self.ask("read", None)
        assert set(texts) == set(ids)
        return [texts[job_id] for job_id in ids]

    def written_by_node(self, values: list[Any]) -> list[str]:
        return self.ask("write", values)

    def read_by_python(self, ids: list[str]) -> list[Any]:
        """The payloads that our handler gets."""
        self.handled.clear()
        self.runner.run(self.worker.run_once())
        assert set(self.handled) == set(ids)
        return [self.handled[job_id].payload for job_id in ids]

    def stored(self, ids: list[str]) -> list[str]:
        query = "select id::text, payload::text from graphile_worker._private_jobs"
        texts = dict(self.connection.execute(query).fetchall())
        return [texts[job_id] for job_id in ids]


one_version = pytest.mark.parametrize("both", ["0.17"], indirect=True)


@pytest.fixture(params=["0.16", "0.17"])
def both(
    request: pytest.FixtureRequest,
    database: str,
    node_modules: Path,
    answering_node: AnsweringNode,
) -> Iterator[Both]:
    worker = ZodWorker(name="fidelity", runner_options=RunnerOptions(connection_string=database))
    worker.task("python", schema=True)(print)
    answering = answering_node(
        SCRIPT, request.param, database, "graphile_worker", NODE_PATH=str(node_modules)
    )
    with (
        answering as node,
        asyncio.Runner() as runner,
        psycopg.connect(database, autocommit=True) as connection,
    ):
        both = Both(node, runner, connection, worker)

        @worker.task("node", schema=True)
        async def handle(payload: Any, job: Job) -> None:
            assert payload == job.payload
            both.handled[job.id] = job

        yield both
        worker.sync.close()
        runner.run(worker.close())


# One value, twice: as Python has it, and as payloads.js builds it in JavaScript


@frozen
class Twin:
    python: Any
    javascript: Any


class Colour(StrEnum):
    RED = "r\u00e9d"


@frozen
class Place:
    """An attrs instance; a member that is UNSET is JavaScript's `undefined`."""

    name: Any
    further: Any = UNSET
    address: Any = field(default=UNSET, metadata={"json": "1"})


def place(name: Twin, further: Twin | None, address: Twin | None) -> Twin:
    missing = Twin(UNSET, {"undefined": True})
    further, address = further or missing, address or missing
    members = [["name", name], ["further", further], ["1", address]]
    return Twin(
        Place(name.python, further.python, address.python),
        {"members": [[key, member.javascript] for key, member in members]},
    )


def date(moment: datetime) -> Twin:
    return Twin(moment, {"date": (moment - EPOCH) // timedelta(milliseconds=1)})


def items(twins: list[Twin]) -> Twin:
    return Twin([each.python for each in twins], {"items": [each.javascript for each in twins]})


def members(twins: dict[str, Twin]) -> Twin:
    return Twin(
        {key: each.python for key, each in twins.items()},
        {"members": [[key, each.javascript] for key, each in twins.items()]},
    )


def in_javascripts_order(value: Any) -> Any:
    """The same value with the keys of its objects as JavaScript orders them: array indices first."""
    if isinstance(value, dict):
        indices = sorted((key for key in value if is_array_index(key)), key=int)
        keys = [*indices, *(key for key in value if not is_array_index(key))]
        return {key: in_javascripts_order(value[key]) for key in keys}
    return [in_javascripts_order(item) for item in value] if isinstance(value, list) else value


def is_array_index(key: str) -> bool:
    return key.isascii() and key.isdigit() and str(int(key)) == key and int(key) < 2**32 - 1


def javascripts(value: Any) -> str:
    """The text that JavaScript has for a value that `stringify` takes."""
    return stringify(in_javascripts_order(json.loads(stringify(value))))


BOUNDARIES = [
    *(sign * (2**53 + distance) for sign in (1, -1) for distance in (-1, 0)),
    *(sign * number for sign in (1, -1) for number in (0.0, 5e-324, 2.2250738585072014e-308)),
    *(1.7976931348623157e308, 1e21, 1e-6, 999999999999999900000.0, 1e-7, 0.1 + 0.2, 4.35, 2.0**63),
]
MOMENTS = [
    datetime(1969, 12, 31, 23, 59, 59, 999999, UTC),
    datetime(1, 1, 1, tzinfo=UTC),
    datetime(9999, 12, 31, 23, 59, 59, 999999, UTC),
]
TEXTS = [
    "",
    "\x00",
    "\u2028\u2029",
    "\ud83d",
    "\ude00\ud83d",
    "\ud83d\ude00",
    "\x7f\x80",
    "\ufffe\uffff",
]
KEYS = [
    "10",
    "9",
    "0",
    "01",
    "-1",
    "1.5",
    "4294967294",
    "4294967295",
    "__proto__",
    "toJSON",
    "constructor",
]

texts = st.one_of(
    st.sampled_from(TEXTS),
    st.text(),
    st.text(st.characters(min_codepoint=0xD7FF, max_codepoint=0xE000)),
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**53), 2**53),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(BOUNDARIES),
    texts,
).map(lambda value: Twin(value, {"is": value}))
dates = (
    st.datetimes(
        datetime(1, 1, 2),  # noqa: DTZ001
        datetime(9999, 12, 30),  # noqa: DTZ001
        timezones=st.integers(-1439, 1439).map(
            lambda minutes: timezone(timedelta(minutes=minutes))
        ),
    )
    | st.sampled_from(MOMENTS)
).map(date)
others = st.sampled_from(
    [
        Twin(Colour.RED, {"is": "réd"}),
        Twin(UUID(int=7), {"is": str(UUID(int=7))}),
        Twin({}, {"members": []}),
        Twin((), {"items": []}),
    ]
)
# Keys that differ for Python and not for JavaScript have a test of their own.
keys = (st.sampled_from(KEYS) | texts).map(
    lambda key: key.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
)
twins = st.recursive(
    scalars | dates | others,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(items),
        st.dictionaries(keys, inner, max_size=4).map(members),
        st.builds(place, inner, st.none() | inner, st.none() | inner),
    ),
    max_leaves=8,
)


@pytest.mark.timeout(600 if EXAMPLES <= 100 else 0)  # shrinking a failure takes its time
def test_a_payload_is_the_same_text_on_both_sides(both: Both) -> None:
    @settings(max_examples=EXAMPLES)
    @given(st.lists(twins, min_size=20, max_size=50))
    def check(values: list[Twin]) -> None:
        both.connection.execute("delete from graphile_worker._private_jobs")
        mine = both.written_by_python([value.python for value in values])
        expected = [javascripts(value.python) for value in values]
        assert both.read_by_node(mine) == expected
        theirs = both.written_by_node([value.javascript for value in values])
        stored = both.stored(theirs)
        assert stored == expected
        assert [stringify(payload) for payload in both.read_by_python(theirs)] == stored

    check()


@pytest.mark.timeout(600 if EXAMPLES <= 100 else 0)  # shrinking a failure takes its time
@one_version
def test_whole_numbers_beyond_2_53_are_exact_in_python_and_rounded_in_node(both: Both) -> None:
    beyond = st.integers(2**53 + 1, 2**60) | st.integers(2**53 + 1) | st.integers(1, 800).map(power)
    signs = st.sampled_from([1, -1])

    @settings(max_examples=EXAMPLES)
    @given(st.lists(st.builds(int.__mul__, signs, beyond), min_size=20, max_size=60))
    def check(numbers: list[int]) -> None:
        both.connection.execute("delete from graphile_worker._private_jobs")
        ids = both.written_by_python([{"n": number} for number in numbers])
        assert both.stored(ids) == [f'{{"n":{number}}}' for number in numbers]
        assert both.read_by_node(ids) == [f'{{"n":{rounded(number)}}}' for number in numbers]

    check()


def power(exponent: int) -> int:
    return 10**exponent + 1


def rounded(number: int) -> str:
    """What is left of a whole number in Node: 53 bits of it, and nothing from 2**1024 on."""
    try:
        return stringify(float(number))
    except OverflowError:
        return "null"


@one_version
def test_a_payload_may_be_as_deep_as_we_accept(both: Both) -> None:
    deep: Any = {}
    for depth in range(127):
        deep = [deep] if depth % 2 else {"in": deep}
    [mine] = both.written_by_python([deep])
    assert both.read_by_node([mine]) == [stringify(deep)]
    [theirs] = both.written_by_node([{"is": deep}])
    assert both.stored([theirs]) == [stringify(deep)]
    assert both.read_by_python([theirs]) == [deep]


@one_version
def test_of_keys_that_are_one_in_javascript_both_sides_read_the_last(both: Both) -> None:
    pair = {"\ud83d\ude00": "half and half", "a": 1, "😀": "whole"}
    [job] = both.worker.sync.enqueue_many([("python", pair)])
    assert both.stored([job.id]) == ['{"😀":"half and half","a":1,"😀":"whole"}']
    assert job.payload == {"😀": "whole", "a": 1}
    assert both.read_by_node([job.id]) == ['{"😀":"whole","a":1}']
