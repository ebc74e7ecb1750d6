"""What goes wrong. Each fault acts on a stage, sees that it has hit, and notes what it excuses.

A fault excuses no more than at-least-once must allow: the runs whose results it kept from being
written, and whose locks it took away. Most excuse nothing: nothing may run twice because of them.
"""

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, suppress
from glob import glob
from typing import Final

import psycopg
from attrs import Factory, frozen
from harness import hosts
from harness.cluster import no_small_disk
from harness.ledger import now
from harness.proxy import Proxy
from harness.stage import Stage, Worker

Act = Callable[[Stage], Awaitable[None]]

FAKETIME: Final = "/usr/lib/*/faketime/libfaketime.so.1"


@frozen(kw_only=True)
class Fault:
    """A fault, and what it needs."""

    name: str
    act: Act
    settings: Mapping[str, str] = Factory(dict)
    """Of PostgreSQL."""
    megabytes: int | None = None
    """The size of the server's disk."""
    is_proxied: bool = False
    """Each worker connects through a proxy of its own."""
    has_standby: bool = False
    has_one_server: bool = False
    """Its workers know the address of one server only."""
    hits_server: bool = False
    """Everybody is hit: two such faults at a time would undo one another."""
    missing: Callable[[], str | None] = lambda: None
    """Why this machine cannot have it."""


FAULTS: dict[str, Fault] = {}


def fault(
    *,
    settings: Mapping[str, str] | None = None,
    megabytes: int | None = None,
    is_proxied: bool = False,
    has_standby: bool = False,
    has_one_server: bool = False,
    hits_server: bool = False,
    missing: Callable[[], str | None] = lambda: None,
) -> Callable[[Act], Act]:
    """Register a fault; a decorator."""

    def register(act: Act) -> Act:
        FAULTS[act.__name__] = Fault(
            name=act.__name__,
            act=act,
            settings=settings or {},
            megabytes=megabytes,
            is_proxied=is_proxied,
            has_standby=has_standby,
            has_one_server=has_one_server or is_proxied,
            hits_server=hits_server,
            missing=missing,
        )
        return act

    return register


async def outlast(stage: Stage, share: float = 1.5) -> None:
    """Let a fault last longer than workers may be silent."""
    await asyncio.sleep(stage.dead_after * share)


# The workers.


@fault()
async def kill_a_worker(stage: Stage) -> None:
    """SIGKILL."""
    victim = await stage.take()
    stage.kill(victim, fault="kill_a_worker")
    await stage.until_dead(victim)


@fault(hits_server=True)
async def kill_the_fleet(stage: Stage) -> None:
    """SIGKILL of all workers; others start."""
    fleet = stage.free()
    stage.kill(*fleet, fault="kill_the_fleet")
    heirs = [stage.start_worker() for _ in fleet]
    await stage.until_it_runs(*heirs)


@fault()
async def stop_a_worker(stage: Stage) -> None:
    """SIGTERM under load: it ends cleanly, and nothing runs twice."""
    worker = await stage.take()
    since = now()
    worker.send(signal.SIGTERM)
    await stage.until_ended(worker)
    if "Gave up settling" in worker.said():  # another fault kept it from the server for too long
        stage.excuse("stop_a_worker", worker, since=since, until=now())


@fault()
async def freeze_a_worker(stage: Stage) -> None:
    """SIGSTOP until it is declared dead, then SIGCONT."""
    worker = await stage.take()
    with stage.excused("freeze_a_worker", worker, overlap=True):
        worker.send(signal.SIGSTOP)
        try:
            await stage.until_dead(worker)
            await outlast(stage, 0.5)
        finally:
            worker.send(signal.SIGCONT)
    await until_it_is_back(stage, worker)


async def until_it_is_back(stage: Stage, worker: Worker) -> None:
    """Wait until a worker that was declared dead goes on under another id."""
    query = "select 1 from graphile_worker.zodworker_workers where name = %s and dead_at is null"

    async def is_listed() -> bool:
        return bool(await stage.ask(query, worker.name))

    await stage.eventually(is_listed, f"{worker.name} is back")


