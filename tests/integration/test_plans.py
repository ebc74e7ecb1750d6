"""What statements read of large tables: indexes where there are some, and else each table once.

The plans are those of the product's own calls: each statement is explained before it runs, with one plan
for all values, as a worker's prepared statements have it, and with a plan for each, as behind a pooler.
"""

import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from attrs import field, frozen
from psycopg import AsyncClientCursor, AsyncConnection, AsyncCursor, sql

from zodworker_compat.database import admin_async as admin
from zodworker_compat.database import heartbeat, jobs_async, limiter, look_async, maintenance, queue
from zodworker_compat.database.job_filter import JobFilter
from zodworker_compat.database.own_tables import ensure_own_tables
from zodworker_compat.database.sessions import Session
from zodworker_compat.options import JobSpec

SCHEMA = "graphile_worker"
OURS = "pool-ours"
QUEUES = 2_000
JOBS = 24_000
FEW = 3_000
"""Rows that a statement may read which has an index: those of its batch of 100, several times."""
BLOCKS = 12_000
"""Blocks of 8 kB that it may touch, its writes included; reading past all dead rows takes 40,000."""

FILL = f"""
with task as (
    insert into graphile_worker._private_tasks (identifier) values ('task'), ('other') returning id
),
queue as (
    insert into graphile_worker._private_job_queues (queue_name, locked_at, locked_by)
    select 'q' || n, case when n % 50 = 0 then now() end, case when n % 50 = 0 then 'pool-other' end
    from generate_series(1, {QUEUES}) n
    returning id
)
insert into graphile_worker._private_jobs
    (task_id, job_queue_id, priority, run_at, attempts, max_attempts, locked_at, locked_by, key, flags)
select
    (select min(id) from task),
    case when kind = 'queued' or kind = 'ours' and n % 2 = 0
        then (select min(id) from queue) + n % {QUEUES} end,
    n % 3,
    now() - n * interval '1 ms' + case kind when 'future' then interval '1 day' else '0' end,
    case kind when 'failed' then 25 when 'stuck' then 1 when 'ours' then 1 else 0 end,
    25,
    case when kind in ('stuck', 'ours') then now() - interval '2 hours' end,
    case kind when 'stuck' then 'pool-dead-' || n % 10 when 'ours' then 'pool-ours' end,
    case when n % 10 = 0 then kind || n end,
    case when n % 5 = 0 then '{{"rl:a": true}}'::jsonb end
from (
    values ('plain', 8000), ('queued', 8000), ('future', 4000), ('stuck', 3700), ('failed', 100),
        ('ours', 200)
) as sort (kind, jobs)
cross join lateral generate_series(1, jobs) as n
"""
# What a long run leaves behind: rows that were deleted, at the head of the queue, and not vacuumed.
CHURN = """
insert into graphile_worker._private_jobs (task_id, job_queue_id, priority, run_at)
select task_id, case when n % 2 = 0 then job_queue_id end, -1, '2020-01-01'
from (select task_id, job_queue_id from graphile_worker._private_jobs where job_queue_id is not null limit 1)
    as any_job, generate_series(1, 40000) n;
delete from graphile_worker._private_jobs where priority = -1
"""


@pytest.fixture(scope="module")
def filled(request, server, migrated_template: str) -> Iterator[str]:
    """The URL of a database with many jobs of all kinds, in the state of the parameter."""
    name = f"plans_{secrets.token_hex(6)}"
    create = sql.SQL("create database {} template {}")
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute(create.format(*map(sql.Identifier, (name, migrated_template))))
        try:
            with psycopg.connect(server.dsn(name), autocommit=True) as inside:
                fill(inside, request.param)
            yield server.dsn(name)
        finally:
            connection.execute(
                sql.SQL("drop database {} with (force)").format(sql.Identifier(name))
            )


