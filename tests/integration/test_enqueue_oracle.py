"""What reaches the table is what ZodWorker and graphile-worker 0.16.6 would have put there.

Their rules stand here a second time, as plain functions on plain dictionaries that share nothing
with the product: `zodworker` makes the arguments of `add_job` from a task, a call and a payload, in
TypeScript's words; `add_job` makes rows of them. Departures are named by their number in MIGRATING.md.
Generated catalogs, defaults, calls and payloads go through every way there is to enqueue, again and
again under the same keys, with jobs in between that were taken, retried or used up; then every
column is compared.
"""

import asyncio
import json
import os
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
from attrs import asdict, define, field, frozen
from hypothesis import given, note, settings
from hypothesis import strategies as st
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool, ConnectionPool

from zodworker_compat import (
    CLEAR,
    BatchError,
    Client,
    Job,
    OptionError,
    PayloadSerialisationError,
    PayloadValidationError,
    RunnerOptions,
    TaskOptions,
    UnknownTaskError,
    WorkerCatalog,
    ZodWorker,
)
from zodworker_compat.client.prepare import UNDEFINED as NO_PAYLOAD

# More than in CI: ZODWORKER_PARITY_EXAMPLES=5000 make test ARGS='tests/integration/test_enqueue_oracle.py'
EXAMPLES = int(os.environ.get("ZODWORKER_PARITY_EXAMPLES", "80"))

Options = dict[str, Any]
Row = dict[str, Any]


# ZodWorker


class Undefined:
    """JavaScript's `undefined`; its `null` is None."""

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return "undefined"


UNDEFINED = Undefined()
WITH_QUEUES, LAST = "2023-11 (named queues)", "2026-07 (final)"
ARGUMENTS = ["queueName", "runAt", "maxAttempts", "jobKey", "priority", "flags", "jobKeyMode"]


def zodworker(
    date: str, task: Options, call: Options, payload: Any, departures: frozenset[int] = frozenset()
) -> Options:
    """What `enqueue` binds to `add_job`'s parameters, the payload aside."""
    spec = {name: value for name, value in task.items() if name != "jobKey"}
    if 4 in departures and isinstance(task.get("jobKey"), str):
        spec["jobKey"] = task["jobKey"]
    spec |= {name: value for name, value in call.items() if value is not UNDEFINED}
    has_queues = date == WITH_QUEUES or 15 in departures
    if has_queues and callable(task.get("queueName")):
        spec["queueName"] = task["queueName"](payload)
    if callable(task.get("jobKey")) and (key := task["jobKey"](payload)):
        spec["jobKey"] = key
    if not has_queues:
        spec["queueName"] = None
    return {name: argument(spec.get(name)) for name in ARGUMENTS}


def argument(value: Any) -> Any:
    """Falsy values are NULL; in JavaScript an empty list is none of them."""
    return value if value or value == [] else None


# graphile-worker 0.16.6

NOW = "the time of the statement"


def add_job(rows: list[Row], identifier: str, payload: str | None, given: Options) -> Row:
    """Add a job to the rows, or change the one of its key; returns the row of the call."""
    key, mode = given["jobKey"], given["jobKeyMode"] or "replace"
    new = {
        "task_identifier": identifier,
        "queue_name": given["queueName"],
        "payload": "{}" if payload is None else payload,
        "priority": given["priority"] or 0,
        "run_at": given["runAt"] or NOW,
        "attempts": 0,
        "max_attempts": given["maxAttempts"] or 25,
        "last_error": None,
        "created_at": NOW,
        "updated_at": NOW,
        "key": key,
        "locked_at": None,
        "locked_by": None,
        "revision": 0,
        "flags": dict.fromkeys(given["flags"], True) if given["flags"] else None,
    }
    old = next((row for row in rows if key is not None and row["key"] == key), None)
    if old is not None and mode == "unsafe_dedupe":
        old |= {"revision": old["revision"] + 1, "updated_at": NOW}
        return old
    if old is not None and is_available(old):
        kept = {name: old[name] for name in ("id", "created_at")}
        if mode == "preserve_run_at" and old["attempts"] == 0:
            kept["run_at"] = old["run_at"]
        joined = join_lists(old["payload"], new["payload"])
        old |= new | kept | {"payload": joined, "revision": old["revision"] + 1}
        return old
    if old is not None:
        old |= {"key": None, "attempts": old["max_attempts"], "updated_at": NOW}
    rows.append(new)
    return new


