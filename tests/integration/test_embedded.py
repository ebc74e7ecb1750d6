"""The throw-away PostgreSQL: it starts anywhere, and leaves nothing behind."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import chain
from pathlib import Path

import psycopg
import pytest
from attrs import frozen

from zodworker_compat.embedded import Binaries, EmbeddedPostgres, EmbeddedPostgresError
from zodworker_compat.embedded.binaries import _in_wheel, _local
from zodworker_compat.embedded.supervisor import LONGEST_SOCKET

INSTALLATIONS = {found.version: found for found in chain(_in_wheel(), _local(os.environ))}
ROOT = os.geteuid() == 0
NOBODY = 65534

PARENT = """
import sys, time
from zodworker_compat.embedded import EmbeddedPostgres
with EmbeddedPostgres() as server:
    print(server.directory, server.dsn(), flush=True)
    sys.stdin.readline()
    {body}
"""


@frozen
class Started:
    """A process that has a server: `PARENT`."""

    process: object
    directory: Path
    dsn: str
    postgres: int
    supervisor: int

    def gone(self) -> bool:
        """Return whether neither a process nor a file of the server is left."""
        running = alive(self.postgres) or alive(self.supervisor)
        return not running and not self.directory.exists()


def ps(pid: int, column: str) -> str:
    """Return a column of `ps` for one process; nothing if it has ended."""
    command = ["ps", "-o", f"{column}=", "-p", str(pid)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def alive(pid: int) -> bool:
    return ps(pid, "stat") not in {"", "Z", "Zs", "Z+"}


def postmaster(directory: Path) -> int:
    return int((directory / "data" / "postmaster.pid").read_text().split()[0])


@pytest.fixture(autouse=True)
def _fast(monkeypatch, in_memory):
    for name, value in in_memory.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def start(process, eventually):
    """Start a process that runs `body` with a server."""

    async def start(body: str = "time.sleep(600)", **environ: str) -> Started:
        arguments = [sys.executable, "-c", PARENT.format(body=body)]
        parent = process(arguments, env=environ, stdin=subprocess.PIPE)
        await eventually(lambda: "\n" in parent.output or not parent.running)
        assert parent.output, parent.errors
        directory, dsn = parent.output.splitlines()[0].rsplit(" ", 1)
        pid = postmaster(Path(directory))
        started = Started(parent, Path(directory), dsn, pid, int(ps(pid, "ppid")))
        parent.popen.stdin.close()  # now it runs its body
        return started

    return start


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A folder that everybody can reach, with a name that is hard on scripts."""
    folder = Path(tempfile.mkdtemp(prefix="it's a dïr ", dir="/tmp"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


def copy_of_the_wheel(folder: Path) -> Path:
    """Install the wheel's PostgreSQL into a folder; returns its programs' folder."""
    binaries = _in_wheel()[0]
    install, package = binaries.directory.parents[:2]
    target = folder / package.name / install.name
    shutil.copytree(install, target, symlinks=True, ignore=shutil.ignore_patterns("include"))
    for libraries in package.parent.glob(f"{package.name}.libs"):
        shutil.copytree(libraries, folder / libraries.name)
    return target / "bin"


def answers(dsn: str) -> bool:
    with psycopg.connect(dsn) as connection:
        return connection.execute("select true").fetchone() == (True,)


@pytest.mark.parametrize("version", INSTALLATIONS)
def test_it_runs_and_is_gone_afterwards(version):
    with EmbeddedPostgres(INSTALLATIONS[version]) as server:
        assert server.version == version
        for dsn in (server.dsn(), server.dsn(unix_socket=True)):
            with psycopg.connect(dsn) as connection:
                assert connection.info.parameter_status("server_version").startswith(version)
                for name, value in {
                    "fsync": "off",
                    "synchronous_commit": "on",
                    "TimeZone": "UTC",
                    "server_encoding": "UTF8",
                    "max_connections": "200",
                }.items():
                    assert connection.execute(f"show {name}").fetchone() == (value,)
        directory, pid = server.directory, postmaster(server.directory)
        assert directory.stat().st_mode & 0o777 == 0o700
    assert not directory.exists()
    assert not alive(pid)


def test_it_has_no_address_before_it_is_started():
    with pytest.raises(EmbeddedPostgresError, match="has not been started"):
        EmbeddedPostgres().dsn()


def test_a_password_is_needed(server):
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(server.dsn(), password="guessed")


def test_open_connections_do_not_hold_up_its_end_and_stop_may_be_repeated():
    with EmbeddedPostgres() as server, psycopg.connect(server.dsn()) as connection:
        connection.execute("create table t ()")
        server.stop()
        assert not server.directory.exists()
        server.stop()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("select 1")


def test_settings_can_be_given():
    with (
        EmbeddedPostgres(settings={"application_name": "it's mine"}) as server,
        psycopg.connect(server.dsn()) as connection,
    ):
        assert connection.execute("show application_name").fetchone() == ("it's mine",)


def test_several_run_at_once():
    with ExitStack() as stack, ThreadPoolExecutor(3) as threads:
        servers = [EmbeddedPostgres() for _ in range(3)]
        list(threads.map(stack.enter_context, servers))
        assert len({server.dsn() for server in servers}) == 3
        assert all(answers(server.dsn()) for server in servers)


async def test_a_killed_parent_leaves_nothing(start, eventually):
    started = await start()
    started.process.send(signal.SIGKILL)
    await eventually(started.gone)


async def test_a_terminated_parent_leaves_nothing(start, eventually):
    started = await start()
    started.process.send(signal.SIGTERM)
    await eventually(started.gone)


async def test_ctrl_c_leaves_the_server_running_until_the_parent_has_finished(start, eventually):
    started = await start(
        """
    try:
        print("waiting", flush=True)
        time.sleep(600)
    except KeyboardInterrupt:
        import psycopg
        psycopg.connect(server.dsn()).close()
        print("still there")
    """
    )
    await eventually(lambda: "waiting" in started.process.output)
    started.process.send_to_group(signal.SIGINT)
    assert started.process.wait() == 0, started.process.errors
    assert "still there" in started.process.output
    assert started.gone()


async def test_an_exit_without_stop_leaves_nothing(start, eventually):
    started = await start("import os; os._exit(3)")
    assert started.process.wait() == 3
    await eventually(started.gone)


async def test_a_fork_that_outlives_the_parent_does_not_keep_the_server(start, eventually):
    started = await start("import os; os.fork(); time.sleep(600)")
    started.process.send(signal.SIGKILL)
    await eventually(started.gone)


async def test_a_fork_does_not_hold_up_stop(start):
    started = await start("import os; (os.fork() or time.sleep(600))")
    assert started.process.wait() == 0
    assert started.gone()


async def test_a_parent_killed_while_it_starts_leaves_nothing(process, reachable, eventually):
    parent = process(
        [sys.executable, "-c", PARENT.format(body="time.sleep(600)")],
        env={"TMPDIR": str(reachable)},
    )
    await eventually(lambda: list(reachable.glob("*/data")))
    parent.send(signal.SIGKILL)
    await eventually(lambda: not list(reachable.iterdir()))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
async def test_a_terminated_supervisor_cleans_up(start, eventually, number):
    started = await start()
    os.kill(started.supervisor, number)
    await eventually(started.gone)


async def test_a_killed_supervisor_takes_the_server_with_it_and_stop_cleans_up(eventually):
    with EmbeddedPostgres() as server:
        pid = postmaster(server.directory)
        os.kill(int(ps(pid, "ppid")), signal.SIGKILL)
        await eventually(lambda: not alive(pid))
    assert not server.directory.exists()


async def test_a_killed_server_is_cleaned_up(start, eventually):
    started = await start()
    os.kill(started.postgres, signal.SIGKILL)
    await eventually(started.gone)


async def test_it_starts_without_a_home_and_in_a_locale_that_does_not_exist(start):
    started = await start("pass", LANG="xx_YY.nonsense", LC_ALL="xx_YY.nonsense", HOME=None)
    assert started.process.wait() == 0


def test_it_starts_in_a_folder_with_a_difficult_name(reachable):
    with EmbeddedPostgres(environ={**os.environ, "TMPDIR": str(reachable)}) as server:
        assert server.directory.parent == reachable
        assert answers(server.dsn())
        assert answers(server.dsn(unix_socket=True))


@pytest.mark.parametrize("name", ["x" * LONGEST_SOCKET, "a,b", "missing"])
def test_a_folder_that_will_not_do_is_replaced_by_another(reachable, name):
    folder = reachable / name
    if name != "missing":
        folder.mkdir()
    with EmbeddedPostgres(environ={**os.environ, "TMPDIR": str(folder)}) as server:
        assert reachable not in server.directory.parents
        assert answers(server.dsn(unix_socket=True))
    assert not list(reachable.glob("*/*"))


def test_programs_and_temporary_files_below_a_private_home(reachable):
    home = reachable / "home"
    home.mkdir(mode=0o700)
    environ = {**os.environ, "TMPDIR": str(home), "PG_BINDIR": str(copy_of_the_wheel(home))}
    before = permissions(home)
    with EmbeddedPostgres(environ=environ) as server:
        assert answers(server.dsn())
        assert (home in server.directory.parents) != ROOT  # `nobody` cannot reach it
        assert permissions(home).items() >= before.items()
    assert permissions(home) == before


def permissions(folder: Path) -> dict[Path, tuple[int, int, int]]:
    paths = [folder, folder.parent, *folder.rglob("*")]
    found = {path: path.lstat() for path in paths}
    return {path: (stat.st_mode, stat.st_uid, stat.st_gid) for path, stat in found.items()}


def supervisor(process, before: str, binaries: Path, **popen):
    """Run a supervisor in a process that does something `before`."""
    code = (
        f"import os\nfrom zodworker_compat.embedded import supervisor\n{before}\nsupervisor.main()"
    )
    request = json.dumps({"bindir": str(binaries), "settings": {}})
    return process([sys.executable, "-c", code, request], stdin=subprocess.PIPE, **popen)


async def test_an_ordinary_user_can_run_it(process, eventually, reachable):
    binaries = copy_of_the_wheel(reachable)
    become = f"os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})" if ROOT else ""
    run = supervisor(process, become, binaries, env={"TMPDIR": str(reachable)})
    await eventually(lambda: "\n" in run.output)
    answer = json.loads(run.output)
    assert "error" not in answer, answer
    assert (Path(answer["directory"]) / "data").stat().st_uid == (NOBODY if ROOT else os.getuid())
    assert answers(
        f"postgresql://postgres:{answer['password']}@127.0.0.1:{answer['port']}/postgres"
    )
    run.popen.stdin.close()
    assert run.wait() == 0
    assert not list(reachable.glob("zodworker-*"))


async def test_a_port_that_was_taken_meanwhile_is_exchanged(process, eventually):
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        before = f"""
free = supervisor._free_port
ports = iter([{taken}, {taken}])
supervisor._free_port = lambda: next(ports, None) or free()
"""
        run = supervisor(process, before, _in_wheel()[0].directory)
        await eventually(lambda: "\n" in run.output)
        assert json.loads(run.output)["port"] not in {taken, None}
        run.popen.stdin.close()
        assert run.wait() == 0


def test_a_server_that_cannot_start_tells_its_last_words_and_leaves_nothing(reachable):
    server = EmbeddedPostgres(
        settings={"shared_buffers": "nonsense"}, environ={**os.environ, "TMPDIR": str(reachable)}
    )
    with pytest.raises(EmbeddedPostgresError, match=r"shared_buffers.*nonsense"):
        server.start()
    assert not list(reachable.iterdir())


def test_an_initdb_that_fails_tells_its_last_words(reachable):
    for program in ("initdb", "postgres"):
        (reachable / program).write_text("#!/bin/sh\necho 'the disk is full'\nexit 1\n")
        (reachable / program).chmod(0o755)
    binaries = Binaries(reachable, "18.0", "PG_BINDIR")
    with pytest.raises(EmbeddedPostgresError, match=r"PostgreSQL 18.0 \(PG_BINDIR\)[^$]*is full"):
        EmbeddedPostgres(binaries).start()
