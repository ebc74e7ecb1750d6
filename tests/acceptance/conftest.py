"""The command `zodworker` as a process of its own."""

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen


@frozen
class Done:
    """How a command ended."""

    status: int
    output: str
    errors: str


@pytest.fixture
def start_zodworker(process: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    """Start `zodworker` with arguments, in `tmp_path`, with no environment but `env` naming a database."""
    ours = ("PG", "DATABASE_URL", "ZODWORKER_", "GRAPHILE_WORKER_", "NO_COLOR", "FORCE_COLOR")

    def start(*arguments: str | Path, env: Mapping[str, str] | None = None, **popen: Any) -> Any:
        cleared = {name: None for name in os.environ if name.startswith(ours)}
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
