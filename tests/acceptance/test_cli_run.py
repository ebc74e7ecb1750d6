"""`zodworker run`: starts, stops, and what can be wrong with --app."""

import json
import signal

import psycopg
import pytest

SHOP = """
import asyncio
from zodworker_compat import RunnerOptions, ZodWorker

worker = ZodWorker(
    name="shop",
    schema={"slow": True, "quick": True},
    tasks={"slow": {}, "quick": {}},
    runner_options=RunnerOptions(connection_string="postgresql://nobody@127.0.0.1:1/wrong"),
)
other = ZodWorker(name="other", schema={"other": True}, tasks={"other": {}})
idle = ZodWorker(name="idle")
number = 7

@worker.task("slow")
async def slow(payload):
    print("slow started", flush=True)
    await asyncio.sleep(1)
    print("slow ended", flush=True)

@worker.task("quick")
def quick(payload):
    print("quick", payload, flush=True)

@other.task("other")
def other_task(payload):
    print("other", flush=True)
"""
ADD = "select graphile_worker.add_job(%s, '{}')"
LEFT = """
select count(*) as jobs, count(locked_by) as locked from graphile_worker._private_jobs
union all
select 0, count(locked_by) from graphile_worker._private_job_queues
"""


def execute(url, query, *parameters):
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(query, parameters)
        return cursor.fetchall() if cursor.description else []


@pytest.fixture
def shop(tmp_path):
    """The module `shop` in the working directory."""
    (tmp_path / "shop.py").write_text(SHOP)


@pytest.fixture
def start(start_zodworker, database, shop):
    """Start `zodworker run` on a database."""

    def run(*arguments, **env):
        return start_zodworker("run", *arguments, env={"ZODWORKER_DATABASE_URL": database, **env})

    return run


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_it_gracefully(start, database, eventually, number):
    for _ in range(9):
        execute(database, ADD, "slow")
    running = start("--app", "shop:worker", "--concurrency", "2")
    await eventually(lambda: running.output.count("slow started") == 2, timeout=30)

    running.send(number)

    assert running.wait() == 0, running.errors
    assert running.output.count("slow ended") == 2
    assert f"{number.name}: finishing running jobs" in running.errors
    assert "Traceback" not in running.errors
    assert execute(database, LEFT) == [(7, 0), (0, 0)]


async def test_a_signal_during_the_start_stops_it_too(start, database, eventually):
    execute(database, ADD, "slow")
    running = start("--app", "shop:worker")
    await eventually(lambda: running.output, timeout=30)

    running.send(signal.SIGTERM)

    assert running.wait() == 0, running.errors
    assert execute(database, LEFT) == [(0, 0), (0, 0)]


def test_once_runs_what_is_due_and_ends(start, database):
    for identifier in ("quick", "quick", "other", "unknown"):
        execute(database, ADD, identifier)

    running = start("--app", "shop:worker", "--app", "shop:other", "--once")

    assert running.wait() == 0, running.errors
    assert (running.output.count("quick"), running.output.count("other")) == (2, 1)
    assert execute(database, LEFT) == [(1, 0), (0, 0)]


async def test_options_of_the_command_beat_the_worker_s(start, eventually, empty_database):
    running = start(
        "--app", "shop:worker", "--database-url", empty_database, "--poll-interval", "0.5",
        ZODWORKER_SCHEMA="other queue", ZODWORKER_RUN_CONCURRENCY="3", ZODWORKER_RUN_LOG_FORMAT="json",
    )  # fmt: skip
    await eventually(lambda: "running on" in running.errors, timeout=30)
    execute(empty_database, 'select "other queue".add_job(%s)', "quick")
    await eventually(lambda: "quick" in running.output)

    running.send(signal.SIGTERM)

    assert running.wait() == 0
    lines = [json.loads(line) for line in running.errors.splitlines()]
    assert "schema other queue, concurrency 3" in lines[0]["message"]
    assert {"time", "level", "logger", "message"} == lines[0].keys()


async def test_a_breaking_migration_stops_it_with_57(start, database, eventually):
    running = start("--app", "shop:worker", "--app", "shop:other")
    await eventually(lambda: running.errors.count("running on") == 2, timeout=30)

    execute(
        database, "select pg_notify('worker:migrate', '{\"migrationNumber\":20,\"breaking\":true}')"
    )

    assert running.wait() == 57
    assert "breaking migration 20" in running.errors
    assert "Traceback" not in running.errors
    assert execute(database, LEFT) == [(0, 0), (0, 0)]


def test_a_worker_that_cannot_start_stops_the_others(start):
    running = start("--app", "shop:worker", "--app", "shop:idle")

    assert running.wait() == 1
    assert "'idle' has no handlers" in running.errors
    assert "Traceback" not in running.errors


@pytest.mark.parametrize(
    ("app", "status", "complaint"),
    [
        ("shop", 2, "'shop' is not module:attribute"),
        ("shopp:worker", 2, "there is no module 'shopp'"),
        ("shop:woker", 2, "the module 'shop' has no 'woker'. Did you mean 'worker'"),
        ("shop:number", 2, "shop:number is of type int, not a ZodWorker"),
        ("broken:worker", 1, "No module named 'absent' ("),
        ("broken:worker", 1, "broken.py, line 2)"),
    ],
)
def test_what_can_be_wrong_with_app(start, tmp_path, app, status, complaint):
    (tmp_path / "broken.py").write_text("\nimport absent\n")

    running = start("--app", app)

    assert running.wait() == status
    assert complaint in running.errors
    assert "Traceback" not in running.errors


def test_the_same_worker_twice_is_a_mistake(start):
    running = start("--app", "shop:worker", "--app", "shop:worker")

    assert running.wait() == 2
    assert "--concurrency" in running.errors
