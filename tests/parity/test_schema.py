"""Our schema and Node's are the same, and each side leaves the other's untouched."""

import asyncio
import json
from secrets import token_hex

import psycopg
import pytest
from psycopg import sql

from zodworker_compat.database.migrate_async import migrate, plan_migration
from zodworker_compat.errors import MigrationError

ODD_SCHEMA = 'my "odd" Schema, 100% :schema'
SCHEMAS = ["graphile_worker", "public", ODD_SCHEMA]


async def install(url, schema="graphile_worker", revision=None):
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        return await migrate(connection, schema, revision=revision)


def execute(url, query, schema="graphile_worker"):
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(sql.SQL(query).format(schema=sql.Identifier(schema)))
        return cursor.fetchall() if cursor.description else []


@pytest.fixture
def second_database(server):
    """The URL of one more empty database."""
    name = f"test_{token_hex(6)}"
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute(f"create database {name} template template0")
        yield server.dsn(name)
        connection.execute(f"drop database {name} with (force)")


@pytest.mark.parametrize("schema", SCHEMAS)
@pytest.mark.parametrize(("version", "revision"), [("0.16", 18), ("0.17", 19)])
async def test_fresh_schema_is_the_one_that_node_makes(
    node, introspect, empty_database, second_database, version, revision, schema
):
    node("migrate", version, empty_database, schema)
    await install(second_database, schema, revision)
    ours, theirs = introspect(second_database, schema), introspect(empty_database, schema)
    assert len(theirs["revisions"]) == revision
    for subject in theirs:
        assert ours[subject] == theirs[subject], subject


@pytest.mark.parametrize("schema", SCHEMAS)
@pytest.mark.parametrize(("version", "revision"), [("0.16", 18), ("0.17", 19)])
async def test_node_works_on_our_schema_and_changes_nothing(
    node, introspect, empty_database, version, revision, schema
):
    await install(empty_database, schema, revision)
    execute(
        empty_database,
        """select {schema}.add_job('one', '{{"from": "python"}}')""",
        schema,
    )
    before = introspect(empty_database, schema, exactly=True)
    result = json.loads(node("work", version, empty_database, schema).stdout.splitlines()[-1])
    assert introspect(empty_database, schema, exactly=True) == before
    batches = [{"batch": n} for n in (1, 2, 3)] if result["many"] else []
    assert sorted(result["ran"], key=str) == sorted(
        [{"from": "python"}, {"from": "node"}, *batches], key=str
    )
    assert result["one"]["task_identifier"] == "one"
    assert execute(empty_database, "select * from {schema}._private_jobs", schema) == []


async def test_node_names_the_tasks_of_a_batch_rightly_on_our_schema(node, empty_database):
    """Its addJobs() takes row i for spec i, which its own add_jobs does not promise (trap T6)."""
    await install(empty_database, revision=19)
    result = json.loads(
        node("work", "0.17", empty_database, "graphile_worker").stdout.splitlines()[-1]
    )
    assert [(job["task_identifier"], job["payload"]["batch"]) for job in result["many"]] == [
        ("two", 1),
        ("one", 2),
        ("two", 3),
    ]


async def test_node_0_17_marks_our_revision_18_as_19(node, introspect, empty_database):
    await install(empty_database)
    node("migrate", "0.17", empty_database, "graphile_worker")
    assert introspect(empty_database)["revisions"][-1] == (19, True)
    assert (await install(empty_database)).revision == 19


@pytest.mark.parametrize("schema", SCHEMAS)
@pytest.mark.parametrize(("version", "revision"), [("0.16", 18), ("0.17", 19)])
async def test_schema_of_node_is_adopted_untouched(
    node, introspect, empty_database, version, revision, schema
):
    node("migrate", version, empty_database, schema)
    before = introspect(empty_database, schema, exactly=True)
    done = await install(empty_database, schema)
    assert (done.before, done.revision, done.warning) == (revision, revision, None)
    assert introspect(empty_database, schema, exactly=True) == before


# The rows, and the outcome for Node 0.16, Node 0.17 and for us: "ok" leaves the rows as they are,
# "19" adds that revision, "refuses" changes nothing.
FOREIGN = {
    "18": ("id <= 18", [], "ok", "19", "ok"),
    "19": ("id <= 19", [], "refuses", "ok", "ok"),
    "only 19": ("id = 19", [], "refuses", "ok", "ok"),
    "only 18": ("id = 18", [], "ok", "19", "ok"),
    "18 and an unknown one": ("id <= 18", [(1000001, False)], "ok", "ok", "ok"),
    "19 and an unknown breaking one": (
        "id <= 19",
        [(1000001, True)],
        "refuses",
        "refuses",
        "refuses",
    ),
    "none": ("false", [], "refuses", "refuses", "refuses"),
}


