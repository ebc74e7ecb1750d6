"""Tables of our own in graphile-worker's schema: made once, whoever comes first."""

import asyncio
import secrets
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row

from zodworker_compat.database.migrate_async import migrate, plan_migration
from zodworker_compat.database.own_tables import ensure_own_tables as ensure_own_tables_sync
from zodworker_compat.database.own_tables_async import ensure_own_tables
from zodworker_compat.errors import MigrationError

ODD_SCHEMA = 'my "odd" Schema, 100% :schema'


async def connect(dsn: str, **more: Any) -> psycopg.AsyncConnection[Any]:
    return await psycopg.AsyncConnection.connect(
        dsn, autocommit=True, **{"row_factory": dict_row, **more}
    )


async def ledger(connection: Any, schema: str = "graphile_worker") -> list[Any]:
    query = sql.SQL("select id, name from {}.zodworker_migrations").format(sql.Identifier(schema))
    return await (await connection.execute(query)).fetchall()


async def test_many_at_once_make_them_once(database: str) -> None:
    async def ensure() -> None:
        async with await connect(database) as connection:
            await ensure_own_tables(connection, "graphile_worker", "limiter")

    await asyncio.gather(*(ensure() for _ in range(12)))
    async with await connect(database) as connection:
        assert await ledger(connection) == [{"id": 1, "name": "001_limiter"}]


async def test_graphile_workers_ledger_is_left_as_it_is(database: str) -> None:
    async with await connect(database) as connection:
        query = "select * from graphile_worker.migrations order by id"
        before = await (await connection.execute(query)).fetchall()
        await ensure_own_tables(connection, "graphile_worker", "limiter")
        assert await (await connection.execute(query)).fetchall() == before
        assert not await plan_migration(connection)


async def test_any_schema_name_will_do(empty_database: str) -> None:
    async with await connect(empty_database) as connection:
        await migrate(connection, ODD_SCHEMA)
        for _ in range(2):
            await ensure_own_tables(connection, ODD_SCHEMA, "limiter")
        assert len(await ledger(connection, ODD_SCHEMA)) == 1


async def test_they_are_made_with_the_callers_transaction(database: str) -> None:
    async with await connect(database) as connection:
        async with connection.transaction(force_rollback=True):
            await ensure_own_tables(connection, "graphile_worker", "limiter")
            assert len(await ledger(connection)) == 1
        with pytest.raises(psycopg.errors.UndefinedTable):
            await ledger(connection)


async def test_what_no_migration_is_for_makes_nothing(database: str) -> None:
    async with await connect(database) as connection:
        await ensure_own_tables(connection, "graphile_worker", "nothing")
        with pytest.raises(psycopg.errors.UndefinedTable):
            await ledger(connection)


async def test_a_role_that_may_not_make_them_is_told_what_to_do(database: str) -> None:
    role = f"role_{secrets.token_hex(6)}"
    async with await connect(database) as owner:
        await owner.execute(f"create role {role} login")
        try:
            await owner.execute(f"grant usage on schema graphile_worker to {role}")
            async with await connect(database) as connection:
                await connection.execute(f"set role {role}")
                with pytest.raises(MigrationError, match="Let the owner of the schema"):
                    await ensure_own_tables(connection, "graphile_worker", "limiter")
            await ensure_own_tables(owner, "graphile_worker", "limiter")
            await owner.execute(f"grant select on graphile_worker.zodworker_migrations to {role}")
            async with await connect(database) as connection:
                await connection.execute(f"set role {role}")
                await ensure_own_tables(connection, "graphile_worker", "limiter")
        finally:
            await owner.execute(f"drop owned by {role}")
            await owner.execute(f"drop role {role}")


def test_the_sync_twin(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        for _ in range(2):
            ensure_own_tables_sync(connection, "graphile_worker", "limiter")
        rows = connection.execute("select id from graphile_worker.zodworker_migrations").fetchall()
        assert rows == [(1,)]
