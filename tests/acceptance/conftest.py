"""The command `zodworker` as a process of its own."""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen
from click.testing import CliRunner

from zodworker_compat.cli.main import cli

OURS = ("PG", "DATABASE_URL", "ZODWORKER_", "GRAPHILE_WORKER_", "NO_COLOR", "FORCE_COLOR")
"""What the command reads from the environment."""


@frozen
class Done:
    """How a command ended."""

    status: int
    output: str
    errors: str


@pytest.fixture
def start_zodworker(process: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    """Start `zodworker` with arguments, in `tmp_path`, with no environment but `env` naming a database."""

    def start(*arguments: str | Path, env: Mapping[str, str] | None = None, **popen: Any) -> Any:
        cleared = {name: None for name in os.environ if name.startswith(OURS)}
        command = [sys.executable, "-m", "zodworker_compat.cli", *arguments]
        return process(command, env={**cleared, **(env or {})}, cwd=tmp_path, **popen)

    return start


@pytest.fixture
def zodworker(start_zodworker: Callable[..., Any], tmp_path: Path) -> Callable[..., Done]:
    """Run `zodworker` to its end; `stdin` is the text of its standard input."""

    def run(*arguments: str | Path, env: Mapping[str, str] | None = None, stdin: str = "") -> Done:
        source = tmp_path / "stdin"
        source.write_text(stdin)
        with source.open("rb") as file:
            running = start_zodworker(*arguments, env=env, stdin=file)
            status = running.wait(60)
        return Done(status, running.output, running.errors)

    return run


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, database: str) -> Callable[..., Done]:
    """Run `zodworker` in this process on `database`: quick, for verbs that need no process."""
    for name in list(os.environ):
        if name.startswith(OURS):
            monkeypatch.delenv(name)

    def run(*arguments: str, env: Mapping[str, str] | None = None, stdin: str = "") -> Done:
        result = CliRunner().invoke(
            cli,
            arguments,
            input=stdin,
            env={"ZODWORKER_DATABASE_URL": database, **(env or {})},
            prog_name="zodworker",
            auto_envvar_prefix="ZODWORKER",
        )
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Done(result.exit_code, result.stdout, result.stderr)

    return run


@pytest.fixture
def on_terminal(database: str) -> Callable[..., tuple[int, str]]:
    """Run `zodworker` on a terminal and on `database`; returns its exit status and what is seen.

    When `prompt` is seen, `then` is typed, or sent as a signal.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    env = {**inherited, "TERM": "xterm-256color", "NO_COLOR": "1", "DATABASE_URL": database}

    def run(*arguments: str, prompt: str = " ", then: bytes | signal.Signals = b"") -> Any:
        ours, its = pty.openpty()
        fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        running = subprocess.Popen(
            [sys.executable, "-m", "zodworker_compat.cli", *arguments],
            stdin=its,
            stdout=its,
            stderr=its,
            start_new_session=True,
            env=env,
        )
        os.close(its)
        seen, is_answered, deadline = b"", False, time.monotonic() + 60
        with suppress(OSError):  # EIO: it has ended
            while select.select([ours], [], [], max(0, deadline - time.monotonic()))[0]:
                seen += os.read(ours, 4096)
                if prompt.encode() in seen and not is_answered:
                    is_answered = True
                    if isinstance(then, signal.Signals):
                        running.send_signal(then)
                    else:
                        os.write(ours, then)
        try:
            return running.wait(60), seen.decode("utf-8", "replace").replace("\r\n", "\n")
        finally:
            running.kill()
            running.wait()
            os.close(ours)

    return run
