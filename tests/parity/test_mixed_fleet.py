"""Node and Python workers on one schema at the same time: every job as often as it must, and at once."""

# ruff: noqa: S311 - chance makes no secrets here
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from collections import defaultdict
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice, pairwise
from pathlib import Path

import psycopg
import pytest
from psycopg.rows import dict_row

from zodworker_compat import Client, PayloadValidationError, RunnerOptions, WorkerCatalog

HERE = Path(__file__).parent
NEVER = 600  # seconds between two polls: who starts a job before that was woken
DEADLINE = 60
MINUTE = timedelta(minutes=1)
HANDLED_BY = {"js": ["node"], "py": ["python"], "both": ["node", "python"]}
CATALOG = WorkerCatalog.of(
    name="fleet",
    schema={
        "js": True,
        "py": True,
        "both": True,
        "checked": {"type": "object", "required": ["email"]},
    },
    tasks={"js": {}, "py": {}, "both": {}, "checked": {}},
)


@pytest.fixture(params=["0.16", "0.17"])
def version(request):
    return request.param


@pytest.fixture
def fleet(database, process, eventually, node_modules):
    with psycopg.connect(database, autocommit=True, row_factory=dict_row) as connection:
        connection.execute(
            """
            create table gates (name text primary key);
            create table ledger (
                id serial primary key,
                side text, identifier text, job_id bigint, attempt int, queue text, payload json,
                started timestamptz default clock_timestamp(), ended timestamptz, ok boolean
            )
            """
        )
        options = RunnerOptions(connection_string=database)
        with closing(Client(CATALOG, runner_options=options)) as client:
            yield Fleet(database, connection, client, process, eventually, node_modules)


class Fleet:
    """The workers of one test, what they enqueue, and what their handlers wrote down."""

    def __init__(self, url, connection, client, process, eventually, node_modules):
        self.url, self.client, self._connection = url, client, connection
        self._process, self._eventually, self._node_modules = process, eventually, node_modules

    async def start_node(self, version, *tasks, poll=NEVER, **options):
        given = {"tasks": tasks, "pollInterval": poll * 1000, "concurrency": 5, **options}
        script = HERE / "node" / "fleet.js"
        node = self._process(
            ["node", script, version, self.url, "graphile_worker", json.dumps(given)],
            env={"NODE_PATH": os.fspath(self._node_modules)},
            stdin=subprocess.PIPE,
        )
        await self.eventually(lambda: "ready" in node.output or not node.running)
        assert node.running, node.errors
        return node

    async def start_python(self, *tasks, poll=NEVER, **options):
        command = [sys.executable, "-m", "zodworker_compat.cli", "run"]
        arguments = ["--app", "fleet_worker:worker", "--database-url", self.url]
        python = self._process(
            [*command, *arguments, "--poll-interval", str(poll)],
            env={"FLEET": json.dumps({"url": self.url, "tasks": tasks, **options})},
            cwd=HERE,
        )
        await self.eventually(lambda: "running on" in python.errors or not python.running)
        assert python.running, python.errors
        return python

    def execute(self, query, *parameters):
        cursor = self._connection.execute(query, parameters)
        return cursor.fetchall() if cursor.description else []

    async def eventually(self, condition):
        return await self._eventually(condition, timeout=DEADLINE)

    async def add_by_node(self, node, jobs):
        """Enqueue (identifier, payload, options) with Node; return the ids."""
        spelt = {"queue_name": "queueName", "job_key": "jobKey", "job_key_mode": "jobKeyMode",
                 "max_attempts": "maxAttempts"}  # fmt: skip
        given = [
            (identifier, payload, {spelt[name]: value for name, value in options.items()})
            for identifier, payload, options in jobs
        ]
        lines = node.output.count("\n")
        node.popen.stdin.write(json.dumps(given).encode() + b"\n")
        node.popen.stdin.flush()
        await self.eventually(lambda: node.output.count("\n") > lines or not node.running)
        return json.loads(node.output.splitlines()[-1])

    async def add_by_python(self, jobs):
        """The same with our client."""
        return [
            int(self.client.enqueue(identifier, payload, **options).id)
            for identifier, payload, options in jobs
        ]

    def open(self, gate):
        """Let the handlers go on that wait at this gate."""
        self.execute("insert into gates values (%s)", gate)

    def ledger(self, **columns):
        """What the handlers of jobs with these columns have written, in the order of their starts."""
        condition = " and ".join(["true", *(f"{name} = %s" for name in columns)])
        return self.execute(
            f"select * from ledger where {condition} order by started", *columns.values()
        )

    def jobs(self, *ids):
        """The rows of these jobs that are still there."""
        return self.execute(
            "select * from graphile_worker._private_jobs where id = any (%s)", [*ids]
        )

    async def started(self, job_id):
        """Wait until a handler has the job; return its row."""
        [row] = await self.eventually(lambda: self.ledger(job_id=job_id))
        return row

    async def drained(self):
        """Wait until no job is left but those that have failed for good, and nothing is locked."""
        await self.eventually(
            lambda: (
                not self.execute(
                    "select 1 from graphile_worker._private_jobs"
                    " where attempts < max_attempts or locked_by is not null"
                    " union all"
                    " select 1 from graphile_worker._private_job_queues where locked_by is not null"
                )
            )
        )


