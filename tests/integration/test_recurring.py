"""Recurring tasks: each minute's job once, whatever clocks, databases and other workers do."""

import asyncio
import json
from collections import defaultdict
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from zodworker_compat import (
    ConfigurationError,
    CronOptions,
    CronRun,
    CrontabError,
    RecurringTaskSpec,
    RunnerOptions,
    UnknownTaskError,
    WorkerCatalog,
    ZodWorker,
)
from zodworker_compat.cron import CronItem, Digest, parse_crontab
from zodworker_compat.cron.clock import ceil_minute, floor_minute
from zodworker_compat.runner.cron import Cron, restart_delay
from zodworker_compat.runner.pool import Intervals, Pool

VECTORS = {
    vector["case"]: vector
    for vector in json.loads(
        (Path(__file__).parent.parent / "vectors" / "run_vectors.json").read_text("utf-8")
    )["vectors"]
}
SECOND, MINUTE, HOUR, DAY = (
    timedelta(seconds=1),
    timedelta(minutes=1),
    timedelta(hours=1),
    timedelta(days=1),
)
NEW_YEAR = datetime(2021, 1, 1, tzinfo=UTC)
FOUR = NEW_YEAR + 4 * HOUR
EVERY_FOUR_HOURS = "0 */4 * * * my_task"


class FakeClock:
    """A clock that goes on when it is told to."""

    def __init__(self, now):
        self._now = now
        self._asleep = asyncio.Event()
        self._wake = None
        self.slept = []

    def now(self):
        return self._now

    async def sleep(self, seconds):
        self.slept.append(seconds)
        self._wake = asyncio.get_running_loop().create_future()
        self._asleep.set()
        await self._wake

    async def idle(self):
        """Wait until somebody sleeps."""
        async with asyncio.timeout(60):
            await self._asleep.wait()

    async def to(self, moment):
        """Set the time, wake the sleeper, and wait until it sleeps again."""
        await self.idle()
        self._now = moment
        self._asleep.clear()
        self._wake.set_result(None)
        await self.idle()


class Crontab:
    """A running cron, its clock, and what it told."""

    def __init__(self, database, items, now):
        self.clock = FakeClock(now)
        self.pool = Pool(
            name="test",
            conninfo=database,
            options=RunnerOptions(),
            tasks={},
            shutdown_timeout=SECOND,
            delete_failed_jobs=False,
            intervals=Intervals(),
        )
        self.told = []
        for name in ("starting", "started", "backfill", "prematureTimer", "overdueTimer", "schedule", "scheduled"):  # fmt: skip
            self.pool.events.on(
                f"cron:{name}", lambda event, name=name: self.told.append((name, event))
            )
        self.cron = Cron(self.pool, items, self.clock)

    def names(self):
        return [name for name, _ in self.told]

    def events(self, name):
        return [event for told, event in self.told if told == name]


@asynccontextmanager
async def running(database, items, now):
    crontab = Crontab(database, items, now)
    task = asyncio.create_task(crontab.cron.run())
    try:
        await asyncio.wait([task, idle := asyncio.create_task(crontab.clock.idle())], return_when="FIRST_COMPLETED")  # fmt: skip
        idle.cancel()
        yield crontab
    finally:
        task.cancel()
        [result] = await asyncio.gather(task, return_exceptions=True)
        assert isinstance(result, asyncio.CancelledError), result


def item(match="* * * * *", identifier="my_task", **options):
    return CronItem(task=identifier, match=match, options=options)


async def minutes(jobs, task="my_task"):
    """The scheduled minutes of a task's jobs, in the order in which they were added."""
    rows = await jobs.sql(
        "select payload from graphile_worker._private_jobs job"
        " join graphile_worker._private_tasks task on task.id = task_id"
        " where identifier = %s order by job.id",
        task,
    )
    return [datetime.fromisoformat(row["payload"]["_cron"]["ts"]) for row in rows]


async def known(jobs):
    return {
        row["identifier"]: (row["known_since"], row["last_execution"])
        for row in await jobs.sql("select * from graphile_worker._private_known_crontabs")
    }


