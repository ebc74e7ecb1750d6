"""What `zodworker` says about itself, and to people who mistype."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

import zodworker_compat
from zodworker_compat import __version__
from zodworker_compat.cli.enqueue import JOB_KEY_MODES
from zodworker_compat.cli.jobs import SORTS
from zodworker_compat.cli.main import cli
from zodworker_compat.cli.selection import STATES
from zodworker_compat.database.job_filter import JOB_SORTS, JOB_STATES
from zodworker_compat.options import JOB_KEY_MODES as LIBRARY_JOB_KEY_MODES


def commands(group=cli, path=("zodworker",)):
    """Every verb with its full name."""
    for name, command in group.commands.items():
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


VERBS = [pytest.param(path, command, id=" ".join(path)) for path, command in commands()]


def test_without_a_verb_it_prints_its_help(zodworker):
    done = zodworker()

    assert done.status == 0
    for verb in cli.commands:
        assert f"\n  {verb} " in done.output
    assert "57  `run` was stopped" in done.output
    assert done.errors == ""


def test_version(zodworker):
    assert zodworker("--version").output == f"zodworker {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "suggestion"),
    [
        (["stauts"], "No such command 'stauts'. Did you mean 'status'?"),
        (["catalog", "chek"], "No such command 'chek'. Did you mean 'check'?"),
        (["status", "--jsn"], "No such option '--jsn'. Did you mean '--json'?"),
    ],
)
def test_a_mistyped_word_gets_a_suggestion(zodworker, arguments, suggestion):
    done = zodworker(*arguments)

    assert done.status == 2
    assert suggestion in done.errors


def test_help_imports_nothing_heavy():
    program = """
import sys, types
root = types.ModuleType("zodworker_compat")  # its own imports are not the command's
root.__path__, root.__version__ = [sys.argv[1]], ""
sys.modules["zodworker_compat"] = root
from zodworker_compat.cli.main import cli
cli(["enqueue", "--help"], standalone_mode=False)
heavy = {"asyncio", "attr", "jsonschema", "jsonschema_rs", "psycopg", "rich"} & sys.modules.keys()
assert not heavy, heavy
"""
    command = [sys.executable, "-c", program, *zodworker_compat.__path__]

    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("path", "command"), VERBS)
def test_every_verb_is_explained_with_examples_of_itself(path, command):
    with click.Context(command, info_name=" ".join(path)) as context:
        text = command.get_help(context)

    examples = text.split("Examples:\n")[1]
    assert " ".join(path) in examples
    assert all(option.help for option in command.params if isinstance(option, click.Option))


@pytest.mark.parametrize(("path", "command"), VERBS)
def test_every_option_has_an_environment_twin(path, command, monkeypatch):
    common = {"--database-url", "--schema", "--debug"}
    for option in command.params:
        if not isinstance(option, click.Option):
            continue
        flag = option.opts[-1]
        verb = () if flag in common else path[1:]
        name = "_".join(["zodworker", *verb, flag.strip("-").replace("-", "_")]).upper()
        monkeypatch.setenv(name, "the value")
        with click.Context(command, auto_envvar_prefix="_".join(path).upper()) as context:
            assert option.resolve_envvar_value(context) == "the value", name


def test_choices_are_the_library_s():
    assert JOB_KEY_MODES == LIBRARY_JOB_KEY_MODES
    assert STATES == JOB_STATES
    assert SORTS == JOB_SORTS


@pytest.mark.parametrize(("path", "command"), VERBS)
def test_the_examples_are_commands(path, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for file in ("crontab", "jobs.jsonl", "payload.json"):  # which they name
        (tmp_path / file).write_text("{}")
    with click.Context(command, info_name=" ".join(path)) as context:
        text = command.get_help(context).split("Examples:\n")[1].partition("\n\n")[0]

    tried = 0
    for line in text.splitlines():
        for part in re.split(r" \| (?:xargs )?", line):
            if not part.strip().startswith("zodworker "):
                continue
            words = shlex.split(re.split(r" >> | {3,}", part.strip())[0])[1:]
            found = cli
            while isinstance(found, click.Group):
                found = found.commands[words.pop(0)]
            with found.make_context("example", words):  # raises if it is called wrongly
                tried += 1
    assert tried


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_can_complete(zodworker, shell):
    done = zodworker("completion", shell)

    assert done.status == 0
    assert "_ZODWORKER_COMPLETE" in done.output


@pytest.fixture
def in_bash(tmp_path):
    """What bash offers for a line that was typed, with `zodworker completion bash` in its start-up file."""
    script = """
    set -e
    eval "$(zodworker completion bash)"
    read -ra COMP_WORDS <<< "$1"
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    $(complete -p zodworker | sed -E 's/.*-F ([^ ]+) .*/\\1/') zodworker
    printf '%s\\n' "${COMPREPLY[@]}"
    """
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])

    def complete(typed):
        done = subprocess.run(
            ["bash", "--norc", "-c", script, "bash", typed],
            env={"PATH": path},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return set(done.stdout.split())

    return complete


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("zodworker re", {"retry", "reschedule", "remove"}),
        ("zodworker jobs --sta", {"--state"}),
        ("zodworker jobs --state r", {"ready", "retrying", "running"}),
        ("zodworker jobs --task startR", {"startRun"}),
        ("zodworker enqueue startR", {"startRun"}),
        ("zodworker catalog check exec", {"executionWorker"}),
    ],
)
def test_verbs_options_choices_and_tasks_are_completed_in_bash(in_bash, typed, expected):
    assert in_bash(typed) == expected


def test_a_closed_pipe_is_silent():
    pipeline = f"{shlex.quote(sys.executable)} -m zodworker_compat.cli catalog list | head -1"

    done = subprocess.run(["sh", "-c", pipeline], capture_output=True, text=True, check=True)

    assert done.stdout == "Tasks\n"
    assert done.stderr == ""


def test_no_database_is_named(zodworker):
    done = zodworker("status")

    assert done.status == 1
    for way in ("--database-url", "DATABASE_URL", "PGHOST", "zodworker demo"):
        assert way in done.errors
    assert "Traceback" not in done.errors


@pytest.mark.parametrize("debug", [["status", "--debug"], ["--debug", "status"]])
def test_debug_shows_the_traceback(zodworker, debug):
    done = zodworker(*debug, env={"DATABASE_URL": "nonsense"})

    assert done.status == 1
    assert "Traceback" in done.errors
    assert "DATABASE_URL is not a PostgreSQL connection string" in done.errors


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda url: url.rpartition("/")[0] + "/absent", 'database "absent" does not exist'),
        (lambda url: "postgresql://nobody:secret@127.0.0.1:1/x", "port 1, database x"),
        (lambda url: "postgresql//typo", "not a PostgreSQL connection string"),
    ],
    ids=["missing database", "unreachable", "mistyped URL"],
)
def test_a_database_that_cannot_be_used(zodworker, server, change, complaint):
    done = zodworker("status", "--database-url", change(server.dsn()))

    assert done.status == 1
    assert complaint in done.errors
    assert "secret" not in done.errors
    assert "Traceback" not in done.errors


def test_the_database_of_the_option_beats_the_environment(zodworker, database):
    wrong = "postgresql://nobody@127.0.0.1:1/x"
    ours = {"ZODWORKER_DATABASE_URL": database, "DATABASE_URL": wrong}

    assert zodworker("status", env=ours).status == 0
    assert zodworker("status", "--database-url", wrong, env=ours).status == 1
