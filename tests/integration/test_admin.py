"""The admin calls: what each does to a job in each state, in whose transaction, and cleanup."""

from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row

from zodworker_compat import (
    Client,
    Job,
    OptionError,
    RunnerOptions,
    TransactionError,
    WorkerCatalog,
    ZodWorker,
)
from zodworker_compat.database.cleanup import CleanupResult

CATALOG = WorkerCatalog.of(name="test", schema={"t": True}, tasks={"t": {}})
ODD_SCHEMA = 'my "odd" Schema, 100% :schema'
LATER = datetime(2040, 1, 1, tzinfo=UTC)

STATES = {
    "unlocked": "attempts = 1, last_error = 'e'",
    "locked": "attempts = 1, locked_at = now() - interval '3 hours 59 minutes', locked_by = 'w'",
    "locked for long": "attempts = 1, locked_at = now() - interval '5 hours', locked_by = 'w'",
    "failed out": "attempts = 5, last_error = 'e'",
}
FREE = [state for state in STATES if state != "locked"]


@pytest.fixture(params=["graphile_worker", ODD_SCHEMA])
def schema(request: pytest.FixtureRequest) -> str:
    return request.param


class Tables:
    """The queue's tables, read and changed from another session."""

    def __init__(self, url: str, schema: str) -> None:
        self.connection = psycopg.connect(url, autocommit=True, row_factory=dict_row)
        self.connection.execute(
            sql.SQL("set search_path to {}").format(sql.Identifier(schema)),
        )

    def read(self, table: str) -> list[dict[str, Any]]:
        return self.connection.execute(f"select * from {table} order by 1").fetchall()

    def put(self, state: str = "unlocked", queue: str | None = "q", task: str = "t") -> int:
        """Add a job in that state; its queue is locked with it, as a worker does."""
        [job] = self.connection.execute(
            "select id from add_job(%s, '{\"n\": 1}', queue_name => %s, max_attempts => 5,"
            " priority => 7, flags => '{f}')",
            [task, queue],
        ).fetchall()
        self.connection.execute(
            f"update _private_jobs set {STATES[state]} where id = %s", [job["id"]]
        )
        self.connection.execute(
            "update _private_job_queues as queue"
            " set locked_at = job.locked_at, locked_by = job.locked_by"
            " from _private_jobs as job where job.id = %s and queue.id = job.job_queue_id",
            [job["id"]],
        )
        return job["id"]

    @property
    def queue_locks(self) -> dict[str, str | None]:
        return {row["queue_name"]: row["locked_by"] for row in self.read("_private_job_queues")}


@pytest.fixture
async def worker(database: str, schema: str) -> AsyncIterator[ZodWorker]:
    worker = ZodWorker(
        name="test",
        catalog=CATALOG,
        runner_options=RunnerOptions(connection_string=database, schema=schema),
    )
    await worker.migrate()
    yield worker
    await worker.close()


@pytest.fixture
def tables(worker: ZodWorker, database: str, schema: str) -> Iterator[Tables]:
    tables = Tables(database, schema)
    yield tables
    tables.connection.close()


async def complete(worker: Any, ids: list[Any], tx: object = None) -> list[Job]:
    return await worker.complete_jobs(ids, tx=tx)


async def fail(worker: Any, ids: list[Any], tx: object = None) -> list[Job]:
    return await worker.permanently_fail_jobs(ids, "because", tx=tx)


async def reschedule(worker: Any, ids: list[Any], tx: object = None) -> list[Job]:
    return await worker.reschedule_jobs(ids, run_at=LATER, priority=0, attempts=0, tx=tx)


CALLS = [complete, fail, reschedule]


def without(row: dict[str, Any], *columns: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in columns}


