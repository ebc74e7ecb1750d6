"""Any arguments, input and environment: an exit status of the documented ones, and a sentence."""

import os
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from zodworker_compat.cli.main import cli

UNREACHABLE = "postgresql://u:hunter2@127.0.0.1:1/d"
WORDS = st.sampled_from(
    [
        "enqueue",
        "run",
        "status",
        "migrate",
        "catalog",
        "list",
        "show",
        "check",
        "jobs",
        "job",
        "retry",
        "fail",
        "remove",
        "unlock",
        "workers",
        "queues",
        "tasks",
        "cron",
        "verify",
        "startRun",
        "{}",
        "-",
        "--schema",
        "--json",
        "--dry-run",
        "--run-at",
        "--priority",
        "--app",
        "--catalog",
        "--from",
        "--",
        "--job-key",
        "--max-attempts",
        "--flag",
        "--queue-name",
        "--log-level",
        "--once",
        "--plan",
        "--revision",
        "--help",
        "--version",
        "-h",
        "--concurrency",
        "--poll-interval",
        "--debug",
        "+" + "9" * 400 + "d",
        "9" * 5000,
        "-1",
        "nan",
        "inf",
        "a\"b';--%s",
        "x" * 70,
        "os:path",
        ":",
        "a:",
        "@/dev/null",
        "@/",
        "@nowhere",
        "/",
        ".",
        "..",
        "/dev/null",
        "workerQueue",
        "2026-01-01T00:00Z",
        '{"id": "run_1"}',
        "[" * 2000,
        '{"a":' * 1200,
        "[" + "9" * 5000 + "]",
        '"\\ud800"',
        '"\\u0000"',
        "NaN",
        "1e400",
        "�",
        "\u202e",
        "🐘",
        "",
        " ",
        "\n",
        "%",
        "[red]",
        "$(id)",
        "`id`",
        "!!",
        "*",
    ]
)
VARIABLES = st.sampled_from(
    [
        "DATABASE_URL",
        "ZODWORKER_DATABASE_URL",
        "ZODWORKER_SCHEMA",
        "GRAPHILE_WORKER_SCHEMA",
        "PGPORT",
        "PGHOST",
        "PGSERVICE",
        "PGSSLMODE",
        "ZODWORKER_DEBUG",
        "ZODWORKER_ENQUEUE_PRIORITY",
        "PGOPTIONS",
        "ZODWORKER_RUN_CONCURRENCY",
        "ZODWORKER_RUN_LOG_LEVEL",
        "ZODWORKER_STATUS_JSON",
        "COLUMNS",
        "TERM",
    ]
)
STATUSES = {0, 1, 2, 57}


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    """Run the command in this process, where no database is and nothing lies about."""
    for name in os.environ:
        if name.startswith(("PG", "ZODWORKER_", "GRAPHILE_", "DATABASE_URL")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return CliRunner()


def check(runner: CliRunner, arguments: list[str], **how: object) -> None:
    result = runner.invoke(
        cli, arguments, prog_name="zodworker", auto_envvar_prefix="ZODWORKER", **how
    )
    debugging = "--debug" in arguments or "ZODWORKER_DEBUG" in (how.get("env") or {})
    assert result.exception is None or isinstance(result.exception, SystemExit) or debugging, (
        arguments
    )
    assert result.exit_code in STATUSES
    assert "That should not happen" not in result.output
    assert "hunter2" not in result.output
    assert result.output or result.exit_code == 0


fuzzed = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@fuzzed
@given(st.lists(WORDS, max_size=7))
@example(["enqueue", "startRun", "[" * 2000])
@example(["enqueue", "startRun", '{"a":' * 1200 + "1" + "}" * 1200])
@example(["enqueue", "startRun", "[" + "9" * 5000 + "]", "--dry-run"])
@example(["enqueue", "startRun", '{"id": "\\ud800"}', "--dry-run", "--json"])
@example(["enqueue", "startRun", '{"id": "a"}', "--job-key", "\udcff", "--dry-run"])
@example(["enqueue", "\udcff", "{}", "--dry-run"])
@example(["status", "--schema", "x" * 70])
@example(["status", "--schema", "\udcff"])
@example(["catalog", "show", "--catalog", "/"])
def test_any_arguments_end_in_order(runner, arguments) -> None:
    if "demo" not in arguments:
        check(runner, arguments, env={"DATABASE_URL": UNREACHABLE})


@fuzzed
@given(
    st.sampled_from(
        ["status", "migrate", "enqueue startRun", "enqueue startRun {} --dry-run", "run"]
    ),
    st.dictionaries(VARIABLES, WORDS.map(lambda word: word.replace("\0", "")), max_size=4),
)
def test_any_environment_ends_in_order(runner, verb, environ) -> None:
    check(runner, verb.split(), env={"PGCONNECT_TIMEOUT": "2", **environ})


LINES = st.binary(max_size=60) | st.sampled_from(
    [
        b'{"identifier": "startRun", "payload": {"id": "a"}}',
        b"[" * 3000,
        b"{" * 3000,
        b"\xff",
        b"null",
        b'{"identifier": "startRun", "payload": ' + b"9" * 5000 + b"}",
        b'{"identifier": 5}',
        b"\x00",
        b'{"identifier": "startRun", "priority": 1e400}',
        b'{"identifier": "startRun", "flags": 5}',
        b'{"identifier": "startRun", "run_at": "never"}',
        b'{"identifier": "\\ud800"}',
        b"\xef\xbb\xbf{}",
        b'{"identifier": "startRun", "payload": {"id": "a"}, "nothing": 1}',
        b'"' + b"x" * 100000,
    ]
)


@fuzzed
@given(st.lists(LINES, max_size=4).map(b"\n".join))
def test_any_file_of_jobs_is_checked(runner, content) -> None:
    Path("jobs.jsonl").write_bytes(content)
    check(runner, ["enqueue", "--from", "jobs.jsonl", "--dry-run"])
    check(runner, ["enqueue", "startRun", "-", "--dry-run"], input=content)


@pytest.mark.parametrize("schema", ['a"b%s', "a'b; drop schema public; --", "ü🐘", ":schema", " "])
def test_a_hostile_schema_name_is_only_a_name(zodworker, empty_database, schema) -> None:
    where = ["--database-url", empty_database, "--schema", schema]
    assert zodworker("migrate", *where).status == 0
    assert zodworker("enqueue", "startRun", '{"id": "a"}', *where).status == 0
    done = zodworker("status", "--json", *where)
    assert done.status == 0
    assert '"ready": 1' in done.output


def test_arguments_that_are_no_text_are_refused(start_zodworker) -> None:
    running = start_zodworker("enqueue", b"\xff\xfe", b"{}", "--dry-run")
    assert running.wait(60) in {1, 2}
    assert "Traceback" not in running.errors
