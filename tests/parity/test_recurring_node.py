"""A Node and a Python worker with one crontab enqueue each minute's job once, and the same job."""

import asyncio
import os
import subprocess
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row

from zodworker_compat import RunnerOptions, WorkerCatalog, ZodWorker

SCRIPT = Path(__file__).parent / "node" / "recur.js"
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
IDENTIFIERS = ["one", "own", "keyed", "preserving", "unfilled"]


@pytest.fixture(params=["0.16", "0.17"])
def version(request):
    return request.param


class Crontab:
    """A crontab of which nothing is due within minutes of now."""

    def __init__(self):
        self.now = datetime.now(UTC).replace(second=0, microsecond=0)
        self.often = sorted((self.now.minute + far) % 60 for far in (10, 20, 30, 40, 50))
        one, two, three, four = ((self.now.minute + far) % 60 for far in (25, 27, 29, 31))
        self.text = f"""
            {",".join(map(str, self.often))} * * * * one ?fill=1d {{a: 1, b: [true]}}
            {one} */2 * * * two ?id=own&fill=12h&max=3&queue=q&priority=-7 {{_cron: "mine"}}
            {two} * * * * two ?id=keyed&fill=6h&jobKey=k
            {three} * * * * one ?id=preserving&fill=6h&jobKey=p&jobKeyMode=preserve_run_at
            {four} * * * * two ?id=unfilled
        """

    def often_since(self, last):
        """The minutes of its first line between `last` and now."""
        passed = (self.now - last) // MINUTE
        minutes = (last + number * MINUTE for number in range(1, passed + 1))
        return [minute for minute in minutes if minute.minute in self.often]


@pytest.fixture
def crontab():
    return Crontab()


@pytest.fixture
def start_node(node_modules, process, eventually, version, crontab):
    """`async with start_node(url, schema):` a Node worker whose cron has started at its end."""

    @asynccontextmanager
    async def start(url, schema):
        running = process(
            ["node", SCRIPT, version, url, schema, crontab.text],
            env={"NODE_PATH": os.fspath(node_modules)},
            stdin=subprocess.PIPE,
        )
        yield running
        await eventually(lambda: "started" in running.output or not running.running)
        running.popen.stdin.close()
        assert await asyncio.to_thread(running.wait) == 0, running.errors

    return start


@pytest.fixture
def start_python(eventually, crontab):
    """The same for a Python worker."""

    @asynccontextmanager
    async def start(url, schema):
        started = []
        worker = ZodWorker(
            name="test",
            catalog=WorkerCatalog.of(
                schema={"one": True, "two": True, "nobody": True},
                tasks={"one": {}, "two": {}, "nobody": {}},
            ),
            runner_options=RunnerOptions(connection_string=url, schema=schema),
            crontab=crontab.text,
        )
        worker.task("nobody")(lambda payload: None)
        worker.events.on("cron:started", started.append)
        try:
            await worker.initialize()
            yield
            await eventually(lambda: started)
        finally:
            await worker.stop()

    return start


class Tables:
    """The rows of one schema."""

    def __init__(self, url, schema):
        self._connection = psycopg.connect(url, autocommit=True, row_factory=dict_row)
        self._schema = sql.Identifier(schema)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._connection.close()

    def execute(self, query, *parameters):
        cursor = self._connection.execute(sql.SQL(query).format(schema=self._schema), parameters)
        return cursor.fetchall() if cursor.description else []

    def forget(self, last):
        """Make every item of the crontab known for two days, and last executed at `last`."""
        for identifier in IDENTIFIERS:
            self.execute(
                "insert into {schema}._private_known_crontabs values (%s, %s, %s)",
                identifier,
                last - 48 * HOUR,
                last,
            )

    def jobs(self):
        return self.execute(
            "select identifier, payload::text, queue_name, priority, max_attempts, run_at, key, flags,"
            " revision from {schema}._private_jobs job"
            " join {schema}._private_tasks task on task.id = task_id"
            " left join {schema}._private_job_queues queue on queue.id = job_queue_id"
            " order by run_at, identifier, key"
        )

    def known(self):
        return self.execute("select * from {schema}._private_known_crontabs order by identifier")

    def minutes(self, payload):
        """The minutes of the jobs whose payload contains this one, in order."""
        rows = self.execute(
            "select run_at from {schema}._private_jobs where payload::jsonb @> %s::jsonb order by 1",
            payload,
        )
        return [row["run_at"] for row in rows]


async def test_what_was_missed_is_made_up_for_with_the_same_jobs(
    empty_database, node, version, start_node, start_python, crontab
):
    schemas = ["of python", "of node"]
    for schema in schemas:
        node("migrate", version, empty_database, schema)
    with Tables(empty_database, schemas[0]) as ours, Tables(empty_database, schemas[1]) as theirs:
        for tables in (ours, theirs):
            tables.forget(crontab.now - 5 * HOUR)
        async with start_node(empty_database, schemas[1]):
            pass
        async with start_python(empty_database, schemas[0]):
            pass
        assert len(ours.jobs()) > 25
        assert ours.jobs() == theirs.jobs()
        assert ours.known() == theirs.known()


@pytest.mark.parametrize("first", ["node", "python", "both"])
async def test_a_mixed_fleet_enqueues_each_minute_once(
    empty_database, node, version, start_node, start_python, crontab, first
):
    schema = "graphile_worker"
    node("migrate", version, empty_database, schema)
    last = crontab.now - 20 * HOUR
    with Tables(empty_database, schema) as tables:
        tables.forget(last)
        if first == "node":
            async with start_node(empty_database, schema):
                pass
        if first == "both":
            async with start_node(empty_database, schema), start_python(empty_database, schema):
                pass
        async with start_python(empty_database, schema):
            pass
        async with start_node(empty_database, schema):
            pass
        assert tables.minutes('{"a": 1}') == crontab.often_since(last)


async def test_each_knows_the_items_of_the_other(
    empty_database, node, version, start_node, start_python
):
    schema = "graphile_worker"
    node("migrate", version, empty_database, schema)
    with Tables(empty_database, schema) as tables:
        async with start_python(empty_database, schema):
            pass
        ours = tables.known()
        assert [row["identifier"] for row in ours] == sorted(IDENTIFIERS)
        async with start_node(empty_database, schema):
            pass
        assert tables.known() == ours
