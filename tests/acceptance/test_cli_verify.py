"""`zodworker verify`: each wrong setup is found, and what it says mends it."""

import json
import os
import re

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

SCHEMA = "graphile_worker"
APP = """
from zodworker_compat import ZodWorker

worker = ZodWorker(
    name="shop",
    schema={"mail": {"type": "object", "required": ["to"]}, "sync": True},
    tasks={"mail": {}, "sync": {}},
    crontab="0 4 * * * sync",
    recurring_tasks={"report": {"match": "5 4 * * *", "handler": lambda run: None}},
)

@worker.task("mail")
def mail(payload): ...
"""
WORKER = """
insert into graphile_worker.zodworker_workers
    (pool_id, name, host, pid, version, concurrency, tasks, dead_after, dead_at)
values ('pool-1', 'shop', 'web-1', 7, '1.2.3', 5, array['mail'], '1 hour', %s)
"""


@pytest.fixture
def execute(database):
    """Execute SQL on the database, as its owner."""

    def run(query, parameters=None):
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute(query, parameters)

    return run


@pytest.fixture
def verify(command):
    """Run `zodworker verify --json`; returns the exit status and the checks of each subject."""

    def run(*arguments):
        done = command("verify", "--json", *arguments)
        found = json.loads(done.output)["checks"]
        assert "Traceback" not in done.errors
        return done.status, {
            subject: [one for one in found if one["subject"] == subject]
            for subject in {one["subject"] for one in found}
        }

    return run


@pytest.fixture
def role(server, database):
    """The URL of a role that may log in, and nothing else."""
    name = f"role_{os.urandom(6).hex()}"
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute(
            sql.SQL("create role {} login password 'p'").format(sql.Identifier(name))
        )
        yield make_conninfo(database, user=name, password="p")
        with psycopg.connect(database, autocommit=True) as owned:
            owned.execute(sql.SQL("drop owned by {}").format(sql.Identifier(name)))
        connection.execute(sql.SQL("drop role {}").format(sql.Identifier(name)))


@pytest.fixture
def live_worker(command, execute, database):
    """One living worker that handles "mail", by its heartbeat."""
    make_own_tables(database)
    execute(WORKER, [None])


def make_own_tables(database):
    from zodworker_compat.database.own_tables import ensure_own_tables

    with psycopg.connect(database) as connection:
        ensure_own_tables(connection, SCHEMA, "workers")


def levels(checks):
    return {subject: {one["level"] for one in found} for subject, found in checks.items()}


def test_a_right_setup_has_no_error(verify, live_worker):
    status, checks = verify()

    assert status == 0
    found = levels(checks)
    found.pop("durability")  # a server for tests may have fsync off
    assert found == {
        subject: {"ok"}
        for subject in (
            "database", "clock", "connections", "notifications", "schema", "rights", "tables",
            "recovery", "vacuum", "workers", "tasks",
        )
    }  # fmt: skip
    assert checks["workers"][0]["found"] == "1 Python worker alive, version 1.2.3"


def test_for_people_each_check_is_a_line_and_strict_counts_warnings(command, execute):
    execute("alter table graphile_worker._private_jobs set (autovacuum_enabled = off)")

    done, strict = command("verify"), command("verify", "--strict")

    assert (done.status, strict.status) == (0, 1)
    lines = done.output.splitlines()
    [at] = [number for number, line in enumerate(lines) if "Autovacuum is off" in line]
    assert lines[at].startswith("warning  vacuum:        ")
    assert lines[at + 1].startswith("         mend it:       alter table ")
    assert re.fullmatch(r"\d+ checks: 0 errors, [12] warnings?\.", lines[-1])


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://nobody:secret@127.0.0.1:1/x", "port 1, database x"),
        ("postgresql//typo", "not a PostgreSQL connection string"),
    ],
)
def test_a_database_that_cannot_be_reached(verify, url, said):
    status, checks = verify("--database-url", url)

    assert status == 1
    [check] = checks.pop("database")
    assert not checks
    assert check["level"] == "error"
    assert said in check["found"]
    assert "secret" not in check["found"]


def test_a_schema_that_is_not_installed(command, verify, empty_database):
    where = ("--database-url", empty_database, "--schema", "my queue")

    status, checks = verify(*where)

    assert status == 1
    [check] = checks["schema"]
    assert check["mend"].startswith("zodworker migrate --schema 'my queue', or")
    assert command("migrate", *where).status == 0
    assert verify(*where)[0] == 0


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("(20, true)", ("error", "includes breaking migration 20")),
        ("(20, false)", ("warning", "only supports up to revision 19")),
    ],
)
def test_a_schema_of_a_newer_node(verify, execute, row, said):
    execute(f"insert into graphile_worker.migrations (id, breaking) values {row}")

    status, checks = verify()

    assert status == (said[0] == "error")
    [check] = checks["schema"]
    assert check["level"] == said[0]
    assert said[1] in check["found"]


def test_a_role_that_lacks_rights_is_given_them_by_what_it_says(verify, execute, role, database):
    make_own_tables(database)

    status, checks = verify("--database-url", role)

    assert status == 1
    assert len(checks["rights"]) == 2
    for check in checks["rights"]:
        execute(check["mend"].partition("; or as that: ")[2] or check["mend"])

    status, checks = verify("--database-url", role)
    assert status == 0
    assert levels(checks)["rights"] == {"ok"}


def test_a_role_that_may_only_read(verify, execute, role):
    name = psycopg.conninfo.conninfo_to_dict(role)["user"]
    execute(f"alter role {name} set default_transaction_read_only = on")

    status, checks = verify("--database-url", role)

    assert status == 1
    [_, check] = checks["database"]
    assert "read-only" in check["found"]
    execute(check["mend"])
    assert len(verify("--database-url", role)[1]["database"]) == 1


