"""`zodworker enqueue`."""

import json
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from psycopg.rows import dict_row

from zodworker_compat.cli.values import parse_time

APP = """
from zodworker_compat import ZodWorker
worker = ZodWorker(name="shop", catalog="workerQueue")
worker.task("mail", schema={"type": "object", "required": ["to"]}, priority=7)(lambda payload: None)
"""
ALL = "executionWorker + taskOperationWorker + workerQueue"


def jobs(url):
    with psycopg.connect(url, row_factory=dict_row) as connection:
        query = (
            "select jobs.*, payload from graphile_worker.jobs"
            " join graphile_worker._private_jobs using (id) order by id"
        )
        return connection.execute(query).fetchall()


@pytest.fixture
def enqueue(zodworker, database):
    """Run `zodworker enqueue` on a database."""

    def run(*arguments, **settings):
        return zodworker("enqueue", *arguments, env={"DATABASE_URL": database}, **settings)

    return run


@pytest.fixture
def lines(tmp_path):
    """Write a file of jobs; a string is a line as it is."""

    def write(*given):
        texts = [line if isinstance(line, str) else json.dumps(line) for line in given]
        path = tmp_path / "jobs.jsonl"
        path.write_text("".join(f"{text}\n" for text in texts))
        return path

    return write


def test_every_option_reaches_the_job(enqueue, database):
    done = enqueue(
        "startRun", '{"id": "run_1"}', "--json", "--run-at", "2999-01-31T12:00:00Z",
        "--max-attempts", "3", "--job-key", "k", "--job-key-mode", "preserve_run_at",
        "--priority", "-5", "--flag", "a", "--flag", "b", "--queue-name", "q",
    )  # fmt: skip

    printed, [job] = json.loads(done.output), jobs(database)
    assert done.status == 0
    assert printed["id"] == str(job["id"])
    assert job["payload"] == {"id": "run_1"}
    assert job["run_at"] == datetime(2999, 1, 31, 12, tzinfo=UTC)
    assert (job["max_attempts"], job["key"], job["priority"]) == (3, "k", -5)
    assert (job["flags"], job["queue_name"]) == ({"a": True, "b": True}, "q")


def test_what_is_not_given_is_the_catalog_s(enqueue, database, tmp_path):
    (tmp_path / "payload.json").write_text('{"id": "é"}')

    by_file = enqueue("startRun", "@payload.json")
    by_pipe = enqueue("startRun", "-", stdin='{"id": "2"}')

    first, second = jobs(database)
    assert (first["payload"], second["payload"]) == ({"id": "é"}, {"id": "2"})
    assert first["max_attempts"] == 4
    assert by_file.output == (
        f"Enqueued job {first['id']}, startRun: as soon as a worker is free, priority 0, "
        "at most 4 attempts.\n"
    )
    assert by_pipe.status == 0


def test_the_worker_s_own_tasks(enqueue, database, tmp_path):
    (tmp_path / "shop.py").write_text(APP)

    good = enqueue("mail", '{"to": "ada"}', "--app", "shop:worker", "--queue-name", "q")
    bad = enqueue("mail", "{}", "--app", "shop:worker")

    [job] = jobs(database)
    assert good.status == 0
    assert (job["priority"], job["queue_name"]) == (7, "q")
    assert bad.status == 1
    assert "/to: is required" in bad.errors


def test_options_have_environment_twins(zodworker, database):
    env = {
        "ZODWORKER_DATABASE_URL": database,
        "ZODWORKER_ENQUEUE_PRIORITY": "9",
        "ZODWORKER_ENQUEUE_FLAG": "a b",
    }

    assert zodworker("enqueue", "startRun", '{"id": "1"}', env=env).status == 0

    [job] = jobs(database)
    assert (job["priority"], job["flags"]) == (9, {"a": True, "b": True})


@pytest.mark.parametrize(
    ("arguments", "status", "complaint"),
    [
        (["startRn"], 1, "Did you mean 'startRun'"),
        (["startRn"], 1, "name its worker with --app"),
        (["startRun", '{"id": 1}'], 1, "/id: expected a string, got the number 1"),
        (["startRun", '{"id": "1"}', "--max-attempts", "0"], 1, "must be at least 1"),
        (["startRun", "{id: 1}"], 2, "in a shell, quote it"),
        (["startRun", '{"id": NaN}'], 2, "NaN is not JSON"),
        (["startRun", "@absent.json"], 2, "absent.json"),
        (["startRun", "{}", "--run-at", "2026-01-01"], 2, "has no time zone"),
        (["startRun", "{}", "--run-at", "soon"], 2, "+1h30m"),
        (["startRun", "{}", "--job-key-mode", "keep"], 2, "preserve_run_at"),
        (["startRun", "{}", "--priorty", "1"], 2, "Did you mean '--priority'?"),
        (["startRun", "{}", "--catalog", "workerQeue"], 1, "Did you mean 'workerQueue'?"),
        ([], 2, "Give either the IDENT of a task, or --from FILE."),
    ],
)
def test_mistakes(zodworker, arguments, status, complaint):
    done = zodworker("enqueue", *arguments, env={"DATABASE_URL": "postgresql://nobody@127.0.0.1:1"})

    assert done.status == status
    assert complaint in done.errors
    assert "Traceback" not in done.errors


