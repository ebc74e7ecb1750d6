"""The examples run as their first lines say."""

import sys
from pathlib import Path

import psycopg
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
OUTPUT = {
    "quickstart.py": [
        "The payload of 'sendWelcome' does not match its schema:",
        "  /email: is required, but missing",
        "9 words",
        "Dear Ada: sent to ada@example.com, attempt 1",
    ],
    "transactional_enqueue.py": [
        "order 3: card refused",
        "receipt for order 1",
        "receipt for order 2",
        "orders: [1, 2]",
    ],
}


def test_every_example_is_tested():
    assert {path.name for path in EXAMPLES.glob("*.py")} == {*OUTPUT, "database.py"}


@pytest.mark.parametrize("example", OUTPUT)
def test_it_runs_on_the_server_of_the_environment(example, process, empty_database):
    running = process([sys.executable, EXAMPLES / example], env={"DATABASE_URL": empty_database})

    assert running.wait() == 0, running.errors
    assert sorted(running.output.splitlines()) == sorted(OUTPUT[example])
    with psycopg.connect(empty_database) as connection:
        query = "select count(*) from graphile_worker._private_jobs"
        assert connection.execute(query).fetchone() == (0,)


@pytest.mark.parametrize("example", OUTPUT)
def test_it_runs_without_a_server(example, process):
    running = process([sys.executable, EXAMPLES / example], env={"DATABASE_URL": None})

    assert running.wait(60) == 0, running.errors
    assert sorted(running.output.splitlines()) == sorted(OUTPUT[example])