def fill(connection: psycopg.Connection, state: str) -> None:
    for table in ("_private_jobs", "_private_job_queues"):
        connection.execute(
            f"alter table graphile_worker.{table} set (autovacuum_enabled = off)".encode()
        )
    for subject in ("limiter", "workers"):
        ensure_own_tables(connection, SCHEMA, subject)
    connection.execute("analyze")
    connection.execute(FILL.encode())
    connection.execute(
        "update graphile_worker._private_job_queues as queue set locked_by = job.locked_by,"
        " locked_at = job.locked_at from graphile_worker._private_jobs as job"
        " where job_queue_id = queue.id and job.locked_by = %s",
        [OURS],
    )
    connection.execute(
        "insert into graphile_worker.zodworker_workers (pool_id, name, host, pid, version,"
        " concurrency, tasks, dead_after, beat_at, dead_at) select 'pool-dead-' || n, 'w', 'h', 1,"
        " '1', 5, '{task}', '15 s', now() - interval '1 hour', now() from generate_series(0, 9) n"
    )
    connection.execute(
        "insert into graphile_worker.zodworker_limiter_slots (flag, job_id, pool_id, size)"
        " select 'rl:' || id %% 100, id, locked_by, 10 from graphile_worker._private_jobs"
        " where locked_by = %s limit 20",
        [OURS],
    )
    if state == "not vacuumed":
        connection.execute("analyze")
        connection.execute(CHURN)
    elif state == "analysed":
        connection.execute("vacuum analyze")


@frozen
class Read:
    """What one statement has read."""

    statement: str
    jobs: float
    """Rows of `_private_jobs`, those that it dropped included."""
    queues: float
    blocks: int
    plan: Any = field(repr=False)


class Explainer:
    """Explains each statement of a connection before it runs, and takes back what that did."""

    def __init__(self, connection: AsyncConnection[Any], execute: Any, *, is_generic: bool) -> None:
        self.reads: list[Read] = []
        self._connection = connection
        self._execute = execute
        self._is_generic = is_generic

    async def execute(
        self, cursor: AsyncCursor, query: Any, params: Any = None, **more: Any
    ) -> Any:
        """What `AsyncCursor.execute` is replaced by."""
        text = query.decode() if isinstance(query, bytes) else query
        is_ours = cursor.connection is self._connection and isinstance(text, str)
        if is_ours and re.match(r"\s*(select|with|insert|update|delete)\b", text):
            is_prepared = more.get("prepare") is not False
            await self._explain(text, params or {}, is_generic=self._is_generic and is_prepared)
        return await self._execute(cursor, query, params, **more)

    async def _explain(self, text: str, params: dict[str, Any], *, is_generic: bool) -> None:
        names = list(dict.fromkeys(re.findall(r"%\((\w+)\)s", text)))
        literals = AsyncClientCursor(self._connection)
        if is_generic and names:
            numbered = re.sub(r"%\((\w+)\)s", lambda found: f"${names.index(found[1]) + 1}", text)
            await self._run(f"prepare one as {numbered.replace('%%', '%')}")
            call = f"execute one({', '.join(f'%({name})s' for name in names)})"
            plan = await self._plan(literals.mogrify(call, params))
            await self._run("deallocate one")
        else:
            plan = await self._plan(literals.mogrify(text, params))
        self.reads.append(read_of(text, plan))

    async def _plan(self, text: str) -> dict[str, Any]:
        plan = await self._explained(text)
        # Who first passes dead rows in an index marks them for the next.
        return plan if blocks_of(plan) < BLOCKS else await self._explained(text)

    async def _explained(self, text: str) -> dict[str, Any]:
        async with self._connection.transaction(force_rollback=True):
            cursor = await self._run(f"explain (analyze, buffers, timing off, format json) {text}")
            [[[explained]]] = await cursor.fetchall()
        return explained["Plan"]

    async def _run(self, text: str) -> AsyncCursor:
        return await self._execute(AsyncCursor(self._connection), text.encode())


def read_of(text: str, plan: dict[str, Any]) -> Read:
    rows = {"_private_jobs": 0.0, "_private_job_queues": 0.0}

    def walk(node: dict[str, Any]) -> None:
        if node["Node Type"].endswith("Scan") and (relation := node.get("Relation Name")) in rows:
            seen = sum(
                node.get(name, 0)
                for name in (
                    "Actual Rows",
                    "Rows Removed by Filter",
                    "Rows Removed by Index Recheck",
                )
            )
            rows[relation] += seen * node["Actual Loops"]
        for inner in node.get("Plans", ()):
            walk(inner)

    walk(plan)
    return Read(text, rows["_private_jobs"], rows["_private_job_queues"], blocks_of(plan), plan)


def blocks_of(plan: dict[str, Any]) -> int:
    return plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]