def test_a_file_of_jobs(enqueue, lines, database):
    path = lines(
        *({"identifier": "startRun", "payload": {"id": str(n)}} for n in range(2500)),
        "",
        {"identifier": "startRun", "payload": {"id": "last"}, "priority": 3, "job_key": "k",
         "run_at": "2999-01-01T00:00:00Z", "flags": ["f"]},
    )  # fmt: skip

    done = enqueue("--from", path)

    *others, last = sorted(jobs(database), key=lambda job: job["priority"])
    assert done.output.startswith(f"Enqueued 2,501 jobs from {path} in ")
    assert done.errors == ""
    assert len(others) == 2500
    assert (last["priority"], last["key"], last["flags"]) == (3, "k", {"f": True})
    assert last["run_at"].year == 2999


def test_one_bad_line_spoils_the_file_and_all_are_reported(enqueue, lines, database):
    good = {"identifier": "startRun", "payload": {"id": "1"}, "job_key": "k"}
    path = lines(
        good,
        "",
        {**good, "identifier": "startRn"},
        {**good, "payload": {"id": 1}},
        "nope",
        "[]",
        {**good, "jobKey": "k"},
        good,
        {**good, "run_at": "2026-01-31"},
        *[{"identifier": "absent"}] * 20,
    )

    done = enqueue("--from", path)

    assert done.status == 1
    assert jobs(database) == []
    head, *reported = done.errors.splitlines()
    assert head == f"Error: 27 of 28 jobs in {path} are wrong; nothing was enqueued:"
    shown = [line.partition(" Did you mean")[0] for line in reported if line.startswith("  line ")]
    assert shown[:7] == [
        f"  line 3: Unknown task identifier 'startRn' in catalog {ALL!r}.",
        "  line 4: The payload of 'startRun' does not match its schema:",
        "  line 5: is not JSON: Expecting value at column 1",
        '  line 6: expected an object {"identifier": "...", "payload": ..., options}',
        "  line 7: jobKey: there is no such option.",
        "  line 8: job_key 'k' is that of line 1 already",
        "  line 9: '2026-01-31' has no time zone: append Z for UTC, or e.g. +01:00.",
    ]
    assert reported[-1] == "  ... and 7 more"


def test_a_dry_run_checks_and_writes_nothing(enqueue, lines, database):
    path = lines({"identifier": "startRun", "payload": {"id": "1"}})

    file = enqueue("--from", path, "--dry-run")
    one = enqueue("startRun", '{"id": 1}', "--dry-run")

    assert file.output == f"The job in {path} is valid; nothing was enqueued.\n"
    assert one.status == 1
    assert jobs(database) == []


def test_standard_input_may_be_a_pipe(start_zodworker, database, lines):
    path = lines({"identifier": "startRun", "payload": {"id": "1"}})
    done = start_zodworker(
        "enqueue", "--from", "-", "--json", env={"DATABASE_URL": database}, stdin=-1
    )
    done.popen.stdin.write(path.read_bytes())
    done.popen.stdin.close()

    assert done.wait() == 0, done.errors
    assert json.loads(done.output) == {"valid": 1, "enqueued": 1}
    assert len(jobs(database)) == 1


@pytest.mark.parametrize(
    ("text", "delay"),
    [
        ("+90s", timedelta(seconds=90)),
        ("+1h30m", timedelta(minutes=90)),
        ("+2d", timedelta(days=2)),
    ],
)
def test_a_delay_counts_from_now(text, delay):
    before = datetime.now(UTC)

    assert before + delay <= parse_time(text) <= datetime.now(UTC) + delay


@pytest.mark.parametrize("text", ["5m", "+5", "+m", "", "+5m ", "2026-13-01T00:00:00Z"])
def test_what_is_no_time(text):
    with pytest.raises(ValueError, match="is not a time"):
        parse_time(text)