async def set_known(jobs, since, last=None, identifier="my_task"):
    await jobs.sql(
        "insert into graphile_worker._private_known_crontabs values (%s, %s, %s)",
        identifier,
        since,
        last,
    )


async def test_at_its_first_start_an_item_becomes_known_and_owes_nothing(database, jobs):
    start = FOUR - 10 * SECOND
    async with running(database, parse_crontab(f"{EVERY_FOUR_HOURS} ?fill=1d"), start) as cron:
        assert await known(jobs) == {"my_task": (start, None)}
        assert await jobs.empty()
        assert cron.names() == ["starting", "started"]
        assert [event.start for _, event in cron.told] == [start, start]


async def test_a_job_is_enqueued_when_its_minute_comes(database, jobs):
    crontab = f"{EVERY_FOUR_HOURS} ?id=x&max=3&queue=q&priority=-7&jobKey=k {{a: 1, _cron: 2}}"
    async with running(database, parse_crontab(crontab), NEW_YEAR + SECOND) as cron:
        assert cron.clock.slept == [59.001]
        await cron.clock.to(NEW_YEAR + 3 * HOUR + SECOND)
        assert await jobs.empty()
        await cron.clock.to(FOUR + SECOND)
        [job] = await jobs.all()
        assert job["payload"] == {
            "a": 1,
            "_cron": {"ts": "2021-01-01T04:00:00.000Z", "backfilled": False},
        }
        assert (job["run_at"], job["max_attempts"], job["priority"], job["key"], job["flags"]) == (
            FOUR,
            3,
            -7,
            "k",
            None,
        )
        assert await jobs.sql("select queue_name from graphile_worker._private_job_queues") == [
            {"queue_name": "q"}
        ]
        assert await known(jobs) == {"x": (NEW_YEAR + SECOND, FOUR)}
        [schedule], [scheduled] = cron.events("schedule"), cron.events("scheduled")
        assert schedule == scheduled
        assert schedule.timestamp == FOUR
        [(spec, identifier)] = schedule.jobs_and_identifiers
        assert (spec.identifier, identifier) == ("my_task", "x")


async def test_a_clock_set_back_does_not_repeat_what_was_enqueued(database, jobs):
    async with running(database, parse_crontab(EVERY_FOUR_HOURS), NEW_YEAR + SECOND) as cron:
        for hours in (4, 3, 4, 3.5, 4, 8):
            await cron.clock.to(NEW_YEAR + hours * HOUR + SECOND)
        assert await minutes(jobs) == [FOUR, FOUR + 4 * HOUR]


async def test_a_clock_that_was_wrong_for_years_does_not_stop_the_timer_for_years(database, jobs):
    async with running(database, [item("0 4 * * *")], NEW_YEAR + SECOND) as cron:
        await cron.clock.to(FOUR - HOUR + SECOND)
        await cron.clock.to(FOUR - 2 * HOUR + SECOND)
        assert cron.clock.slept[-1] < 60
        await cron.clock.to(FOUR)
        assert await minutes(jobs) == [FOUR]


async def test_a_timer_that_comes_early_is_set_again(database, jobs):
    async with running(database, parse_crontab(EVERY_FOUR_HOURS), FOUR - 90 * SECOND) as cron:
        for _ in range(5):
            await cron.clock.to(FOUR - 60 * SECOND)
            await cron.clock.to(FOUR - 30 * SECOND)
        assert await jobs.empty()
        assert cron.clock.slept[-1] == 30.001
        await cron.clock.to(FOUR + SECOND)
        assert await minutes(jobs) == [FOUR]
        early = cron.events("prematureTimer")[-1]
        assert (early.current_timestamp, early.expected_timestamp) == (FOUR - MINUTE, FOUR)


async def test_with_a_job_key_the_next_job_replaces_one_that_still_waits(database, jobs):
    crontab = parse_crontab(f"{EVERY_FOUR_HOURS} ?jobKey=foo")
    async with running(database, crontab, NEW_YEAR + SECOND) as cron:
        await cron.clock.to(FOUR)
        [first] = await jobs.all()
        await cron.clock.to(FOUR + 4 * HOUR)
        [second] = await jobs.all()
        assert first["id"] == second["id"]
        assert second["payload"]["_cron"]["ts"] == "2021-01-01T08:00:00.000Z"


