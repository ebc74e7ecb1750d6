"""The code in README.md, MIGRATING.md and docs/ runs as it stands; the links of all documents lead somewhere.

The blocks of one `##` section are one program, run from top to bottom on a fresh database:

- `python`: executed, `await` at the top allowed; a block that starts with `# name.py` is a file;
- `sh`: given to the shell, beside those files; `sql`: to PostgreSQL;
- other languages are for reading only.
"""

import ast
import asyncio
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from zodworker_compat.client.client import Client
from zodworker_compat.client.client_async import AsyncClient

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^```(python|sh|sql)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# (\w+\.py)\n")
LINK = re.compile(r"\[[^\]]*\]\((?!https?:)([^)#]*)#?([^)]*)\)")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
CODE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)

DOCS = sorted(f"docs/{file.name}" for file in (ROOT / "docs").glob("*.md"))
RUN = {"README.md", "MIGRATING.md", *DOCS} - {
    "docs/security.md"
}  # integration/test_roles.py runs that

Blocks = list[tuple[str, str]]


def sections() -> Iterator[Any]:
    for document in sorted(RUN):
        for section in (ROOT / document).read_text("utf-8").split("\n## ")[1:]:
            if blocks := FENCE.findall(section):
                yield pytest.param(blocks, id=f"{document}: {section.splitlines()[0]}")


@pytest.fixture
def folder(tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working directory whose modules can be imported, and DATABASE_URL."""
    modules = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("DATABASE_URL", database)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    yield tmp_path
    for name in set(sys.modules) - modules:
        if (tmp_path / f"{name}.py").exists():
            del sys.modules[name]


@pytest.mark.parametrize("blocks", list(sections()))
def test_code_runs_as_documented(blocks: Blocks, folder: Path, database: str) -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    with asyncio.Runner() as runner:
        try:
            for language, code in blocks:
                if language == "sh":
                    run_shell(code)
                elif language == "sql":
                    run_sql(code, database)
                elif file := FILE.match(code):
                    (folder / file[1]).write_text(code, "utf-8")
                else:
                    run_python(code, names, runner)
        finally:
            close_clients(names, runner)
    assert failures(database) == []


@pytest.mark.parametrize(
    "document", ["README.md", "MIGRATING.md", "CONTRIBUTING.md", "CHANGELOG.md", *DOCS]
)
def test_links_lead_somewhere(document: str) -> None:
    for file, anchor in LINK.findall(CODE.sub("", (ROOT / document).read_text("utf-8"))):
        here = ROOT / document
        target = here.parent / file if file else here
        assert target.exists(), f"{document}: {file}"
        assert not anchor or anchor in anchors(target), f"{document}: {file}#{anchor}"


def anchors(document: Path) -> set[str]:
    """The names that GitHub gives to the headings."""
    headings = HEADING.findall(CODE.sub("", document.read_text("utf-8")))
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def run_shell(script: str) -> None:
    done = subprocess.run(
        ["sh", "-ec", script],
        check=False,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"


def run_sql(statements: str, database: str) -> None:
    with psycopg.connect(database) as connection:
        connection.execute(statements)


def run_python(source: str, names: dict[str, Any], runner: asyncio.Runner) -> None:
    code = compile(source, "documentation", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    result = eval(code, names)  # noqa: S307 - our own documentation
    if inspect.iscoroutine(result):
        runner.run(result)


def failures(database: str) -> list[Any]:
    """What went wrong in handlers, where no caller sees it."""
    query = (
        "select task_identifier, last_error from graphile_worker.jobs where last_error is not null"
    )
    with psycopg.connect(database) as connection:
        return connection.execute(query).fetchall()


def close_clients(names: dict[str, Any], runner: asyncio.Runner) -> None:
    """What the end of the program would do."""
    for value in names.values():
        if isinstance(value, AsyncClient):
            runner.run(value.close())
        elif isinstance(value, Client):
            value.close()
