"""Behind Debian's PgBouncer, in transaction and in session mode: all works, some of it by polling."""

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg_pool import AsyncConnectionPool

from zodworker_compat import (
    CleanupResult,
    Events,
    Job,
    JobHelpers,
    JobRequest,
    PostgresRateLimiter,
    RunnerOptions,
    SyncJobHelpers,
    ZodWorker,
)
from zodworker_compat.client import verify
from zodworker_compat.cron import parse_crontab
from zodworker_compat.database.migrate_async import migrate
from zodworker_compat.runner import listen

PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
SERVERS = 3
WHAT_A_SERVER_HAS = """
select
    pg_backend_pid(),
    array(
        select name || '=' || setting
        from pg_settings
        where source = 'session' and name <> 'application_name'  -- which PgBouncer sees to
        order by name
    ),
    array(select name from pg_prepared_statements),
    array(select objid from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()),
    array(select name from pg_listening_channels() as name where name !~ '^zodworker:')
"""


async def nothing(payload: Any) -> None: ...


@pytest.fixture
def start_pgbouncer(process, database: str, eventually) -> Iterator[Callable[..., Awaitable[str]]]:
    """`await start_pgbouncer("transaction", default_pool_size=3)`: its connection string."""
    if PROGRAM is None:
        message = "pgbouncer is not installed (Debian's package of that name)"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    behind = conninfo_to_dict(database)
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o777)

        async def start(mode: str, **more: Any) -> str:
            settings = {
                "pool_mode": mode,
                "listen_port": 6432,
                "listen_addr": "",
                "unix_socket_dir": folder,
                "auth_type": "any",
                "server_login_retry": 1,
                **more,
            }
            lines = ["[databases]", f"* = {make_conninfo(**{**behind, 'dbname': None})}"]
            lines += ["[pgbouncer]", *(f"{key} = {value}" for key, value in settings.items())]
            (folder / "pgbouncer.ini").write_text("\n".join(lines))
            user = ["-u", "nobody"] if os.getuid() == 0 else []
            pooler = process([PROGRAM, *user, folder / "pgbouncer.ini"])
            url = make_conninfo(host=name, port=6432, dbname=behind["dbname"], user="anybody")

            async def answers() -> bool:
                assert pooler.running, pooler.errors
                with suppress(psycopg.OperationalError):
                    await (await psycopg.AsyncConnection.connect(url)).close()
                    return True
                return False

            await eventually(answers)
            return url

        yield start


@pytest.fixture(params=["transaction", "session"])
async def pooled(request, start_pgbouncer) -> str:
    """The connection string of a pooler; few servers go from hand to hand, where they may."""
    servers = SERVERS if request.param == "transaction" else 20
    return await start_pgbouncer(request.param, default_pool_size=servers)


@pytest.fixture
async def make_worker(pooled: str) -> AsyncIterator[Callable[..., ZodWorker]]:
    made: list[ZodWorker] = []

    def make(**arguments: Any) -> ZodWorker:
        options = RunnerOptions(connection_string=pooled, poll_interval=0.05, dead_after=3)
        made.append(
            ZodWorker(name="test", runner_options=options, handle_signals=False, **arguments)
        )
        return made[-1]

    yield make
    for worker in made:
        await worker.stop()


async def test_everything_that_enqueues_and_runs(make_worker, jobs, eventually) -> None:
    ran: list[int] = []

    def add(worker: ZodWorker) -> None:
        @worker.task("task", schema=True)
        async def task(payload: Any, job: Job, helpers: JobHelpers) -> None:
            for _ in range(2):
                [row] = await helpers.query("select %s::int as n", [payload["n"]])
            ran.append(row["n"])

        @worker.task("sync", schema=True)
        def sync(payload: Any, job: Job, helpers: SyncJobHelpers) -> None:
            with helpers.with_connection() as connection:
                for _ in range(10):
                    row = connection.execute("select %s::int", [payload["n"]]).fetchone()
            ran.extend(row)

    workers = [make_worker(), make_worker()]
    for worker in workers:
        add(worker)
        await worker.initialize()
    first, second = workers
    for n in range(0, 40, 2):  # more often than it takes to prepare a statement
        await first.enqueue("task", {"n": n}, queue_name=f"q{n % 3}", job_key=f"k{n}")
        await second.enqueue("sync", {"n": n + 1})
    for n in range(40, 60, 4):
        await second.enqueue_many(
            [JobRequest("task", {"n": n}), JobRequest("sync", {"n": n + 1}, {"queue_name": "q"})]
        )
        async with first.transaction() as tx:
            await tx.enqueue("task", {"n": n + 2})
            await tx.connection.execute("select 1")
        await asyncio.to_thread(first.sync.enqueue, "task", {"n": n + 3})
    with pytest.raises(RuntimeError, match="no commit"):
        async with first.transaction() as tx:
            await tx.enqueue("task", {"n": -1})
            raise RuntimeError("no commit")
    await eventually(jobs.empty, timeout=60)
    assert sorted(ran) == list(range(60))


