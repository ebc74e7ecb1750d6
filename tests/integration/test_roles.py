"""The roles of docs/security.md: each can do what it needs, and is refused what it must not do."""

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from psycopg import errors, sql
from psycopg.conninfo import make_conninfo

from zodworker_compat import ZodWorker
from zodworker_compat.client.admin_async import AsyncAdmin
from zodworker_compat.database.job_filter import JobFilter
from zodworker_compat.database.own_tables import ensure_own_tables
from zodworker_compat.errors import ConfigurationError, MigrationError
from zodworker_compat.limiter import PostgresRateLimiter
from zodworker_compat.runner_options import RunnerOptions

DOCUMENT = Path(__file__).parents[2] / "docs" / "security.md"
ROLES = ("queue_worker", "queue_admin", "queue_enqueue")
CATALOG = {"schema": {"task": True, "every": True}, "tasks": {"task": {}, "every": {}}}


class Roles:
    """The documented roles under names of their own, since roles belong to the whole server."""

    def __init__(self, database: str) -> None:
        self.database = database
        ending = secrets.token_hex(4)
        self.names = {role: f"{role}_{ending}" for role in ROLES}

    def create(self) -> None:
        text = DOCUMENT.read_text("utf-8")
        [python] = re.findall("```python\n(.*?)```", text, re.DOTALL)
        exec(compile(python, str(DOCUMENT), "exec"), {"OWNER_URL": self.database})  # noqa: S102
        with psycopg.connect(self.database, autocommit=True) as connection:
            for block in re.findall("```sql\n(.*?)```", text, re.DOTALL):
                connection.execute(self.renamed(block).encode())
            for name in self.names.values():
                connection.execute(
                    sql.SQL("alter role {} login password 'S3cret/@:%'").format(
                        sql.Identifier(name)
                    )
                )

    def renamed(self, block: str) -> str:
        """Rename the roles, and leave the schema and the policies their names."""
        for role, name in self.names.items():
            block = re.sub(rf"\b(role|to) {role}\b", rf"\1 {name}", block)
        return block

    def drop(self) -> None:
        with psycopg.connect(self.database, autocommit=True) as connection:
            for name in self.names.values():
                connection.execute(sql.SQL("drop owned by {}").format(sql.Identifier(name)))
                connection.execute(sql.SQL("drop role {}").format(sql.Identifier(name)))

    def url(self, role: str) -> str:
        return make_conninfo(self.database, user=self.names[role], password="S3cret/@:%")

    def options(self, role: str) -> RunnerOptions:
        schema = "queue_enqueue" if role == "queue_enqueue" else "graphile_worker"
        return RunnerOptions(connection_string=self.url(role), schema=schema)


@pytest.fixture
def roles(database: str) -> Iterator[Roles]:
    made = Roles(database)
    made.create()
    yield made
    made.drop()


@pytest.fixture
async def worker_of(roles: Roles) -> AsyncIterator:
    """`worker_of(role)`: a worker that connects as that role; stopped with the test."""
    made: list[ZodWorker] = []

    def make(role: str, **more: object) -> ZodWorker:
        made.append(
            ZodWorker(
                name="test",
                **CATALOG,
                runner_options=roles.options(role),
                handle_signals=False,
                **more,
            )
        )
        return made[-1]

    yield make
    for worker in made:
        await worker.stop()