def no_faketime() -> str | None:
    """Return why clocks cannot be skewed."""
    return None if glob(FAKETIME) else "there is no libfaketime (Debian's package libfaketime)"  # noqa: PTH207


@fault(missing=no_faketime)
async def skew_clocks(stage: Stage) -> None:
    """Two more workers, whose clocks are five hours off in either direction."""
    skewed = [
        stage.start_worker(
            env={
                "LD_PRELOAD": glob(FAKETIME)[0],  # noqa: PTH207
                "FAKETIME": offset,
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                "DONT_FAKE_MONOTONIC": "1",
            },
            is_taken=True,
        )
        for offset in ("+5h", "-5h")
    ]
    await stage.until_it_runs(*skewed)
    for worker in skewed:
        clock, monotonic = map(float, (stage.folder / f"{worker.name}.clock").read_text().split())
        assert abs(clock - time.time()) > 4 * 3600
        assert abs(monotonic - time.monotonic()) < 3600, "the ledger's clock is not to be skewed"
    await outlast(stage, 1)


@fault()
async def exhaust_the_pool(stage: Stage) -> None:
    """A worker whose handlers wait for the one connection of its pool."""
    worker = stage.start_worker(env={"CHAOS_POOL": "1"}, is_taken=True)
    await stage.until_it_runs(worker)
    for _ in range(10):
        await stage.load.add("parent", *[{"seconds": 0.05}] * 4)


# The connections.


@fault()
async def terminate_backends(stage: Stage) -> None:
    """pg_terminate_backend of random connections of workers, again and again."""
    await _terminate_often(stage, "true", times=8)


@fault()
async def lose_the_listeners(stage: Stage) -> None:
    """Only the connections that LISTEN are lost."""
    await _terminate_often(stage, "query ~* '^listen|^unlisten'", times=4)


async def _terminate_often(stage: Stage, which: str, *, times: int) -> None:
    query = (
        "select pg_terminate_backend(pid) from (select pid from pg_stat_activity"
        f" where application_name like 'zodworker:%' and {which} order by random() limit 4) as chosen"
    )
    for _ in range(times):
        await stage.eventually(lambda: stage.ask(query), "there are connections to be lost")
        await asyncio.sleep(stage.dead_after / 10)


@fault()
async def freeze_backends(stage: Stage) -> None:
    """Server processes of workers are stopped for a while, as by a disk that does not answer."""
    query = (
        "select pid from pg_stat_activity where application_name like 'zodworker:%'"
        " order by random() limit 4"
    )
    for _ in range(3):
        rows = await stage.eventually(lambda: stage.ask(query), "there are connections")
        for row in rows:
            _signal(row["pid"], signal.SIGSTOP)
        try:
            await outlast(stage, 0.5)
        finally:
            for row in rows:
                _signal(row["pid"], signal.SIGCONT)


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def proxy_of(worker: Worker) -> Proxy:
    """Return the proxy that a worker connects through."""
    assert worker.proxy is not None
    return worker.proxy


@fault(is_proxied=True)
async def reset_connections(stage: Stage) -> None:
    """All connections of a worker are reset, again and again."""
    worker = await stage.take()

    async def are_cut() -> int:
        return proxy_of(worker).cut()

    for _ in range(5):
        await stage.eventually(are_cut, "there are connections to be reset")
        await asyncio.sleep(stage.dead_after / 10)


@fault(is_proxied=True)
async def lose_requests(stage: Stage) -> None:
    """Half-open: what a worker sends does not arrive."""
    await _close(stage, "lose_requests", lambda proxy: proxy.open_up.clear())


@fault(is_proxied=True)
async def lose_answers(stage: Stage) -> None:
    """Half-open: what a worker sends arrives, the answers do not."""
    await _close(stage, "lose_answers", lambda proxy: proxy.open_down.clear())