@pytest.mark.parametrize("rows", FOREIGN)
@pytest.mark.parametrize("who", ["0.16", "0.17", "ours"])
async def test_foreign_revisions_are_judged_as_node_does(
    node, introspect, empty_database, rows, who
):
    kept, added, *outcomes = FOREIGN[rows]
    outcome = outcomes[["0.16", "0.17", "ours"].index(who)]
    await install(empty_database, revision=19)
    execute(empty_database, f"delete from {{schema}}.migrations where not ({kept})")
    for number, breaking in added:
        execute(
            empty_database,
            f"insert into {{schema}}.migrations (id, breaking) values ({number}, {breaking})",
        )
    before = introspect(empty_database)["revisions"]

    if who == "ours":
        if outcome == "refuses":
            with pytest.raises(MigrationError):
                await install(empty_database)
        else:
            await install(empty_database)
    else:
        result = node("migrate", who, empty_database, "graphile_worker", check=False)
        assert (result.returncode != 0) == (outcome == "refuses"), result.stderr

    after = introspect(empty_database)["revisions"]
    assert after == (sorted([*before, (19, True)]) if outcome == "19" else before)


@pytest.mark.parametrize("revision", [18, 19])
async def test_missing_flags_are_added_as_node_0_17_adds_them(
    node, introspect, empty_database, second_database, revision
):
    for url in (empty_database, second_database):
        await install(url, revision=revision)
        execute(url, "alter table {schema}.migrations drop column breaking")
    node("migrate", "0.17", empty_database, "graphile_worker")
    await install(second_database)
    ours, theirs = introspect(second_database), introspect(empty_database)
    assert ours["revisions"] == theirs["revisions"][:revision]
    assert ours["columns"] == theirs["columns"]


@pytest.mark.parametrize("version", ["0.16", "0.17"])
async def test_node_waits_for_our_install_and_takes_it_as_its_own(
    node, introspect, empty_database, eventually, version
):
    async with await psycopg.AsyncConnection.connect(empty_database, autocommit=True) as connection:
        for script in (await plan_migration(connection)).preparation:
            await connection.execute(script.sql.encode())
        async with connection.transaction():
            await migrate(connection)
            starting = asyncio.create_task(
                asyncio.to_thread(node, "migrate", version, empty_database, "graphile_worker")
            )
            await eventually(
                lambda: execute(
                    empty_database,
                    "select pid from pg_stat_activity where wait_event_type = 'Lock'"
                    " and query like '%insert%' and datname = current_database()",
                )
            )
        await starting
    newest = {"0.16": 18, "0.17": 19}[version]
    assert [number for number, _ in introspect(empty_database)["revisions"]] == list(
        range(1, newest + 1)
    )


async def test_node_0_17_survives_that_we_make_the_schema_at_the_same_moment(
    node, introspect, empty_database, eventually
):
    async with await psycopg.AsyncConnection.connect(empty_database) as connection:
        await migrate_inside(connection)
        starting = asyncio.create_task(
            asyncio.to_thread(node, "migrate", "0.17", empty_database, "graphile_worker")
        )
        await eventually(
            lambda: execute(
                empty_database,
                "select pid from pg_stat_activity where wait_event_type = 'Lock'"
                " and datname = current_database()",
            )
        )
        await connection.commit()
        await starting
    assert len(introspect(empty_database)["revisions"]) == 19


async def migrate_inside(connection):
    """Migrate in a transaction that stays open."""
    await connection.execute("select 1")
    await migrate(connection)


async def test_many_nodes_and_we_install_the_same_schema_at_once(node, introspect, empty_database):
    installs = [
        *(
            asyncio.to_thread(node, "migrate", "0.17", empty_database, "graphile_worker")
            for _ in range(3)
        ),
        *(install(empty_database) for _ in range(10)),
    ]
    await asyncio.gather(*installs)
    assert introspect(empty_database)["revisions"] == [
        (n, n in {1, 3, 11, 13, 14, 16, 19}) for n in range(1, 20)
    ]
