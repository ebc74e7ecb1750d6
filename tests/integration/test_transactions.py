"""Enqueue inside the caller's own transaction, sync and async, from every library we say we take."""

import asyncio
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
import sqlalchemy
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from zodworker_compat import Client, RunnerOptions, TransactionError, WorkerCatalog, ZodWorker

CATALOG = WorkerCatalog.of(name="test", schema={"t": True}, tasks={"t": {}})


@pytest.fixture
def client(database: str) -> Iterator[Client]:
    client = Client(CATALOG, runner_options=RunnerOptions(connection_string=database))
    yield client
    client.close()


def count(database: str) -> int:
    with psycopg.connect(database) as connection:
        row = connection.execute("select count(*) from graphile_worker._private_jobs").fetchone()
        assert row is not None
        return row[0]


class Listener:
    """Hears `jobs:insert`, as a worker does."""

    def __init__(self, database: str) -> None:
        self.connection = psycopg.connect(database, autocommit=True)
        self.connection.execute('listen "jobs:insert"')

    def heard(self) -> int:
        """How many notifications were sent before now: our own, sent last, is not counted."""
        self.connection.execute("select pg_notify('jobs:insert', 'end')")
        return sum(
            1 for notify in self.connection.notifies(stop_after=1) if notify.payload != "end"
        ) + sum(1 for notify in self.connection.notifies(timeout=0) if notify.payload != "end")


@pytest.fixture
def listener(database: str) -> Iterator[Listener]:
    listener = Listener(database)
    yield listener
    listener.connection.close()


async def test_commit_leaves_a_job_and_wakes_a_worker(
    worker: ZodWorker, database: str, listener: Listener
) -> None:
    async with await psycopg.AsyncConnection.connect(database) as connection:
        job = await worker.enqueue_tx(connection, "t", {"n": 1}, job_key="k")
        assert job.key == "k"
        assert (count(database), listener.heard()) == (0, 0)
    assert (count(database), listener.heard()) == (1, 1)


async def test_rollback_leaves_no_job_and_wakes_nobody(
    worker: ZodWorker, database: str, listener: Listener
) -> None:
    connection = await psycopg.AsyncConnection.connect(database)
    await worker.enqueue("t", tx=connection)
    await worker.enqueue_many([("t", 1), ("t", 2)], tx=connection)
    await connection.rollback()
    await connection.close()
    assert (count(database), listener.heard()) == (0, 0)


async def test_a_savepoint_takes_its_jobs_with_it(worker: ZodWorker, database: str) -> None:
    async with (
        await psycopg.AsyncConnection.connect(database, autocommit=True) as connection,
        connection.transaction(),
    ):
        await worker.enqueue_tx(connection, "t", "kept")
        with pytest.raises(ZeroDivisionError):
            async with connection.transaction():
                await worker.enqueue_tx(connection, "t", "lost")
                raise ZeroDivisionError
        await worker.enqueue_tx(connection, "t", "kept too")
    assert count(database) == 2


async def test_enqueue_many_never_commits_the_callers_transaction(
    worker: ZodWorker, database: str
) -> None:
    connection = await psycopg.AsyncConnection.connect(database)
    await worker.enqueue_many([("t", 1)], tx=connection)
    assert connection.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS
    await connection.close()
    assert count(database) == 0


async def test_dequeue_in_a_transaction(worker: ZodWorker, database: str) -> None:
    await worker.enqueue("t", job_key="k")
    connection = await psycopg.AsyncConnection.connect(database)
    assert await worker.dequeue("k", tx=connection) is not None
    await connection.rollback()
    await connection.close()
    assert count(database) == 1


async def test_the_connection_keeps_its_settings(worker: ZodWorker, database: str) -> None:
    connection = await psycopg.AsyncConnection.connect(
        database, row_factory=psycopg.rows.dict_row, cursor_factory=psycopg.AsyncClientCursor
    )
    await connection.execute("set time zone 'Asia/Tokyo'")
    await connection.commit()

    def settings() -> tuple[Any, ...]:
        return (
            connection.autocommit,
            connection.row_factory,
            connection.cursor_factory,
            connection.isolation_level,
            connection.prepare_threshold,
            connection.info.timezone,
        )

    before = settings()
    job = await worker.enqueue_tx(connection, "t", {"n": 1}, flags=["f"])
    assert job.run_at.utcoffset().total_seconds() == 0
    assert settings() == before
    cursor = await connection.execute("select payload, flags from graphile_worker._private_jobs")
    assert await cursor.fetchone() == {"payload": {"n": 1}, "flags": {"f": True}}
    await connection.close()