@fault(is_proxied=True)
async def black_hole(stage: Stage) -> None:
    """Nothing passes, and nobody is told."""

    def close(proxy: Proxy) -> None:
        proxy.open_up.clear()
        proxy.open_down.clear()

    await _close(stage, "black_hole", close)


async def _close(stage: Stage, name: str, close: Callable[[Proxy], None]) -> None:
    worker = await stage.take()
    with stage.excused(name, worker, overlap=True):
        close(proxy_of(worker))
        try:
            await stage.until_dead(worker)
            await outlast(stage, 0.5)
        finally:
            proxy_of(worker).heal()
    await until_it_is_back(stage, worker)


@fault(is_proxied=True)
async def lose_answers_briefly(stage: Stage) -> None:
    """Half-open, and open again before anybody is declared dead: nothing runs twice."""
    worker = await stage.take()
    for _ in range(3):
        proxy_of(worker).open_down.clear()
        await asyncio.sleep(stage.dead_after / 10)
        proxy_of(worker).heal()
        await asyncio.sleep(stage.dead_after / 4)


@fault(has_one_server=True, missing=hosts.what_is_missing)
async def unplug_a_host(stage: Stage) -> None:
    """Two more workers on hosts of their own, of which one is cut off."""
    with hosts.host() as kept, hosts.host() as lost:
        remote = [
            stage.start_worker(
                url=stage.cluster.url(host.server), prefix=host.command, is_taken=True
            )
            for host in (kept, lost)
        ]
        await stage.until_it_runs(*remote)
        with stage.excused("unplug_a_host", remote[1], overlap=True):
            lost.unplug()
            try:
                await stage.until_dead(remote[1])
                await outlast(stage, 0.5)
            finally:
                lost.plug_in()
        await until_it_is_back(stage, remote[1])
        for worker in remote:  # before their hosts are deleted
            worker.send(signal.SIGTERM)
        await stage.until_ended(*remote)


# The server.


@fault(hits_server=True)
async def restart_fast(stage: Stage) -> None:
    """PostgreSQL is restarted in fast mode: it forgets nothing."""
    stage.cluster.stop(immediately=False)
    await outlast(stage)
    stage.cluster.start()


async def fill_the_buffers(stage: Stage) -> None:
    """Have the workers hold many quick jobs: then a claim is not what first finds the server gone."""
    for queue in range(10):
        await stage.load.add("work", {"seconds": 0.01}, queue_name=f"quick{queue}")
        await stage.load.add("work", *[{"seconds": 0.01}] * 30)


@fault(hits_server=True, settings={"wal_writer_delay": "10s"})
async def restart_immediately(stage: Stage) -> None:
    """PostgreSQL crashes: it may forget the last claims and results, not an enqueue."""
    with stage.excused("restart_immediately", None, overlap=True):
        await fill_the_buffers(stage)
        with stage.load.paused():
            await asyncio.sleep(0.3)
            stage.cluster.stop()
        stage.cluster.start()
        await outlast(stage, 1)  # what was claimed in vain waits in the workers' memory, and runs


@fault(hits_server=True)
async def be_read_only(stage: Stage) -> None:
    """The primary takes no writes for a while."""
    await stage.ask("alter system set default_transaction_read_only = on")
    await stage.ask("select pg_reload_conf()")
    await outlast(stage)
    await stage.ask("alter system reset default_transaction_read_only")
    await stage.ask("select pg_reload_conf()")


@fault(hits_server=True)
async def refuse_connections(stage: Stage) -> None:
    """The database lets nobody in for a while."""
    await stage.ask("alter database chaos allow_connections false", database="postgres")
    await terminate_all(stage)
    await outlast(stage)
    await stage.ask("alter database chaos allow_connections true", database="postgres")


async def terminate_all(stage: Stage) -> None:
    """End all connections to the queue's database but our own."""
    await stage.ask(
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where datname = 'chaos' and pid <> pg_backend_pid()",
        database="postgres",
    )


