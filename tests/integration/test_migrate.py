"""`migrate` installs graphile-worker's schema once, adopts what is there, and explains the rest."""

import asyncio
import json
import sys
from contextlib import asynccontextmanager
from secrets import token_hex

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row

from zodworker_compat.database.migrate_async import migrate, plan_migration
from zodworker_compat.database.revisions import check_server_version
from zodworker_compat.errors import MigrationError

BREAKING = {1, 3, 11, 13, 14, 16, 19}
ODD_SCHEMAS = ['my "odd" Schema', "100% :schema", "it's; --", "Ünïcode", "x" * 63]


def connect(url, **options):
    return psycopg.AsyncConnection.connect(url, **{"autocommit": True, **options})


async def install(url, schema="graphile_worker", revision=None):
    async with await connect(url) as connection:
        return await migrate(connection, schema, revision=revision)


async def fetch(url, query, schema="graphile_worker"):
    async with await connect(url) as connection:
        cursor = await connection.execute(sql.SQL(query).format(schema=sql.Identifier(schema)))
        return await cursor.fetchall() if cursor.description else []


async def rows_of(url, schema="graphile_worker"):
    return await fetch(url, "select id, breaking from {schema}.migrations order by id", schema)


async def everything(url):
    """Names and versions of all catalog rows and revisions: equal only if nothing was touched."""
    return await fetch(
        url,
        "select 'relation', oid, xmin::text, relname from pg_class where oid >= 16384"
        " union all select 'function', oid, xmin::text, proname from pg_proc where oid >= 16384"
        " union all select 'schema', oid, xmin::text, nspname from pg_namespace where oid >= 16384"
        " order by 1, 2",
    )


@asynccontextmanager
async def role_of(url, *grants):
    """Make a role that may log in, with some grants; yields a connection as that role."""
    name = f"role_{token_hex(4)}"
    async with await connect(url) as owner:
        await owner.execute(f"create role {name}")
        for grant in grants:
            await owner.execute(grant.format(role=name))
        try:
            async with await connect(url) as connection:
                await connection.execute(f"set role {name}")
                yield connection
        finally:
            await owner.execute(f"drop owned by {name}")
            await owner.execute(f"drop role {name}")


async def test_fresh_schema_is_installed_at_18(empty_database):
    done = await install(empty_database)
    assert (done.schema, done.before, done.revision, done.warning) == (
        "graphile_worker",
        None,
        18,
        None,
    )
    assert await rows_of(empty_database) == [(n, n in BREAKING) for n in range(1, 19)]


async def test_19_is_installed_only_when_asked_for(empty_database):
    assert (await install(empty_database, revision=18)).revision == 18
    assert (await install(empty_database)).revision == 18
    done = await install(empty_database, revision=19)
    assert (done.before, done.revision) == (18, 19)
    assert await rows_of(empty_database) == [(n, n in BREAKING) for n in range(1, 20)]


async def test_fresh_schema_can_be_installed_at_19(empty_database):
    assert (await install(empty_database, revision=19)).revision == 19
    assert len(await rows_of(empty_database)) == 19


async def test_nothing_is_touched_the_second_time(database):
    before = await everything(database)
    done = await install(database)
    assert (done.before, done.revision) == (18, 18)
    assert await everything(database) == before


async def test_19_stays_when_18_is_asked_for(empty_database):
    await install(empty_database, revision=19)
    done = await install(empty_database, revision=18)
    assert done.revision == 19
    assert "0.16 refuse" in done.warning


@pytest.mark.parametrize("schema", ODD_SCHEMAS)
async def test_any_name_can_be_the_schema(empty_database, schema):
    await install(empty_database, schema)
    assert (await install(empty_database, schema)).before == 18
    [job] = await fetch(
        empty_database, "select key from {schema}.add_job('t', job_key => 'k')", schema
    )
    assert job == ("k",)
    for query in (
        "select * from {schema}.add_jobs('{{}}')",
        "select * from {schema}.remove_job('k')",
        "select * from {schema}.complete_jobs('{{1}}')",
        "select * from {schema}.permanently_fail_jobs('{{1}}')",
        "select * from {schema}.reschedule_jobs('{{1}}')",
        "select * from {schema}.force_unlock_workers('{{a}}')",
        "select * from {schema}.jobs",
    ):
        await fetch(empty_database, query, schema)


@pytest.mark.parametrize("schema", ["", "x" * 64, "ü" * 32, "a\0b"])
async def test_names_that_postgresql_would_change_are_refused(empty_database, schema):
    with pytest.raises(MigrationError, match="cannot be the name of a schema"):
        await install(empty_database, schema)


async def test_only_18_and_19_can_be_asked_for(empty_database):
    with pytest.raises(MigrationError, match=r"choose 18 .* or 19"):
        await install(empty_database, revision=17)


async def test_two_schemas_live_in_one_database(database):
    await install(database, "second")
    await fetch(database, "select {schema}.add_job('t')", "second")
    assert await fetch(database, "select * from {schema}.jobs") == []


async def test_schema_that_exists_and_is_empty_is_used(empty_database):
    await fetch(empty_database, "create schema {schema}")
    assert (await install(empty_database)).before is None


