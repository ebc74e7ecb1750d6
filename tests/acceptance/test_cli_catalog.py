"""`zodworker catalog`."""

import json

import pytest

CATALOG = {
    "name": "mine",
    "tasks": {
        "mail": {
            "schema": {"type": "object", "properties": {"to": {"type": "string"}}},
            "priority": 7,
            "flags": ["slow"],
        }
    },
    "recurring": {"tidy": {"match": "0 4 * * *", "options": {"maxAttempts": 2}}},
}


@pytest.fixture
def mine(tmp_path):
    """The path of a catalog."""
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(CATALOG))
    return path


def test_list_as_json(zodworker, mine):
    own, shipped = zodworker("catalog", "list", mine, "--json"), zodworker("catalog", "list")

    assert json.loads(own.output) == {
        "tasks": [
            {
                "catalog": "mine",
                "identifier": "mail",
                "priority": 7,
                "max_attempts": None,
                "queue_name": None,
                "job_key": None,
                "job_key_mode": None,
                "flags": ["slow"],
            }
        ],
        "recurring": [
            {
                "catalog": "mine",
                "identifier": "tidy",
                "match": "0 4 * * *",
                "options": {"maxAttempts": 2},
            }
        ],
    }
    assert len([line for line in shipped.output.splitlines() if "Worker" in line]) == 3 + 2
    assert shipped.output.isascii()


def test_show(zodworker, mine):
    text = zodworker("catalog", "show", "startRun")
    own = zodworker("catalog", "show", "mail", "--catalog", mine, "--json")

    assert text.output.startswith("Task startRun\n  priority: 0\n  max attempts: 4\n")
    assert '"required": [\n    "id"\n  ]' in text.output
    shown = json.loads(own.output)
    assert shown["priority"] == 7
    assert shown["schema"] == CATALOG["tasks"]["mail"]["schema"]


def test_show_suggests_a_task(zodworker):
    done = zodworker("catalog", "show", "startrun")

    assert done.status == 1
    assert "Did you mean 'startRun'" in done.errors


def test_check(zodworker, mine, tmp_path):
    (tmp_path / "bad.json").write_text(mine.read_text().replace('"string"', '"strng"'))

    good, bad = zodworker("catalog", "check", mine), zodworker("catalog", "check", "./bad.json")

    assert good.output == "mine: 1 tasks, 1 recurring, no problem found\n"
    assert bad.status == 1
    assert "task 'mail', /properties/to/type: is not a draft 2020-12 schema" in bad.errors
    assert "Traceback" not in bad.errors


def test_codegen_writes_and_checks(zodworker, mine, tmp_path):
    arguments = ["catalog", "codegen", mine, "--out", "payloads"]

    missing = zodworker(*arguments, "--check")
    written = zodworker(*arguments)
    current = zodworker(*arguments, "--check")

    assert missing.status == 1
    assert "out of date" in missing.errors
    assert written.status == 0
    assert "class Mail" in (tmp_path / "payloads" / "mine.py").read_text()
    assert (current.status, current.output) == (0, "")


def test_the_package_s_own_payload_classes_are_current(zodworker):
    assert zodworker("catalog", "codegen", "--check").status == 0
