"""Worker processes that are killed, stopped, or busy: no job is lost, and none that is healthy runs twice."""

import signal
import sys

import psycopg
import pytest
from psycopg.rows import dict_row

from zodworker_compat.database.own_tables import ensure_own_tables

DEAD_AFTER = 3
WORKER = """
import asyncio, logging, os, pathlib, signal, sys, time
from zodworker_compat import RunnerOptions, ZodWorker

worker = ZodWorker(
    name=sys.argv[2],
    runner_options=RunnerOptions(
        connection_string=sys.argv[1], concurrency=4, dead_after=float(sys.argv[3])
    ),
)
released = pathlib.Path(sys.argv[4])

def say(what, job):
    print(what, job.id, job.attempts, flush=True)

@worker.task("quick", schema=True)
async def quick(payload, job):
    say("quick", job)

@worker.task("hang", schema=True)
async def hang(payload, job):
    say("hang", job)
    if job.attempts == 1:
        await asyncio.Event().wait()

@worker.task("late", schema=True)
def late(payload, job):
    say("late", job)
    while job.attempts == 1 and not released.exists():
        time.sleep(0.01)
    say("late ended", job)

@worker.task("die", schema=True)
async def die(payload, job):
    say("die", job)
    os.kill(os.getpid(), signal.SIGKILL)

@worker.task("compute", schema=True)
async def compute(payload, job):
    say("compute", job)
    end = time.monotonic() + 2 * float(sys.argv[3])
    while time.monotonic() < end:
        pass

logging.basicConfig(level="INFO")
asyncio.run(worker.run_until_stopped())
"""


class Queue:
    """The queue, as seen by the test."""

    def __init__(self, url):
        self.connection = psycopg.connect(url, autocommit=True, row_factory=dict_row)

    def add(self, task, **options):
        given = "".join(f", {name} => %s" for name in options)
        query = f"select id from graphile_worker.add_job(%s{given})"
        return self.connection.execute(query, [task, *options.values()]).fetchone()["id"]

    def jobs(self):
        query = "select * from graphile_worker._private_jobs order by id"
        return self.connection.execute(query).fetchall()

    def workers(self):
        query = "select * from graphile_worker.zodworker_workers where dead_at is null"
        return self.connection.execute(query).fetchall()


@pytest.fixture
def queue(database):
    queue = Queue(database)
    ensure_own_tables(queue.connection, "graphile_worker", "workers")
    yield queue
    queue.connection.close()


@pytest.fixture
def start(process, database, tmp_path, eventually, queue):
    """Start a worker and return it once it is listed, unless it may be dead before that."""

    async def run(name, *, may_die=False):
        program = tmp_path / "worker.py"
        program.write_text(WORKER)
        started = process(
            [sys.executable, program, database, name, str(DEAD_AFTER), tmp_path / "released"]
        )

        def is_listed():
            assert started.running, started.errors
            return any(row["name"] == name for row in queue.workers())

        if not may_die:
            await eventually(is_listed, timeout=60)
        return started

    return run


async def test_the_jobs_of_a_killed_worker_run_elsewhere(start, queue, eventually):
    hung = queue.add("hang", queue_name="q")
    next_in_queue = queue.add("quick", queue_name="q")
    victim = await start("victim")
    await eventually(lambda: "hang" in victim.output, timeout=30)
    heir = await start("heir")

    victim.send(signal.SIGKILL)

    await eventually(lambda: queue.jobs() == [], timeout=60)
    assert heir.output.splitlines() == [f"hang {hung} 2", f"quick {next_in_queue} 1"]
    assert "Worker victim" in heir.errors
    assert "is declared dead" in heir.errors


async def test_a_job_that_kills_its_workers_does_not_take_the_fleet_down(start, queue, eventually):
    poison = queue.add("die", max_attempts=2)
    quick = [queue.add("quick") for _ in range(20)]
    victims = []
    for name in ("first", "second"):
        victims.append(await start(name, may_die=True))
        await eventually(lambda: not victims[-1].running, timeout=60)
        assert victims[-1].wait() == -signal.SIGKILL
    survivor = await start("survivor")

    def what_is_left():
        """The poison, and those that ran beside it twice: these are tried again later."""
        rows = queue.jobs()
        return len(rows) <= 4 and all(row["locked_at"] is None for row in rows) and rows

    row, *others = await eventually(what_is_left, timeout=60)
    assert (row["id"], row["attempts"]) == (poison, 2)
    assert row["last_error"].startswith("WorkerDied: worker second (")
    assert row["last_error"].endswith("(2 in a row); no attempt is left")
    assert row["is_available"] is False
    assert survivor.running
    runs = "".join(worker.output for worker in (*victims, survivor))
    assert {job for job in quick if f"quick {job} " not in runs} <= {row["id"] for row in others}
    assert all(row["is_available"] for row in others)


async def test_a_stopped_worker_that_wakes_up_changes_nothing(start, queue, eventually, tmp_path):
    jobs = {queue.add("hang", queue_name="q"), queue.add("late")}
    sleeper = await start("sleeper")
    await eventually(lambda: len(sleeper.output.splitlines()) == 2, timeout=30)
    before = {row["name"]: row["pool_id"] for row in queue.workers()}
    heir = await start("heir")

    sleeper.send(signal.SIGSTOP)
    await eventually(lambda: queue.jobs() == [], timeout=60)
    (tmp_path / "released").touch()
    sleeper.send(signal.SIGCONT)

    await eventually(lambda: "late ended" in sleeper.output, timeout=30)
    await eventually(lambda: len(queue.workers()) == 2, timeout=30)
    after = {row["name"]: row["pool_id"] for row in queue.workers()}
    assert after["sleeper"] != before["sleeper"]
    assert sleeper.errors.count("was not ours any more") == 2
    assert "The other workers took this one for dead" in sleeper.errors
    assert all(f"{job} 2" in heir.output for job in jobs)

    heir.send(signal.SIGTERM)
    assert heir.wait(60) == 0
    queue.add("quick")
    await eventually(lambda: "quick" in sleeper.output, timeout=30)
    sleeper.send(signal.SIGTERM)
    assert sleeper.wait(60) == 0
    assert queue.jobs() == queue.workers() == []


async def test_the_limit_can_be_given_on_the_command_line(
    start_zodworker, queue, database, tmp_path, eventually
):
    program = "from zodworker_compat import ZodWorker\nworker = ZodWorker(name='shop')\n"
    program += "@worker.task('quick', schema=True)\ndef quick(payload): ...\n"
    (tmp_path / "shop.py").write_text(program)
    environment = {"DATABASE_URL": database, "ZODWORKER_RUN_DEAD_AFTER": "7.5"}

    running = start_zodworker("run", "--app", "shop:worker", env=environment)

    (row,) = await eventually(queue.workers, timeout=60)
    assert row["dead_after"].total_seconds() == 7.5
    running.send(signal.SIGTERM)
    assert running.wait(60) == 0
    assert queue.workers() == []


async def test_a_worker_that_computes_is_not_dead(start, queue, eventually):
    busy = await start("busy")
    job = queue.add("compute")
    await eventually(lambda: "compute" in busy.output, timeout=30)
    judge = await start("judge")

    await eventually(lambda: queue.jobs() == [], timeout=60)
    assert busy.output == f"compute {job} 1\n"
    assert judge.output == ""
    assert "declared dead" not in judge.errors
