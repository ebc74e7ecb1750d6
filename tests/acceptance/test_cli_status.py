"""`zodworker status`."""

import json
import os

import psycopg
import pytest
from psycopg import sql

from zodworker_compat.database.look_async import read_status

JOBS = [  # task, queue, hours from now, locked by, out of attempts
    ("mail", None, -2, None, False),
    ("mail", "q", -1, None, False),
    ("mail", None, 3, None, False),
    ("mail", "q", -1, "pool-a", False),
    ("sync", None, -1, "pool-a", False),
    ("sync", None, -1, "pool-a", False),
    ("sync", None, -1, None, True),
    ("sync", None, 5, None, True),
    ("sync", "q", -1, "pool-b", True),
]
ADD = "select id from graphile_worker.add_job(%s, '{}', %s, now() + %s * interval '1 hour')"
SET = """
update graphile_worker._private_jobs
set locked_by = %(by)s::text,
    locked_at = case when %(by)s::text is not null then now() end,
    attempts = case when %(out)s then max_attempts else 0 end
where id = %(id)s
"""
QUEUE = "update graphile_worker._private_job_queues set locked_at = now(), locked_by = %s"


@pytest.fixture
def filled(database):
    """A database with nine jobs in all states."""
    with psycopg.connect(database) as connection:
        for task, queue, hours, locked_by, out in JOBS:
            [job] = connection.execute(ADD, [task, queue, hours])
            connection.execute(SET, {"id": job[0], "by": locked_by, "out": out})
        connection.execute(QUEUE, ["pool-a"])
    return database


@pytest.fixture
def role(server):
    """The name of a role that owns nothing, and may log in with the password "p"."""
    name = f"role_{os.urandom(6).hex()}"
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute(
            sql.SQL("create role {} login password 'p'").format(sql.Identifier(name))
        )
        yield name
        connection.execute(sql.SQL("drop role {}").format(sql.Identifier(name)))


def states(counts):
    names = ("ready", "scheduled", "retrying", "running", "failed", "total")
    return {name: counts[name] for name in names}


def test_every_job_is_counted_once(command, filled):
    done = command("status", "--json", "--database-url", filled)

    found = json.loads(done.output)
    assert found["schema"] == "graphile_worker"
    assert found["revision"] == 18
    assert states(found["jobs"]) == {
        "ready": 2,
        "scheduled": 1,
        "retrying": 0,
        "running": 4,
        "failed": 2,
        "total": 9,
    }
    assert found["jobs"]["oldest_ready"] == pytest.approx(7200, abs=120)
    assert {one["identifier"]: list(states(one).values()) for one in found["tasks"]} == {
        "mail": [2, 1, 0, 1, 0, 4],
        "sync": [0, 0, 0, 3, 2, 5],
    }
    [queue] = found["queues"]
    assert (queue["queue_name"], queue["locked_by"]) == ("q", "pool-a")
    assert list(states(queue).values()) == [1, 0, 0, 2, 0, 3]
    assert [(one["locked_by"], one["jobs"], one["queues"]) for one in found["workers"]] == [
        ("pool-a", 3, 1),
        ("pool-b", 1, 0),
    ]


async def test_a_queue_that_a_worker_holds_without_a_job_is_shown(database):
    async with await psycopg.AsyncConnection.connect(database) as connection:
        await connection.execute("select graphile_worker.add_job('mail', '{}', 'q')")
        await connection.execute(QUEUE, ["pool-gone"])
        await connection.execute("delete from graphile_worker._private_jobs")

        found = await read_status(connection, "graphile_worker")

    assert found.jobs.total == 0
    [queue] = found.queues
    assert (queue.total, queue.is_stuck) == (0, True)
    assert [(one.locked_by, one.jobs, one.queues) for one in found.workers] == [("pool-gone", 0, 1)]


async def test_jobs_whose_task_or_queue_row_is_gone_are_counted(database):
    async with await psycopg.AsyncConnection.connect(database) as connection:
        await connection.execute("select graphile_worker.add_job('mail', '{}', 'q')")
        await connection.execute("delete from graphile_worker._private_tasks")
        await connection.execute("delete from graphile_worker._private_job_queues")

        found = await read_status(connection, "graphile_worker")

    assert found.jobs.ready == found.tasks[0].ready == found.queues[0].ready == 1
    assert found.tasks[0].identifier.startswith("(deleted task")


def test_in_a_pipe_it_is_plain(zodworker, filled):
    done = zodworker("status", env={"DATABASE_URL": filled, "COLUMNS": "40", "FORCE_COLOR": "1"})

    assert done.output.isascii()
    assert "\x1b" not in done.output
    lines = [line.split() for line in done.output.splitlines()]
    assert ["mail", "2", "1", "0", "1", "0", "2", "h"] in lines
    assert ["pool-a", "unknown", "3", "1", "0", "s"] in [[*line[:4], "0", "s"] for line in lines]
    assert "2 failed" in " ".join(done.output.split())
    assert "zodworker jobs --state failed --sort newest" in done.output


def test_on_a_terminal_there_are_tables(on_terminal, filled):
    status, printed = on_terminal("status")

    assert status == 0
    assert "────" in printed
    assert "pool-b" in printed
    assert "\x1b[3" not in printed  # colours


def test_a_schema_without_a_queue(zodworker, empty_database):
    done = zodworker("status", "--schema", "elsewhere", env={"DATABASE_URL": empty_database})

    assert done.status == 1
    assert '"elsewhere" holds no queue' in done.errors
    assert "zodworker migrate" in done.errors


def test_a_role_that_may_not_read_is_told_so(command, database, role):
    done = command("status", "--database-url", with_role(database, role))

    assert done.status == 1
    assert "permission denied for schema graphile_worker" in done.errors
    assert "This role may not use the queue" in done.errors


def with_role(url, role):
    return psycopg.conninfo.make_conninfo(url, user=role, password="p")


def test_a_role_from_whom_row_level_security_hides_jobs_is_warned(command, filled, role):
    with psycopg.connect(filled) as connection:
        for grant in (
            "grant usage on schema graphile_worker to {}",
            "grant select on all tables in schema graphile_worker to {}",
        ):
            connection.execute(sql.SQL(grant).format(sql.Identifier(role)))

    done = command("status", "--json", "--database-url", with_role(filled, role))

    assert json.loads(done.output)["jobs"]["total"] == 0
    assert json.loads(done.output)["hidden_from"] == role
    assert "row level security hides jobs" in done.errors
    assert "postgres" in done.errors
    with psycopg.connect(filled) as connection:
        connection.execute(sql.SQL("drop owned by {}").format(sql.Identifier(role)))