@pytest.mark.parametrize(
    ("options", "hours"),
    [
        ({"backfill_period": DAY}, [0, 4, 8, 12, 16, 20]),
        ({"backfill_period": 9 * HOUR}, [16, 20]),
        ({}, []),
        ({"catch_up": "skip", "backfill_period": DAY}, []),
        ({"catch_up": "latest"}, [20]),
        ({"catch_up": "all", "backfill_period": 9 * HOUR}, [16, 20]),
    ],
)
async def test_at_start_an_item_makes_up_for_what_its_policy_says(database, jobs, options, hours):
    await set_known(jobs, NEW_YEAR - DAY, NEW_YEAR - 4 * HOUR)
    start = NEW_YEAR + 24 * HOUR - SECOND
    async with running(database, [item("0 */4 * * *", **options)], start) as cron:
        assert await minutes(jobs) == [NEW_YEAR + hour * HOUR for hour in hours]
        assert all(job["payload"]["_cron"]["backfilled"] for job in await jobs.all())
        told = cron.events("backfill")
        assert [event.timestamp for event in told][-len(hours) :] == await minutes(jobs)
        [(since, last)] = (await known(jobs)).values()
        assert since == NEW_YEAR - DAY
        assert last == (NEW_YEAR + hours[-1] * HOUR if hours else NEW_YEAR - 4 * HOUR)
        assert cron.names()[-1] == "started"


async def test_after_a_late_timer_each_item_goes_by_its_own_policy(database, jobs):
    policies = {"graphile": {}, "skip": {}, "latest": {}, "all": {"backfill_period": 600}}
    items = [item("*/7 * * * *", name, catch_up=name, **more) for name, more in policies.items()]
    async with running(database, items, NEW_YEAR + SECOND) as cron:
        await cron.clock.to(NEW_YEAR + 28 * MINUTE + SECOND)
        late = [NEW_YEAR + minute * MINUTE for minute in (7, 14, 21, 28)]
        assert [await minutes(jobs, name) for name in policies] == [
            late,
            late[-1:],
            late[-1:],
            late[-2:],
        ]
        assert len(cron.events("overdueTimer")) == 1
        assert not any(job["payload"]["_cron"]["backfilled"] for job in await jobs.all())


async def test_a_clock_that_jumps_by_millennia_enqueues_a_week(database, jobs):
    items = [
        item("0 */4 * * *"),
        item("0 0 1 1 *", "latest", catch_up="latest"),
        item("0 0 30 2 *", "never", catch_up="latest"),
        item(lambda digest: False, "function", catch_up="latest"),
        item("0 0 1 * *", "all", catch_up="all", backfill_period=timedelta.max),
    ]
    far = datetime(9999, 12, 1, 0, 1, tzinfo=UTC)
    async with running(database, items, NEW_YEAR + SECOND) as cron:
        beats = 0
        moving = asyncio.create_task(cron.clock.to(far))
        while not moving.done():
            await asyncio.sleep(0.001)
            beats += 1
        assert beats > 50  # the event loop was free
        await moving
        assert len(await minutes(jobs)) == 7 * 6
        assert await minutes(jobs, "latest") == [datetime(9999, 1, 1, tzinfo=UTC)]
        assert await minutes(jobs, "never") == await minutes(jobs, "function") == []
        assert len(await minutes(jobs, "all")) == 13


async def test_two_workers_enqueue_each_job_once(database, jobs):
    await set_known(jobs, NEW_YEAR - DAY)
    items = [item("*/5 * * * *", backfill_period=DAY), item("* * * * *", "other")]
    start = NEW_YEAR + SECOND
    async with running(database, items, start) as one, running(database, items, start) as two:
        backfilled = [NEW_YEAR - DAY + step * 5 * MINUTE for step in range(1, 289)]
        assert sorted(await minutes(jobs)) == backfilled
        for minute in (1, 2, 7, 30):
            moment = NEW_YEAR + minute * MINUTE + SECOND
            await asyncio.gather(one.clock.to(moment), two.clock.to(moment))
        assert sorted(await minutes(jobs, "other")) == [
            NEW_YEAR + minute * MINUTE for minute in range(1, 31)
        ]
        assert len(await minutes(jobs)) == 288 + 6


