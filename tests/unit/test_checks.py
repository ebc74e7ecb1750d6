"""What `verify` says of a server, from what was read."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from attrs import evolve

from zodworker_compat.client.checks import Check, check_handlers, check_server, check_setup
from zodworker_compat.database.verify import JobsTable, Server, Setup, Table

SERVER = Server(
    clock=datetime(2030, 1, 1, tzinfo=UTC), version="18.4", role="app", is_standby=False,
    is_read_only=False, syncs=True, synchronous_commit="on", autovacuums=True, free_connections=50,
    longest_transaction=timedelta(minutes=1), node_listeners=0, skew=timedelta(seconds=0.5),
    skew_known_to=timedelta(milliseconds=1),
)  # fmt: skip
JOBS = JobsTable(
    is_unlogged=False, has_no_autovacuum=False, live_rows=10, dead_rows=5, bytes=8192, triggers=[]
)


def wrong(found: Any) -> list[Check]:
    return [one for one in found if one.level != "ok"]


def test_a_good_server() -> None:
    assert wrong(check_server(SERVER, "host db")) == []


@pytest.mark.parametrize(
    ("changes", "subject", "level", "said"),
    [
        ({"is_standby": True}, "database", "error", "standby"),
        ({"is_read_only": True}, "database", "error", "read-only"),
        ({"syncs": False}, "durability", "warning", "fsync is off"),
        ({"synchronous_commit": "off"}, "durability", "warning", "synchronous_commit is off"),
        ({"free_connections": 3}, "connections", "warning", "3 connections can still be opened"),
        ({"skew": timedelta(minutes=-2)}, "clock", "warning", "is 2 min ahead of the database's"),
        ({"skew": timedelta(hours=1)}, "clock", "warning", "is 1 h behind the database's"),
        ({"longest_transaction": timedelta(hours=3)}, "vacuum", "warning", "open for 3 h"),
    ],
)
def test_what_can_be_wrong_with_a_server(changes: Any, subject: str, level: str, said: str) -> None:
    [check] = wrong(check_server(evolve(SERVER, **changes), "host db"))

    assert (check.subject, check.level) == (subject, level)
    assert said in check.found
    assert check.mend


def test_a_slow_network_is_no_wrong_clock() -> None:
    slow = evolve(SERVER, skew=timedelta(seconds=9), skew_known_to=timedelta(seconds=8))

    assert wrong(check_server(slow, "host db")) == []


@pytest.mark.parametrize(
    ("changes", "is_wrong"),
    [
        ({}, False),
        ({"dead_rows": 99_000}, False),  # a busy hour's
        ({"dead_rows": 500_000, "live_rows": 400_000, "bytes": 10**8}, False),
        ({"dead_rows": 500_000, "live_rows": 100, "bytes": 10**8}, True),
        ({"live_rows": 1_000_000, "bytes": 2 * 10**9}, False),  # large payloads
        ({"live_rows": 100, "bytes": 2 * 10**9}, True),
    ],
)
def test_a_jobs_table_that_is_mostly_dead(changes: Any, is_wrong: bool) -> None:
    table = Table(
        name="_private_jobs", missing=[], hides_rows=False, owner="app", may_use_schema=True,
        may_create=True,
    )  # fmt: skip
    setup = Setup(tables={table.name: table}, lacking=[], jobs=evolve(JOBS, **changes))

    assert [one.subject for one in wrong(check_setup("q", setup, SERVER))] == ["vacuum"] * is_wrong


def test_the_table_of_heartbeats_that_nobody_may_make() -> None:
    table = Table(
        name="_private_jobs", missing=[], hides_rows=False, owner="owner", may_use_schema=True,
        may_create=False,
    )  # fmt: skip
    setup = Setup(tables={table.name: table}, lacking=[], jobs=JOBS)

    [check] = wrong(check_setup("q", setup, SERVER))

    assert (check.subject, check.level) == ("recovery", "warning")


def test_a_worker_without_handlers() -> None:
    [check] = wrong(check_handlers([], ["mail"], []))

    assert (check.subject, check.level) == ("handlers", "error")