class TestTheMatrix:
    @pytest.mark.parametrize("state", FREE)
    async def test_complete_deletes(self, worker: ZodWorker, tables: Tables, state: str) -> None:
        number = tables.put(state)
        [before] = tables.read("_private_jobs")
        [job] = await worker.complete_jobs([number])
        assert tables.read("_private_jobs") == []
        assert (job.id, job.task_identifier, job.queue_name) == (str(number), "t", "q")
        assert (job.payload, job.flags, job.last_error) == (
            {"n": 1},
            {"f": True},
            before["last_error"],
        )
        assert job.attempts == before["attempts"]

    @pytest.mark.parametrize("state", FREE)
    @pytest.mark.parametrize(
        ("reason", "stored"),
        [("because", "because"), ("", ""), (None, "Manually marked as failed")],
    )
    async def test_fail_uses_up_the_attempts(
        self, worker: ZodWorker, tables: Tables, state: str, reason: str | None, stored: str
    ) -> None:
        number = tables.put(state)
        [before] = tables.read("_private_jobs")
        [job] = await worker.permanently_fail_jobs([str(number)], reason)
        [after] = tables.read("_private_jobs")
        assert after["updated_at"] > before["updated_at"]
        assert without(after, "updated_at") == {
            **without(before, "updated_at"),
            "attempts": 5,
            "last_error": stored,
            "is_available": False,
        }
        assert (job.attempts, job.last_error, job.queue_name) == (5, stored, "q")

    @pytest.mark.parametrize("state", FREE)
    async def test_reschedule_sets_what_is_given(
        self, worker: ZodWorker, tables: Tables, state: str
    ) -> None:
        number = tables.put(state)
        [before] = tables.read("_private_jobs")
        [job] = await worker.reschedule_jobs(
            [number], run_at=LATER, priority=0, attempts=0, max_attempts=9
        )
        [after] = tables.read("_private_jobs")
        assert after["updated_at"] > before["updated_at"]
        assert without(after, "updated_at") == {
            **without(before, "updated_at"),
            "run_at": LATER,
            "priority": 0,
            "attempts": 0,
            "max_attempts": 9,
            "is_available": state != "locked for long",
        }
        assert (job.run_at, job.attempts, job.task_identifier) == (LATER, 0, "t")

    async def test_reschedule_leaves_what_is_not_given(
        self, worker: ZodWorker, tables: Tables
    ) -> None:
        number = tables.put()
        [before] = tables.read("_private_jobs")
        [job] = await worker.reschedule_jobs([number])
        [after] = tables.read("_private_jobs")
        assert without(after, "updated_at") == without(before, "updated_at")
        assert job.last_error == "e"

    @pytest.mark.parametrize("call", CALLS)
    async def test_locked_and_missing_jobs_are_skipped(
        self, worker: ZodWorker, tables: Tables, call: Callable[..., Any]
    ) -> None:
        held = tables.put("locked", "held")
        before = tables.read("_private_jobs")
        free = tables.put("unlocked", None)
        jobs = await call(worker, [held, 2**63 - 1, free, str(free)])
        assert [(job.id, job.queue_name) for job in jobs] == [(str(free), None)]
        assert tables.read("_private_jobs")[:1] == before
        assert tables.queue_locks == {"held": "w"}
        assert await call(worker, []) == []

    @pytest.mark.parametrize("call", CALLS)
    async def test_jobs_come_in_the_order_of_their_ids(
        self, worker: ZodWorker, tables: Tables, call: Callable[..., Any]
    ) -> None:
        ids = [str(tables.put(queue=queue)) for queue in ("b", None, "a", "b")]
        jobs = await call(worker, list(reversed(ids)))
        assert [(job.id, job.queue_name) for job in jobs] == list(
            zip(ids, ["b", None, "a", "b"], strict=True)
        )

    @pytest.mark.parametrize("call", CALLS)
    async def test_a_job_parked_at_infinity(
        self, worker: ZodWorker, tables: Tables, call: Callable[..., Any]
    ) -> None:
        number = tables.put()
        tables.connection.execute("update _private_jobs set run_at = 'infinity'")
        [job] = await call(worker, [number])
        assert job.run_at.year == (2040 if call is reschedule else 9999)


