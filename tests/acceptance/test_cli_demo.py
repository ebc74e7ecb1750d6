"""`zodworker demo` on a PostgreSQL of its own; see test_demo.py for what it does."""

import json


def test_without_a_database_it_starts_one_and_throws_it_away(zodworker, tmp_path):
    login = {"email": "ada@x.example", "magicLink": "https://x.example/login"}
    event = {"id": "e1", "name": "user.login", "source": "web", "payload": login}
    events = tmp_path / "events.jsonl"
    events.write_text(json.dumps(event) + "\n")
    temporary = tmp_path / "temporary"
    temporary.mkdir(mode=0o755)

    done = zodworker("demo", "--events", events, env={"TMPDIR": str(temporary)})

    assert done.status == 0, done.output + done.errors
    assert "checks passed" in done.output
    assert "\x1b" not in done.output
    assert list(temporary.iterdir()) == []


def test_a_database_that_cannot_be_reached(zodworker):
    done = zodworker("demo", env={"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/x"})

    assert done.status == 1
    assert "Connection refused" in done.errors
    assert "Traceback" not in done.errors
