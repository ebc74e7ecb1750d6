"""A database that a Node fleet has used is taken over with all that is in it, or not touched at all."""

import asyncio
import json
import os
import subprocess
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row

from zodworker_compat import RunnerOptions, ZodWorker
from zodworker_compat.database.migrate_async import migrate
from zodworker_compat.errors import MigrationError

HERE = Path(__file__).parent
ODD_SCHEMA = 'my "odd" Schema, 100% :schema'
EVERYTHING = """
    select 'class' as kind, oid::text as id, xmin::text as version from pg_class
    where relnamespace = %(schema)s::regnamespace
    union all
    select 'function', oid::text, xmin::text from pg_proc
    where pronamespace = %(schema)s::regnamespace
    union all
    select 'type', oid::text, xmin::text from pg_type
    where typnamespace = %(schema)s::regnamespace
"""


@pytest.fixture(params=["graphile_worker", ODD_SCHEMA])
def tables(request, empty_database):
    with psycopg.connect(empty_database, autocommit=True, row_factory=dict_row) as connection:
        yield Tables(empty_database, request.param, connection)


class Tables:
    """One schema of a database."""

    def __init__(self, url, schema, connection):
        self.url, self.schema, self._connection = url, schema, connection

    def execute(self, query, *parameters):
        quoted = sql.Identifier(self.schema).as_string().replace("%", "%%")
        cursor = self._connection.execute(query.replace("{schema}", quoted), parameters)
        return cursor.fetchall() if cursor.description else []

    def snapshot(self):
        """All objects and rows, with the transactions that wrote them."""
        quoted = sql.Identifier(self.schema).as_string()
        found = {"": self._connection.execute(EVERYTHING, {"schema": quoted}).fetchall()}
        tables = self._connection.execute(
            "select relname from pg_class where relnamespace = %s::regnamespace and relkind = 'r'",
            [quoted],
        )
        for table in tables.fetchall():
            name = sql.Identifier(self.schema, table["relname"])
            rows = sql.SQL("select ctid, xmin::text, row.*::text from {} as row").format(name)
            found[table["relname"]] = self._connection.execute(rows).fetchall()
        return {
            name: sorted(rows, key=lambda row: json.dumps(row, default=str))
            for name, rows in found.items()
        }

    async def migrate(self):
        async with await psycopg.AsyncConnection.connect(self.url, autocommit=True) as connection:
            return await migrate(connection, self.schema)

    def worker(self, *identifiers):
        """A Python worker, and the list of what its handlers get."""
        worker = ZodWorker(
            name="test",
            runner_options=RunnerOptions(connection_string=self.url, schema=self.schema),
        )
        ran = []
        for identifier in identifiers:
            worker.task(identifier, schema=True)(ran.append)
        return worker, ran


def add_13(tables, identifier, payload, **columns):
    """Add a job as the schema of 0.13 does; `columns` are set in the row."""
    [row] = tables.execute(
        "select id from {schema}.add_job(%s, %s, queue_name => 'q')",
        identifier,
        json.dumps(payload),
    )
    for name, value in columns.items():
        tables.execute(f"update {{schema}}.jobs set {name} = %s where id = %s", value, row["id"])


async def test_a_database_of_0_13_is_refused_with_the_way_to_upgrade_and_not_touched(node, tables):
    node("migrate", "0.13", tables.url, tables.schema)
    # Younger than ten seconds, it could be one that is just being installed.
    tables.execute("update {schema}.migrations set ts = ts - interval '1 day'")
    add_13(tables, "one", {"from": 13})
    add_13(tables, "two", {"from": 13}, attempts=25, last_error="lost")
    before = tables.snapshot()

    for attempt in (tables.migrate, tables.worker("one")[0].initialize):
        with pytest.raises(MigrationError) as refused:
            await attempt()
        assert "revision 10" in str(refused.value)
        assert "npx graphile-worker@0.16.6 --schema-only" in str(refused.value)
        assert "Nothing was changed" in str(refused.value)

    assert tables.snapshot() == before