@fault(hits_server=True)
async def fill_the_server(stage: Stage) -> None:
    """All connections that the server allows are taken by others for a while."""
    async with AsyncExitStack() as taken:
        one = await psycopg.AsyncConnection.connect(stage.url, autocommit=True)
        await taken.enter_async_context(one)
        is_full = False
        until = time.monotonic() + stage.dead_after * 1.5
        while time.monotonic() < until or not is_full:
            await one.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where application_name like 'zodworker%'"
            )
            try:
                while True:
                    more = await psycopg.AsyncConnection.connect(stage.url, connect_timeout=5)
                    taken.push_async_callback(more.close)
            except psycopg.OperationalError as error:
                is_full = is_full or "too many clients" in str(error)
            await asyncio.sleep(0.1)


@fault(hits_server=True)
async def hold_rows(stage: Stage) -> None:
    """A forgotten transaction holds the rows of jobs and queues that run."""
    async with await psycopg.AsyncConnection.connect(stage.url) as connection:
        for table in ("_private_jobs", "_private_job_queues"):
            await connection.execute(
                f"select from graphile_worker.{table} where locked_by is not null for update"
            )
        await outlast(stage)


@fault(settings={"deadlock_timeout": "100ms"})
async def deadlock(stage: Stage) -> None:
    """Handlers whose transactions deadlock: one of them fails, and is tried again."""
    await stage.ask("create table if not exists chaos_rows (id integer, hits integer default 0)")
    await stage.ask("insert into chaos_rows select generate_series(1, 2)")
    deadlocks = "select 1 from pg_stat_database where datname = 'chaos' and deadlocks > 0"

    async def has_happened() -> bool:
        orders = [{"rows": rows, "seconds": 0.2} for rows in ([1, 2], [2, 1])]
        await stage.load.add("lock", *orders, priority=-10)
        await asyncio.sleep(1)
        return bool(await stage.ask(deadlocks))

    await stage.eventually(has_happened, "a deadlock")


@fault(hits_server=True)
async def fail_commits(stage: Stage) -> None:
    """Each commit fails, for want of space on the disk (53100) or of memory in the server (53200)."""
    await stage.ask(
        "create function chaos_fail() returns trigger language plpgsql as $$ begin"
        " raise exception 'there is none left'"
        " using errcode = (array['53100', '53200'])[1 + floor(2 * random())]; end $$"
    )
    await stage.ask(
        "create constraint trigger chaos after insert or update or delete"
        " on graphile_worker._private_jobs deferrable initially deferred"
        " for each row execute function chaos_fail()"
    )
    await outlast(stage)
    await stage.ask("drop function chaos_fail cascade")


@fault(hits_server=True, megabytes=160, missing=no_small_disk)
async def fill_the_disk(stage: Stage) -> None:
    """The server's disk is full: it refuses what needs room, or crashes, and starts once there is some."""
    ballast = stage.cluster.data / "ballast"
    with stage.excused("fill_the_disk", None, overlap=True):
        until = time.monotonic() + stage.dead_after * 1.5
        is_full = False
        with ballast.open("wb", buffering=0) as file:
            while time.monotonic() < until or not is_full:
                with suppress(OSError):
                    while file.write(bytes(2**16)):
                        pass
                is_full = "No space left on device" in stage.cluster.said()
                await asyncio.sleep(0.05)
        ballast.unlink()
        if not stage.cluster.is_running():
            stage.cluster.start()
        await outlast(stage, 1)


@fault(hits_server=True, has_standby=True)
async def fail_over(stage: Stage) -> None:
    """The primary crashes, its synchronous standby is promoted; the workers know both addresses."""
    assert stage.standby is not None
    with stage.excused("fail_over", None, overlap=True):
        await fill_the_buffers(stage)
        with stage.load.paused():
            await asyncio.sleep(0.3)
            stage.cluster.stop()
        url = stage.standby.url()
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            await connection.execute("select pg_promote()")
        assert (await stage.ask("show port"))[0]["port"] == str(stage.standby.port)
        await outlast(stage)