async def test_the_enqueuer_adds_jobs_in_every_way(roles, worker_of, jobs) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    worker = worker_of("queue_enqueue")
    for number in range(2):  # the first makes the names known
        job = await worker.enqueue(
            "task", {"n": number}, queue_name="q", run_at=later, flags=["f"], priority=3
        )
        assert (job.task_identifier, job.queue_name, job.payload) == ("task", "q", {"n": number})
        assert (job.run_at, job.flags, job.priority) == (later, {"f": True}, 3)
    first = await worker.enqueue("task", [1], job_key="k")
    again = await worker.enqueue("task", [2], job_key="k")
    assert (again.id, again.payload) == (first.id, [1, 2])
    for mode in ("preserve_run_at", "unsafe_dedupe"):
        assert (await worker.enqueue("task", [3], job_key="k", job_key_mode=mode)).id == first.id
    added = await worker.enqueue_many(
        [
            ("task", {"n": 1}, {"queue_name": "r"}),
            ("every", {"n": 2}),
            ("task", 3, {"job_key": "l"}),
        ]
    )
    assert [job.task_identifier for job in added] == ["task", "every", "task"]
    assert [job.queue_name for job in added] == ["r", None, None]
    async with worker.transaction() as tx:
        await tx.enqueue("task", {"in": "tx"})
    assert await jobs.count() == 7

    worker.sync.enqueue("task", {}, queue_name="q")
    worker.sync.enqueue_many([("task", {}), ("task", {}, {"job_key": "m"})])
    with psycopg.connect(roles.url("queue_enqueue")) as connection, connection.transaction():
        worker.sync.enqueue_tx(connection, "task", {})
    worker.sync.close()
    assert await jobs.count() == 11


async def test_the_enqueuer_is_refused_all_else(roles, worker_of, jobs) -> None:
    worker = worker_of("queue_enqueue")
    job = await worker.enqueue("task", {}, job_key="k")
    worker.task("task")(print)
    refused = (
        lambda: worker.dequeue("k"),
        lambda: worker.complete_jobs([job.id]),
        lambda: worker.permanently_fail_jobs([job.id]),
        lambda: worker.reschedule_jobs([job.id], priority=1),
        lambda: worker.force_unlock_workers(["pool"]),
        lambda: worker.cleanup(["GC_JOB_QUEUES", "DELETE_PERMAFAILED_JOBS"]),
        worker.migrate,
        worker.run_once,
        worker.initialize,
    )
    for call in refused:
        with pytest.raises((ConfigurationError, MigrationError)):
            await call()
    straight = ZodWorker(
        name="straight",
        **CATALOG,
        runner_options=RunnerOptions(connection_string=roles.url("queue_enqueue")),
    )
    with pytest.raises(ConfigurationError, match="permission denied for schema graphile_worker"):
        await straight.enqueue("task", {})
    await straight.close()
    async with await psycopg.AsyncConnection.connect(
        roles.url("queue_enqueue"), autocommit=True
    ) as connection:
        for statement in (
            "select * from graphile_worker._private_jobs",
            "select * from queue_enqueue.remove_job('k')",
            "insert into queue_enqueue._private_tasks (identifier) values ('x')",
            "create table queue_enqueue.own ()",
            "create function queue_enqueue.own() returns int language sql as 'select 1'",
        ):
            with pytest.raises(errors.InsufficientPrivilege):
                await connection.execute(statement)
        with pytest.raises(errors.CheckViolation):
            await connection.execute(
                "insert into queue_enqueue._private_jobs"
                " select added.* from queue_enqueue.add_job('task') as added"
            )
    assert await jobs.count() == 1


async def test_the_functions_of_the_enqueuer_cannot_be_led_astray(roles, jobs) -> None:
    """A search_path of the caller's does not matter to them."""
    async with await psycopg.AsyncConnection.connect(
        roles.url("queue_enqueue"), autocommit=True
    ) as connection:
        await connection.execute("create temp table _private_jobs (a int)")
        await connection.execute(
            "create function pg_temp.unnest(queue_enqueue.job_spec[]) returns int language sql"
            " as 'select 1/0'"
        )
        await connection.execute("set search_path = pg_temp, public")
        await connection.execute("select * from queue_enqueue.add_job('task')")
        await connection.execute(
            "select * from queue_enqueue.add_jobs(array[row('task','{}',null,null,null,null,null,null)"
            "::queue_enqueue.job_spec])"
        )
    assert await jobs.count() == 2


