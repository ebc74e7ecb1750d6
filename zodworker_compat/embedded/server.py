"""A throw-away PostgreSQL server, as its user sees it."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

from zodworker_compat.embedded import supervisor
from zodworker_compat.embedded.binaries import Binaries, EmbeddedPostgresError, find_binaries

SETTINGS = {
    "fsync": "off",  # a crash of the machine may lose it: it is thrown away anyway
    "full_page_writes": "off",
    "dynamic_shared_memory_type": "mmap",  # files in our directory: nothing is left in /dev/shm
    "max_connections": "200",
    "shared_buffers": "128MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


class EmbeddedPostgres:
    """A PostgreSQL server that lives as long as this object is entered, and leaves nothing behind.

    It is owned by a process of its own, which ends it and deletes its directory when we end,
    however that happens, `kill -9` included. It is in a session of its own: Ctrl-C in the
    terminal ends us, and the server after us. As root it runs as `nobody`.

    >>> with EmbeddedPostgres() as server:
    ...     psycopg.connect(server.dsn())

    Args:
        binaries: the PostgreSQL to run; by default what `find_binaries` finds.
        settings: more lines for postgresql.conf, e.g. `{"wal_level": "logical"}`.
        environ: for `find_binaries`, and TMPDIR.
    """

    def __init__(
        self,
        binaries: Binaries | None = None,
        *,
        settings: Mapping[str, str] | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.binaries = binaries or find_binaries(environ)
        self._settings = {**SETTINGS, **(settings or {})}
        self._environ = os.environ if environ is None else environ
        self._supervisor: subprocess.Popen[str] | None = None
        self._answer: dict[str, Any] = {}

    @property
    def version(self) -> str:
        """PostgreSQL's version, e.g. "18.1"."""
        return self.binaries.version

    @property
    def directory(self) -> Path:
        """The temporary directory that holds all of it: `data`, `log` and the socket."""
        return Path(self._told("directory"))

    def dsn(self, database: str = "postgres", *, unix_socket: bool = False) -> str:
        """Return the connection URL of a database, for its superuser.

        Args:
            database: its name; it need not exist yet.
            unix_socket: through the socket file rather than 127.0.0.1; a little faster, but not
                every client understands such a URL.
        """
        port, password = self._told("port"), self._told("password")
        user = f"postgresql://postgres:{password}@"
        if unix_socket:
            folder = quote(str(self.directory), safe="")
            return f"{user}/{quote(database, safe='')}?host={folder}&port={port}"
        return f"{user}127.0.0.1:{port}/{quote(database, safe='')}"

    def _told(self, field: str) -> Any:
        if not self._answer:
            raise EmbeddedPostgresError(
                "This PostgreSQL has not been started: use `with EmbeddedPostgres() as server:`."
            )
        return self._answer[field]

    def start(self) -> None:
        """Start the server; returns when it takes connections.

        Raises:
            EmbeddedPostgresError: it did not start; the message has the end of its log.
        """
        request = {"bindir": str(self.binaries.directory), "settings": self._settings}
        self._supervisor = subprocess.Popen(  # noqa: S603
            [sys.executable, "-I", supervisor.__file__, json.dumps(request)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=dict(self._environ),
            start_new_session=True,
        )
        try:
            self._answer = self._read_answer(self._supervisor)
        except BaseException:
            self.stop()
            raise

    def _read_answer(self, process: "subprocess.Popen[str]") -> dict[str, Any]:
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        line = process.stdout.readline()
        try:
            answer: dict[str, Any] = json.loads(line)
        except ValueError:
            answer = {"error": line + process.stdout.read() or "its supervisor was killed."}
        if "error" in answer:
            raise EmbeddedPostgresError(
                f"PostgreSQL {self.version} ({self.binaries.origin}) did not start: "
                f"{answer['error']}"
            )
        return answer

    def stop(self) -> None:
        """End the server, drop every connection to it and delete its directory; may be repeated."""
        if self._supervisor is None:
            return
        process, self._supervisor = self._supervisor, None
        assert process.stdin is not None  # noqa: S101 - it is a pipe
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        with suppress(BrokenPipeError):  # it has ended by itself
            process.stdin.write("stop\n")
            process.stdin.close()
        process.stdout.close()
        process.wait()
        if self._answer:  # a supervisor that was killed leaves its directory to us
            supervisor.remove(self.directory)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