async def test_install_joins_tables_of_others_in_public(empty_database):
    await fetch(empty_database, "create table {schema}.tasks (id int)", "public")
    assert (await install(empty_database, "public")).revision == 18


async def test_running_workers_are_told_of_each_revision(empty_database):
    async with await connect(empty_database) as listener:
        await listener.execute('listen "worker:migrate"')
        await install(empty_database)
        heard = [notify.payload async for notify in listener.notifies(timeout=60, stop_after=18)]
    messages = [json.loads(payload) for payload in heard]
    assert messages == [{"migrationNumber": n, "breaking": n in BREAKING} for n in range(1, 19)]


class TestTheCallersConnection:
    @pytest.mark.parametrize("autocommit", [True, False])
    async def test_is_left_idle_and_the_schema_is_committed(self, empty_database, autocommit):
        async with await connect(
            empty_database, autocommit=autocommit, row_factory=dict_row
        ) as connection:
            await migrate(connection)
            await migrate(connection)
            assert connection.info.transaction_status.name == "IDLE"
            assert connection.autocommit == autocommit
            assert connection.row_factory is dict_row
            assert len(await rows_of(empty_database)) == 18

    async def test_in_a_transaction_the_install_is_the_callers_to_commit(self, empty_database):
        async with await connect(empty_database, autocommit=False) as connection:
            await connection.execute("create table business (id int)")
            await migrate(connection)
            assert connection.info.transaction_status.name == "INTRANS"
            await connection.rollback()
        assert await everything(empty_database) == []

    @pytest.mark.parametrize("level", list(psycopg.IsolationLevel))
    async def test_may_have_any_isolation_level(self, empty_database, level):
        async with await connect(empty_database, autocommit=False) as connection:
            await connection.set_isolation_level(level)
            assert (await migrate(connection)).revision == 18
            assert connection.isolation_level == level

    async def test_keeps_its_settings(self, empty_database):
        settings = "select name, setting from pg_settings where context = 'user' and name !~ '[.]'"
        async with await connect(empty_database) as connection:
            before = await (await connection.execute(settings)).fetchall()
            await migrate(connection)
            assert await (await connection.execute(settings)).fetchall() == before


class TestAtOnce:
    async def test_twenty_connections_install_one_schema(self, empty_database):
        done = await asyncio.gather(*(install(empty_database) for _ in range(20)))
        assert {one.revision for one in done} == {18}
        assert await rows_of(empty_database) == [(n, n in BREAKING) for n in range(1, 19)]

    async def test_twenty_connections_mark_19(self, database):
        await asyncio.gather(*(install(database, revision=19) for _ in range(20)))
        assert await rows_of(database) == [(n, n in BREAKING) for n in range(1, 20)]

    @pytest.mark.parametrize("level", list(psycopg.IsolationLevel))
    async def test_isolation_does_not_matter(self, empty_database, level):
        async def one():
            async with await connect(empty_database, autocommit=False) as connection:
                await connection.set_isolation_level(level)
                return await migrate(connection)

        assert {done.revision for done in await asyncio.gather(*(one() for _ in range(8)))} == {18}

    async def test_twenty_processes_install_one_schema(self, empty_database, process):
        program = (
            "import asyncio, sys, psycopg\n"
            "from zodworker_compat.database.migrate_async import migrate\n"
            "async def main():\n"
            "    async with await psycopg.AsyncConnection.connect(sys.argv[1]) as connection:\n"
            "        print((await migrate(connection)).revision)\n"
            "asyncio.run(main())\n"
        )
        started = [process([sys.executable, "-c", program, empty_database]) for _ in range(20)]
        for one in started:
            assert await asyncio.to_thread(one.wait) == 0, one.errors
            assert one.output == "18\n"
        assert len(await rows_of(empty_database)) == 18

    async def test_we_wait_for_a_node_that_is_installing(self, database, eventually):
        """Its revisions come one by one: those of the last seconds say that it is at work."""
        await fetch(database, "create table aside as table {schema}.migrations")
        await fetch(database, "update {schema}.migrations set ts = clock_timestamp()")
        await fetch(database, "delete from {schema}.migrations where id > 10")
        waiting = asyncio.create_task(install(database))
        await eventually(
            lambda: fetch(
                database,
                "select pid from pg_stat_activity where query like '%pg_sleep%'"
                " and datname = current_database() and pid <> pg_backend_pid()",
            )
        )
        await fetch(
            database,
            "insert into {schema}.migrations (id, breaking)"
            " select id, breaking from aside where id > 10",
        )
        assert (await waiting).revision == 18