async def test_a_failure_is_written_and_a_stop_leaves_nothing_locked(
    make_worker, jobs, eventually
) -> None:
    worker = make_worker(shutdown_timeout=1)
    started = asyncio.Event()

    @worker.task("fail", schema=True)
    async def fail(payload: Any) -> None:
        raise ValueError("no")

    @worker.task("hang", schema=True)
    async def hang(payload: Any) -> None:
        started.set()
        await asyncio.Event().wait()

    await worker.initialize()
    failing = await worker.enqueue("fail", {})
    hanging = await worker.enqueue("hang", {}, queue_name="q")

    async def is_written() -> bool:
        return (await jobs.row(int(failing.id)))["last_error"] == "ValueError: no"

    await eventually(is_written)
    await asyncio.wait_for(started.wait(), 60)
    await worker.stop()
    assert await jobs.locked() == 0
    assert (await jobs.row(int(hanging.id)))["attempts"] == 0


async def test_recurring_tasks(pooled, jobs, make_runner, eventually) -> None:
    await jobs.sql(
        "insert into graphile_worker._private_known_crontabs"
        " values ('task', now() - interval '1 hour', now() - interval '4 minutes')"
    )
    ran = []

    async def handler(payload: Any) -> None:
        ran.append(payload["_cron"]["backfilled"])

    runner = make_runner(
        handler, conninfo=pooled, cron_items=parse_crontab("* * * * * task ?fill=1h")
    )
    await runner.start()
    await eventually(lambda: ran.count(True) >= 3)
    await eventually(jobs.empty)


async def test_the_jobs_of_a_killed_worker_run_elsewhere(
    make_worker, pooled, jobs, process, eventually
) -> None:
    program = (
        "import asyncio, sys, zodworker_compat as z\n"
        "options = z.RunnerOptions(connection_string=sys.argv[1], dead_after=3)\n"
        "worker = z.ZodWorker(name='victim', runner_options=options)\n"
        "@worker.task('task', schema=True)\n"
        "async def task(payload):\n"
        "    print('started', flush=True)\n"
        "    await asyncio.Event().wait()\n"
        "asyncio.run(worker.run_until_stopped())\n"
    )
    job_id = await jobs.add(queue_name="q")
    victim = process([sys.executable, "-c", program, pooled])
    await eventually(lambda: "started" in victim.output or not victim.running, timeout=60)
    assert victim.running, victim.errors
    heir, ran = make_worker(), []

    @heir.task("task", schema=True)
    async def task(payload: Any, job: Job) -> None:
        ran.append((int(job.id), job.attempts, "gave no sign of life" in (job.last_error or "")))

    await heir.initialize()
    victim.send(signal.SIGKILL)
    await eventually(jobs.empty, timeout=60)
    assert ran == [(job_id, 2, True)]


async def test_the_limiter_keeps_its_limits(make_worker, pooled, jobs, eventually) -> None:
    running, most, ran = 0, 0, []

    async def handler(payload: Any) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1
        ran.append(payload["n"])

    for n in range(20):
        await jobs.add(payload={"n": n}, flags=["rl:limited"])
    for _ in range(2):
        worker = make_worker(rate_limiter=PostgresRateLimiter(default=2))
        worker.task("task", schema=True)(handler)
        await worker.initialize()
    await eventually(jobs.empty, timeout=60)
    assert sorted(ran) == list(range(20))
    assert most <= 2


async def test_administration(make_worker, pooled, jobs) -> None:
    worker = make_worker()
    worker.task("task", schema=True)(lambda payload: None)
    failed = await worker.enqueue("task", {}, queue_name="gone")
    kept = await worker.enqueue("task", {}, job_key="kept")
    assert await worker.permanently_fail_jobs([failed.id], "by hand")
    assert await worker.cleanup(["DELETE_PERMAFAILED_JOBS", "GC_JOB_QUEUES"]) == CleanupResult(
        jobs=1, queues=1
    )
    assert [int(kept.id)] == [row["id"] for row in await jobs.all()]
    assert (await worker.dequeue("kept")).id == kept.id


async def test_a_schema_is_installed(pooled, jobs) -> None:
    async with await psycopg.AsyncConnection.connect(pooled, autocommit=True) as connection:
        await migrate(connection, "another")
    [row] = await jobs.sql("select count(*) as jobs from another.jobs")
    assert row["jobs"] == 0


async def test_session_mode_hears_of_new_jobs_at_once(
    start_pgbouncer, jobs, make_runner, eventually, caplog
) -> None:
    heard = Events()
    listening = []
    heard.on("pool:listen:success", listening.append)
    url = await start_pgbouncer("session")
    runner = make_runner(nothing, conninfo=url, poll_interval=600, events=heard)
    await runner.start()
    await eventually(lambda: listening, timeout=60)
    await jobs.add()
    await eventually(jobs.empty, timeout=60)
    assert caplog.messages == []