@pytest.mark.parametrize(
    ("wrong", "subject", "level", "said"),
    [
        ("alter table {} set unlogged", "durability", "error", "a crash of PostgreSQL empties it"),
        ("alter table {} set (autovacuum_enabled = off)", "vacuum", "warning", "Autovacuum is off"),
    ],
)
def test_a_jobs_table_that_was_altered_is_mended_by_what_it_says(
    verify, execute, wrong, subject, level, said
):
    execute(wrong.format("graphile_worker._private_jobs"))

    status, checks = verify()

    assert status == (level == "error")
    [check] = [one for one in checks[subject] if said in one["found"]]
    assert check["level"] == level
    execute(check["mend"])
    assert not [one for one in verify()[1].get(subject, ()) if said in one["found"]]


@pytest.mark.parametrize(
    ("wrong", "level", "said"),
    [
        (
            "drop index {}.jobs_main_index",
            "error",
            "index _private_jobs btree (priority, run_at) INC",
        ),
        (
            """
            update pg_index set indisvalid = false
            where indexrelid = '{}.jobs_no_queue_index'::regclass
            """,
            "error",
            "AND (job_queue_id IS NULL)",
        ),
        ("drop function {}.remove_job", "error", "function remove_job."),
        (
            """
            alter table {}._private_jobs
            alter payload drop default, alter payload type jsonb using payload::jsonb
            """,
            "error",
            "column _private_jobs.payload json.",
        ),
        (
            """
            create function f() returns trigger language plpgsql as 'begin return new; end';
            create trigger audit before insert on {}._private_jobs
                for each row execute function f()
            """,
            "warning",
            "triggers of its own (audit)",
        ),
    ],
    ids=["index", "invalid index", "function", "column", "trigger"],
)
def test_what_was_changed_by_hand(verify, execute, wrong, level, said):
    execute(wrong.format(SCHEMA))

    status, checks = verify()

    assert status == (level == "error")
    assert [one["level"] for one in checks["tables"] if said in one["found"]] == [level]


def test_locks_of_a_dead_worker_and_tasks_that_nobody_handles(
    command, verify, execute, live_worker
):
    execute(WORKER.replace("pool-1", "pool-2"), ["2020-01-01"])
    for task in ("mail", "elsewhere"):
        execute("select graphile_worker.add_job(%s)", [task])
    execute(
        "update graphile_worker._private_jobs set locked_at = now(), locked_by = 'pool-2'"
        " where id = 1"
    )

    status, checks = verify()

    assert status == 0
    [_, dead] = checks["workers"]
    assert dead["found"].startswith("pool-2 is dead and holds 1 job and 0 queues")
    [tasks] = checks["tasks"]
    assert tasks["level"] == "warning"
    assert "No living Python worker handles elsewhere (1 job)" in tasks["found"]
    for check in (dead, tasks):
        words = check["mend"].rpartition("zodworker ")[2].split()
        assert command(*words).status == 0
    assert len(verify()[1]["workers"]) == 1


def test_node_s_workers_are_seen_and_left_their_tasks(verify, execute, live_worker, database):
    execute("select graphile_worker.add_job(%s)", ["elsewhere"])
    execute("select graphile_worker.add_job(%s)", ["sync"])
    execute(
        "update graphile_worker._private_jobs set locked_by = 'worker-0a1b',"
        " locked_at = now() - interval '2 hours' where id = 2"
    )

    with psycopg.connect(database, autocommit=True) as node:
        node.execute('listen "jobs:insert"')
        _, checks = verify()

    found = [one["found"] for one in checks["workers"]]
    assert found[1] == (
        "Seen of Node: locks of 1 worker of graphile-worker 0.16 or older, "
        "1 session listening for jobs in this database"
    )
    assert found[2].startswith("worker-0a1b has no heartbeat and has held 1 job")
    [tasks] = checks["tasks"]
    assert (tasks["level"], tasks["found"]) == ("ok", "Left to Node's workers: elsewhere (1 job)")


def test_a_worker_s_handlers_and_the_payloads_that_wait_for_it(
    verify, execute, tmp_path, monkeypatch
):
    (tmp_path / "verified_shop.py").write_text(APP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for payload in ('{"to": "a"}', '{"too": "b"}', f'{{"to": {"9" * 5000}}}'):
        execute("select graphile_worker.add_job('mail', %s)", [payload])
    execute("select graphile_worker.add_job('sync')")

    status, checks = verify("--app", "verified_shop:worker")

    assert status == 0
    [handlers, scheduled] = checks["handlers"]
    assert handlers["found"] == (
        "1 of 2 tasks of the catalog have handlers here, and so have, outside of it, report"
    )
    assert scheduled["found"] == "The crontab enqueues sync, for which there is no handler here."
    [payloads] = checks["payloads"]
    assert payloads["level"] == "warning"
    assert "2 of 3 waiting jobs looked at do not match" in payloads["found"]
    assert "Job 2: /to: is required, but missing" in payloads["found"]
    [tasks] = checks["tasks"]
    assert "No living Python worker handles sync (1 job)" in tasks["found"]


def test_a_schema_name_is_quoted_in_what_it_says(command, verify, empty_database, role):
    name = 'o"dd %s :schema'
    where = ("--database-url", empty_database, "--schema", name)
    assert command("migrate", *where).status == 0

    assert verify(*where)[0] == 0
    with psycopg.connect(empty_database, autocommit=True) as connection:
        table = sql.Identifier(name, "_private_jobs")
        connection.execute(sql.SQL("alter table {} set unlogged").format(table))
        [check] = [one for one in verify(*where)[1]["durability"] if "unlogged" in one["found"]]
        connection.execute(check["mend"].encode())
