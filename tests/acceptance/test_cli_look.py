"""`zodworker jobs`, `job`, `queues`, `tasks`, `workers` and `cron`, as people and programs see them."""

import json
import re
import signal

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

EVIL = "\x1b]0;owned\x07 \x9b31m \u202eno\nmore"


@pytest.fixture
def filled(database):
    """Jobs in all states; job 5 has a payload, an error and a key that would drive a terminal."""
    with psycopg.connect(database) as connection:
        for arguments in (
            "'mail', '{\"n\": 1}'",
            "'mail', '{}', 'q', now() - interval '1 hour'",
            "'mail', '{}', 'q'",
            "'sync', '{}', null, now() + interval '90 minutes'",
        ):
            connection.execute(f"select graphile_worker.add_job({arguments})")
        connection.execute(
            "select graphile_worker.add_job('sync', %s::json, null, max_attempts => 1, job_key => %s)",
            [json.dumps({"text": EVIL}, ensure_ascii=True), EVIL],
        )
        connection.execute(
            "update graphile_worker._private_jobs set attempts = 1, last_error = %s where id = 5",
            [f"Error: {EVIL}"],
        )
        for table, row in (("_private_jobs", "id = 3"), ("_private_job_queues", "true")):
            connection.execute(
                f"update graphile_worker.{table} set locked_by = 'w1',"
                f" locked_at = now() - interval '5 minutes' where {row}"
            )
    return database


def json_lines(done):
    assert done.status == 0
    return [json.loads(line) for line in done.output.splitlines()]


def test_a_list_for_people(command, filled):
    lines = command("jobs").output.splitlines()

    rows = [re.split("  +", line) for line in lines[1:7]]
    assert rows[0] == ["id", "task", "state", "when", "tries", "queue", "key", "note"]
    assert rows[1][:3] == ["1", "mail", "ready"]
    assert rows[2][:4] == ["2", "mail", "ready", "1 h ago"]
    assert rows[2][5:] == ["q", "its queue is locked by w1"]
    assert rows[3][2:] == ["running", "for 5 min", "0/25", "q", "locked by w1"]
    assert rows[4][2:4] == ["scheduled", "in 1 h"]
    assert rows[5][2] == "failed"
    assert rows[5][-1] == r"Error: \x1b]0;owned\x07 \x9b31m \u202eno"


def test_a_list_for_programs(command, filled):
    first = json_lines(command("jobs", "--json", "--limit", "2", "--sort", "due"))
    others = json_lines(command("jobs", "--json", "--sort", "due", "--after", first[-1]["cursor"]))

    assert [one["job"]["id"] for one in first + others] == ["2", "1", "3", "5", "4"]
    assert first[1]["job"]["payload"] == {"n": 1}
    assert (first[0]["state"], first[0]["queue_locked_by"]) == ("ready", "w1")
    assert others[1]["job"]["last_error"] == f"Error: {EVIL}"


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        (["--task", "sync"], ["4", "5"]),
        (["--task", "sync", "--task", "mail", "--queue", "q"], ["2", "3"]),
        (["--state", "failed", "--state", "running"], ["3", "5"]),
        (["--error", "OWNED"], ["5"]),
        (["--locked-by", "w1", "--locked-for", "4m"], ["3"]),
        (["--older-than", "1h"], []),
        (["--newer-than", "1h", "--due-before", "-30m"], ["2"]),
        (["4", "99"], ["4"]),
    ],
)
def test_filters(command, filled, options, ids):
    assert [one["job"]["id"] for one in json_lines(command("jobs", "--json", *options))] == ids


def test_the_end_of_a_page_says_how_to_go_on(command, filled):
    done = command("jobs", "--limit", "2")

    assert done.output.endswith("There are more: the same with --after 2\n")
    assert "--after" not in command("jobs", "--after", "2").output
    assert command("jobs", "--task", "absent").output == "No such job.\n"


def test_filters_have_environment_twins(command, filled):
    done = command("jobs", "--json", env={"ZODWORKER_JOBS_STATE": "failed running"})

    assert [one["job"]["id"] for one in json_lines(done)] == ["3", "5"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["jobs", "x"], "'x' is not a job id"),
        (["jobs", "--state", "done"], "'ready', 'scheduled', 'retrying', 'running', 'failed'"),
        (["jobs", "--older-than", "5"], "write 90s, 5m, 1h30m or 30d"),
        (["jobs", "--due-before", "5m"], "is not a time"),
        (["jobs", "--limit", "0"], "x>=1"),
        (["jobs", "--watch", "--interval", "0"], "x>=0.1"),
        (["jobs", "--watch", "--json"], "either --watch or --json"),
        (["status", "--watch", "--json"], "either --watch or --json"),
        (["cron", "--app", "a:b", "--crontab", "/dev/null"], "either --app or --crontab"),
        (["job"], "Missing argument 'ID'"),
    ],
)
def test_mistakes(command, arguments, complaint):
    done = command(*arguments)

    assert done.status == 2
    assert complaint in done.errors


def test_one_job(command, filled):
    done = command("job", "5")

    assert done.output.startswith(
        "Job 5, sync: failed\n  It is out of attempts: 1 of 1 are used up.\n"
    )
    assert "  key:        \\x1b]0;owned\\x07 \\x9b31m \\u202eno\\nmore\n" in done.output
    assert "Last error\n  Error: \\x1b]0;owned\\x07 \\x9b31m \\u202eno\n  more\n" in done.output
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", done.output)


def test_one_job_says_why_it_does_not_run(command, filled):
    waiting = command("job", "2").output

    assert "Its queue q is locked by w1 for 5 min" in waiting
    assert "job 3 of it is running" in waiting
    assert "zodworker unlock --force w1" in waiting
    told = json.loads(command("job", "2", "--json").output)
    assert told["job"]["queue_name"] == "q"
    assert told["running_in_queue"] == ["3"]
    assert told["reasons"][0].startswith("Its queue q is locked by w1")


