"""Node works on a schema with our own tables in it, and leaves them alone."""

import json

import psycopg
import pytest

from zodworker_compat import PostgresRateLimiter, RunnerOptions
from zodworker_compat.database.migrate import migrate

OURS = ("zodworker_limiter_slots", "zodworker_migrations", "zodworker_paused_flags")


@pytest.mark.parametrize(("version", "revision"), [("0.16", 18), ("0.17", 19)])
async def test_node_works_beside_our_own_tables_and_changes_nothing(
    node, introspect, empty_database, version, revision
):
    with psycopg.connect(empty_database, autocommit=True) as connection:
        migrate(connection, revision=revision)
    without = introspect(empty_database)
    limiter = PostgresRateLimiter(
        runner_options=RunnerOptions(connection_string=empty_database, schema="graphile_worker")
    )
    await limiter.pause("rl:a")
    await limiter.close()
    before = introspect(empty_database, exactly=True)
    node("migrate", version, empty_database, "graphile_worker")
    result = json.loads(
        node("work", version, empty_database, "graphile_worker").stdout.splitlines()[-1]
    )
    assert {"from": "node"} in result["ran"]
    assert introspect(empty_database, exactly=True) == before
    # All that is new is ours, by its name; graphile-worker's ledger and functions are as they were.
    tables = {row["relname"] for row in before["relations"] if row["relkind"] == "r"}
    assert tables - {row["relname"] for row in without["relations"]} == set(OURS)
    for subject, rows in without.items():
        assert [row for row in before[subject] if "zodworker_" not in str(row)] == rows, subject