class TestTheQueueOfAStaleLock:
    @pytest.mark.parametrize("call", CALLS)
    async def test_is_freed_with_its_job(
        self, worker: ZodWorker, tables: Tables, call: Callable[..., Any]
    ) -> None:
        number = tables.put("locked for long")
        await call(worker, [number])
        [queue] = tables.read("_private_job_queues")
        assert (queue["locked_at"], queue["locked_by"], queue["is_available"]) == (None, None, True)

    @pytest.mark.parametrize("call", CALLS)
    @pytest.mark.parametrize(
        "change", ["locked_by = 'another'", "locked_at = now() - interval '1 minute'"]
    )
    async def test_stays_locked_if_it_is_locked_for_another_job(
        self, worker: ZodWorker, tables: Tables, call: Callable[..., Any], change: str
    ) -> None:
        number = tables.put("locked for long")
        tables.connection.execute(f"update _private_job_queues set {change}")
        before = tables.read("_private_job_queues")
        assert len(await call(worker, [number])) == 1
        assert tables.read("_private_job_queues") == before


class TestForceUnlock:
    async def test_frees_jobs_and_queues_of_the_named(
        self, worker: ZodWorker, tables: Tables
    ) -> None:
        for state in ("locked", "locked for long"):
            tables.put(state, state)
        before = tables.read("_private_jobs")
        assert await worker.force_unlock_workers(["nobody"]) is None
        assert tables.read("_private_jobs") == before
        await worker.force_unlock_workers(["nobody", "w"])
        assert tables.read("_private_jobs") == [
            {**row, "locked_at": None, "locked_by": None, "is_available": True} for row in before
        ]
        assert set(tables.queue_locks.values()) == {None}


class TestTransactions:
    @pytest.mark.parametrize("call", CALLS)
    async def test_a_rollback_undoes_the_call(
        self, worker: ZodWorker, tables: Tables, database: str, call: Callable[..., Any]
    ) -> None:
        ids = [tables.put(state, state) for state in STATES]
        before = tables.read("_private_jobs"), tables.read("_private_job_queues")
        async with await psycopg.AsyncConnection.connect(database) as connection:
            assert len(await call(worker, ids, connection)) == 3
            await connection.rollback()
        assert (tables.read("_private_jobs"), tables.read("_private_job_queues")) == before

    async def test_unlock_and_cleanup_are_undone_too(
        self, worker: ZodWorker, tables: Tables, database: str
    ) -> None:
        tables.put("locked")
        tables.put("failed out", "empty soon", "other")
        names = ["_private_jobs", "_private_job_queues", "_private_tasks"]
        before = [tables.read(name) for name in names]
        async with await psycopg.AsyncConnection.connect(database) as connection:
            await worker.force_unlock_workers(["w"], tx=connection)
            result = await worker.cleanup(ALL, tx=connection)
            assert result == CleanupResult(jobs=1, task_identifiers=1, queues=1)
            await connection.rollback()
        assert [tables.read(name) for name in names] == before

    @pytest.mark.parametrize("call", CALLS)
    async def test_autocommit_is_refused(
        self, worker: ZodWorker, tables: Tables, database: str, call: Callable[..., Any]
    ) -> None:
        number = tables.put()
        async with await psycopg.AsyncConnection.connect(database, autocommit=True) as connection:
            with pytest.raises(TransactionError, match="autocommit"):
                await call(worker, [number], connection)