async def test_the_worker_runs_retries_enqueues_beats_and_limits(
    roles, worker_of, jobs, eventually
) -> None:
    ran = []
    worker = worker_of("queue_worker", rate_limiter=PostgresRateLimiter({"rl:a": 1}))

    @worker.task("task", timeout=60)
    async def handler(payload, job, helpers) -> None:
        ran.append(payload)
        if "fails" in payload:
            raise ValueError("reason")
        if "more" in payload:
            await helpers.enqueue("task", {"from": "handler"}, job_key="k", queue_name="new")
            await helpers.query("select 1")

    @worker.recurring("minutely", match="* * * * *", backfill_period=timedelta(hours=1))
    async def minutely(run) -> None:
        ran.append("minutely")

    await jobs.sql(
        "insert into graphile_worker._private_known_crontabs values"
        " ('minutely', now() - interval '3 min', now() - interval '3 min')"
    )
    await worker.initialize()
    [row] = await jobs.sql("select * from graphile_worker.zodworker_workers")
    assert row["name"] == "test"
    failing = await worker.enqueue("task", {"fails": 1})
    await worker.enqueue("task", {"more": 1}, queue_name="q", flags=["rl:a"])
    added = await worker.enqueue_many(
        [("task", {"n": number}, {"flags": ["rl:a"]}) for number in (1, 2)]
    )
    assert len(added) == 2
    await eventually(
        lambda: {"from": "handler"} in ran and {"n": 2} in ran and "minutely" in ran, timeout=60
    )
    await worker.reschedule_jobs([failing.id], priority=1)
    assert await worker.dequeue("no such key") is None
    await worker.stop()
    assert (await jobs.row(int(failing.id)))["last_error"] == "ValueError: reason"
    assert await jobs.locked() == 0
    assert await jobs.sql("select from graphile_worker.zodworker_workers") == []


async def test_the_worker_recovers_the_jobs_of_a_dead_one(
    roles, worker_of, jobs, eventually
) -> None:
    ran = []
    job_id = await jobs.add(queue_name="q")
    await jobs.sql(
        "update graphile_worker._private_jobs set locked_at = now(), locked_by = 'dead',"
        " attempts = 1 where id = %s",
        job_id,
    )
    await jobs.sql(
        "update graphile_worker._private_job_queues set locked_at = now(), locked_by = 'dead'"
    )
    await jobs.sql(
        "insert into graphile_worker.zodworker_workers"
        " (pool_id, name, host, pid, version, concurrency, tasks, dead_after, dead_at)"
        " values ('dead', 'a', 'b', 1, '0', 5, '{task}', '1 s', now())"
    )
    worker = worker_of("queue_worker")
    worker.task("task")(ran.append)
    await worker.initialize()
    await eventually(lambda: ran, timeout=60)


async def test_the_worker_changes_no_schema_and_forgets_no_name(roles, worker_of) -> None:
    worker = worker_of("queue_worker")
    await worker.migrate()  # there is nothing to do
    with pytest.raises(MigrationError, match="grant this role what is missing"):
        await worker.migrate(19)
    for task in ("GC_JOB_QUEUES", "GC_TASK_IDENTIFIERS"):
        with pytest.raises(ConfigurationError, match="permission denied for table"):
            await worker.cleanup([task])
    async with await psycopg.AsyncConnection.connect(
        roles.url("queue_worker"), autocommit=True
    ) as connection:
        for statement in (
            "drop table graphile_worker._private_jobs",
            "truncate graphile_worker._private_jobs",
            "create table graphile_worker.own ()",
            "insert into graphile_worker.migrations (id) values (20)",
            "alter table graphile_worker._private_jobs disable row level security",
            "create policy mine on graphile_worker._private_jobs using (true)",
        ):
            with pytest.raises(errors.InsufficientPrivilege):
                await connection.execute(statement)