def is_available(row: Row) -> bool:
    return row["locked_at"] is None and row["attempts"] < row["max_attempts"]


def join_lists(old: str, new: str) -> str:
    """Two lists are joined, in the spelling of jsonb."""
    both = json.loads(old), json.loads(new)
    return json.dumps(both[0] + both[1]) if all(isinstance(each, list) for each in both) else new


# The departures. Numbers 2, 13 and 14 have no part here, the rest are not about enqueue.

REFUSED_PAYLOADS: dict[int, type[Exception]] = {
    1: PayloadValidationError,
    8: PayloadSerialisationError,
    18: PayloadSerialisationError,
    19: PayloadSerialisationError,
}
REFUSED_CALLS: dict[int, type[Exception]] = {
    **dict.fromkeys([5, 10, 11, 12, 16, 19], OptionError),
    22: UnknownTaskError,
}
WE_DEPART = frozenset({4, 15})


class Thrown(Exception):  # noqa: N818 - what a function of the catalog throws
    pass


# What is generated. Each case has a number of its own, so that no two share a key.


@frozen
class Function:
    """A function in a catalog."""

    does: str

    def __call__(self, payload: Any) -> str | None:
        match self.does:
            case "throw":
                raise Thrown
            case "return nothing":
                return None
            case "return ''":
                return ""
            case "return too much":
                return "x" * 513
        found = member(payload, "id")
        # The payload is as the caller gave it: an instance is not yet a dict.
        return None if found is None else f"{self.does}:{type(payload).__name__}:{found}"


@frozen
class Template:
    """A string in a catalog that does what a function does (departure 16)."""

    text: str

    def __call__(self, payload: Any) -> str:
        found = member(payload, "id")
        if isinstance(found, bool) or not isinstance(found, str | int):
            raise Refused(16)
        return self.text.replace("{payload.id}", str(found))


class Refused(Exception):  # noqa: N818 - by the departure of this number
    pass


@frozen
class Instance:
    """A payload that is an attrs instance."""

    id: str
    note: str | None = None


def member(payload: Any, name: str) -> Any:
    return payload.get(name) if isinstance(payload, dict) else getattr(payload, name, None)


