"""Signals to a worker's process: one, two, three, and what hangs at the end."""

import asyncio
import signal
import sys

import psycopg
import pytest

from zodworker_compat import signals

WORKER = """
import asyncio, sys, time
from zodworker_compat import RunnerOptions, ZodWorker, signals

quiet, grace, timeout, kind = float(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4]), sys.argv[5]
signals.QUIET, signals.EXIT_GRACE = quiet, grace
worker = ZodWorker(
    name="w",
    runner_options=RunnerOptions(connection_string=sys.argv[1], concurrency=4),
    shutdown_timeout=timeout,
)

@worker.task("job", schema=True)
async def job(payload):
    print("started", flush=True)
    if kind == "short":
        await asyncio.sleep(1)
    elif kind == "blocks":
        time.sleep(300)
    while kind in ("long", "stubborn", "thread"):
        try:
            await (asyncio.to_thread(time.sleep, 300) if kind == "thread" else asyncio.sleep(300))
        except asyncio.CancelledError:
            if kind != "stubborn":
                raise
    print("ended", flush=True)

async def main():
    assert await worker.initialize() is True
    assert await worker.initialize() is True
    await worker.run_until_stopped()
    print("stopped", flush=True)

import logging
logging.basicConfig(level="INFO")
asyncio.run(main())
"""
LEFT = """
select (select count(*) from graphile_worker._private_jobs),
       (select count(*) from graphile_worker._private_jobs where locked_at is not null)
       + (select count(*) from graphile_worker._private_job_queues where locked_at is not null)
"""


@pytest.fixture
def start(process, database, tmp_path, eventually):
    """Start a worker that runs one of two jobs of a queue, and return it once it does so."""

    async def run(kind, *, quiet=60.0, grace=60.0, limit=60.0):
        with psycopg.connect(database) as connection:
            for _ in range(2):
                connection.execute("select graphile_worker.add_job('job', queue_name => 'q')")
        program = tmp_path / "worker.py"
        program.write_text(WORKER)
        numbers = map(str, (quiet, grace, limit))
        started = process([sys.executable, program, database, *numbers, kind])
        await eventually(lambda: "started" in started.output or not started.running)
        assert started.running, started.errors
        return started

    return run


def left(database):
    """How many jobs are left, and how many jobs and queues are locked."""
    with psycopg.connect(database) as connection:
        return connection.execute(LEFT).fetchone()


@pytest.mark.parametrize("number", signals.SIGNALS)
async def test_one_signal_waits_for_running_jobs(start, database, number):
    worker = await start("short")

    worker.send(number)

    assert worker.wait() == 0
    assert worker.output.split() == ["started", "ended", "stopped"]
    assert left(database) == (1, 0)


async def test_signals_in_quick_succession_are_one(start, database, eventually):
    worker = await start("short")

    worker.send(signal.SIGTERM)
    await eventually(lambda: "finishing running jobs" in worker.errors)
    worker.send(signal.SIGTERM)
    worker.send(signal.SIGINT)

    assert worker.wait() == 0
    assert worker.output.split() == ["started", "ended", "stopped"]
    assert worker.errors.count("finishing running jobs") == 1
    assert "again: shutting down already" in worker.errors
    assert left(database) == (1, 0)


@pytest.mark.parametrize("limit", [60, 0])
async def test_a_later_signal_gives_running_jobs_back(start, database, eventually, limit):
    worker = await start("long", quiet=0, limit=limit)

    worker.send(signal.SIGTERM)
    await eventually(lambda: "finishing running jobs" in worker.errors)
    worker.send(signal.SIGTERM)

    assert worker.wait() == 0
    assert worker.output.split() == ["started", "stopped"]
    assert left(database) == (2, 0)


async def test_after_the_timeout_running_jobs_are_given_back(start, database):
    worker = await start("long", limit=0.1)

    worker.send(signal.SIGTERM)

    assert worker.wait() == 0
    assert worker.output.split() == ["started", "stopped"]
    assert left(database) == (2, 0)


@pytest.mark.parametrize("kind", ["stubborn", "thread"])
async def test_a_handler_that_cannot_be_cancelled_does_not_keep_the_process(start, database, kind):
    worker = await start(kind, limit=0.1, grace=3)

    worker.send(signal.SIGTERM)

    assert worker.wait() == 0
    assert "stopped" in worker.output
    assert "Ending it now; its jobs are not locked any more" in worker.errors
    assert left(database) == (2, 0)


async def test_a_blocked_event_loop_does_not_keep_the_process(start, database):
    worker = await start("blocks", limit=0.1, grace=0.5)

    worker.send(signal.SIGTERM)

    assert worker.wait() == 1
    assert "jobs that ran stay locked" in worker.errors


async def test_a_third_signal_ends_the_process_at_once(start, eventually):
    worker = await start("stubborn", quiet=0)

    worker.send(signal.SIGTERM)
    await eventually(lambda: "finishing running jobs" in worker.errors)
    worker.send(signal.SIGTERM)
    await eventually(lambda: "giving running jobs back" in worker.errors)
    worker.send(signal.SIGTERM)

    assert worker.wait() == -signal.SIGTERM


async def test_a_worker_that_starts_during_the_shutdown_is_told_too(eventually):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    told = []
    forget_first = signals.listen(lambda number: told.append(("first", number)))

    signal.raise_signal(signal.SIGINT)
    await eventually(lambda: told)
    forget_late = signals.listen(lambda number: told.append(("late", number)))
    await eventually(lambda: len(told) == 2)
    forget_first()
    forget_first()
    forget_late()

    assert told == [("first", signal.SIGINT), ("late", signal.SIGTERM)]
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


async def test_outside_the_main_thread_nothing_is_installed():
    before = signal.getsignal(signal.SIGTERM)

    async def in_thread():
        forget = signals.listen(lambda number: None)
        forget()

    await asyncio.to_thread(asyncio.run, in_thread())

    assert signal.getsignal(signal.SIGTERM) is before