async def test_a_function_that_raises_matches_nothing_and_stops_nobody(database, jobs, caplog):
    def broken(digest: Digest) -> bool:
        raise ZeroDivisionError

    async with running(database, [item(broken, "broken"), item()], NEW_YEAR) as cron:
        await cron.clock.to(NEW_YEAR + MINUTE)
        assert await minutes(jobs, "broken") == []
        assert len(await minutes(jobs)) == 2
    assert "The match function of recurring task 'broken' failed" in caplog.text


class Door:
    """Shuts a database to new connections, and opens it again."""

    def __init__(self, database, server):
        self._name = conninfo_to_dict(database)["dbname"]
        self._server = server.dsn()

    def __enter__(self):
        self._set("false")

    def __exit__(self, *_):
        self._set("true")

    def _set(self, allowed):
        with psycopg.connect(self._server, autocommit=True) as connection:
            connection.execute(
                sql.SQL("alter database {} allow_connections {}").format(
                    sql.Identifier(self._name), sql.SQL(allowed)
                )
            )


async def test_a_database_that_is_away_for_a_moment_loses_no_minute(database, jobs, server):
    async with running(database, [item()], NEW_YEAR + SECOND) as cron:
        with Door(database, server):
            await cron.clock.to(NEW_YEAR + MINUTE)
        await cron.clock.to(NEW_YEAR + MINUTE + SECOND / 5)
        await cron.clock.to(NEW_YEAR + MINUTE + SECOND / 5)
        assert await minutes(jobs) == [NEW_YEAR + MINUTE]


async def test_after_an_outage_each_item_goes_by_its_own_policy(database, jobs, server, caplog):
    caplog.set_level("INFO")
    policies = {"graphile": {}, "skip": {}, "latest": {}, "all": {"backfill_period": 120}}
    items = [item("* * * * *", name, catch_up=name, **more) for name, more in policies.items()]
    async with running(database, items, NEW_YEAR + SECOND) as cron:
        await cron.clock.to(NEW_YEAR + MINUTE)
        with Door(database, server):
            for second in range(60, 540, 30):
                await cron.clock.to(NEW_YEAR + MINUTE + second * SECOND)
        for _ in range(2):
            await cron.clock.to(NEW_YEAR + 11 * MINUTE)
        all_of_them = [NEW_YEAR + minute * MINUTE for minute in range(1, 12)]
        assert [await minutes(jobs, name) for name in policies] == [
            all_of_them,
            [all_of_them[0], all_of_them[-1]],
            [all_of_them[0], all_of_them[-1]],
            [all_of_them[0], *all_of_them[-3:]],
        ]
    gone, back = [text for text in caplog.messages if "enqueue recurring tasks" in text]
    assert gone.startswith("Cannot enqueue recurring tasks")
    assert back.startswith("Can enqueue recurring tasks again")


async def test_an_outage_at_the_start_loses_nothing_either(database, jobs, server):
    await set_known(jobs, NEW_YEAR - DAY)
    items = [item("0 * * * *", backfill_period=2 * HOUR)]
    with Door(database, server):
        cron = Crontab(database, items, NEW_YEAR + 59 * MINUTE)
        task = asyncio.create_task(cron.cron.run())
        await cron.clock.idle()
        assert cron.names() == ["starting"]
    try:
        await cron.clock.to(NEW_YEAR + HOUR + MINUTE)
        await cron.clock.to(NEW_YEAR + HOUR + MINUTE)
    finally:
        task.cancel()
        await asyncio.wait([task])
    assert await minutes(jobs) == [NEW_YEAR - HOUR, NEW_YEAR, NEW_YEAR + HOUR]


