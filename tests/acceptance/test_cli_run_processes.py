"""`zodworker run --processes N`: what dies is replaced, signals are passed on, nobody stays behind."""

import json
import os
import re
import signal
from pathlib import Path

import psycopg
import pytest

from zodworker_compat.cli.supervisor import delay

PATIENCE = 60
APP = """
import asyncio, os, pathlib
from zodworker_compat import ZodWorker, signals

signals.QUIET = 0  # so that the second signal counts at once
worker = ZodWorker(name="shop", schema={"quick": True, "slow": True, "crash": True},
                   tasks={"quick": {}, "slow": {}, "crash": {}})

@worker.task("quick")
async def quick(payload):
    print("quick", os.getpid(), flush=True)

@worker.task("slow")
async def slow(payload):
    print("slow", os.getpid(), flush=True)
    await asyncio.sleep(300)

@worker.task("crash")
async def crash(payload):
    os._exit(3)

if pathlib.Path("broken").exists():
    raise SystemError("deployed in a hurry")
"""
LEFT = """
select count(*), count(locked_by) from graphile_worker._private_jobs
"""


@pytest.fixture
def execute(database):
    """Execute a statement on the test's database."""

    def run(query, *parameters):
        with psycopg.connect(database, autocommit=True) as connection:
            cursor = connection.execute(query, parameters)
            return cursor.fetchall() if cursor.description else []

    return run


@pytest.fixture
def add(execute):
    """Add so many jobs of a task."""

    def run(identifier, count=1):
        execute(
            "select graphile_worker.add_job(%s, '{}') from generate_series(1, %s)",
            identifier,
            count,
        )

    return run


@pytest.fixture
def start(start_zodworker, database, tmp_path):
    """Start `zodworker run --app app:worker` with more arguments."""
    (tmp_path / "app.py").write_text(APP)

    def run(*arguments, app="app:worker", **env):
        env = {"DATABASE_URL": database, "ZODWORKER_RUN_POLL_INTERVAL": "0.2", **env}
        return start_zodworker("run", "--app", app, *arguments, env=env)

    return run


def started(running):
    """The process ids of all processes that a supervisor has started."""
    return [int(number) for number in re.findall(r"started process (\d+)", running.errors)]


def is_alive(number):
    """Whether a process runs; one that has ended and is not waited for does not."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def run_three(start, eventually, *arguments):
    running = start("--processes", "3", "--concurrency", "1", *arguments)
    await eventually(
        lambda: running.errors.count("running on") == 3 or not running.running, timeout=PATIENCE
    )
    return running


async def test_a_killed_process_is_replaced_and_a_signal_stops_all(start, add, execute, eventually):
    running = await run_three(start, eventually)
    first = started(running)
    add("slow", 3)  # one for each
    await eventually(lambda: running.output.count("slow") == 3, timeout=PATIENCE)

    os.kill(first[0], signal.SIGKILL)

    await eventually(lambda: running.errors.count("running on") == 4, timeout=PATIENCE)
    assert f"process {first[0]} was ended by signal 9 (Killed)" in running.errors
    add("quick")
    [replacement] = set(started(running)) - set(first)
    await eventually(lambda: f"quick {replacement}" in running.output, timeout=PATIENCE)
    assert f"[{replacement}] zodworker_compat" in running.errors  # who wrote the line

    running.send(signal.SIGTERM)
    await eventually(lambda: running.errors.count("finishing running jobs") == 3, timeout=PATIENCE)
    running.send(signal.SIGTERM)

    assert running.wait(PATIENCE) == 0, running.errors
    assert "Traceback" not in running.errors
    [[jobs, locked]] = execute(LEFT)
    assert (jobs, locked) == (3, 0) or (jobs, locked) == (3, 1)  # of the killed one
    assert not any(map(is_alive, started(running)))


async def test_ctrl_c_while_they_start_is_quiet(start, eventually):
    running = start("--processes", "3")
    await eventually(lambda: len(started(running)) == 3, timeout=PATIENCE)

    running.send_to_group(signal.SIGINT)

    assert running.wait(PATIENCE) == 0, running.errors
    assert "Traceback" not in running.errors
    assert "Aborted" not in running.errors
    assert not any(map(is_alive, started(running)))


async def test_when_the_supervisor_is_killed_nobody_stays_behind(start, add, execute, eventually):
    running = await run_three(start, eventually, "--log-format", "json")
    processes = started(running)

    os.kill(running.pid, signal.SIGKILL)

    await eventually(lambda: not any(map(is_alive, processes)), timeout=PATIENCE)
    lines = [json.loads(line) for line in running.errors.splitlines()]
    assert {line["process"] for line in lines} == {running.pid, *processes}
    assert sum("is gone: stopping" in line["message"] for line in lines) == 3
    assert execute("select count(*) from graphile_worker.zodworker_workers") == [(0,)]


@pytest.mark.parametrize(
    ("app", "status", "complaint"),
    [
        ("absent:worker", 2, "there is no module 'absent'"),
        ("broken:worker", 1, "The module 'broken' cannot be imported"),
    ],
)
def test_what_cannot_start_says_so_once(start, tmp_path, app, status, complaint):
    (tmp_path / "broken.py").write_text("1 / 0")

    running = start("--processes", "4", app=app)

    assert running.wait(PATIENCE) == status
    assert running.errors.count(complaint) == 1
    assert len(started(running)) == 1
    assert "Traceback" not in running.errors


async def test_a_database_that_is_away_is_tried_again(start, eventually):
    away = "postgresql://nobody@127.0.0.1:1/x"
    alone = start(DATABASE_URL=away)
    running = start("--processes", "2", DATABASE_URL=away)

    assert alone.wait(PATIENCE) == 75
    assert "PostgreSQL cannot be reached" in alone.errors
    await eventually(lambda: running.errors.count("cannot be reached") == 2, timeout=PATIENCE)
    running.send(signal.SIGINT)
    assert running.wait(PATIENCE) == 0
    assert "Traceback" not in running.errors


@pytest.mark.parametrize(("task", "status"), [("quick", 0), ("crash", 3)])
def test_once_all_end_and_the_worst_status_counts(start, add, execute, task, status):
    add(task, 20)

    running = start("--processes", "2", "--once", "--concurrency", "1")

    assert running.wait(PATIENCE) == status, running.errors
    assert len(started(running)) == 2
    if task == "quick":
        assert execute("select count(*) from graphile_worker._private_jobs") == [(0,)]


async def test_a_breaking_migration_ends_all_with_57(start, execute, eventually):
    running = await run_three(start, eventually)

    execute("select pg_notify('worker:migrate', '{\"migrationNumber\":20,\"breaking\":true}')")

    assert running.wait(PATIENCE) == 57, running.errors
    assert len(started(running)) == 3


async def test_a_crash_at_every_start_is_told_and_does_not_spin(start, add, eventually, tmp_path):
    running = await run_three(start, eventually)
    (tmp_path / "broken").touch()

    os.kill(started(running)[-1], signal.SIGSEGV)

    await eventually(lambda: "3 processes in a row ended" in running.errors, timeout=PATIENCE)
    assert len(started(running)) == 5  # three, and two that took the place of one
    assert "the next one starts in 4 s" in running.errors
    running.send(signal.SIGHUP)
    assert running.wait(PATIENCE) == 0, running.errors


def test_the_delay_grows_up_to_half_a_minute():
    assert [delay(soon) for soon in (1, 2, 3, 4, 5, 6, 7, 1000)] == [1, 2, 4, 8, 16, 30, 30, 30]