@frozen
class Given:
    """A connection, what was read on it, and what the calls are about."""

    connection: AsyncConnection[Any]
    reads: list[Read]
    tasks: list[int]
    ours: list[int]
    locked_at: list[datetime]
    stuck: list[int]


@pytest.fixture(params=["one plan for all values", "a plan each time"])
async def given(request, filled: str, monkeypatch) -> AsyncIterator[Given]:
    """What the calls get; their work is taken back."""
    is_generic = request.param == "one plan for all values"
    is_fast = request.node.callspec.params["call"].startswith(FAST)
    session = Session(filled, "test", prepared=is_generic, fast=is_fast)
    connection = await session.connection()
    jobs = "graphile_worker._private_jobs"
    ours = f"from {jobs} where locked_by = '{OURS}' order by id limit 100"
    async with connection.transaction(force_rollback=True), session.settings():
        mode = "force_generic_plan" if is_generic else "force_custom_plan"
        await connection.execute(f"set local plan_cache_mode = {mode}".encode())
        await connection.execute("set local jit = off")  # takes longer than all else here
        about = [
            await column(connection, text)
            for text in (
                "select id from graphile_worker._private_tasks",
                f"select id {ours}",
                f"select locked_at {ours}",
                f"select id from {jobs} where locked_by = 'pool-dead-1' limit 100",
            )
        ]
        explainer = Explainer(connection, AsyncCursor.execute, is_generic=is_generic)

        async def execute(cursor: AsyncCursor, *arguments: Any, **more: Any) -> Any:
            return await explainer.execute(cursor, *arguments, **more)

        monkeypatch.setattr(AsyncCursor, "execute", execute)
        yield Given(connection, explainer.reads, *about)
        monkeypatch.undo()
    await session.close()


async def column(connection: AsyncConnection[Any], text: str) -> list[Any]:
    cursor = await connection.execute(text.encode())
    return [row[0] for row in await cursor.fetchall()]


FAST = ("claim", "complete", "fail", "give back", "hand")
"""What runs with settings of its own, see `Session.settings`."""
Call = Callable[[Given], Awaitable[object]]
HOUR = timedelta(hours=1)
NONE = [None] * 100

BY_INDEX: dict[str, Call] = {
    "claim": lambda o: queue.claim(o.connection, SCHEMA, OURS, o.tasks, 100),
    "claim of one": lambda o: queue.claim(o.connection, SCHEMA, OURS, o.tasks, 1),
    "claim without queues": lambda o: queue.claim(
        o.connection, SCHEMA, OURS, o.tasks, 100, with_queues=False
    ),
    "claim with forbidden flags": lambda o: queue.claim(
        o.connection, SCHEMA, OURS, o.tasks, 100, ["rl:b"]
    ),
    "complete": lambda o: queue.complete(o.connection, SCHEMA, OURS, o.ours),
    "complete, careful": lambda o: queue.complete(o.connection, SCHEMA, OURS, o.ours, careful=True),
    "fail": lambda o: queue.fail(
        o.connection, SCHEMA, OURS, o.ours, o.locked_at, NONE, NONE, [False] * 100
    ),
    "fail, careful": lambda o: queue.fail(
        o.connection, SCHEMA, OURS, o.ours, o.locked_at, NONE, NONE, [False] * 100, careful=True
    ),
    "give back": lambda o: queue.return_jobs(o.connection, SCHEMA, OURS, o.ours, o.locked_at, NONE),
    "put back": lambda o: queue.reschedule(o.connection, SCHEMA, OURS, o.ours[0], "{}"),
    "hand queues over": lambda o: queue.hand_over(o.connection, SCHEMA, range(1, 100)),
    "resolve tasks": lambda o: queue.resolve_tasks(o.connection, SCHEMA, ["task", "other"]),
    "enqueue": lambda o: jobs_async.add_job(
        o.connection,
        SCHEMA,
        JobSpec(identifier="task", payload="{}", queue_name="q1", job_key="plain10"),
    ),
    "enqueue many": lambda o: jobs_async.insert_jobs(
        o.connection,
        SCHEMA,
        [JobSpec(identifier="task", payload="{}", queue_name=f"q{n}") for n in range(1, 100)],
    ),
    "refresh locks": lambda o: heartbeat.refresh_locks(o.connection, SCHEMA, OURS, o.ours),
    "beat": lambda o: heartbeat.beat(o.connection, SCHEMA, OURS),
    "forbidden flags": lambda o: limiter.forbidden(o.connection, SCHEMA, HOUR),
    "take a slot": lambda o: limiter.take(
        o.connection, SCHEMA, (o.ours[0], OURS), {"rl:1": 1000}, HOUR
    ),
    "give a slot back": lambda o: limiter.release(o.connection, SCHEMA, o.ours[0], ["rl:1"], HOUR),
    "list, oldest first": lambda o: look_async.list_jobs(o.connection, SCHEMA, JobFilter()),
    "list, newest first": lambda o: look_async.list_jobs(
        o.connection, SCHEMA, JobFilter(), sort="newest"
    ),
    "list, next first": lambda o: look_async.list_jobs(
        o.connection, SCHEMA, JobFilter(), sort="next"
    ),
    "list by id": lambda o: look_async.list_jobs(o.connection, SCHEMA, JobFilter(ids=o.ours)),
    "list by key": lambda o: look_async.list_jobs(
        o.connection, SCHEMA, JobFilter(keys=["plain10", "queued10"])
    ),
    "act on ids": lambda o: acted(o, JobFilter(ids=o.stuck)),
}
"""What an index serves: as long as the batch, not as the table."""