class TestRefusals:
    async def refused(self, url, match, **options):
        before = await everything(url)
        with pytest.raises(MigrationError, match=match) as caught:
            await install(url, **options)
        assert await everything(url) == before
        return str(caught.value)

    async def test_unknown_breaking_revision(self, database):
        await fetch(database, "insert into {schema}.migrations values (20, now(), true)")
        message = await self.refused(database, "breaking")
        assert message == (
            "Database is using Graphile Worker schema revision 20 which includes breaking migration "
            "20, but the currently running worker only supports up to revision 19. It would be unsafe "
            "to continue; please ensure all versions of Graphile Worker are compatible."
        )

    async def test_unknown_revision_that_is_not_breaking_is_a_warning(self, database):
        await fetch(database, "insert into {schema}.migrations values (20, now(), false)")
        done = await install(database, revision=19)
        assert (done.before, done.revision) == (20, 20)
        assert "schema revision 20, but the currently running worker only supports" in done.warning

    @pytest.mark.parametrize("newest", [1, 10, 17])
    async def test_older_or_half_installed(self, database, newest):
        await fetch(database, "update {schema}.migrations set ts = now() - interval '1 day'")
        await fetch(database, f"delete from {{schema}}.migrations where id > {newest}")
        await self.refused(
            database, rf"revision {newest}; .* graphile-worker@0\.16\.6 --schema-only"
        )
        assert len(await rows_of(database)) == newest

    async def test_0_13_keeps_its_table_without_flags(self, empty_database):
        await fetch(empty_database, "create schema {schema}")
        await fetch(
            empty_database,
            "create table {schema}.migrations (id int primary key, ts timestamptz default now())",
        )
        await fetch(
            empty_database,
            "insert into {schema}.migrations select n, now() - interval '1 year'"
            " from generate_series(1, 10) n",
        )
        await self.refused(empty_database, "is at graphile-worker's revision 10")

    async def test_tables_without_revisions(self, database):
        await fetch(database, "delete from {schema}.migrations")
        await self.refused(database, "does not say at which revision")

    async def test_revisions_without_tables(self, database):
        await fetch(database, "drop table {schema}._private_tasks cascade")
        await self.refused(database, "it has no _private_tasks, jobs")

    async def test_somebody_elses_table_migrations(self, empty_database):
        await fetch(empty_database, "create table {schema}.migrations (name text)", "public")
        await self.refused(empty_database, "is not graphile-worker's", schema="public")

    async def test_somebody_elses_objects_in_the_way(self, empty_database):
        await fetch(empty_database, "create sequence {schema}.tasks_id_seq", "public")
        await fetch(
            empty_database,
            "create table {schema}.migrations (id int primary key,"
            " ts timestamptz not null default now(), breaking boolean not null default false)",
            "public",
        )
        await self.refused(empty_database, '"tasks_id_seq" already exists', schema="public")
        assert await rows_of(empty_database, "public") == []

    def test_postgresql_11(self):
        check_server_version(120000)
        with pytest.raises(MigrationError) as caught:
            check_server_version(110022)
        assert str(caught.value) == (
            "This version of Graphile Worker requires PostgreSQL v12.0 or greater "
            "(detected `server_version_num` = 110022)"
        )


class TestPrivileges:
    async def test_reading_is_enough_when_there_is_nothing_to_do(self, database):
        grants = (
            "grant usage on schema graphile_worker to {role}",
            "grant select on graphile_worker.migrations to {role}",
        )
        async with role_of(database, *grants) as connection:
            assert (await migrate(connection)).revision == 18

    @pytest.mark.parametrize("grants", [(), ("grant usage on schema graphile_worker to {role}",)])
    async def test_not_even_reading(self, database, grants):
        async with role_of(database, *grants) as connection:
            with pytest.raises(MigrationError, match=r"permission denied .* grant this role"):
                await migrate(connection)

    async def test_installing_without_the_right_to_create(self, empty_database):
        async with role_of(empty_database) as connection:
            with pytest.raises(MigrationError, match="permission denied for database"):
                await migrate(connection)
        assert await everything(empty_database) == []

    async def test_owning_the_empty_schema_is_enough_to_install(self, empty_database):
        grant = "create schema graphile_worker authorization {role}"
        async with role_of(empty_database, grant) as connection:
            assert (await migrate(connection)).revision == 18

    async def test_read_only_server(self, empty_database):
        async with await connect(empty_database) as connection:
            await connection.execute("set default_transaction_read_only = on")
            with pytest.raises(MigrationError, match="read-only transaction"):
                await migrate(connection)


class TestPlan:
    async def plan(self, url, **options):
        async with await connect(url) as connection:
            return await plan_migration(connection, **options)

    async def test_of_a_fresh_schema_names_every_step_and_does_nothing(self, empty_database):
        plan = await self.plan(empty_database)
        assert plan
        assert (plan.before, plan.after) == (None, 18)
        assert [script.name for script in plan.preparation] == ["000_schema", "000_migrations"]
        assert [script.revision for script in plan.revisions] == list(range(1, 19))
        assert 'create table "graphile_worker"._private_jobs' in "".join(
            script.sql for script in plan.revisions
        )
        assert await everything(empty_database) == []

    async def test_of_an_installed_schema_is_empty(self, database):
        assert not await self.plan(database)
        plan = await self.plan(database, revision=19)
        assert [script.revision for script in plan.revisions] == [19]
        assert plan.revisions[0].is_breaking

    async def test_refuses_what_migrate_refuses(self, database):
        await fetch(database, "insert into {schema}.migrations values (20, now(), true)")
        with pytest.raises(MigrationError):
            await self.plan(database)
