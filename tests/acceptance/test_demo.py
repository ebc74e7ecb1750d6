"""The demo: a real run on a server of the user's, in schemas of its own."""

import asyncio
import io
import json
import logging
import signal
import sys
from contextlib import ExitStack
from datetime import timedelta

import psycopg
import pytest
from rich.console import Console

from zodworker_compat.demo import run
from zodworker_compat.errors import DatabaseUnavailableError

DEMO = [sys.executable, "-m", "zodworker_compat.cli", "demo", "--database-url"]
LOGIN = {"email": "ada@x.example", "magicLink": "https://x.example/login"}


def schemas(url):
    with psycopg.connect(url) as connection:
        rows = connection.execute("select nspname from pg_namespace where nspname like '%demo%'")
        return {name for (name,) in rows}


@pytest.fixture
def small(tmp_path):
    """Write a file of events."""

    def write(*events):
        path = tmp_path / "events.jsonl"
        defaults = {"name": "user.login", "source": "web", "payload": LOGIN}
        path.write_text("".join(json.dumps({**defaults, **event}) + "\n" for event in events))
        return path

    return write


@pytest.fixture
def console():
    """A console of 100 columns that is read afterwards, as `console.file.getvalue()`."""
    return Console(file=io.StringIO(), width=100)


@pytest.mark.timeout(300)
def test_every_number_is_right_and_nothing_is_left(process, empty_database):
    demo = process([*DEMO, empty_database])

    assert demo.wait(280) == 0, demo.output + demo.errors
    assert "1,240 of 1,240 events read" in demo.output
    assert "12 refused at enqueue" in demo.output
    assert "checks passed" in demo.output
    assert "✗" not in demo.output
    assert not demo.errors
    assert schemas(empty_database) == set()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_an_interrupted_demo_drops_its_schemas(process, empty_database, eventually, number):
    demo = process([*DEMO, empty_database])
    await eventually(lambda: "jobs done" in demo.output, timeout=60)
    assert len(schemas(empty_database)) == 2

    demo.send_to_group(number)

    assert demo.wait() == 128 + number
    assert f"Interrupted by {number.name}" in demo.output
    assert schemas(empty_database) == set()


async def test_two_demos_share_a_database(empty_database, small, console):
    logger = logging.getLogger("zodworker_compat")
    level = logger.level
    events = small(*({"id": f"e{number}"} for number in range(20)))

    reports = await asyncio.gather(
        *(run(empty_database, events=events, console=console) for _ in range(2))
    )

    assert [report.exit_code for report in reports] == [0, 0], console.file.getvalue()
    assert schemas(empty_database) == set()
    assert logger.level == level  # each demo is quiet, and the last one gives the level back


async def test_a_job_that_is_missing_fails_the_demo(empty_database, small, console):
    events = small({"id": "soon"}, {"id": "late", "deliverAfter": 3600})

    report = await run(empty_database, events=events, console=console, limit=timedelta(seconds=5))

    assert (report.ok, report.exit_code) == (False, 1)
    output = console.file.getvalue()
    assert "✗ deliverEvent: 2 enqueued, 1 done, 0 retried, 0 failed; expected 2 enqueued" in output
    assert "✗ 1 jobs left to do; expected 0" in output
    assert "checks failed" in output
    assert schemas(empty_database) == set()


async def test_a_business_row_that_is_wrong_fails_the_demo(
    empty_database, small, console, eventually
):
    events = small({"id": "e", "taskDelay": 3})
    demo = asyncio.create_task(run(empty_database, events=events, console=console))
    query = (
        "select nspname from pg_namespace where nspname ~ 'demo_[0-9a-f]+$' and nspname !~ 'queue'"
    )

    with psycopg.connect(empty_database, autocommit=True) as connection:

        def tampered_with():
            rows = connection.execute(query).fetchall()
            update = "update {}.events set name = 'page.viewed' where delivered_at is not null"
            return rows and connection.execute(update.format(rows[0][0])).rowcount

        await eventually(tampered_with)

    report = await demo
    assert report.exit_code == 1
    assert "✗ 0 e-mails; expected 1" in console.file.getvalue()


async def test_a_terminal_shows_it_live(empty_database, small):
    console = Console(file=io.StringIO(), width=100, force_terminal=True)
    events = small({"id": "e", "failures": {"performTaskOperation": 1}}, {"id": 7})

    report = await run(empty_database, events=events, console=console)

    output = console.file.getvalue()
    assert report.ok, output
    assert "taskOperationWorker" in output
    assert "events read" in output


async def test_a_broken_connection_does_not_leave_the_schemas(
    empty_database, small, console, eventually
):
    events = small({"id": "late", "deliverAfter": 3600})
    demo = asyncio.create_task(run(empty_database, events=events, console=console))

    def cut():
        with psycopg.connect(empty_database, autocommit=True) as connection:
            return connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity "
                "where application_name = 'zodworker demo' and query like '%attempts < max_attempts%'"
            ).fetchone()

    await eventually(cut)
    with pytest.raises(psycopg.OperationalError):
        await demo
    assert schemas(empty_database) == set()


async def test_a_server_that_is_not_there_is_an_error(console):
    with pytest.raises(DatabaseUnavailableError, match="cannot be reached"):
        await run("postgresql://postgres@127.0.0.1:9/none", console=console)


def test_the_log_is_as_before_whichever_demo_ends_first() -> None:
    quiet = sys.modules[run.__module__]._quiet
    logger = logging.getLogger("zodworker_compat")
    level = logger.level
    with ExitStack() as second:
        with quiet():
            second.enter_context(quiet())
        assert logger.level == logging.CRITICAL
    assert logger.level == level
