"""A PostgreSQL that tests may stop, kill, restart, and give a standby."""

import asyncio
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any
from unittest import mock

import psycopg

from zodworker_compat.database.migrate_async import migrate
from zodworker_compat.embedded import supervisor
from zodworker_compat.embedded.binaries import find_binaries

DATABASE = "chaos"
START_TIMEOUT = 120
SETTINGS = {
    # A killed server loses nothing by these: what it wrote is the operating system's.
    "fsync": "off",
    "full_page_writes": "off",
    "dynamic_shared_memory_type": "mmap",
    "listen_addresses": "*",
    "unix_socket_directories": "",
    "max_connections": "100",
    "shared_buffers": "32MB",
    "restart_after_crash": "on",
}


class Template:
    """An initialised data directory with the queue in it, to make servers from."""

    def __init__(self, home: Path, bindir: Path, account: supervisor.Account | None) -> None:
        self.home = home
        self.bindir = bindir
        self.account = account
        self.password = secrets.token_hex(16)
        self._numbers = iter(range(1000))
        supervisor._Runner(bindir, home, account).initdb(self.password, {})
        with (home / "data" / "pg_hba.conf").open("a") as file:
            file.write("host all all all scram-sha-256\n")
        with running(Cluster(self, home / "data")) as server:
            asyncio.run(_install(server))

    @contextmanager
    def server(
        self, settings: Mapping[str, str] | None = None, megabytes: int | None = None
    ) -> Iterator["Cluster"]:
        """Run a server on a copy, on a disk of its own if `megabytes` are given."""
        with self.fresh(megabytes) as data:
            subprocess.run(["cp", "-a", f"{self.home}/data/.", data], check=True)
            with running(Cluster(self, data, settings)) as cluster:
                yield cluster

    @contextmanager
    def fresh(self, megabytes: int | None = None) -> Iterator[Path]:
        """Give an empty directory for a server's data, and delete it."""
        path = self.home / f"data-{next(self._numbers)}"
        path.mkdir(mode=0o700)
        with small_disk(path, megabytes) if megabytes else nullcontext():
            path.chmod(0o700)
            if self.account:
                os.chown(path, *self.account)
            yield path
        shutil.rmtree(path)

    def spawn(self, program: str, *arguments: str, log: Path) -> "subprocess.Popen[bytes]":
        """Start one of PostgreSQL's programs as the user that may run it."""
        drop: dict[str, Any] = {}
        if self.account:
            drop = {"user": self.account.uid, "group": self.account.gid, "extra_groups": []}
        with log.open("ab") as file:
            return subprocess.Popen(
                [self.bindir / program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                cwd=self.home,
                env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC", "PGPASSWORD": self.password},
                start_new_session=True,
                **drop,
            )


class Cluster:
    """One server on one data directory; its port stays the same."""

    def __init__(
        self, template: Template, data: Path, settings: Mapping[str, str] | None = None
    ) -> None:
        self._template = template
        self._settings = {**SETTINGS, **(settings or {})}
        self._log = data.with_name(f"{data.name}.log")
        self._process: subprocess.Popen[bytes] | None = None
        self.data = data
        self.port = free_port()

    def url(self, host: str = "127.0.0.1", port: int | str | None = None, **parameters: Any) -> str:
        """Return a connection string; `host` and `port` may be lists with commas."""
        more = "".join(f" {name}='{value}'" for name, value in parameters.items())
        return (
            f"host={host} port={port or self.port} dbname={DATABASE} user=postgres"
            f" password={self._template.password}{more}"
        )

    def start(self) -> None:
        """Start it; returns when it takes connections."""
        settings = [f"-c{name}={value}" for name, value in self._settings.items()]
        self._process = self._template.spawn(
            "postgres", f"-D{self.data}", f"-p{self.port}", *settings, log=self._log
        )
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline and self._process.poll() is None:
            with suppress(OSError, IndexError):
                lines = (self.data / "postmaster.pid").read_text().splitlines()
                if lines[0] == str(self._process.pid) and lines[7].strip() == "ready":
                    return
            time.sleep(0.01)
        raise RuntimeError(f"PostgreSQL did not start:\n{self.said()[-2000:]}")

    def said(self) -> str:
        """Return what it has logged."""
        return self._log.read_text("utf-8", "replace")

    def is_running(self) -> bool:
        """Whether it has not ended, by itself or by `stop`."""
        return self._process is not None and self._process.poll() is None

    def stop(self, *, immediately: bool = True) -> None:
        """Stop it: in immediate mode, as if it crashed, or in fast mode."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT if immediately else signal.SIGINT)
            try:
                self._process.wait(START_TIMEOUT)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    @contextmanager
    def standby(self) -> Iterator["Cluster"]:
        """Run a copy that follows this server; each commit waits for it."""
        with self._template.fresh() as data:
            copying = self._template.spawn(
                "pg_basebackup",
                "--checkpoint=fast",
                "--no-sync",
                "--write-recovery-conf",
                "--wal-method=stream",
                f"--pgdata={data}",
                f"--dbname={self.url().replace(f'dbname={DATABASE}', 'dbname=replication')}",
                log=self._log,
            )
            if copying.wait(START_TIMEOUT):
                raise RuntimeError(f"pg_basebackup failed:\n{self.said()[-2000:]}")
            with running(Cluster(self._template, data, self._settings)) as standby:
                yield standby


@contextmanager
def small_disk(path: Path, megabytes: int) -> Iterator[None]:
    """Have a directory be a disk of its own."""
    options = f"size={megabytes}m,mode=0700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", path], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)


def no_small_disk() -> str | None:
    """Return why there can be none."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            with small_disk(Path(folder), 1):
                return None
        except (OSError, subprocess.CalledProcessError):
            return "no disk may be mounted (only root may, and not in every container)"


@contextmanager
def running(cluster: Cluster) -> Iterator[Cluster]:
    """Start a server, and stop it whatever has become of it."""
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@contextmanager
def template() -> Iterator[Template]:
    """Make a template, in memory if there is room; all of it is deleted."""
    bindir = find_binaries().directory
    account = supervisor._account()
    must_copy = not supervisor._may(account, bindir / "postgres", os.R_OK | os.X_OK)
    with mock.patch.dict(os.environ, _memory()):
        with supervisor._workspace(account, executable=must_copy) as home:
            yield Template(home, supervisor._copy(bindir, home) if must_copy else bindir, account)


def _memory() -> dict[str, str]:
    memory = Path("/dev/shm")  # noqa: S108 - the workspace is a folder of its own in it
    is_roomy = memory.is_dir() and shutil.disk_usage(memory).free > 2 * 2**30
    return {"TMPDIR": str(memory)} if is_roomy else {}


async def _install(server: Cluster) -> None:
    url = server.url().replace(f"dbname={DATABASE}", "dbname=postgres")
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute(f"create database {DATABASE}")
    async with await psycopg.AsyncConnection.connect(server.url(), autocommit=True) as connection:
        await migrate(connection, "graphile_worker", revision=18)
    server.stop(immediately=False)


def free_port() -> int:
    """Return a port that no client is given: one that connects to a server that is down would take it."""
    while True:
        port = random.randint(15_000, 32_000)  # noqa: S311 - not a secret
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