async def test_transaction_mode_is_said_once_and_polled(
    start_pgbouncer, jobs, make_runner, eventually, caplog, monkeypatch
) -> None:
    monkeypatch.setattr(listen, "CHECK_TIMEOUT", 1.0)
    heard = Events()
    tried = []
    heard.on("pool:listen:connecting", tried.append)
    url = await start_pgbouncer("transaction", default_pool_size=SERVERS)
    runner = make_runner(nothing, conninfo=url, poll_interval=0.05, events=heard)
    await runner.start()
    await eventually(lambda: caplog.messages, timeout=60)
    for _ in range(20):
        await jobs.add()
        await eventually(jobs.empty, timeout=60)
    [message] = caplog.messages
    assert "pooler in transaction mode" in message
    assert "each 0.05 s (poll_interval)" in message
    assert len(tried) == 1


async def test_a_pooler_that_goes_away_and_comes_back_is_an_outage_only(
    start_pgbouncer, jobs, make_runner, eventually
) -> None:
    url = await start_pgbouncer("transaction", default_pool_size=SERVERS)
    runner = make_runner(nothing, conninfo=url, poll_interval=0.05)
    await runner.start()
    await jobs.add()
    await eventually(jobs.empty, timeout=60)
    await jobs.sql(
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where datname = current_database() and pid <> pg_backend_pid()"
    )
    await jobs.add()
    await eventually(jobs.empty, timeout=60)


async def test_nothing_is_left_to_the_other_clients(start_pgbouncer, jobs, make_runner, eventually):
    """No setting, prepared statement or lock stays with a server, nor LISTEN to the queue."""
    url = await start_pgbouncer("transaction", default_pool_size=SERVERS)

    async def servers() -> dict[int, tuple[Any, ...]]:
        """What each server of the pooler says of itself."""
        found = {}
        async with AsyncExitStack() as clients:
            for _ in range(SERVERS):
                client = await psycopg.AsyncConnection.connect(url, prepare_threshold=None)
                await clients.enter_async_context(client)  # in a transaction: has one to itself
                cursor = await client.execute(WHAT_A_SERVER_HAS)
                pid, *state = await cursor.fetchone()
                found[pid] = tuple(state)
        assert len(found) == SERVERS
        return found

    before = await servers()
    runner = make_runner(nothing, conninfo=url, poll_interval=0.05)
    await runner.start()
    for n in range(20):
        await jobs.add(payload={"n": n}, queue_name=f"q{n % 3}")
    await eventually(jobs.empty, timeout=60)
    await runner.stop()
    assert await servers() == before


async def test_claiming_and_settling_have_their_settings_all_the_same(
    pooled, jobs, make_runner, eventually
) -> None:
    await jobs.sql("create table seen (act text, synchronous_commit text, lock_timeout text)")
    await jobs.sql(
        "create function see() returns trigger language plpgsql as $$ begin"
        " insert into seen select tg_op, current_setting('synchronous_commit'),"
        " current_setting('lock_timeout'); return null; end $$"
    )
    await jobs.sql(
        "create trigger see after update or delete on graphile_worker._private_jobs"
        " for each statement execute function see()"
    )
    await jobs.add()
    await make_runner(nothing, conninfo=pooled, poll_interval=0.05).start()
    await eventually(jobs.empty, timeout=60)
    seen = {tuple(row.values()) for row in await jobs.sql("select distinct * from seen")}
    assert {("UPDATE", "off", "0"), ("DELETE", "off", "200ms")} <= seen


@pytest.mark.parametrize(
    ("mode", "level", "said"),
    [
        ("transaction", "warning", "a pooler in transaction mode"),
        ("session", "ok", "comes through, with a pooler in between"),
    ],
)
async def test_verify_says_whether_notifications_come_through(
    start_pgbouncer, monkeypatch, mode, level, said
) -> None:
    if mode == "transaction":  # nothing will come, however long it waits
        monkeypatch.setattr(verify, "HEARING", 1.0)
    url = await start_pgbouncer(mode)

    found = await verify.verify(RunnerOptions(connection_string=url))

    [check] = [one for one in found if one.subject == "notifications"]
    assert check.level == level
    assert said in check.found
    assert not [one for one in found if one.level == "error"]


async def test_a_worker_beside_the_pooler_hears_of_what_its_pool_enqueues_through_it(
    start_pgbouncer, database, jobs, eventually
) -> None:
    """And holds four connections."""
    url = await start_pgbouncer("transaction", default_pool_size=SERVERS)
    pool = AsyncConnectionPool(url, kwargs={"prepare_threshold": None}, min_size=1, open=False)
    await pool.open()
    options = RunnerOptions(connection_string=database, pool=pool, poll_interval=600)
    worker = ZodWorker(name="beside", runner_options=options, handle_signals=False)
    ran = []

    @worker.task("task", schema=True)
    async def task(payload: Any, job: Job, helpers: JobHelpers) -> None:
        ran.extend(await helpers.query("select pg_backend_pid() as pid"))

    await worker.initialize()
    for _ in range(10):
        await worker.enqueue("task", {})
    await eventually(lambda: len(ran) == 10)

    async def four() -> Any:
        own = await jobs.sql(
            "select pid from pg_stat_activity where application_name = 'zodworker:beside'"
        )
        return len(own) == 4 and {row["pid"] for row in own}

    assert not await eventually(four) & {row["pid"] for row in ran}
    await worker.stop()
    await pool.close()