def test_one_job_that_is_gone(command, filled):
    done = command("job", "99")

    assert (done.status, done.output) == (1, "")
    assert "There is no job 99: it has run, was removed, or never was." in done.errors


def test_one_job_with_a_payload_that_python_cannot_read(command, database):
    with psycopg.connect(database) as connection:
        connection.execute(
            "select graphile_worker.add_job('t', %s::json)", ["[" * 6000 + "]" * 6000]
        )

    shown = command("job", "1").output
    assert "[[[[" in shown
    assert "... and 2,000 more characters: --json shows all" in shown
    assert len(json.loads(command("job", "1", "--json").output)["payload_text"]) == 12000
    assert command("jobs").status == 0


def test_queues(command, filled):
    assert "w1" in command("queues").output
    [queue] = json_lines(command("queues", "--locked", "--json"))
    assert (queue["queue_name"], queue["locked_by"], queue["ready"]) == ("q", "w1", 1)
    assert queue["is_stuck"] is False
    assert command("queues", "--queue", "absent").output == "No such queue.\n"


def test_tasks(command, filled):
    mail, sync = json_lines(command("tasks", "--json"))
    assert (mail["identifier"], mail["ready"], mail["running"], mail["workers"]) == (
        "mail",
        2,
        1,
        [],
    )
    assert (sync["identifier"], sync["scheduled"], sync["failed"]) == ("sync", 1, 1)
    assert "sync" in command("tasks").output


def test_workers(command, filled):
    [worker] = json_lines(command("workers", "--json"))
    assert (worker["locked_by"], worker["state"]) == ("w1", "unknown")
    assert (worker["jobs"], worker["queues"]) == (1, 1)
    assert "w1      unknown" in command("workers").output


def test_an_empty_queue(command):
    assert "No worker holds a job or a queue" in command("workers").output
    assert "No named queue is locked or has jobs." in command("queues").output
    assert "ever run with a recurring task" in command("cron").output
    assert command("tasks").status == 0
    assert "0 jobs at" in command("status").output


def test_cron(command, database, tmp_path):
    with psycopg.connect(database) as connection:
        connection.execute(
            "insert into graphile_worker._private_known_crontabs values"
            " ('nightly', now() - interval '9 d', now() - interval '3 d')"
        )
    crontab = tmp_path / "crontab"
    crontab.write_text("0 0 * * * nightly\n")

    assert re.search(r"nightly +.* UTC, 3 d ago", command("cron").output)
    [known] = json_lines(command("cron", "--json"))
    [compared] = json_lines(command("cron", "--json", "--crontab", str(crontab)))
    assert (known["pattern"], known["missed_at"]) == (None, None)
    assert compared["pattern"] == "0 0 * * *"
    assert compared["missed_at"] < compared["next_at"]


def test_cron_of_a_worker(zodworker, database, tmp_path):
    (tmp_path / "shop.py").write_text(
        "from zodworker_compat import ZodWorker\n"
        "worker = ZodWorker(name='shop', catalog='workerQueue', recurring_tasks={\n"
        "    'report': {'match': '5 4 * * *', 'handler': lambda run: None,\n"
        "               'options': {'time_zone': 'UTC'}}})\n"
    )

    done = zodworker("cron", "--app", "shop:worker", env={"DATABASE_URL": database})

    assert re.search(r"report +5 4 \* \* \* +not known yet +\S+ 04:05:00 UTC", done.output)


def test_a_list_is_watched_until_ctrl_c(on_terminal, filled):
    status, seen = on_terminal("jobs", "--watch", prompt="its queue is", then=signal.SIGINT)

    assert status == 0
    assert "\x1b]0;owned" not in seen
    assert "Traceback" not in seen


@pytest.mark.parametrize(
    ("verb", "line"),
    [
        ("jobs", "UTC  2 ready, 1 running, 1 scheduled, 1 failed\n"),
        (
            "status",
            "UTC  2 ready, 1 scheduled, 0 retrying, 1 running, 1 failed, the oldest due for 1 h",
        ),
        ("queues", "UTC  1 queue, 1 locked, 1 ready job in them\n"),
        ("workers", "UTC  0 alive, 0 dead, 1 unknown; 1 job running\n"),
    ],
)
async def test_in_a_pipe_each_look_is_a_line(start_zodworker, filled, eventually, verb, line):
    running = start_zodworker(verb, "--watch", "--interval", "0.1", env={"DATABASE_URL": filled})
    await eventually(lambda: len(running.output.splitlines()) >= 2, timeout=60)

    running.send(signal.SIGINT)

    assert running.wait(60) == 0, running.errors
    assert line in running.output


async def test_watching_goes_on_while_the_database_is_away(
    start_zodworker, server, filled, eventually
):
    name = conninfo_to_dict(filled)["dbname"]
    allow = sql.SQL("alter database {} allow_connections {}")
    running = start_zodworker(
        "status", "--watch", "--interval", "0.1", env={"DATABASE_URL": filled}
    )
    await eventually(lambda: "2 ready" in running.output)

    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute(allow.format(sql.Identifier(name), sql.SQL("false")))
        connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", [name]
        )
        await eventually(lambda: f'"{name}" is not currently accepting' in running.output)
        connection.execute(allow.format(sql.Identifier(name), sql.SQL("true")))
    lines = running.output.count("2 ready")
    await eventually(lambda: running.output.count("2 ready") > lines)

    running.send(signal.SIGINT)
    assert running.wait(60) == 0, running.errors
