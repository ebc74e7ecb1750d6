"""P-1 to P-30: what `enqueue` stores, returns and refuses."""

import asyncio
import math
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from attrs import define

from zodworker_compat import (
    CLEAR,
    CatalogError,
    EnqueueError,
    OptionError,
    PayloadSerialisationError,
    PayloadValidationError,
    UnknownTaskError,
)
from zodworker_compat.payload import UNSET

ID = {"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]}
FULL = {"priority": 10, "maxAttempts": 9, "flags": ["cat"]}


async def test_p01_call_options_override_the_catalog(make_worker) -> None:
    worker = make_worker(FULL)
    job = await worker.enqueue("t", priority=1)
    assert (job.priority, job.max_attempts, job.flags) == (1, 9, {"cat": True})
    job = await worker.enqueue("t", max_attempts=2, flags=["call"])
    assert (job.priority, job.max_attempts, job.flags) == (10, 2, {"call": True})


async def test_p02_an_undefined_option_leaves_the_catalogs_in_force(make_worker) -> None:
    job = await make_worker(FULL).enqueue("t", max_attempts=None, priority=None, flags=None)
    assert (job.priority, job.max_attempts, job.flags) == (10, 9, {"cat": True})


async def test_p03_a_null_option_clears_the_catalogs(make_worker) -> None:
    job = await make_worker(FULL).enqueue("t", max_attempts=CLEAR, priority=CLEAR, flags=CLEAR)
    assert (job.priority, job.max_attempts, job.flags) == (0, 25, None)


async def test_p04_priority_zero_beats_the_catalogs(make_worker) -> None:
    assert (await make_worker({"priority": 10}).enqueue("t", priority=0)).priority == 0


async def test_p05_max_attempts_below_one_is_refused_departure_5(make_worker, nowhere) -> None:
    # Nobody means 25 attempts by 0.
    worker = make_worker({"maxAttempts": 9}, runner_options=nowhere)
    for wrong in (0, -1):
        with pytest.raises(OptionError, match="must be at least 1"):
            await worker.enqueue("t", max_attempts=wrong)
        with pytest.raises(CatalogError, match="must be at least 1"):
            make_worker({"maxAttempts": wrong})


async def test_p06_an_empty_job_key_is_no_key(make_worker, table) -> None:
    worker = make_worker()
    for _ in range(2):
        await worker.enqueue("t", job_key="")
    assert [row["key"] for row in await table.rows()] == [None, None]


async def test_p07_an_empty_list_of_flags_overrides_the_catalogs(make_worker, table) -> None:
    await make_worker(FULL).enqueue("t", flags=[])
    assert (await table.row())["flags"] is None


async def test_p08_repeated_flags_are_stored_once(make_worker, table) -> None:
    await make_worker().enqueue("t", flags=["a", "a", "b"])
    assert (await table.row())["flags"] == {"a": True, "b": True}


async def test_p09_a_string_as_the_catalogs_job_key_is_the_key_departure_4(make_worker) -> None:
    # The type of the option says that a string is allowed.
    worker = make_worker({"jobKey": "always"})
    assert (await worker.enqueue("t")).key == "always"
    assert (await worker.enqueue("t", job_key="call")).key == "call"


async def test_p10_a_job_key_function_beats_the_call(make_worker, table) -> None:
    def key_of(payload):
        return payload["key"]

    worker = make_worker({"jobKey": key_of})
    assert (await worker.enqueue("t", {"key": "own"}, job_key="call")).key == "own"
    assert (await worker.enqueue("t", {"key": None}, job_key="call")).key == "call"
    assert (await worker.enqueue("t", {"key": ""}, job_key="call")).key == "call"
    before = await table.rows()
    with pytest.raises(KeyError):
        await worker.enqueue("t", {}, job_key="call")
    assert await table.rows() == before


async def test_p11_functions_get_the_unvalidated_payload_alone(make_worker) -> None:
    seen = []

    def computed(*args):
        seen.append(args)
        return "x"

    schema = {"type": "object", "properties": {"id": {"type": "string", "default": "d"}}}
    task = {"jobKey": computed, "queueName": computed}
    worker = make_worker(task, schema=schema, validate_on_enqueue=False)
    wrong = {"id": 123, "extra": True}
    await worker.enqueue("t", wrong)
    assert all(args[0] is wrong and len(args) == 1 for args in seen)
    assert (len(seen), wrong) == (2, {"id": 123, "extra": True})


async def test_p12_a_queue_name_function_beats_the_call_and_a_string_loses(make_worker) -> None:
    tasks = {
        "computed": {"queueName": lambda payload: f"sources:{payload['id']}"},
        "empty": {"queueName": lambda payload: ""},
        "static": {"queueName": "static"},
    }
    worker = make_worker(tasks=tasks)
    for identifier, stored in [("computed", "sources:1"), ("empty", None), ("static", "call")]:
        job = await worker.enqueue(identifier, {"id": "1"}, queue_name="call")
        assert job.queue_name == stored
    assert (await worker.enqueue("static")).queue_name == "static"


async def test_p13_queue_names_have_an_effect_departure(make_worker, table) -> None:
    # ZodWorker dropped them in 2024-06 because graphile-worker's fetch did not scale with them;
    # ours does, and jobs that must not run side by side have no other way to say so.
    await make_worker({"queueName": "catalog"}).enqueue("t")
    await make_worker().enqueue("t", queue_name="call")
    names = await table.sql(
        "select queue_name from graphile_worker._private_job_queues order by id"
    )
    assert [row["queue_name"] for row in names] == ["catalog", "call"]
    assert [row["job_queue_id"] is None for row in await table.rows()] == [False, False]


async def test_p14_an_unknown_option_is_an_error_departure_10(make_worker, nowhere) -> None:
    # A misspelt jobKey is two jobs.
    worker = make_worker(runner_options=nowhere)
    with pytest.raises(OptionError, match="Did you mean 'job_key'"):
        await worker.enqueue("t", jobKey="k")
    with pytest.raises(OptionError, match="there is no such option"):
        await worker.enqueue("t", colour="red")


async def test_p15_an_unknown_identifier_is_an_error_before_any_sql(make_worker, nowhere) -> None:
    with pytest.raises(UnknownTaskError, match="'u'"):
        await make_worker(runner_options=nowhere).enqueue("u")
    worker = make_worker(catalog="workerQueue", runner_options=nowhere)
    for recurring in ("purgeOldIndexings", "__cleanupOldJobs", "__reporter"):
        with pytest.raises(UnknownTaskError, match=recurring):
            await worker.enqueue(recurring)


async def test_p16_with_validation_off_any_payload_is_stored(make_worker, table) -> None:
    await make_worker(schema=ID, validate_on_enqueue=False).enqueue("t", {"id": 123})
    assert (await table.row())["text"] == '{"id":123}'


async def test_p16_a_wrong_payload_is_refused_departure_1(make_worker, nowhere) -> None:
    # The caller can correct it; a stored one can only fail.
    with pytest.raises(PayloadValidationError, match="/id"):
        await make_worker(schema=ID, runner_options=nowhere).enqueue("t", {"id": 123})


@define
class Fields:
    at: datetime
    left_out: object = UNSET


MOMENT = datetime(2024, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (Fields(MOMENT), '{"at":"2024-01-02T03:04:05.678Z"}'),
        ({"b": 1.0, "a": ["ä", 1e21, -0.0]}, '{"b":1,"a":["ä",1e+21,0]}'),
        ({"extra": None}, '{"extra":null}'),
        ([], "[]"),
        (None, "null"),
    ],
)
async def test_p17_a_payload_is_stored_as_json_stringify_gives_it(
    make_worker, table, payload, text
) -> None:
    await make_worker().enqueue("t", payload)
    assert (await table.row())["text"] == text