class TestWhatIsRefused:
    @pytest.fixture
    def nowhere(self) -> ZodWorker:
        """A worker without a database: what it refuses, it refuses before any SQL."""
        options = RunnerOptions(connection_string="postgresql://localhost:1/nowhere")
        return ZodWorker(name="test", catalog=CATALOG, runner_options=options)

    @pytest.mark.parametrize("call", CALLS)
    @pytest.mark.parametrize(
        "bad", ["x", "", " 1", "1.5", "-1", "1_0", "\u0661", 1.0, -1, True, None, 2**63, "9" * 5000]
    )
    async def test_ids(self, nowhere: ZodWorker, call: Callable[..., Any], bad: Any) -> None:
        with pytest.raises(OptionError, match=r"^ids: .* is not a job id"):
            await call(nowhere, [1, bad])

    @pytest.mark.parametrize("bad", ["123", b"123", 123, None])
    async def test_one_id_is_no_list(self, nowhere: ZodWorker, bad: Any) -> None:
        with pytest.raises(OptionError, match=r"^ids: expected a list"):
            await nowhere.complete_jobs(bad)

    @pytest.mark.parametrize(
        ("option", "value"),
        [
            ("run_at", datetime(2030, 1, 1)),  # noqa: DTZ001
            ("run_at", "2030-01-01"),
            ("priority", 32768),
            ("attempts", -32769),
            ("attempts", 1.5),
            ("max_attempts", 0),
        ],
    )
    async def test_changes(self, nowhere: ZodWorker, option: str, value: Any) -> None:
        with pytest.raises(OptionError, match=f"^{option}: "):
            await nowhere.reschedule_jobs([1], **{option: value})

    @pytest.mark.parametrize("bad", ["\0", "\ud800", 7])
    async def test_texts(self, nowhere: ZodWorker, bad: Any) -> None:
        with pytest.raises(OptionError, match=r"^reason: "):
            await nowhere.permanently_fail_jobs([1], bad)
        with pytest.raises(OptionError, match=r"^worker_ids: "):
            await nowhere.force_unlock_workers([bad])
        with pytest.raises(OptionError, match=r"^task_identifiers_to_keep: "):
            await nowhere.cleanup(task_identifiers_to_keep=[bad])
        with pytest.raises(OptionError, match=r"^worker_ids: expected a list"):
            await nowhere.force_unlock_workers("pool-1")

    async def test_cleanup_tasks(self, nowhere: ZodWorker) -> None:
        with pytest.raises(OptionError) as caught:
            await nowhere.cleanup(["GC_JOB_QUEUES", "FOO"])  # type: ignore[list-item] # the test
        assert str(caught.value) == (
            "tasks: Invalid cleanup tasks; allowed values: 'GC_TASK_IDENTIFIERS', 'GC_JOB_QUEUES', "
            "'DELETE_PERMAFAILED_JOBS'; you provided: 'GC_JOB_QUEUES', 'FOO'"
        )


ALL = ("GC_JOB_QUEUES", "GC_TASK_IDENTIFIERS", "DELETE_PERMAFAILED_JOBS")