def batched(iterable, size):
    iterator = iter(iterable)
    while part := list(islice(iterator, size)):
        yield part


async def stopped(member):
    """Tell a worker to stop, as its deployment would, and wait until it has."""
    if member.popen.stdin:
        member.popen.stdin.close()
    else:
        member.send(signal.SIGTERM)
    assert await asyncio.to_thread(member.wait) == 0, member.errors


def mixture(count):
    """Jobs for either side or both, in queues or none, that end well, or not at once, or never."""
    for number in range(count):
        identifier = ("js", "py", "both")[number % 3]
        kind = random.choice(["plain", "queued", "queued", "keyed", "retried", "failing"])
        payload = {"n": number, "seconds": random.choice([0, 0, 0.005, 0.02])}
        options = {}
        if kind in {"queued", "retried"}:
            options["queue_name"] = payload["queue"] = f"queue {random.randrange(7)}"
        if kind == "keyed":
            mode = random.choice(["replace", "preserve_run_at", "unsafe_dedupe"])
            options |= {"job_key": f"{mode} {random.randrange(3)}", "job_key_mode": mode}
            payload["mode"] = mode
        if kind == "retried":
            payload["failures"] = 1
        if kind == "failing":
            options["max_attempts"] = payload["failures"] = payload["lost"] = 1
        yield identifier, payload, options


async def test_under_load_every_job_runs_as_often_as_it_must(fleet, version):
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    crontab = "* * * * * both ?id=minutely&fill=4m {cron: true}"
    fleet.execute(
        "insert into graphile_worker._private_known_crontabs values ('minutely', %s, %s)",
        now - 9 * MINUTE,
        now - 3 * MINUTE,
    )
    node, *others = [
        await fleet.start_node(version, "js", "both", poll=0.2, crontab=crontab),
        await fleet.start_python("py", "both", poll=0.2, crontab=crontab),
        await fleet.start_node(version, "js", "both", poll=0.2, crontab=crontab),
        await fleet.start_python("py", "both", poll=0.2, crontab=crontab),
    ]
    said = {}  # job id -> what the last enqueue said of it
    for part in batched(mixture(480), 15):
        said |= zip(await fleet.add_by_node(node, part[::2]), part[::2], strict=True)
        said |= zip(await fleet.add_by_python(part[1::2]), part[1::2], strict=True)
    await fleet.drained()
    for member in (node, *others):
        await stopped(member)

    runs, of_cron = defaultdict(list), []
    for row in fleet.ledger():
        if "cron" in row["payload"]:
            of_cron.append(row["payload"]["_cron"]["ts"])
        else:
            runs[row["job_id"]].append(row)
    assert len(set(of_cron)) == len(of_cron) >= 2
    assert runs.keys() == said.keys()
    for job_id, (identifier, payload, _) in said.items():
        assert_ran(runs[job_id], identifier, payload)
    left = fleet.execute("select id, last_error from graphile_worker._private_jobs")
    assert {row["id"] for row in left} == {
        job_id for job_id, (_, payload, _) in said.items() if "lost" in payload
    }
    assert all("as planned" in row["last_error"] for row in left)
    assert_serial(fleet)


