"""The process between ours and PostgreSQL: it owns the server, and ends it when we are gone.

It runs as a script, on the standard library only, so that it starts fast. Its argument is JSON:
`bindir` (the folder of PostgreSQL's programs) and `settings` (lines for postgresql.conf). It
writes one line of JSON: `directory`, `port`, `password`, or `error`. Its standard input is a pipe
from its parent: a line means stop, and so does its end: the parent is gone, however it ended.
"""

import ctypes
import json
import os
import pwd
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

START_TIMEOUT = 60.0  # seconds
STOP_TIMEOUT = 10.0  # seconds
PORT_ATTEMPTS = 20
LONGEST_SOCKET = 103  # bytes in sun_path on macOS; Linux has four more
PORT_TAKEN = "could not create any TCP/IP sockets"
PR_SET_PDEATHSIG = 1


class StartError(Exception):
    """PostgreSQL cannot be started here; the message is for the user."""


class Account(NamedTuple):
    """Whom PostgreSQL runs as, when we are root: it refuses to be root."""

    uid: int
    gid: int


def main() -> None:
    """Run a server until the parent is gone."""
    parent = os.getppid()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))
    request = json.loads(sys.argv[1])
    try:
        _serve(Path(request["bindir"]), request["settings"], parent)
    except (StartError, OSError, subprocess.SubprocessError) as error:
        _answer(error=str(error))


def _serve(bindir: Path, settings: dict[str, str], parent: int) -> None:
    account = _account()
    must_copy = not _may(account, bindir / "postgres", os.R_OK | os.X_OK)
    with _workspace(account, executable=must_copy) as directory:
        if must_copy:
            bindir = _copy(bindir, directory)
        password = os.urandom(16).hex()
        run = _Runner(bindir, directory, account)
        run.initdb(password, settings)
        with run.postgres() as (server, port):
            _answer(directory=str(directory), port=port, password=password)
            while server.poll() is None and _is_there(parent):
                pass


def _answer(**fields: object) -> None:
    with suppress(BrokenPipeError):  # nobody is left to read it
        print(json.dumps(fields), flush=True)  # noqa: T201


def _is_there(parent: int) -> bool:
    """Wait a little; return whether the parent still runs, and has not said stop.

    The process number is looked at as well, because a fork of the parent that outlives it keeps
    the pipe open.
    """
    stop, _, _ = select.select([sys.stdin], [], [], 0.25)
    return not stop and os.getppid() == parent


def _account() -> Account | None:
    if os.geteuid() != 0:
        return None
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        raise StartError(
            "PostgreSQL refuses to run as root, and this system has no account `nobody` to run "
            "it as. Run this as an ordinary user, or set DATABASE_URL to a running server."
        ) from None
    os.setgroups([])  # root's groups would make `_may` too generous
    return Account(nobody.pw_uid, nobody.pw_gid)


def _may(account: Account | None, path: Path, mode: int) -> bool:
    """Return whether PostgreSQL's account may reach and use `path`."""
    if account is None:
        return os.access(path, mode)
    os.setegid(account.gid)
    os.seteuid(account.uid)
    try:
        return os.access(path, mode, effective_ids=True)
    finally:
        os.seteuid(0)
        os.setegid(0)


@contextmanager
def _workspace(account: Account | None, *, executable: bool) -> Iterator[Path]:
    """Make the one directory that everything is in, and remove it."""
    for parent in filter(None, (os.environ.get("TMPDIR"), "/tmp", "/var/tmp", "/dev/shm")):  # noqa: S108
        directory = Path(parent).absolute() / f"zodworker-{os.urandom(6).hex()}"
        if len(os.fsencode(directory / ".s.PGSQL.65535")) > LONGEST_SOCKET or "," in parent:
            continue  # libpq reads a comma as the end of the host
        try:
            directory.mkdir(mode=0o700)
        except OSError:
            continue
        try:
            if account:
                os.chown(directory, *account)
            if _may(account, directory, os.W_OK | os.X_OK) and not (
                executable and os.statvfs(directory).f_flag & getattr(os, "ST_NOEXEC", 0)
            ):
                yield directory
                return
        finally:
            remove(directory)
    raise StartError(
        "No folder for a temporary database: it must be writable, reachable for the user "
        "PostgreSQL runs as, and have a short path without commas. Set TMPDIR to one."
    )


def remove(directory: Path) -> None:
    """Delete a directory in which a dying process may still be writing."""
    for _ in range(50):
        shutil.rmtree(directory, ignore_errors=True)
        if not directory.exists():
            return
        time.sleep(0.02)