async def test_p17_what_has_no_json_is_refused_before_any_sql(make_worker, nowhere) -> None:
    cycle: list = []
    cycle.append(cycle)
    for payload in (cycle, {"at": object()}):
        with pytest.raises(PayloadSerialisationError):
            await make_worker(runner_options=nowhere).enqueue("t", payload)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
async def test_p17_nan_and_infinity_are_refused_departure_8(make_worker, nowhere, number) -> None:
    # JSON.stringify makes null of them: the handler would get null where a number was meant.
    with pytest.raises(PayloadSerialisationError, match="/n"):
        await make_worker(runner_options=nowhere).enqueue("t", {"n": number})


async def test_p17_whole_numbers_are_written_exactly_departure(make_worker, table) -> None:
    # JavaScript refuses a BigInt; Python's int is both kinds of number in one.
    await make_worker().enqueue("t", 2**53 + 1)
    assert (await table.row())["text"] == "9007199254740993"


async def test_p18_no_payload_is_stored_as_an_empty_object(make_worker, table) -> None:
    worker = make_worker()
    assert worker.prepare("t").payload is None  # SQL NULL: the function fills it in
    await worker.enqueue("t")
    assert (await table.row())["text"] == "{}"


async def test_p19_a_job_is_enqueued_in_the_callers_transaction(
    make_worker, table, database
) -> None:
    worker = make_worker()
    async with await psycopg.AsyncConnection.connect(database) as tx:
        await worker.enqueue("t", tx=tx)
        await tx.rollback()
        assert await table.empty()
        await worker.enqueue("t", tx=None)
        assert len(await table.rows()) == 1
        await worker.enqueue("t", tx=tx)
    assert len(await table.rows()) == 2