async def test_the_way_to_upgrade_keeps_the_jobs_of_0_13(node, tables):
    node("migrate", "0.13", tables.url, tables.schema)
    add_13(tables, "one", {"ready": True})
    add_13(tables, "one", {"later": True}, run_at="2040-01-01")
    add_13(tables, "one", {"failed": True}, attempts=25, last_error="lost")
    node("migrate", "0.16", tables.url, tables.schema)
    before = tables.snapshot()
    assert (await tables.migrate()).revision == 18
    assert tables.snapshot() == before
    worker, ran = tables.worker("one")
    await worker.run_once()
    assert ran == [{"ready": True}]
    left = tables.execute(
        "select payload, last_error from {schema}._private_jobs order by last_error nulls first"
    )
    assert left == [
        {"payload": {"later": True}, "last_error": None},
        {"payload": {"failed": True}, "last_error": "lost"},
    ]


@pytest.mark.parametrize(("version", "revision"), [("0.16", 18), ("0.17", 19)])
async def test_what_a_node_fleet_left_is_found_in_every_state(node, tables, version, revision):
    def spec(**options):
        return {"maxAttempts": 3, **options}

    calls = [
        ["addJob", "one", {"n": "ready"}, spec(queueName="q", jobKey="k", flags=["a"])],
        ["addJob", "one", {"n": "queued"}, spec(queueName="q")],
        ["addJob", "one", {"n": "later"}, spec()],
        ["addJob", "one", {"n": "failed"}, spec(priority=-3)],
        ["addJob", "one", {"n": "held"}, spec(queueName="held")],
        ["addJob", "one", {"n": "behind"}, spec(queueName="held")],
        ["addJob", "unknown", {"n": "foreign"}, spec()],
        ["permanentlyFailJobs", ["4"], "lost"],
    ]
    node("admin", version, tables.url, tables.schema, json.dumps(calls))
    for table, condition in (
        ("_private_jobs", "id = 5"),
        ("_private_job_queues", "queue_name = 'held'"),
    ):
        tables.execute(
            f"update {{schema}}.{table} set locked_at = now(), locked_by = 'worker-1'"
            f" where {condition}"
        )
    tables.execute("update {schema}._private_jobs set run_at = '2040-01-01' where id = 3")
    before = tables.snapshot()

    assert (await tables.migrate()).revision == revision
    assert tables.snapshot() == before
    worker, ran = tables.worker("one")
    await worker.run_once()

    assert [payload["n"] for payload in ran] == ["ready", "queued"]
    left = tables.execute("select payload->>'n' as n from {schema}._private_jobs order by id")
    assert [row["n"] for row in left] == ["later", "failed", "held", "behind", "foreign"]


@pytest.mark.parametrize("version", ["0.16", "0.17"])
async def test_a_running_node_worker_goes_on_when_python_comes_and_leaves(
    tables, version, node, node_modules, process, eventually
):
    """Neither a start on a schema that is complete nor a stop may tell Node anything but jobs."""
    node("migrate", version, tables.url, tables.schema)
    tables.execute("create table gates (name text)")
    tables.execute(
        "create table ledger (id serial, side text, identifier text, job_id bigint, attempt int,"
        " queue text, payload json, ended timestamptz, ok boolean)"
    )
    options = json.dumps({"tasks": ["theirs"], "pollInterval": 600_000})
    running = process(
        ["node", HERE / "node" / "fleet.js", version, tables.url, tables.schema, options],
        env={"NODE_PATH": os.fspath(node_modules)},
        stdin=subprocess.PIPE,
    )
    await eventually(lambda: "ready" in running.output or not running.running, timeout=60)
    before = tables.execute("select * from {schema}.migrations")

    worker, ran = tables.worker("ours")
    await worker.initialize()
    for done in range(2):
        tables.execute("select {schema}.add_job('theirs')")
        await eventually(
            lambda done=done: len(tables.execute("select 1 from ledger where ok")) > done,
            timeout=60,
        )
        await worker.stop()

    assert running.running, running.errors
    running.popen.stdin.close()
    assert await asyncio.to_thread(running.wait) == 0, running.errors
    assert ran == []
    assert tables.execute("select * from {schema}.migrations") == before