async def test_autocommit_outside_a_block_is_refused(worker: ZodWorker, database: str) -> None:
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as connection:
        with pytest.raises(
            TransactionError, match=r"autocommit.*async with connection\.transaction"
        ):
            await worker.enqueue_tx(connection, "t")
    assert count(database) == 0


async def test_a_failed_transaction_is_refused(worker: ZodWorker, database: str) -> None:
    connection = await psycopg.AsyncConnection.connect(database)
    with pytest.raises(psycopg.errors.DivisionByZero):
        await connection.execute("select 1/0")
    with pytest.raises(TransactionError, match="failed already"):
        await worker.enqueue_tx(connection, "t")
    await connection.close()
    with pytest.raises(TransactionError, match="closed"):
        await worker.enqueue_tx(connection, "t")


async def test_what_is_no_transaction_is_refused(
    worker: ZodWorker, client: Client, database: str
) -> None:
    with pytest.raises(
        TransactionError, match=r"must be a psycopg 3 AsyncConnection.*got builtins\.str"
    ):
        await worker.enqueue_tx("a string", "t")
    with pytest.raises(TransactionError, match="without one, call enqueue"):
        await worker.enqueue_tx(None, "t")
    with (
        psycopg.connect(database) as connection,
        pytest.raises(TransactionError, match=r"worker\.sync"),
    ):
        await worker.enqueue_tx(connection, "t")
    async with await psycopg.AsyncConnection.connect(database) as connection:
        with pytest.raises(TransactionError, match="async connection, and this is the sync client"):
            client.enqueue_tx(connection, "t")
    with pytest.raises(
        TransactionError, match=r"must be a psycopg 3 Connection.*got builtins\.int"
    ):
        client.enqueue_tx(7, "t")
    engine = create_async_engine(database.replace("postgresql://", "postgresql+psycopg://"))
    async with AsyncSession(engine) as session:
        with pytest.raises(TransactionError, match=r"must be a psycopg 3 Connection.*AsyncSession"):
            client.enqueue_tx(session, "t")
    sync_engine = sqlalchemy.create_engine(engine.url)
    with Session(sync_engine) as session, pytest.raises(TransactionError, match=r"worker\.sync"):
        await worker.enqueue_tx(session, "t")
    sync_engine.dispose()
    await engine.dispose()


async def test_our_own_transaction_holds_business_sql_and_jobs(
    worker: ZodWorker, database: str
) -> None:
    async with worker.transaction() as tx:
        await tx.connection.execute("create table orders (id int)")
        await tx.enqueue("t", {"order": 1}, job_key="order")
        await tx.enqueue_many([("t", 2), ("t", 3)])
        await tx.dequeue("order")
        await worker.enqueue_tx(tx, "t", 4)
    assert count(database) == 3
    with pytest.raises(ZeroDivisionError):
        async with worker.transaction() as tx:
            await tx.enqueue("t")
            raise ZeroDivisionError
    assert count(database) == 3


async def test_sqlalchemy_async(worker: ZodWorker, database: str) -> None:
    engine = create_async_engine(database.replace("postgresql://", "postgresql+psycopg://"))
    async with AsyncSession(engine) as session:
        await session.execute(sqlalchemy.text("select 1"))
        await worker.enqueue_tx(session, "t", 1)
        await session.rollback()
        await worker.enqueue_tx(session, "t", 2)
        await session.commit()
    async with engine.begin() as connection:
        await worker.enqueue_many([("t", 3)], tx=connection)
    await engine.dispose()
    assert count(database) == 2


def test_sqlalchemy_sync(client: Client, database: str) -> None:
    engine = sqlalchemy.create_engine(database.replace("postgresql://", "postgresql+psycopg://"))
    with Session(engine) as session:
        client.enqueue_tx(session, "t", 1)
        session.rollback()
        client.enqueue_tx(session, "t", 2)
        session.commit()
    with engine.begin() as connection:
        client.enqueue_many([("t", 3)], tx=connection)
    engine.dispose()
    assert count(database) == 2