async def test_p20_workers_hear_of_a_job_at_the_commit(make_worker, table, eventually) -> None:
    seen = []
    poll_by_notification_only = timedelta(hours=1)
    worker = make_worker({"handler": seen.append})
    worker.configure(poll_interval=poll_by_notification_only)
    await worker.initialize()
    async with worker.transaction() as tx:
        [start] = await (await tx.connection.execute("select now()")).fetchall()
        await tx.connection.execute("select pg_sleep(0.01)")
        job = await tx.enqueue("t", 1)
        assert job.run_at == start[0]
        assert await table.empty()
    await eventually(lambda: seen)
    assert seen == [1]


async def test_p21_enqueue_and_dequeue_need_no_runner(make_worker) -> None:
    worker = make_worker()
    job = await worker.enqueue("t", job_key="k")
    gone = await worker.dequeue("k")
    assert gone is not None
    assert gone.id == job.id


async def test_p22_the_row_is_returned_with_an_id_that_is_a_string(make_worker, table) -> None:
    job = await make_worker().enqueue("t", {"a": 1}, job_key="k", flags=["f"])
    row = await table.row()
    text = row.pop("text")
    assert (job.id, text) == (str(row.pop("id")), '{"a":1}')
    assert {name: getattr(job, name) for name in row} == row
    assert isinstance(job.id, str)
    assert all(
        isinstance(moment, datetime) for moment in (job.run_at, job.created_at, job.updated_at)
    )


async def test_p22_the_identifier_is_returned_too_departure(make_worker) -> None:
    # The row has only ids of it and of the queue; every caller that wants a name would look it up.
    job = await make_worker().enqueue("t", queue_name="q")
    assert (job.task_identifier, job.queue_name) == ("t", "q")


# What add_job of a Node installation returns in the keyed race, `nulls` times.
RACE = """
create sequence calls;
create schema original;
alter function graphile_worker.add_job set schema original;
create function graphile_worker.add_job(
    identifier text, payload json = null, queue_name text = null, run_at timestamptz = null,
    max_attempts integer = null, job_key text = null, priority integer = null,
    flags text[] = null, job_key_mode text = 'replace'
) returns {returns} language plpgsql as $$
begin
    if nextval('calls') <= {nulls} then return null; end if;
    return original.add_job(
        identifier, payload, queue_name, run_at, max_attempts, job_key, priority, flags, job_key_mode);
end $$
"""