def _copy(bindir: Path, directory: Path) -> Path:
    """Copy an installation that PostgreSQL's account cannot reach, e.g. below a 0700 home.

    A wheel's programs look for their libraries in `<package>.libs`, beside the package.
    """
    package = bindir.parent.parent
    libraries = package.with_name(f"{package.name}.libs")
    home = directory / "programs" / package.name
    needless = shutil.ignore_patterns("include", "pgxs", "*.a", "pkgconfig")
    shutil.copytree(bindir.parent, home / bindir.parent.name, symlinks=True, ignore=needless)
    if libraries.is_dir():
        shutil.copytree(libraries, home.with_name(libraries.name), symlinks=True)
    for folder, _, files in os.walk(directory / "programs"):
        for name in (".", *files):
            path = Path(folder, name)
            if not path.is_symlink():
                path.chmod(0o755)
    return home / bindir.parent.name / bindir.name


class _Runner:
    """Runs PostgreSQL's programs on one data directory."""

    def __init__(self, bindir: Path, directory: Path, account: Account | None) -> None:
        self._bindir = bindir
        self._directory = directory
        self._account = account
        self._data = directory / "data"
        self._log = directory / "log"

    def initdb(self, password: str, settings: dict[str, str]) -> None:
        """Make the data directory."""
        passwords = self._directory / "password"
        passwords.touch(mode=0o600)
        passwords.write_text(password)
        if self._account:
            os.chown(passwords, *self._account)
        initdb = self._start(
            "initdb",
            f"--pgdata={self._data}",
            f"--pwfile={passwords}",
            "--username=postgres",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
        )
        if initdb.wait(START_TIMEOUT):
            raise self._failure("initdb")
        passwords.unlink()
        with (self._data / "postgresql.conf").open("a") as file:
            for name, value in settings.items():
                file.write("{} = '{}'\n".format(name, value.replace("'", "''")))

    @contextmanager
    def postgres(self) -> Iterator[tuple["subprocess.Popen[bytes]", int]]:
        """Run the server; yields its process and its port when it takes connections."""
        for _ in range(PORT_ATTEMPTS):
            port = _free_port()
            self._log.unlink(missing_ok=True)
            # The data directory is PostgreSQL's working directory; relative, the path of the
            # socket needs no quoting, whatever it holds.
            server = self._start(
                "postgres",
                f"-D{self._data}",
                f"-p{port}",
                "-clisten_addresses=127.0.0.1",
                "-cunix_socket_directories=..",
            )
            try:
                if self._becomes_ready(server):
                    yield server, port
                    return
            finally:
                _end(server)
            if PORT_TAKEN not in self._log.read_text(errors="replace"):
                break
        raise self._failure("postgres")

    def _becomes_ready(self, server: "subprocess.Popen[bytes]") -> bool:
        deadline = time.monotonic() + START_TIMEOUT
        while server.poll() is None and time.monotonic() < deadline:
            with suppress(OSError):
                lines = (self._data / "postmaster.pid").read_text().splitlines()
                if [line.strip() for line in lines[7:8]] == ["ready"]:
                    return True
            time.sleep(0.005)
        return False

    def _start(self, program: str, *arguments: str) -> "subprocess.Popen[bytes]":
        drop: dict[str, Any] = {}
        if self._account:
            drop = {"user": self._account.uid, "group": self._account.gid, "extra_groups": []}
        libraries = {
            name: value
            for name, value in os.environ.items()
            if name in {"LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"}
        }
        with self._log.open("ab") as log:
            return subprocess.Popen(  # noqa: S603
                [self._bindir / program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._directory,
                env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC", **libraries},
                preexec_fn=_die_with_us(),  # noqa: PLW1509 - there are no threads
                **drop,
            )

    def _failure(self, program: str) -> StartError:
        lines = self._log.read_text(errors="replace").splitlines()[-15:]
        return StartError(
            "\n  ".join([f"`{self._bindir / program}` failed. Its last words:", *lines])
        )


def _die_with_us() -> Callable[[], None] | None:
    """Return what a child does first, so that it is told to end should we be killed.

    Only Linux can. Elsewhere such a server runs until `EmbeddedPostgres.stop` deletes its directory,
    which PostgreSQL notices within a minute, and ends.
    """
    if sys.platform != "linux":
        return None
    prctl, ourselves = ctypes.CDLL(None).prctl, os.getpid()

    def tell_me() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGQUIT)
        if os.getppid() != ourselves:
            os._exit(1)

    return tell_me


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _end(server: "subprocess.Popen[bytes]") -> None:
    """Shut down at once: nothing in the database will be needed again."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    server.send_signal(signal.SIGQUIT)
    try:
        server.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


if __name__ == "__main__":
    main()
