"""The worker whose processes are hurt: `zodworker run --app harness.app:worker`."""

import asyncio
import os
import select
import time
from datetime import timedelta
from pathlib import Path

from harness.ledger import Writer

from zodworker_compat import RunnerOptions, ZodWorker

book = Writer(Path(os.environ["CHAOS_LEDGER"]), os.environ["CHAOS_WORKER"])
worker = ZodWorker(
    name=os.environ["CHAOS_WORKER"],
    runner_options=RunnerOptions(
        connection_string=os.environ["DATABASE_URL"],
        concurrency=4,
        max_pool_size=int(os.environ.get("CHAOS_POOL", "4")),
    ),
    shutdown_timeout=timedelta(seconds=60),
)
Path(os.environ["CHAOS_LEDGER"], f"{worker.name}.clock").write_text(
    f"{time.time()} {time.monotonic()}"
)


@worker.task("work", schema=True)
async def work(payload, job):
    with book.run(payload["token"], job.queue_name):
        await asyncio.sleep(payload["seconds"])


@worker.task("hold", schema=True)
async def hold(payload, job):
    """Run for ever at the first attempt."""
    with book.run(payload["token"], job.queue_name):
        if job.attempts == 1:
            await asyncio.Event().wait()


@worker.task("thread", schema=True)
def thread(payload, job):
    with book.run(payload["token"], job.queue_name):
        select.select([], [], [], payload["seconds"])  # libfaketime breaks Python's time.sleep


@worker.task("parent", schema=True)
async def parent(payload, job):
    """Enqueue a child for each run, in a transaction that takes its time."""
    with book.run(payload["token"], job.queue_name):
        child = f"{payload['token']}/{worker.name}-{time.monotonic_ns()}"
        book.write("intended", tokens=[child])
        async with worker.transaction() as tx:
            await tx.connection.execute("select pg_sleep(%s)", [payload["seconds"]])
            await tx.enqueue("work", {"token": child, "seconds": 0.01}, queue_name="children")
        book.write("committed", tokens=[child])


@worker.task("lock", schema=True)
async def lock(payload, job):
    """Lock two rows one after the other: those who do so in the other order deadlock with it."""
    with book.run(payload["token"], job.queue_name):
        async with worker.transaction() as tx:
            for row in payload["rows"]:
                await tx.connection.execute(
                    "update chaos_rows set hits = hits + 1 where id = %s", [row]
                )
                await tx.connection.execute("select pg_sleep(%s)", [payload["seconds"]])