ONCE: dict[str, Call] = {
    "what a pool holds": lambda o: queue.held_jobs(o.connection, SCHEMA, OURS),
    "sweep": lambda o: queue.sweep(o.connection, SCHEMA),
    "recover": lambda o: heartbeat.recover(o.connection, SCHEMA, again=True),
    "expired jobs": lambda o: maintenance.lock_expired_jobs(
        o.connection, SCHEMA, datetime.now(UTC), 1000
    ),
    "count jobs": lambda o: maintenance.count_jobs(
        o.connection, SCHEMA, datetime.now(UTC) - HOUR, datetime.now(UTC)
    ),
    "delete failed jobs": lambda o: admin.cleanup(
        o.connection, SCHEMA, "DELETE_PERMAFAILED_JOBS", []
    ),
    "delete tasks": lambda o: admin.cleanup(o.connection, SCHEMA, "GC_TASK_IDENTIFIERS", []),
    "delete queues": lambda o: admin.cleanup(o.connection, SCHEMA, "GC_JOB_QUEUES", []),
    "status": lambda o: look_async.read_status(o.connection, SCHEMA, errors=5),
    "look at one job": lambda o: look_async.read_job(o.connection, SCHEMA, o.ours[0]),
    "list, first due": lambda o: look_async.list_jobs(
        o.connection, SCHEMA, JobFilter(), sort="due"
    ),
    "list, longest running": lambda o: look_async.list_jobs(
        o.connection, SCHEMA, JobFilter(), sort="locked"
    ),
    "list failed": lambda o: look_async.list_jobs(
        o.connection, SCHEMA, JobFilter(states=["failed"])
    ),
    "preview": lambda o: look_async.preview(o.connection, SCHEMA, JobFilter(queues=["q1"])),
    "act on failed": lambda o: acted(o, JobFilter(states=["failed"])),
}
"""What no index serves: graphile-worker's tables have none for it, and they are its own."""


async def acted(given: Given, where: JobFilter) -> None:
    async for _ in admin.act_on(given.connection, SCHEMA, "fail", where, {"reason": "by hand"}):
        pass


@pytest.mark.parametrize(
    "filled", ["analysed", "analysed when empty", "not vacuumed"], indirect=True
)
@pytest.mark.parametrize("call", BY_INDEX)
async def test_what_an_index_serves_reads_no_more_than_its_batch(given, call) -> None:
    await BY_INDEX[call](given)
    assert given.reads
    for read in given.reads:
        assert read.jobs + read.queues < FEW, read.plan
        assert read.blocks < BLOCKS, read.plan


@pytest.mark.parametrize("filled", ["analysed", "analysed when empty"], indirect=True)
@pytest.mark.parametrize("call", ONCE)
async def test_what_no_index_serves_reads_the_tables_once(given, call) -> None:
    await ONCE[call](given)
    assert given.reads
    for read in given.reads:
        assert read.jobs < 1.25 * JOBS, read.plan
        assert read.queues < 3.1 * QUEUES, read.plan