def assert_ran(rows, identifier, payload):
    """One job ran as often as it must, where it must, as it was last told to."""
    if payload.get("mode") == "unsafe_dedupe":  # stays what it was
        identifier, payload = rows[0]["identifier"], rows[0]["payload"]
    failures = payload.get("failures", 0)
    oks = [False] * failures + [True] * ("lost" not in payload)
    assert [row["ok"] for row in rows] == oks, rows
    if "mode" not in payload:  # enqueued again while it runs, a job has used up its attempts
        assert [row["attempt"] for row in rows] == list(range(1, len(oks) + 1)), rows
    for row in rows:
        assert (row["identifier"], row["payload"]) == (identifier, payload)
        assert row["side"] in HANDLED_BY[identifier]


def assert_serial(fleet):
    """No two runs of one queue overlap, and both sides had jobs of each."""
    queues = defaultdict(list)
    for row in fleet.ledger():
        queues[row["queue"]].append(row)
    del queues[None]
    assert len(queues) == 7
    for rows in queues.values():
        assert {row["side"] for row in rows} == {"node", "python"}
        for before, after in pairwise(rows):
            assert before["ended"] <= after["started"], (before, after)


async def test_each_side_wakes_the_other(fleet, version):
    node = await fleet.start_node(version, "js")
    await fleet.start_python("py")
    for _ in range(2):  # the second time both have been idle
        [of_python] = await fleet.add_by_node(node, [("py", {}, {})])
        [of_node] = await fleet.add_by_python([("js", {}, {})])
        assert (await fleet.started(of_python))["side"] == "python"
        assert (await fleet.started(of_node))["side"] == "node"
        await fleet.drained()


@pytest.mark.parametrize(
    ("first", "end"),
    [("py", "completes"), ("py", "fails"), ("py", "stops"), ("js", "completes"), ("js", "fails")],
)
async def test_a_queue_goes_to_the_other_side_without_a_poll(fleet, version, first, end):
    """Nobody tells a Python worker when Node frees a queue, and nobody but us tells Node.

    A Node worker of 0.17 that stops while it runs a job does not free its queue (trap T8).
    """
    second = {"py": "js", "js": "py"}[first]
    members = {"js": await fleet.start_node(version, "js"), "py": await fleet.start_python("py")}
    payload = {"gate": "first", "failures": int(end == "fails")}
    options = {"queue_name": "shared", "max_attempts": 1}
    [holding] = await fleet.add_by_python([(first, payload, options)])
    await fleet.started(holding)
    [waiting] = await fleet.add_by_python([(second, {}, options)])
    # Who has run this one has been told of the other, and did not get it.
    [marker] = await fleet.add_by_python([(second, {}, {})])
    await fleet.started(marker)
    await fleet.eventually(lambda: not fleet.jobs(marker))
    assert not fleet.ledger(job_id=waiting)

    if end == "stops":
        stopping = asyncio.create_task(stopped(members["py"]))
        await fleet.eventually(lambda: "finishing running jobs" in members["py"].errors)
    fleet.open("first")

    await fleet.started(waiting)
    if end == "stops":
        await stopping


async def test_a_breaking_migration_stops_both_sides(fleet, version):
    node, python = await fleet.start_node(version, "js"), await fleet.start_python("py")
    ids = await fleet.add_by_python([("py", {"gate": "last"}, {}), ("js", {"gate": "last"}, {})])
    for job_id in ids:
        await fleet.started(job_id)

    fleet.execute(
        "select pg_notify('worker:migrate', %s)", '{"migrationNumber":20,"breaking":true}'
    )
    await fleet.eventually(
        lambda: (
            not fleet.execute(
                "select 1 from pg_stat_activity where application_name = 'zodworker:fleet'"
                " and starts_with(query, 'listen')"
            )
        )
    )
    fleet.open("last")

    assert await asyncio.to_thread(python.wait) == 57, python.errors
    assert "breaking migration 20" in python.errors
    assert "Traceback" not in python.errors
    assert await asyncio.to_thread(node.wait) == 57, node.errors
    assert [row["ok"] for row in fleet.ledger()] == [True, True]
    of_python, of_node = ids
    assert not fleet.jobs(of_python)
    # Node 0.17 has ended before it could write what became of its job (trap T8).
    assert version == "0.17" or not fleet.jobs(of_node)