def test_the_delay_before_a_restart_is_that_of_graphile_worker():
    assert [restart_delay(failures, 0.5) for failures in range(3)] == pytest.approx([0.2, 0.3, 0.45])  # fmt: skip
    assert restart_delay(10_000, 0.5) == 60
    assert [restart_delay(0, jitter) for jitter in (0, 1)] == pytest.approx([0.1, 0.3])


# Node's own add_job while a worker is locking the job of its key (graphile-worker #580): it enqueues
# nothing and returns a row of NULLs. Ours never does, so one that does so once plays its part.
RACE = """
create sequence calls;
create schema original;
alter function graphile_worker.add_job set schema original;
create function graphile_worker.add_job(
    identifier text, payload json = null, queue_name text = null, run_at timestamptz = null,
    max_attempts integer = null, job_key text = null, priority integer = null,
    flags text[] = null, job_key_mode text = 'replace'
) returns graphile_worker._private_jobs language plpgsql as $$
begin
    if nextval('calls') = 1 then return null; end if;
    return original.add_job(
        identifier, payload, queue_name, run_at, max_attempts, job_key, priority, flags, job_key_mode);
end $$
"""


async def test_a_job_whose_key_is_being_locked_is_scheduled_all_the_same(database, jobs):
    await jobs.connection.execute(RACE)
    async with running(database, [item(job_key="k")], NEW_YEAR + SECOND) as cron:
        await cron.clock.to(NEW_YEAR + MINUTE)
        assert await minutes(jobs) == [NEW_YEAR + MINUTE]


# Every clock, every policy.


class Model:
    """What should be enqueued, minute by minute, for one item."""

    def __init__(self, item):
        self.item, options = item, item.options
        self.policy, self.period = options.catch_up, options.backfill_period
        self.fired, self.last, self.since = [], None, None
        self.expected = None

    def matches(self, minute):
        return self.item.match.matches(Digest.of(minute))

    def fire(self, candidates, *, newest_only):
        found = [minute for minute in candidates if self.matches(minute)]
        for minute in found[-1:] if newest_only else found:
            if self.last is None or minute > self.last:
                self.fired.append(minute)
                self.last = minute

    def start(self, now):
        self.since = self.since or now
        oldest = self.last or self.since
        if self.policy == "latest" and self.last:
            oldest += MINUTE
        if self.policy != "latest" or self.period:
            oldest = max(oldest, now - self.period)
        if self.policy != "skip":
            self.fire(span(oldest, now - SECOND), newest_only=self.policy == "latest")
        self.expected = ceil_minute(now)

    def wake(self, now):
        current = floor_minute(now)
        if current < self.expected:
            if self.expected - now > MINUTE:
                self.expected = ceil_minute(now)
            return
        oldest = {
            "graphile": current - max(self.period, 7 * DAY),
            "skip": current,
            "latest": self.expected,
            "all": current - self.period,
        }[self.policy]
        self.fire(span(max(oldest, self.expected), current), newest_only=self.policy == "latest")
        self.expected = current + MINUTE


def span(first, last):
    """All whole minutes between two times, both included."""
    minute, found = ceil_minute(first), []
    while minute <= last:
        found.append(minute)
        minute += MINUTE
    return found