async def test_p23_an_all_null_row_is_tried_again_departure_2(make_worker, table) -> None:
    # The original returns undefined, and the enqueue is lost (graphile-worker #580).
    await table.sql(RACE.format(nulls=3, returns="graphile_worker._private_jobs"))
    job = await make_worker().enqueue("t", job_key="k")
    assert str((await table.row())["id"]) == job.id


async def test_p24_no_row_at_all_is_an_error_departure_2(make_worker, table) -> None:
    # The original returns undefined: the caller believes that the job will run.
    await table.sql(
        "alter function graphile_worker.add_job rename to no_longer;"
        " create function graphile_worker.add_job("
        " identifier text, payload json, queue_name text, run_at timestamptz, max_attempts integer,"
        " job_key text, priority integer, flags text[], job_key_mode text)"
        " returns setof graphile_worker._private_jobs language sql as"
        " 'select * from graphile_worker._private_jobs where false'"
    )
    with pytest.raises(EnqueueError, match="nothing was enqueued"):
        await make_worker().enqueue("t")


async def test_p25_an_invalid_run_at_is_an_error_before_any_sql(make_worker, nowhere) -> None:
    worker = make_worker(runner_options=nowhere)
    for wrong in ("tomorrow", 1717243200000, datetime(2030, 1, 1)):  # noqa: DTZ001 - what is refused
        with pytest.raises(OptionError, match="time zone"):
            await worker.enqueue("t", run_at=wrong)


async def test_p25_a_run_at_in_the_past_is_kept_and_orders_the_jobs(make_worker) -> None:
    seen = []
    worker = make_worker({"handler": seen.append})
    worker.configure(concurrency=1)
    for year in (2023, 2021, 2022):
        past = datetime(year, 1, 1, tzinfo=UTC)
        assert (await worker.enqueue("t", year, run_at=past)).run_at == past
    await worker.run_once()
    assert seen == [2021, 2022, 2023]


@pytest.mark.parametrize("delete_failed_jobs", [False, True])
@pytest.mark.parametrize("mode", ["replace", "preserve_run_at"])
@pytest.mark.parametrize("succeeds", [True, False])
async def test_p26_the_key_of_a_running_job_goes_to_a_new_one(
    make_worker, table, mode, succeeds, delete_failed_jobs
) -> None:
    started, released = asyncio.Event(), asyncio.Event()

    async def handler(payload) -> None:
        started.set()
        await released.wait()
        if not succeeds:
            raise ValueError("h")

    worker = make_worker(
        {"handler": handler, "maxAttempts": 3}, delete_failed_jobs=delete_failed_jobs
    )
    await worker.enqueue("t", job_key="k")
    running = asyncio.create_task(worker.run_once())
    await started.wait()
    later = datetime.now(UTC) + timedelta(hours=1)
    await worker.enqueue("t", "new", job_key="k", job_key_mode=mode, run_at=later)
    old, new = await table.rows()
    assert (old["key"], old["attempts"], old["locked_at"] is None) == (None, 3, False)
    assert (new["key"], new["attempts"], new["revision"], new["run_at"]) == ("k", 0, 0, later)

    released.set()
    await running
    assert (await table.rows())[-1] == new
    if succeeds:
        assert await table.rows() == [new]
    else:  # the run was not the last attempt when it began, so it is not swallowed
        old = (await table.rows())[0]
        assert (old["key"], old["attempts"], old["locked_at"]) == (None, 3, None)
        assert old["last_error"] == "ValueError: h"