async def test_node_0_17_takes_over_from_0_16_and_python_goes_on(fleet):
    """Its start marks the schema as revision 19, which workers of 0.16 end for (trap T2)."""
    old, python = await fleet.start_node("0.16", "js"), await fleet.start_python("py")
    await fleet.start_node("0.17", "js")
    assert await asyncio.to_thread(old.wait) == 57, old.errors
    for job_id in await fleet.add_by_python([("js", {}, {}), ("py", {}, {})]):
        await fleet.started(job_id)
    await fleet.drained()
    await stopped(python)


async def test_each_side_enqueues_what_the_other_runs_and_python_validates_both(fleet, version):
    node = await fleet.start_node(version, "js")
    await fleet.start_python("checked")
    fine, wrong, missing = await fleet.add_by_node(
        node,
        [("checked", {"email": "a@b.c"}, {}), ("checked", {"email": 7}, {}), ("checked", {}, {})],
    )
    assert (await fleet.started(fine))["payload"] == {"email": "a@b.c"}
    await fleet.eventually(lambda: all(row["last_error"] for row in fleet.jobs(wrong, missing)))
    errors = {row["id"]: row["last_error"] for row in fleet.jobs(wrong, missing)}
    assert "/email" in errors[wrong]
    assert "/email: is required" in errors[missing]
    assert [row["job_id"] for row in fleet.ledger()] == [fine]

    with pytest.raises(PayloadValidationError, match="email"):
        fleet.client.enqueue("checked", {})
    payload = {"at": datetime(2030, 1, 2, tzinfo=UTC), "text": "ß\u2028", "list": [1, 2.5, None]}
    [echo] = await fleet.add_by_python([("js", payload, {})])
    row = await fleet.started(echo)
    assert row["payload"] == payload | {"at": "2030-01-02T00:00:00.000Z"}


@pytest.mark.parametrize("killed", ["node", "python"])
async def test_what_a_killed_side_held_is_run_by_the_other_once_it_is_unlocked(
    fleet, version, node, killed
):
    start = {
        "node": partial(fleet.start_node, version, "js", "both", poll=0.2),
        "python": partial(fleet.start_python, "py", "both", poll=0.2),
    }
    [survivor] = [side for side in start if side != killed]
    victim = await start[killed]()
    jobs = [("both", {"gate": "again"}, {"queue_name": "q"})]
    jobs += [("both", {"gate": "again"}, {})] * 4
    ids = await fleet.add_by_python(jobs)
    for job_id in ids:
        await fleet.started(job_id)
    await start[survivor]()
    [behind] = await fleet.add_by_python([("both", {}, {"queue_name": "q"})])
    [own] = await fleet.add_by_python([({"node": "js", "python": "py"}[killed], {}, {})])

    victim.end()

    held_by = {row["locked_by"] for row in fleet.jobs(*ids)}
    if killed == "python":
        node("admin", version, fleet.url, "graphile_worker",
             json.dumps([["forceUnlockWorkers", [*held_by]]]))  # fmt: skip
    else:
        fleet.client.force_unlock_workers(held_by)
    fleet.open("again")

    await fleet.eventually(lambda: not fleet.jobs(*ids, behind))
    for job_id in ids:
        rows = fleet.ledger(job_id=job_id)
        assert [(row["side"], row["attempt"], row["ok"]) for row in rows] == [
            (killed, 1, None),
            (survivor, 2, True),
        ]
    assert [row["side"] for row in fleet.ledger(job_id=behind)] == [survivor]
    assert not fleet.ledger(job_id=own)  # waits for a worker of its side
    await start[killed]()
    await fleet.started(own)
    await fleet.drained()