PERIODS = st.sampled_from([MINUTE, 50 * MINUTE, DAY, 10 * DAY])
ITEMS = st.builds(
    lambda match, policy, period: item(match, catch_up=policy, backfill_period=period),
    st.sampled_from(["*/7 * * * *", "0 */3 * * *", "17,18 * * * *", "30 2 * * 1-5", "0 0 1 * *"]),
    st.sampled_from(["graphile", "skip", "latest", "all"]),
    PERIODS,
) | st.just(item("*/11 * * * *"))  # fmt: skip
JUMPS = st.sampled_from([1, 20, 59, 60, 61, 120, 3600, 7200, 86_400, 9 * 86_400]).flatmap(
    lambda size: st.integers(-size // 2, size)
)
STEPS = st.lists(st.tuples(st.sampled_from(["wake", "wake", "wake", "start"]), JUMPS), max_size=7)


@given(
    items=st.lists(ITEMS, min_size=1, max_size=3),
    offset=st.integers(0, 40 * 86_400),
    steps=STEPS,
)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_the_clock_does_each_policy_is_kept_and_no_minute_comes_twice(
    database, items, offset, steps
):
    named = [
        CronItem(task=f"t{index}", match=each.match, options=each.options)
        for index, each in enumerate(items)
    ]
    models = [Model(each) for each in named]
    now = NEW_YEAR + offset * SECOND

    async def live(now, steps):
        """One life of a cron; returns the steps that are left for the next."""
        async with running(database, named, now) as cron:
            for model in models:
                model.start(now)
            while steps and steps[0][0] == "wake":
                now += steps.pop(0)[1] * SECOND
                await cron.clock.to(now)
                for model in models:
                    model.wake(now)
        return now

    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(
            "truncate graphile_worker._private_jobs, graphile_worker._private_known_crontabs"
        )
        left = [*steps]
        now = asyncio.run(live(now, left))
        while left:
            now += left.pop(0)[1] * SECOND
            now = asyncio.run(live(now, left))
        fired = defaultdict(list)
        for identifier, payload in connection.execute(
            "select identifier, payload from graphile_worker._private_jobs job"
            " join graphile_worker._private_tasks task on task.id = task_id order by job.id"
        ):
            fired[identifier].append(datetime.fromisoformat(payload["_cron"]["ts"]))
    for model in models:
        enqueued = fired[model.item.task]
        assert all(one < other for one, other in pairwise(enqueued))
        assert enqueued == model.fired


# As people write them.


@pytest.fixture
def make_worker(database):
    def make(**arguments):
        schema = arguments.pop("schema", {})
        catalog = arguments.pop("catalog", None)
        if catalog is None:
            catalog = WorkerCatalog.of(
                name="test", schema=schema, tasks={identifier: {} for identifier in schema}
            )
        return ZodWorker(
            name="wq",
            catalog=catalog,
            runner_options=RunnerOptions(connection_string=database, poll_interval=0.1),
            **arguments,
        )

    return make


def noop(_run):
    """A handler."""


async def test_a_handler_gets_its_minute_its_job_and_helpers(make_worker, jobs, eventually):
    calls = []
    worker = make_worker(
        recurring_tasks={
            "one": {"match": "0 * * * *", "options": {"catch_up": "latest"}, "handler": lambda run: calls.append((run,))},
            "two": RecurringTaskSpec(match="0 * * * *", handler=lambda *arguments: calls.append(arguments), options=CronOptions(backfill_period=2 * HOUR)),
        }
    )  # fmt: skip

    @worker.recurring("three", match="0 * * * *", backfill_period=2 * HOUR)
    async def three(run, job):
        calls.append((run, job))

    last = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - HOUR / 2
    for identifier in ("one", "two", "three"):
        await set_known(jobs, last, last, identifier)
    try:
        await worker.initialize()
        await eventually(lambda: len(calls) >= 3)
    finally:
        await worker.stop()
    assert {len(arguments) for arguments in calls} == {1, 2, 3}
    first_hour = min(arguments[0].ts for arguments in calls)
    assert first_hour == last + HOUR / 2
    for run, *rest in calls:
        assert run == CronRun(ts=run.ts, backfilled=run.ts == first_hour)
        assert run.ts.tzinfo is UTC
        for job in rest[:1]:
            assert job.payload["_cron"]["backfilled"] == run.backfilled
            assert job.run_at == run.ts


async def test_run_once_runs_recurring_jobs_and_enqueues_none(make_worker, jobs):
    calls = []
    worker = make_worker(
        recurring_tasks={"r": {"match": "* * * * *", "options": {"backfill_period": DAY}, "handler": calls.append}}
    )  # fmt: skip
    await set_known(jobs, NEW_YEAR, NEW_YEAR, "r")
    await jobs.add("r", {"_cron": {"ts": "2024-06-01T12:00:00.000Z", "backfilled": False}})
    await worker.run_once()
    assert calls == [CronRun(ts=datetime(2024, 6, 1, 12, tzinfo=UTC), backfilled=False)]
    assert await known(jobs) == {"r": (NEW_YEAR, NEW_YEAR)}


async def test_a_crontab_enqueues_tasks_of_the_catalog(make_worker, jobs, tmp_path, eventually):
    payloads = []
    file = tmp_path / "crontab"
    file.write_text("# hourly\n0 * * * * send ?id=hourly&fill=2h {to: 'all'}\n")
    schema = {"type": "object", "properties": {"to": {"type": "string"}}, "required": ["to"]}
    worker = make_worker(schema={"send": schema}, crontab_file=file)

    @worker.task("send")
    async def send(payload, job):
        payloads.append((payload, job.payload))

    last = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - HOUR / 2
    await set_known(jobs, last, last, "hourly")
    try:
        await worker.initialize()
        await eventually(lambda: payloads)
    finally:
        await worker.stop()
    parsed, stored = payloads[0]
    assert parsed == {"to": "all"}
    assert stored["to"] == "all"
    assert stored["_cron"]["backfilled"] is True


def test_recurring_tasks_come_from_the_catalog_too(make_worker):
    worker = make_worker(catalog=WorkerCatalog.load("workerQueue"))
    worker.recurring("purgeOldIndexings", catch_up="latest")(noop)
    [found] = worker.cron_items
    assert found.match.text == "0 * * * *"
    assert found.options.catch_up == "latest"


def test_options_of_a_catalog_are_in_milliseconds(make_worker, tmp_path):
    options = {"backfillPeriod": 90_000, "maxAttempts": 3, "jobKeyMode": "preserve_run_at"}
    file = tmp_path / "own.json"
    file.write_text(
        json.dumps({"tasks": {}, "recurring": {"r": {"match": "* * * * *", "options": options}}})
    )
    worker = make_worker(catalog=WorkerCatalog.load(file))
    worker.recurring("r", max_attempts=5)(noop)
    [found] = worker.cron_items
    assert found.options == CronOptions(
        backfill_period=90, max_attempts=5, job_key_mode="preserve_run_at"
    )


@pytest.mark.parametrize(
    ("definition", "error", "text"),
    [
        ({"match": "foo", "handler": noop}, CrontabError, "Invalid cron pattern 'foo' in recurring task 'r'"),
        ({"pattern": "* * * * *", "handler": noop}, CrontabError, "rename the 'pattern' property to 'match'"),
        ({"match": "* * * * *"}, ConfigurationError, "'r' has no handler"),
        ({"handler": noop}, CrontabError, "Invalid 'match' configuration in recurring task 'r'"),
        ({"match": "* * * * *", "handler": noop, "handlr": 1}, ConfigurationError, "handlr"),
        ({"match": "* * * * *", "handler": noop, "options": {"backfillPeriod": 1}}, CrontabError, "'backfill_period'"),
        ({"match": "* * * * *", "handler": noop, "options": {"time_zone": "Mars"}}, CrontabError, "time zone"),
        ({"match": "* * * * *", "handler": lambda: None}, ConfigurationError, "1 to 3 positional"),
        (noop, ConfigurationError, "expected a RecurringTaskSpec or a mapping"),
    ],
)  # fmt: skip
def test_a_wrong_definition_is_refused_at_once(make_worker, definition, error, text):
    with pytest.raises(error) as refused:
        make_worker(recurring_tasks={"r": definition})
    assert text in str(refused.value)


def test_tasks_and_recurring_tasks_share_one_namespace(make_worker):
    worker = make_worker(schema={"t": True, "u": True}, recurring_tasks={"r": {"match": "* * * * *", "handler": noop}})  # fmt: skip
    worker.task("new", schema=True)(noop)
    for taken in ("t", "new"):
        with pytest.raises(ConfigurationError, match="is a task already"):
            worker.recurring(taken, match="* * * * *")(noop)
    with pytest.raises(ConfigurationError, match="has a handler already"):
        worker.recurring("r", match="* * * * *")(noop)
    with pytest.raises(ConfigurationError, match="is a recurring task"):
        worker.task("r", schema=True)


@pytest.mark.parametrize("identifier", ["r", "purgeOldIndexings"])
async def test_a_recurring_task_cannot_be_enqueued(make_worker, identifier):
    worker = make_worker(
        catalog=WorkerCatalog.load("workerQueue"),
        recurring_tasks={"r": {"match": "* * * * *", "handler": noop}},
    )
    worker.task("mine", schema=True)(noop)
    with pytest.raises(
        UnknownTaskError, match=r"is a recurring task .* cannot be enqueued by hand"
    ):
        await worker.enqueue(identifier, {})
    with pytest.raises(UnknownTaskError, match="is a recurring task"):
        worker.sync.enqueue(identifier, {})


@pytest.mark.parametrize(
    ("crontab", "text"),
    [
        ("* * * * * sned", "Did you mean 'send'"),
        ("* * * * * send {to: 1}", "/to"),
        ("* * * * * r", "is a recurring task"),
        ("* * * * * send ?id=r {to: ''}", "duplicate identifiers found: 'r'"),
    ],
)
async def test_a_crontab_that_cannot_work_is_refused_before_anything_starts(
    make_worker, crontab, text
):
    schema = {"type": "object", "properties": {"to": {"type": "string"}}, "required": ["to"]}
    worker = make_worker(
        schema={"send": schema},
        crontab=crontab,
        recurring_tasks={"r": {"match": "* * * * *", "handler": noop}},
    )
    with pytest.raises(CrontabError) as refused:
        await worker.initialize()
    assert text in str(refused.value)


def test_a_crontab_that_cannot_be_read_is_refused(make_worker, tmp_path):
    with pytest.raises(ConfigurationError, match="cannot be read"):
        make_worker(crontab_file=tmp_path / "missing")
    with pytest.raises(ConfigurationError, match="Give either"):
        make_worker(crontab="", crontab_file="x")
    with pytest.raises(CrontabError, match="line '1'"):
        make_worker(crontab="foo")


async def test_nothing_is_registered_while_the_worker_runs(make_worker):
    worker = make_worker(recurring_tasks={"r": {"match": "0 0 1 1 *", "handler": noop}})
    try:
        await worker.initialize()
        with pytest.raises(ConfigurationError, match="before initialize"):
            worker.recurring("s", match="* * * * *")(noop)
    finally:
        await worker.stop()


# What ZodWorker did.


async def run_vector(make_worker, jobs, case, payload, **options):
    """Run one job of the recurring task "r" as the vector's; returns what its handler was called with."""
    vector, calls = VECTORS[case], []

    def handler(run, job, helpers):
        calls.append(
            {"argc": 3, "arg0": {"ts": f"{run.ts:%Y-%m-%dT%H:%M:%S}.000Z", "backfilled": run.backfilled}}
        )  # fmt: skip
        if "throws" in case:
            raise RuntimeError("h")

    worker = make_worker(
        recurring_tasks={"r": {"match": "* * * * *", "handler": handler}}, delete_failed_jobs=True
    )
    await jobs.add("r", payload, **options)
    await worker.run_once()
    assert calls == vector["handlerCalls"]
    return vector


async def test_recurring_ok(make_worker, jobs):
    payload = {"_cron": {"ts": "2024-06-01T12:00:00.000Z", "backfilled": False}}
    await run_vector(make_worker, jobs, "recurring ok", payload)
    assert await jobs.empty()


async def test_recurring_bad_payload(make_worker, jobs):
    vector = await run_vector(make_worker, jobs, "recurring bad payload", {"id": "p1"})
    [job] = await jobs.all()
    text = "Failed to parse recurring task payload: "
    assert vector["result"].startswith(f"throws Error: {text}")
    assert job["last_error"].startswith(f"PayloadValidationError: {text}")
    assert "_cron" in job["last_error"]


async def test_recurring_handler_throws_last_attempt(make_worker, jobs):
    """Kept even where failed jobs are deleted (P-45)."""
    payload = {"_cron": {"ts": "2024-06-01T12:00:00.000Z", "backfilled": True}}
    case = "recurring handler throws last attempt"
    await run_vector(make_worker, jobs, case, payload, max_attempts=1)
    [job] = await jobs.all()
    assert (job["attempts"], job["last_error"]) == (1, "RuntimeError: h")