async def test_p27_a_handler_reschedules_itself_with_its_own_key(make_worker, table) -> None:
    seen = []

    async def tick(payload, job, helpers) -> None:
        seen.append((payload, job.id, job.attempts, job.revision))
        if payload < 3:
            await helpers.enqueue("t", payload + 1, job_key=job.key)

    worker = make_worker({"handler": tick})
    await worker.enqueue("t", 1, job_key="scheduled")
    await worker.run_once()
    assert [(payload, *rest) for payload, _, *rest in seen] == [(1, 1, 0), (2, 1, 0), (3, 1, 0)]
    assert len({job_id for _, job_id, *_ in seen}) == 3
    assert await table.empty()


async def test_p28_the_mode_is_replace_if_none_is_given(make_worker, table) -> None:
    worker = make_worker()
    first, second = (datetime(year, 1, 1, tzinfo=UTC) for year in (2030, 2031))
    old = await worker.enqueue("t", 1, job_key="k", run_at=first)
    new = await worker.enqueue("t", 2, job_key="k", run_at=second)
    assert (new.id, new.payload, new.run_at, new.revision) == (old.id, 2, second, 1)
    assert len(await table.rows()) == 1


@pytest.mark.parametrize("mode", ["replace", "preserve_run_at", "unsafe_dedupe", ""])
async def test_p29_a_mode_without_a_key_changes_nothing(make_worker, table, mode) -> None:
    worker = make_worker()
    for payload in (1, 2):
        await worker.enqueue("t", payload, job_key_mode=mode)
    assert [(row["text"], row["key"]) for row in await table.rows()] == [("1", None), ("2", None)]


async def test_p29_a_wrong_mode_is_refused_also_without_a_key_departure_11(
    make_worker, nowhere
) -> None:
    # The key will come, and then the database would refuse the call.
    with pytest.raises(OptionError, match="not one of replace"):
        await make_worker(runner_options=nowhere).enqueue("t", job_key_mode="once")


async def test_p30_enqueue_accepts_what_the_run_accepts(make_worker) -> None:
    schema = {
        "type": "object",
        "properties": {"id": {"type": "string"}, "at": {"x-zod": "coerce.date"}, "any": True},
        "required": ["id"],
    }
    payloads = [
        {"id": "a"},
        {"id": "a", "unknown": [1]},
        {"id": "a", "at": "2024-01-02T03:04:05.678Z"},
        {"id": "a", "at": MOMENT},
        {"id": "a", "at": "no date"},
        {"id": "a", "any": None},
        {"id": 1},
        {"at": MOMENT},
        {},
        None,
        ["a"],
    ]
    ran = set()
    task = {"maxAttempts": 1, "handler": lambda payload, job: ran.add(job.id)}
    unchecked = make_worker(task, schema=schema, validate_on_enqueue=False)
    checked = make_worker(task, schema=schema)
    accepted, ids = set(), []
    for index, payload in enumerate(payloads):
        ids.append((await unchecked.enqueue("t", payload)).id)
        try:
            checked.prepare("t", payload)
        except PayloadValidationError:
            continue
        accepted.add(ids[index])
    await unchecked.run_once()
    assert ran == accepted
    assert [ids.index(job_id) for job_id in sorted(ran, key=int)] == [0, 1, 2, 3, 5]


@pytest.mark.parametrize("value", [None, True, "Jan 1 2024"])
async def test_p30_a_coerced_date_is_iso_or_milliseconds_departure(
    make_worker, nowhere, value
) -> None:
    # new Date(null) is 1970 and new Date("Jan 1 2024") another moment on another host.
    worker = make_worker(schema={"x-zod": "coerce.date"}, runner_options=nowhere)
    with pytest.raises(PayloadValidationError):
        await worker.enqueue("t", value)
    assert worker.prepare("t", "2024-01-01T00:00:00.000Z").payload == '"2024-01-01T00:00:00.000Z"'
    assert worker.prepare("t", 1704067200000).payload == "1704067200000"