def test_the_first_statement_of_a_sqlalchemy_connection(client: Client, database: str) -> None:
    engine = sqlalchemy.create_engine(database.replace("postgresql://", "postgresql+psycopg://"))
    with engine.connect() as connection:
        client.enqueue_tx(connection, "t", 1)
        connection.rollback()
        client.enqueue_tx(connection, "t", 2)
        client.enqueue_many([("t", 3)], tx=connection)
        connection.commit()
        client.enqueue_tx(connection, "t", 4)
    with pytest.raises(TransactionError, match="closed"):
        client.enqueue_tx(connection, "t")
    for no_transaction in (engine, sqlalchemy.orm.sessionmaker(engine)):
        with pytest.raises(TransactionError, match="tx must be a psycopg 3 Connection"):
            client.enqueue_tx(no_transaction, "t")
    engine.dispose()
    assert count(database) == 2


async def test_the_first_statement_of_a_sqlalchemy_async_connection(
    worker: ZodWorker, database: str
) -> None:
    engine = create_async_engine(database.replace("postgresql://", "postgresql+psycopg://"))
    async with engine.connect() as connection:
        await worker.enqueue_tx(connection, "t", 1)
        await connection.commit()
        await worker.enqueue_tx(connection, "t", 2)
    with pytest.raises(TransactionError, match="tx must be a psycopg 3 AsyncConnection"):
        await worker.enqueue_tx(engine, "t")
    await engine.dispose()
    assert count(database) == 1


def test_sqlalchemy_on_another_driver_is_refused(client: Client) -> None:
    engine = sqlalchemy.create_engine("sqlite://")
    with Session(engine) as session, pytest.raises(TransactionError, match="over sqlite3"):
        client.enqueue_tx(session, "t")
    engine.dispose()


def test_django(client: Client, database: str) -> None:
    from django.conf import settings
    from django.db import connection, transaction

    parts = psycopg.conninfo.conninfo_to_dict(database)
    if not settings.configured:
        settings.configure(
            USE_TZ=False,
            DATABASES={
                "default": {
                    "ENGINE": "django.db.backends.postgresql",
                    "NAME": parts["dbname"],
                    "HOST": parts["host"],
                    "PORT": parts["port"],
                    "USER": parts["user"],
                    "PASSWORD": parts.get("password", ""),
                }
            },
        )
    with pytest.raises(TransactionError, match=r"autocommit.*transaction\.atomic"):
        client.enqueue_tx(connection, "t")
    with transaction.atomic():
        job = client.enqueue_tx(connection, "t", {"n": 1}, flags=["f"], job_key="k")
        assert (job.flags, job.payload, job.run_at.tzinfo is not None) == (
            {"f": True},
            {"n": 1},
            True,
        )
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        client.enqueue_tx(connection, "t")
        raise ZeroDivisionError
    connection.close()
    assert count(database) == 1


def test_the_sync_twin_does_the_same(client: Client, database: str, listener: Listener) -> None:
    assert client.enqueue("t", {"n": 1}, job_key="k").payload == {"n": 1}
    assert [job.payload for job in client.enqueue_many([("t", 1), ("t", 2)])] == [1, 2]
    with psycopg.connect(database) as connection:
        client.enqueue_tx(connection, "t")
        connection.rollback()
    with client.transaction() as tx:
        tx.enqueue("t", job_key="k2")
        tx.connection.execute("create table business (id int)")
        tx.dequeue("k2")
    assert client.dequeue("k") is not None
    assert client.dequeue("k") is None
    assert count(database) == 2
    with psycopg.connect(database, autocommit=True) as connection:
        with pytest.raises(TransactionError, match=r"`with connection\.transaction\(\):`"):
            client.enqueue_tx(connection, "t")


async def test_a_workers_sync_side_shares_its_catalog(worker: ZodWorker, database: str) -> None:
    @worker.task("t", priority=7)
    def handler(_payload: object) -> None: ...

    job = await asyncio.to_thread(worker.sync.enqueue, "t", 1)
    worker.sync.close()
    assert job.priority == 7
