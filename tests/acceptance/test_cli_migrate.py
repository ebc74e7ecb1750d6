"""`zodworker migrate`."""

import psycopg

REVISION = "select max(id) from {}.migrations"


def revision(url, schema="graphile_worker"):
    with psycopg.connect(url) as connection:
        return connection.execute(REVISION.format(schema)).fetchone()[0]


def test_a_plan_changes_nothing(zodworker, empty_database):
    done = zodworker("migrate", "--plan", "--database-url", empty_database)

    assert done.status == 0
    assert "is not installed; `zodworker migrate` would bring it to revision 18" in done.output
    assert "  018_add_job.sql\n" in done.output
    with psycopg.connect(empty_database) as connection:
        [found] = connection.execute("select to_regnamespace('graphile_worker')").fetchone()
    assert found is None


def test_it_installs_once_and_goes_up_when_told(zodworker, empty_database):
    env = {"DATABASE_URL": empty_database, "GRAPHILE_WORKER_SCHEMA": "mine"}

    first = zodworker("migrate", env=env)
    second = zodworker("migrate", env=env)
    third = zodworker("migrate", "--revision", "19", env=env)

    assert first.output == "Schema mine: installed at revision 18.\n"
    assert second.output == "Schema mine is at revision 18: nothing to do.\n"
    assert third.output == "Schema mine: brought from revision 18 to 19.\n"
    assert revision(empty_database, "mine") == 19


def test_it_never_goes_down(zodworker, database):
    env = {"DATABASE_URL": database, "ZODWORKER_MIGRATE_REVISION": "19"}
    assert zodworker("migrate", env=env).status == 0

    done = zodworker("migrate", "--revision", "18", env=env)

    assert done.status == 0
    assert "Warning: The schema is at revision 19 already" in done.errors
    assert revision(database) == 19


def test_a_schema_that_is_too_new_is_refused(zodworker, database):
    with psycopg.connect(database) as connection:
        connection.execute(
            "insert into graphile_worker.migrations (id, breaking) values (20, true)"
        )

    done = zodworker("migrate", "--database-url", database)

    assert done.status == 1
    assert "breaking migration 20" in done.errors


def test_other_revisions_are_a_mistake(zodworker, database):
    done = zodworker("migrate", "--revision", "17", "--database-url", database)

    assert done.status == 2
    assert "'17' is not one of '18', '19'" in done.errors