class TestCleanup:
    async def test_deletes_failed_jobs_that_are_unlocked(
        self, worker: ZodWorker, tables: Tables
    ) -> None:
        kept = [tables.put(state, state) for state in ("unlocked", "locked")]
        locked = tables.put("failed out", "still held")
        tables.connection.execute(
            "update _private_jobs set locked_at = now() where id = %s", [locked]
        )
        tables.put("failed out")
        beyond = tables.put("failed out")
        tables.connection.execute("update _private_jobs set attempts = 6 where id = %s", [beyond])
        assert await worker.cleanup(["DELETE_PERMAFAILED_JOBS"]) == CleanupResult(jobs=2)
        assert [row["id"] for row in tables.read("_private_jobs")] == [*kept, locked]

    async def test_by_default_deletes_queues_that_are_free_and_empty(
        self, worker: ZodWorker, tables: Tables
    ) -> None:
        ids = [tables.put(queue=queue) for queue in ("empty", "held", "used")]
        tables.connection.execute("delete from _private_jobs where id = any (%s)", [ids[:2]])
        tables.connection.execute(
            "update _private_job_queues set locked_at = now() - interval '5 hours', locked_by = 'w'"
            " where queue_name = 'held'"
        )
        tables.put("failed out", "used by a failed job")
        assert await worker.cleanup() == CleanupResult(queues=1)
        assert set(tables.queue_locks) == {"held", "used", "used by a failed job"}
        assert len(tables.read("_private_jobs")) == 2

    async def test_deletes_task_identifiers_that_no_job_has(
        self, worker: ZodWorker, tables: Tables
    ) -> None:
        @worker.task("handled here", schema=True)
        def handler(_payload: object) -> None: ...

        names = ["t", "handled here", "kept", "gone", "used"]
        ids = [tables.put(task=name) for name in names]
        await worker.complete_jobs(ids[:-1])
        result = await worker.cleanup(["GC_TASK_IDENTIFIERS"], task_identifiers_to_keep=["kept"])
        assert result == CleanupResult(task_identifiers=1)
        assert [row["identifier"] for row in tables.read("_private_tasks")] == [
            name for name in names if name != "gone"
        ]

    async def test_each_task_leaves_more_for_the_next(
        self, worker: ZodWorker, tables: Tables
    ) -> None:
        tables.put("failed out", "q", "other")
        assert await worker.cleanup(ALL) == CleanupResult(jobs=1, task_identifiers=1, queues=1)
        assert await worker.cleanup(ALL) == CleanupResult()
        assert await worker.cleanup([]) == CleanupResult()

    async def test_waits_for_jobs_that_are_not_committed_yet(
        self, worker: ZodWorker, tables: Tables, database: str
    ) -> None:
        """Deleting the task and the queue of such a job would lose it."""
        await worker.complete_jobs([tables.put(task="other")])
        async with await psycopg.AsyncConnection.connect(database) as connection:
            await connection.execute(
                sql.SQL("select {}.add_job('other', queue_name => 'q')").format(
                    sql.Identifier(worker.graphile_worker_schema)
                )
            )
            with pytest.raises(psycopg.errors.LockNotAvailable, match="Try again"):
                await worker.cleanup(ALL)
        assert await worker.cleanup(ALL) == CleanupResult()
        [job] = await worker.complete_jobs([row["id"] for row in tables.read("_private_jobs")])
        assert (job.task_identifier, job.queue_name) == ("other", "q")

    async def test_keeps_the_callers_lock_timeout(
        self, worker: ZodWorker, tables: Tables, database: str
    ) -> None:
        async with await psycopg.AsyncConnection.connect(database) as connection:
            await connection.execute("set lock_timeout = '7s'")
            await worker.cleanup(tx=connection)
            cursor = await connection.execute("show lock_timeout")
            assert await cursor.fetchone() == ("7s",)

    @pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
    async def test_is_refused_where_it_could_not_see_new_jobs(
        self, worker: ZodWorker, database: str, level: str
    ) -> None:
        async with await psycopg.AsyncConnection.connect(database) as connection:
            await connection.execute(f"set transaction isolation level {level}")
            with pytest.raises(psycopg.errors.InvalidTransactionState, match=level):
                await worker.cleanup(tx=connection)
            await connection.rollback()


def test_the_sync_twin_does_the_same(database: str) -> None:
    client = Client(CATALOG, runner_options=RunnerOptions(connection_string=database))
    tables = Tables(database, "graphile_worker")
    first, second, third = (tables.put() for _ in range(3))
    assert [job.id for job in client.complete_jobs([first])] == [str(first)]
    assert [job.last_error for job in client.permanently_fail_jobs([second], "m")] == ["m"]
    assert [job.attempts for job in client.reschedule_jobs([third], attempts=0)] == [0]
    tables.put("locked", "held")
    client.force_unlock_workers(["w"])
    assert set(tables.queue_locks.values()) == {None}
    with psycopg.connect(database) as connection:
        assert client.cleanup(ALL, tx=connection) == CleanupResult(jobs=1)
        connection.rollback()
    assert client.cleanup(ALL) == CleanupResult(jobs=1)
    assert client.cleanup() == CleanupResult()
    with pytest.raises(OptionError):
        client.complete_jobs("123")
    client.close()
    tables.connection.close()