ID = {"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]}
DATED = {
    "type": "object",
    "properties": {"at": {"x-zod": "coerce.date"}, "n": {"type": "integer", "default": 1}},
    "required": ["at"],
}
MODES = ["unsafe_dedupe", "preserve_run_at", "replace"]


@frozen
class Payload:
    value: Any
    text: str | None
    """What JSON.stringify makes of it; None if that is nothing."""
    is_valid: bool = True
    refused_by: int | None = None


@frozen
class Call:
    identifier: str
    options: Options
    """In TypeScript's words, but for misspelt ones."""
    payload: Payload
    refused_by: int | None


@frozen
class Case:
    """Tasks of a catalog, calls of `enqueue`, and what befalls the jobs before each call."""

    tasks: dict[str, Options]
    schemas: dict[str, Any]
    calls: list[Call]
    befalls: list[str]


def written(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def javascript_date(moment: datetime) -> str:
    utc = moment.astimezone(UTC)
    return f"{utc:%Y-%m-%dT%H:%M:%S}.{utc.microsecond // 1000:03}Z"


ZONES = st.sampled_from(
    [UTC, timezone(timedelta(hours=-9, minutes=-30)), timezone(timedelta(1) / 2)]
)
moments = st.datetimes(datetime(1990, 1, 1), datetime(2090, 1, 1), timezones=ZONES)  # noqa: DTZ001
plain = st.sampled_from(
    [None, True, 0, -1, 2**53, "", 'aé"\\/\n\x1f\u2028😀', [], {}, [[1], {"b": 1, "a": None}]]
)


def mostly(first: st.SearchStrategy[Any], *rest: st.SearchStrategy[Any]) -> Any:
    """Values of `first`, two times of three; else of the rest."""
    return st.sampled_from([first, first, st.one_of(*rest)]).flatmap(lambda chosen: chosen)


def named(number: int) -> st.SearchStrategy[Payload]:
    """Payloads for the schema `ID`; functions and templates make keys of their ids."""
    ids = st.sampled_from([f"{number}.a", f"{number}.b"])
    right = st.builds(
        lambda own, more: {**more, "id": own}, ids, st.dictionaries(st.text("xy"), plain)
    )
    wrong = st.sampled_from([{}, {"id": number}, {"id": None}, None, [], "text"])
    return mostly(
        right.map(lambda value: Payload(value, written(value)))
        | ids.map(lambda own: Payload(Instance(own), written({"id": own}))),
        wrong.map(lambda value: Payload(value, written(value), is_valid=False)),
        st.just(Payload(UNDEFINED, None, is_valid=False)),
    )


def dated(number: int) -> st.SearchStrategy[Payload]:
    """Payloads for the schema `DATED`: what is stored is not yet coerced, and has no defaults."""
    texts = st.sampled_from(["2024-01-02", "2024-01-02T03:04+05:00", 1704164645678])
    wrong = st.sampled_from(
        ["Jan 2, 2024", None, True, {}, "2024-01-02T25:00"]
    )  # departures 24, 26
    return mostly(
        moments.map(lambda at: Payload({"at": at}, written({"at": javascript_date(at)}))),
        texts.map(lambda at: Payload({"at": at, "x": 1}, written({"at": at, "x": 1}))),
        wrong.map(lambda at: Payload({"at": at}, written({"at": at}), is_valid=False)),
        st.just(Payload({"n": 2}, '{"n":2}', is_valid=False)),
        st.just(Payload({"at": datetime(2024, 1, 2)}, None, refused_by=19)),  # noqa: DTZ001
    )


def anything(number: int) -> st.SearchStrategy[Payload]:
    """Payloads for no schema: lists that are joined, values that JSON lacks, no payload."""
    lists = st.lists(st.integers(-9, 9) | st.text("ab") | st.just(2**53 + 1), max_size=3)
    deep: list[Any] = []
    for _ in range(128):
        deep = [deep]
    return mostly(
        lists.map(lambda value: Payload(value, written(value))) | st.just(Payload(UNDEFINED, None)),
        plain.map(lambda value: Payload(value, written(value))),
        st.sampled_from(
            [
                Payload({"id": number}, written({"id": number})),
                Payload(2**53 + 1, "9007199254740993"),  # departure 17
                Payload({"n": float("nan")}, None, refused_by=8),
                Payload(deep, None, refused_by=18),
            ]
        ),
    )


KINDS: dict[str, tuple[Any, Callable[[int], st.SearchStrategy[Payload]]]] = {
    "named": (ID, named),
    "dated": (DATED, dated),
    "anything": (True, anything),
}
MISTAKES: list[tuple[str, Any, int | None]] = [
    ("identifier", "nobody", 22),
    ("maxAttempts", 0, 5),
    ("maxAttempts", -1, 5),
    ("maxAttempts", 2**15, 12),
    ("priority", 2**15, 12),
    ("priority", -(2**15) - 1, 12),
    ("jobKey", "k" * 513, 12),
    ("queueName", "q" * 129, 12),
    ("jobKeyMode", "bogus", 11),
    ("job_kee", "k", 10),
    ("runAt", datetime(2024, 1, 2), 19),  # noqa: DTZ001
]


def plain_options(number: int, modes: list[str]) -> dict[str, st.SearchStrategy[Any]]:
    """Values of the options that a task and a call have in common."""
    return {
        "priority": st.sampled_from([0, 10, -1, 2**15 - 1, -(2**15)]),
        "maxAttempts": st.sampled_from([1, 2, 25, 2**15 - 1]),
        "queueName": st.sampled_from(["", "q", "queue", "q" * 128]),
        "jobKey": mostly(
            st.just(f"{number}:a"),
            st.sampled_from(["", f"{number}:b", f"{number}:".ljust(512, "k")]),
        ),
        "jobKeyMode": mostly(st.sampled_from(modes), st.just("")),
        "flags": st.sampled_from([[], ["a"], ["a", "a", "b"], ["é"]]),
    }


computed = st.sampled_from(
    [Template("{payload.id}"), Template("of:{payload.id}")]
    + [
        Function(does)
        for does in ["k", "k", "f", "f", "return nothing", "return ''", "return too much", "throw"]
    ]
)


def tasks(number: int, modes: list[str]) -> st.SearchStrategy[Options]:
    given = plain_options(number, modes)
    for name in ("queueName", "jobKey"):
        given[name] = st.one_of(given[name], given[name], computed)
    return st.fixed_dictionaries({}, optional=given)


@st.composite
def defaults(draw: st.DrawFn, modes: list[str]) -> Options:
    """Options under the catalog's; a key must be computed, as the cases share them."""
    given = draw(tasks(0, modes))
    return {
        name: value
        for name, value in given.items()
        if isinstance(value, Function) or name != "jobKey"
    }


@st.composite
def calls(draw: st.DrawFn, number: int, kinds: dict[str, str], modes: list[str]) -> Call:
    identifier = draw(st.sampled_from(sorted(kinds)))
    payload = draw(KINDS[kinds[identifier]][1](number))
    values = plain_options(number, modes) | {"runAt": moments}
    absent = st.just(UNDEFINED) | st.none()
    given = {name: mostly(each, absent) for name, each in values.items()}
    keyed = {name: given.pop(name) for name in ("jobKey", "jobKeyMode")}
    options = draw(st.fixed_dictionaries(keyed, optional=given))
    name, value, refused_by = draw(st.sampled_from([("", None, None)] * 40 + MISTAKES))
    if refused_by == 22:
        identifier = value
    elif refused_by is not None:
        options[name] = value
    return Call(identifier, options, payload, refused_by)


@st.composite
def cases(draw: st.DrawFn, number: int, modes: list[str]) -> Case:
    kinds = {f"t{number}{letter}": draw(st.sampled_from(sorted(KINDS))) for letter in "ab"}
    count = draw(st.sampled_from([3, 2, 1]))
    return Case(
        tasks={identifier: draw(tasks(number, modes)) for identifier in kinds},
        schemas={identifier: KINDS[kind][0] for identifier, kind in kinds.items()},
        calls=[draw(calls(number, kinds, modes)) for _ in range(count)],
        befalls=[draw(st.sampled_from(["nothing", *BEFALLS])) for _ in range(count)],
    )


@frozen
class Batch:
    date: str
    validate: bool
    defaults: Options
    cases: list[Case]


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    # add_jobs takes one mode for all jobs: in some batches, all have it.
    modes = draw(st.sampled_from([MODES, MODES, MODES, ["replace"], ["preserve_run_at"]]))
    return Batch(
        date=draw(st.sampled_from([WITH_QUEUES, LAST])),
        validate=draw(st.integers(0, 3)) > 0,
        defaults=draw(st.just({}) | defaults(modes)),
        cases=[draw(cases(number, modes)) for number in range(1, 1 + draw(st.integers(1, 8)))],
    )


LOCKED = {"locked_at": datetime(2099, 1, 1, tzinfo=UTC), "locked_by": "worker"}
LONG_AGO = {"locked_at": datetime(2020, 1, 1, tzinfo=UTC), "locked_by": "worker"}
BEFALLS: dict[str, Callable[[Row], Row]] = {
    "nothing": lambda row: {},
    "failed once": lambda row: {"attempts": 1, "last_error": "e"},
    "failed for good": lambda row: {"attempts": row["max_attempts"], "last_error": "e"},
    "locked": lambda row: {"attempts": 1, **LOCKED},
    "locked long ago": lambda row: {"attempts": 1, **LONG_AGO},
    "on its last attempt": lambda row: {"attempts": row["max_attempts"], **LOCKED},
}


# What is to be expected of a batch


def expected(batch: Batch, call: Call, case: Case) -> Options | set[type[Exception]]:
    """The arguments that reach `add_job`, or the errors of which one must come."""
    errors = set()
    if call.refused_by:
        errors.add(REFUSED_CALLS[call.refused_by])
    if call.payload.refused_by:
        errors.add(REFUSED_PAYLOADS[call.payload.refused_by])
    if batch.validate and not call.payload.is_valid:
        errors.add(REFUSED_PAYLOADS[1])
    task = {**batch.defaults, **case.tasks.get(call.identifier, {})}
    too_long = {REFUSED_CALLS[12]} if Function("return too much") in task.values() else set()
    try:
        arguments = zodworker(batch.date, task, call.options, call.payload.value, WE_DEPART)
    except Thrown:
        return {*errors, *too_long, Thrown}
    except Refused as refused:
        return {*errors, *too_long, REFUSED_CALLS[refused.args[0]]}
    if len(arguments["jobKey"] or "") > 512 or len(arguments["queueName"] or "") > 128:
        errors.add(REFUSED_CALLS[12])
    return errors or arguments


# The product

NAMES = {
    "runAt": "run_at",
    "maxAttempts": "max_attempts",
    "jobKey": "job_key",
    "jobKeyMode": "job_key_mode",
    "queueName": "queue_name",
}


def in_catalog(options: Options) -> Options:
    return {
        name: value.text if isinstance(value, Template) else value
        for name, value in options.items()
    }


def in_python(options: Options) -> Options:
    values = {name: CLEAR if value is None else value for name, value in options.items()}
    return {
        NAMES.get(name, name): None if value is UNDEFINED else value
        for name, value in values.items()
    }


Outcome = Job | Exception
Request = tuple[str, Any, Options]


async def one_by_one(enqueue: Callable[..., Any], requests: list[Request]) -> list[Outcome]:
    outcomes: list[Outcome] = []
    for identifier, payload, options in requests:
        try:
            job = enqueue(identifier, payload, **options)
            outcomes.append(await job if isinstance(job, Awaitable) else job)
        except Exception as error:  # noqa: BLE001 - which one it is, is what is tested
            outcomes.append(error)
    return outcomes


async def all_or_none(enqueue_many: Callable[..., Any], requests: list[Request]) -> list[Outcome]:
    """Enqueue all that are not refused; a refusal must name each of them, and write nothing."""
    refused: dict[int, Exception] = {}
    try:
        jobs = enqueue_many(requests)
        jobs = await jobs if isinstance(jobs, Awaitable) else jobs
    except BatchError as error:
        refused = dict(error.failures)
        rest = [request for index, request in enumerate(requests) if index not in refused]
        jobs = await all_or_none(enqueue_many, rest)
    left = iter(jobs)
    return [refused.get(index) or next(left) for index in range(len(requests))]


WAYS = [
    "enqueue",
    "enqueue_tx",
    "enqueue_many",
    "sync enqueue",
    "sync enqueue_tx",
    "sync enqueue_many in a transaction",
]


@frozen
class Bench:
    """A database, and what all batches share."""

    runner: asyncio.Runner
    table: psycopg.Connection[Row]
    async_pool: AsyncConnectionPool[Any]
    pool: ConnectionPool[Any]

    async def send(
        self, way: str, worker: ZodWorker, client: Client, requests: list[Request]
    ) -> list[Outcome]:
        match way:
            case "enqueue":
                return await one_by_one(worker.enqueue, requests)
            case "enqueue_tx":
                async with self.async_pool.connection() as tx:
                    return await one_by_one(partial(worker.enqueue_tx, tx), requests)
            case "enqueue_many":
                return await all_or_none(worker.enqueue_many, requests)
            case "sync enqueue":
                return await one_by_one(client.enqueue, requests)
            case "sync enqueue_tx":
                with self.pool.connection() as tx:
                    return await one_by_one(partial(client.enqueue_tx, tx), requests)
            case _:
                with client.transaction() as tx:
                    return await all_or_none(tx.enqueue_many, requests)


@pytest.fixture
def bench(database: str) -> Iterator[Bench]:
    with (
        asyncio.Runner() as runner,
        psycopg.connect(database, autocommit=True, row_factory=dict_row) as table,
        ConnectionPool(database, min_size=1) as pool,
    ):
        async_pool = AsyncConnectionPool(database, min_size=1, open=False)
        runner.run(async_pool.open(wait=True))
        pool.wait()  # its threads use `random` when they connect, which hypothesis takes amiss
        yield Bench(runner, table, async_pool, pool)
        runner.run(async_pool.close())


BEFALL = """
    update graphile_worker._private_jobs as job
    set attempts = now.attempts, last_error = now.last_error,
        locked_at = now.locked_at, locked_by = now.locked_by
    from json_populate_recordset(null::graphile_worker._private_jobs, %s) as now
    where job.id = now.id
"""
ROWS = """
    select job.*, job.payload::text as payload, task.identifier as task_identifier, queue.queue_name
    from graphile_worker._private_jobs as job
    join graphile_worker._private_tasks as task on task.id = job.task_id
    left join graphile_worker._private_job_queues as queue on queue.id = job.job_queue_id
"""


@define
class Trial:
    """A batch on its way: what the rules say is in the table, and what is."""

    batch: Batch
    table: psycopg.Connection[Row]
    expected: dict[int, list[Row]] = field(factory=lambda: defaultdict(list))
    """By case."""
    actual: dict[int, Row] = field(factory=dict)
    """By id."""

    async def run(self, send: Callable[[list[Request]], Awaitable[list[Outcome]]]) -> None:
        self.table.execute("delete from graphile_worker._private_jobs")
        for turn in range(3):
            here = [(n, case) for n, case in enumerate(self.batch.cases) if turn < len(case.calls)]
            self.befall([(n, case.befalls[turn]) for n, case in here])
            calls = [case.calls[turn] for _, case in here]
            outcomes = await send([request(call) for call in calls])
            added = [
                (self.expect(n, case, call, outcome), outcome)
                for (n, case), call, outcome in zip(here, calls, outcomes, strict=True)
            ]
            self.compare()
            for row, job in added:
                if row is not None:
                    told = {**self.actual[row["id"]], "id": str(row["id"])}
                    assert asdict(job, recurse=False) == {
                        **told,
                        "payload": json.loads(told["payload"]),
                    }

    def befall(self, befalls: list[tuple[int, str]]) -> None:
        keyed = [
            (row, BEFALLS[name](row))
            for n, name in befalls
            for row in self.expected[n]
            if row["key"]
        ]
        for row, changes in keyed:
            row.update(changes)
            self.actual[row["id"]].update(changes)
        states = [{**row, "payload": None, "flags": None} for row, _ in keyed]
        self.table.execute(BEFALL, [json.dumps(states, default=datetime.isoformat)])

    def expect(self, n: int, case: Case, call: Call, outcome: Outcome) -> Row | None:
        """Do what the rules say; return the row of the call's job, None if it is refused."""
        arguments = expected(self.batch, call, case)
        if isinstance(arguments, set):
            assert type(outcome) in arguments, call
            return None
        assert isinstance(outcome, Job), call
        row = add_job(self.expected[n], call.identifier, call.payload.text, arguments)
        if "id" in row:
            assert outcome.id == str(row["id"]), call
        else:
            row["id"] = int(outcome.id)
            assert row["id"] not in self.actual, call
        return row

    def compare(self) -> None:
        """Compare every column, and remember the times that the statements gave."""
        before, self.actual = self.actual, {row["id"]: row for row in self.table.execute(ROWS)}
        rows = [row for rows in self.expected.values() for row in rows]
        for row in rows:
            found = self.actual.get(row["id"], {})
            if row["updated_at"] == NOW and row["id"] in before:
                assert found["updated_at"] != before[row["id"]]["updated_at"]
            for name in ("run_at", "created_at", "updated_at"):
                if row[name] == NOW:
                    row[name] = found["updated_at"]
            names = {name: found.get(name) for name in ("task_id", "job_queue_id")}
            assert found == {**row, **names, "is_available": is_available(row)}
            assert (row["queue_name"] is None) == (found["job_queue_id"] is None)
        assert len(self.actual) == len(rows)


def request(call: Call) -> Request:
    payload = NO_PAYLOAD if call.payload.value is UNDEFINED else call.payload.value
    return call.identifier, payload, in_python(call.options)


@pytest.mark.timeout(600 if EXAMPLES <= 100 else 0)  # shrinking a failure takes its time
def test_the_table_holds_what_the_rules_say(bench: Bench) -> None:
    @settings(max_examples=EXAMPLES)
    @given(batches())
    def check(batch: Batch) -> None:
        tasks = [(name, task) for case in batch.cases for name, task in case.tasks.items()]
        same: dict[str, Any] = {
            "catalog": WorkerCatalog.of(
                schema={
                    name: schema for case in batch.cases for name, schema in case.schemas.items()
                },
                tasks={name: in_catalog(task) for name, task in tasks},
            ),
            "defaults": TaskOptions(**in_python(in_catalog(batch.defaults))),
            "validate_on_enqueue": batch.validate,
        }
        worker = ZodWorker(
            name="oracle", runner_options=RunnerOptions(pool=bench.async_pool), **same
        )
        client = Client(runner_options=RunnerOptions(pool=bench.pool), **same)
        for way in WAYS:  # drawing a batch takes longer than enqueuing it
            note(way)
            send = partial(bench.send, way, worker, client)
            bench.runner.run(Trial(batch, bench.table).run(send))

    check()


# The rules themselves: what ZodWorker was seen to do, at both dates

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "p=>`fn:${p.id}`": lambda payload: f"fn:{payload['id']}",
    "p=>`q:${p.id}`": lambda payload: f"q:{payload['id']}",
    "p=>undefined": lambda payload: UNDEFINED,
    "p=>''": lambda payload: "",
    "(...a)=>`args=${a.length}:${a[1]}`": lambda *given: f"args={len(given)}:undefined",
    "p=>{throw new Error('boom')}": Function("throw"),
}
VECTORS = json.loads(
    (Path(__file__).parent.parent / "vectors" / "enqueue_vectors.json").read_text()
)["vectors"]
THROWS_BEFORE_ANY_RULE = [
    "runAt Invalid Date",
    "unknown identifier",
    "unknown identifier with options",
]


@pytest.mark.parametrize(
    "vector",
    [vector for vector in VECTORS if vector["case"] not in THROWS_BEFORE_ANY_RULE],
    ids=lambda vector: f"{vector['era'][:4]}-{vector['case']}",
)
def test_the_rules_are_what_zodworker_was_seen_to_do(vector: dict[str, Any]) -> None:
    task = {
        name: FUNCTIONS.get(value, value) if isinstance(value, str) else value
        for name, value in vector["task"].items()
    }
    call = {} if vector["options"] == "__undefined__" else vector["options"]
    call = {name: UNDEFINED if value == "__undefined__" else value for name, value in call.items()}
    if "throws" in vector:
        with pytest.raises(Thrown):
            zodworker(vector["era"], task, call, vector["payload"])
        return
    bound = {
        NAMES.get(name, name): value
        for name, value in zodworker(vector["era"], task, call, vector["payload"]).items()
    }
    seen = vector["args"]
    assert {"queue_name": None, **seen} == {
        **bound,
        "identifier": vector["identifier"],
        "payload": seen["payload"],
    }