async def test_the_admin_looks_and_acts(roles, worker_of, jobs) -> None:
    worker = worker_of("queue_admin")
    admin = AsyncAdmin(roles.options("queue_admin"))
    ids = [await jobs.add(queue_name="q", job_key=f"k{number}") for number in range(4)]
    status = await admin.status()
    assert (status.jobs.total, status.hidden_from) == (4, None)
    assert len((await admin.jobs()).jobs) == 4
    assert await admin.job(ids[0]) is not None
    assert await admin.crontabs() == []
    for act in (admin.retry, admin.fail, lambda where: admin.reschedule(where, priority=2)):
        await act(JobFilter(ids=ids[3:]))
    await admin.unlock(["p"], force=True)
    await admin.close()
    assert len(await worker.reschedule_jobs(ids, priority=1, run_at=datetime.now(UTC))) == 4
    assert len(await worker.permanently_fail_jobs(ids[:2], "because")) == 2
    assert len(await worker.complete_jobs(ids[:1])) == 1
    assert (await worker.dequeue("k3")).key == "k3"
    await jobs.sql(
        "update graphile_worker._private_jobs set locked_at = now(), locked_by = 'p' where id = %s",
        ids[2],
    )
    await jobs.sql(
        "update graphile_worker._private_job_queues set locked_at = now(), locked_by = 'p'"
    )
    await worker.force_unlock_workers(["p"])
    assert await jobs.locked() == 0
    done = await worker.cleanup(["DELETE_PERMAFAILED_JOBS", "GC_TASK_IDENTIFIERS", "GC_JOB_QUEUES"])
    assert done.jobs == 1
    limiter = PostgresRateLimiter({"rl:a": 1}, runner_options=roles.options("queue_admin"))
    await limiter.pause("rl:a")
    assert await limiter.forbidden_flags() == {"rl:a"}
    await limiter.resume("rl:a")
    await limiter.close()


async def test_the_admin_enqueues_and_forges_nothing(roles, worker_of, jobs) -> None:
    await jobs.add()
    worker = worker_of("queue_admin")
    for call in (
        lambda: worker.enqueue("task", {}),
        lambda: worker.enqueue("task", {}, job_key="k"),
        lambda: worker.enqueue_many([("task", {})]),
    ):
        with pytest.raises(ConfigurationError, match="permission denied for table"):
            await call()
    async with await psycopg.AsyncConnection.connect(
        roles.url("queue_admin"), autocommit=True
    ) as connection:
        for change in (
            "update graphile_worker._private_jobs set payload = '{}'",
            "update graphile_worker._private_jobs set task_id = 1",
            "insert into graphile_worker._private_tasks (identifier) values ('x')",
            "delete from graphile_worker.migrations",
            "drop table graphile_worker._private_jobs",
        ):
            with pytest.raises(errors.InsufficientPrivilege):
                await connection.execute(change)
    assert await jobs.count() == 1


async def test_a_role_with_grants_and_without_a_policy_is_told(roles, database, jobs) -> None:
    """What row level security does to it would otherwise look like an empty queue."""
    with psycopg.connect(database, autocommit=True) as connection:
        for (table,) in connection.execute(
            "select tablename from pg_policies where policyname = 'queue_worker'"
        ).fetchall():
            connection.execute(
                sql.SQL("drop policy queue_worker on graphile_worker.{}").format(
                    sql.Identifier(table)
                )
            )
    await jobs.add()
    worker = ZodWorker(
        name="test", **CATALOG, runner_options=roles.options("queue_worker"), handle_signals=False
    )
    worker.task("task")(print)
    for call in (lambda: worker.enqueue("task", {}), worker.initialize):
        with pytest.raises(ConfigurationError, match="row-level security"):
            await asyncio.wait_for(call(), 60)
    await worker.stop()


async def test_a_worker_without_the_table_of_workers_still_runs(
    roles, worker_of, jobs, database
) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("drop table graphile_worker.zodworker_workers")
        connection.execute("delete from graphile_worker.zodworker_migrations where id = 2")
    ran = []
    await jobs.add()
    worker = worker_of("queue_worker")
    worker.task("task")(ran.append)
    await worker.run_once()
    assert ran == [{}]


def test_the_names_of_own_tables_are_those_of_the_document(database) -> None:
    """A table that is added must be granted, too."""
    with psycopg.connect(database, autocommit=True) as connection:
        for subject in ("limiter", "workers"):
            ensure_own_tables(connection, "graphile_worker", subject)
        tables = connection.execute(
            "select relname from pg_class where relnamespace = 'graphile_worker'::regnamespace"
            " and relkind = 'r'"
        ).fetchall()
    text = DOCUMENT.read_text("utf-8")
    assert [name for (name,) in tables if f"graphile_worker.{name}" not in text] == []
