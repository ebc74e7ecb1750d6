"""Runs one worker under load on a deep backlog for minutes: does anything grow?

`python -m benchmarks.soak --minutes 6` prints a line each minute: jobs per second, the median and the
95th percentile of the statements that claim and complete, the memory of the worker, the size and the dead
rows of the tables. As many jobs are enqueued as were completed, so the backlog stays.
"""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click
import psycopg
from attrs import define, field

from benchmarks.stage import SETTINGS, on_disk
from zodworker_compat import RunnerOptions, ZodWorker
from zodworker_compat.database import queue
from zodworker_compat.database.migrate import migrate
from zodworker_compat.embedded import EmbeddedPostgres

FILL = """
with task as (
    insert into graphile_worker._private_tasks (identifier) values ('soak')
    on conflict (identifier) do update set identifier = excluded.identifier
    returning id
),
queue as (
    insert into graphile_worker._private_job_queues (queue_name)
    select 'q' || n from generate_series(1, %(queues)s) n
    returning id
)
insert into graphile_worker._private_jobs
    (task_id, job_queue_id, payload, run_at, attempts, locked_at, locked_by)
select
    task.id,
    case when kind = 'ready' and n %% 10 = 0 then (select min(id) from queue) + n / 10 %% %(queues)s end,
    json_build_object('n', n),
    now() + case kind when 'future' then interval '1 day' else - interval '1 second' end,
    (kind = 'stuck')::int,
    case kind when 'stuck' then now() end,
    case kind when 'stuck' then 'pool-of-others' end
from task, unnest(array['ready', 'future', 'stuck'], %(counts)s::int[]) as sort (kind, jobs)
cross join lateral generate_series(1, jobs) as n
"""
MORE = """
with place as (select min(id) as first, count(*) as queues from graphile_worker._private_job_queues)
insert into graphile_worker._private_jobs (task_id, job_queue_id, payload)
select
    task.id,
    case when n %% 10 = 0 then first + (random() * (queues - 1))::int end,
    json_build_object('n', n)
from graphile_worker._private_tasks as task, place, generate_series(1, %s) as n
where identifier = 'soak'
"""
TABLES = """
select
    pg_total_relation_size('graphile_worker._private_jobs') / 2^20,
    pg_total_relation_size('graphile_worker._private_job_queues') / 2^20,
    sum(n_dead_tup),
    sum(autovacuum_count)
from pg_stat_user_tables
where relname in ('_private_jobs', '_private_job_queues')
"""


@define
class Timed:
    """A function of `database.queue`, with the milliseconds of its calls."""

    function: Callable[..., Awaitable[Any]]
    milliseconds: list[float] = field(factory=list)

    async def __call__(self, *arguments: Any, **more: Any) -> Any:
        start = time.perf_counter()
        try:
            return await self.function(*arguments, **more)
        finally:
            self.milliseconds.append((time.perf_counter() - start) * 1000)


def resident() -> float:
    """Return the memory of this process in MB."""
    with open("/proc/self/status", encoding="ascii") as status:  # noqa: PTH123
        [line] = [line for line in status if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


async def work(url: str) -> None:
    """Run jobs; print a line of JSON each second."""
    claim = queue.claim = Timed(queue.claim)  # type: ignore[assignment]
    complete = queue.complete = Timed(queue.complete)  # type: ignore[assignment]
    done = 0
    worker = ZodWorker(
        name="soak", runner_options=RunnerOptions(connection_string=url, concurrency=24)
    )

    @worker.task("soak", schema=True)
    async def soak(_payload: Any) -> None:
        nonlocal done
        done += 1

    await worker.initialize()
    while True:
        await asyncio.sleep(1)
        told = {
            "done": done,
            "rss": resident(),
            "claim": claim.milliseconds,
            "complete": complete.milliseconds,
        }
        print(json.dumps(told), flush=True)
        claim.milliseconds, complete.milliseconds = [], []


def shown(milliseconds: list[float]) -> str:
    """Return the median and the 95th percentile."""
    ordered = sorted(milliseconds) or [0.0]
    return " ".join(f"{ordered[int(len(ordered) * part)]:7.1f}" for part in (0.5, 0.95))


@contextmanager
def server(url: str | None) -> Iterator[str]:
    """Give an empty database: the given one, or one of our own on the disk."""
    if url:
        yield url
    else:
        with EmbeddedPostgres(settings=SETTINGS, environ=on_disk()) as embedded:
            yield embedded.dsn()


async def watch(url: str, minutes: int, counts: list[int], queues: int) -> None:
    """Fill the tables, start the worker, print what it says."""
    with psycopg.connect(url, autocommit=True) as connection:
        migrate(connection)
        connection.execute(FILL, {"queues": queues, "counts": counts})
        connection.execute("vacuum analyze")
        worker = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "benchmarks.soak", "--work-on", url, stdout=-1, limit=2**24
        )
        assert worker.stdout is not None  # noqa: S101 - it is a pipe
        print("minute  jobs/s  claim p50  p95 ms  complete p50  p95 ms  RSS MB  jobs MB  queues MB"
              "    dead rows  vacuums")  # fmt: skip
        try:
            before = 0
            for minute in range(1, minutes + 1):
                start, at_start, claims, completes = time.monotonic(), before, [], []
                while time.monotonic() < start + 60:
                    told = json.loads(await worker.stdout.readline())
                    connection.execute(MORE, [told["done"] - before])
                    connection.execute("select pg_notify('jobs:insert', '{}')")
                    before = told["done"]
                    claims += told["claim"]
                    completes += told["complete"]
                rate = (before - at_start) / (time.monotonic() - start)
                row = connection.execute(TABLES).fetchone()
                assert row is not None  # noqa: S101 - an aggregate
                print(f"{minute:6} {rate:7.0f} {shown(claims):>18} {shown(completes):>21} "
                      f"{told['rss']:7.0f} {row[0]:8.0f} {row[1]:10.1f} {row[2]:12} {row[3]:8}",
                      flush=True)  # fmt: skip
        finally:
            worker.kill()
            await worker.wait()


@click.command()
@click.option("--minutes", type=click.IntRange(min=1), default=6, show_default=True)
@click.option("--backlog", default=1_000_000, show_default=True, help="Jobs that are due.")
@click.option("--future", default=100_000, show_default=True, help="Jobs of tomorrow.")
@click.option("--stuck", default=100_000, show_default=True, help="Jobs that another pool holds.")
@click.option(
    "--queues", default=10_000, show_default=True, help="Named ones; a tenth of the jobs."
)
@click.option("--database-url", help="An empty database. Default: a server of our own.")
@click.option("--work-on", hidden=True, help="Be the worker.")
def main(
    minutes: int,
    backlog: int,
    future: int,
    stuck: int,
    queues: int,
    database_url: str | None,
    work_on: str | None,
) -> None:
    """Run one worker under load, and print each minute what has grown."""
    if work_on:
        asyncio.run(work(work_on))
    else:
        with server(database_url) as url:
            asyncio.run(watch(url, minutes, [backlog, future, stuck], queues))


if __name__ == "__main__":
    main()
