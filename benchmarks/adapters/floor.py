"""The floor: what graphile-worker's table allows, by plain statements without a queue around them.

Six columns, no named queues, no validation; binary protocol, prepared statements and
`synchronous_commit = off` for claim and delete, as ours. With two connections, the next claim runs
while the last delete does.
"""

import asyncio
import json
from typing import Any

import psycopg
from psycopg import AsyncConnection

from benchmarks.adapters import ours
from benchmarks.adapters.common import Handlers, Payload, main, say

CLAIM = """
    with picked as (
        select id from graphile_worker._private_jobs
        where is_available and run_at <= now() and task_id = any (%(tasks)s::integer[])
        order by priority, run_at
        limit %(batch)s
        for update skip locked
    )
    update graphile_worker._private_jobs as job
    set attempts = job.attempts + 1, locked_by = 'floor', locked_at = now()
    from picked where job.id = picked.id
    returning job.id, job.task_id, job.job_queue_id, job.payload::text, job.attempts,
        job.max_attempts
"""
DELETE = "delete from graphile_worker._private_jobs where id = any (%(ids)s::bigint[])"
TASK = """
    insert into graphile_worker._private_tasks (identifier) values (%s)
    on conflict (identifier) do update set identifier = excluded.identifier returning id
"""
ADD_JOB = "select id from graphile_worker.add_job(%s, %s::json)"
ADD_JOBS = """
    select count(*) from graphile_worker.add_jobs(array(
        select row('trivial', one, null, null, null, null, null, null)::graphile_worker.job_spec
        from json_array_elements(%s::json) as one
    ))
"""
INSERT = "insert into graphile_worker._private_jobs (task_id, payload) values (%s, %s)"
COPY = "copy graphile_worker._private_jobs (task_id, payload) from stdin"


async def open_connection(url: str) -> AsyncConnection[Any]:
    return await AsyncConnection.connect(url, autocommit=True, prepare_threshold=0)


async def task_id(connection: AsyncConnection[Any], task: str) -> int:
    row = await (await connection.execute(TASK, (task,))).fetchone()
    assert row is not None  # noqa: S101 - the statement always returns a row
    return int(row[0])


async def work(url: str, settings: dict[str, Any], handlers: Handlers) -> None:
    claims, deletes = [await open_connection(url) for _ in range(2)]
    for connection in (claims, deletes):
        await connection.execute("set synchronous_commit to off")
        await connection.execute("set enable_seqscan to off")
    if settings["connections"] == 1:
        deletes = claims
    tasks = [await task_id(claims, task) for task in ("trivial", "probe")]
    claim = {"tasks": tasks, "batch": settings["batch"]}
    if settings.get("listens"):
        await answer_notifications(url, claims, deletes, claim, handlers)
    deleting: asyncio.Future[Any] = asyncio.ensure_future(asyncio.sleep(0))
    say(ready=True)
    while True:
        async with claims.cursor(binary=True) as cursor:
            await cursor.execute(CLAIM, claim)
            jobs = await cursor.fetchall()
        handlers.count(len(jobs))
        await deleting
        if jobs:
            ids = {"ids": [job[0] for job in jobs]}
            deleting = asyncio.ensure_future(deletes.execute(DELETE, ids))
        else:
            await asyncio.sleep(0.005)
        if deletes is claims:
            await deleting


async def answer_notifications(
    url: str,
    claims: AsyncConnection[Any],
    deletes: AsyncConnection[Any],
    claim: dict[str, Any],
    handlers: Handlers,
) -> None:
    """Run jobs one by one as they are announced: the least that latency can be."""
    listening = await open_connection(url)
    await listening.execute('listen "jobs:insert"')
    say(ready=True)
    async with claims.cursor(binary=True) as cursor:
        async for _ in listening.notifies():
            while job := await (await cursor.execute(CLAIM, claim)).fetchone():
                await handlers.probe(json.loads(job[3]))
                await deletes.execute(DELETE, {"ids": [job[0]]})


class FunctionEnqueuer:
    """graphile-worker's functions on one connection: `add_job`; `add_jobs` from one document."""

    shared = False

    def __init__(self, connection: AsyncConnection[Any]) -> None:
        self._connection = connection

    async def one(self, task: str, given: Payload) -> None:
        await self._connection.execute(ADD_JOB, (task, json.dumps(given)))

    async def bulk(self, _task: str, given: list[Payload]) -> None:
        await self._connection.execute(ADD_JOBS, (json.dumps(given),))


class TableEnqueuer:
    """Rows for a task that is known: INSERT and COPY, without a notification."""

    shared = False

    def __init__(self, connection: AsyncConnection[Any], task: int) -> None:
        self._connection = connection
        self._task = task

    async def one(self, _task: str, given: Payload) -> None:
        await self._connection.execute(INSERT, (self._task, json.dumps(given)))

    async def bulk(self, _task: str, given: list[Payload]) -> None:
        async with (
            self._connection.cursor() as cursor,
            cursor.copy(psycopg.sql.SQL(COPY)) as copy,
        ):
            for one in given:
                await copy.write_row((self._task, json.dumps(one)))


async def connect(url: str, settings: dict[str, Any]) -> FunctionEnqueuer | TableEnqueuer:
    connection = await open_connection(url)
    if settings["enqueue"] == "functions":
        return FunctionEnqueuer(connection)
    return TableEnqueuer(connection, await task_id(connection, "trivial"))


if __name__ == "__main__":
    main(ours.install, work, connect)
