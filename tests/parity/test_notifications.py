"""What is heard when we enqueue or install is what is heard of Node, but for the random number."""

import json
import re
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from itertools import takewhile

import psycopg
import pytest
from psycopg import sql

from zodworker_compat import Client, RunnerOptions, WorkerCatalog
from zodworker_compat.database.migrate import migrate

OURS, THEIRS = "of python", "of node"
CHANNELS = ("jobs:insert", "worker:migrate")
CATALOG = WorkerCatalog.of(name="test", schema={"one": True}, tasks={"one": {}})
LATER = datetime(2040, 1, 1, tzinfo=UTC)
RANDOM = re.compile(r'(?<="r":)0\.\d+(?:e-\d+)?(?=[,}])')


@pytest.fixture(params=["0.16", "0.17"])
def version(request):
    return request.param


class Ear:
    """Hears all notifications of a database."""

    def __init__(self, hearing, speaking):
        for channel in CHANNELS:
            hearing.execute(sql.SQL("listen {}").format(sql.Identifier(channel)))
        self._notifications = hearing.notifies()  # one for all: what it has read ends with it
        self.close = self._notifications.close
        self._speaking = speaking

    def end(self):
        """Notify "end"; it comes after all that was committed before."""
        self._speaking.execute("select pg_notify('jobs:insert', 'end')")

    def until_end(self):
        """Return channel and payload of what came before the next "end", random numbers as R."""
        found = takewhile(lambda notify: notify.payload != "end", self._notifications)
        return [(notify.channel, RANDOM.sub("R", notify.payload)) for notify in found]


@pytest.fixture
def heard(empty_database):
    connect = partial(psycopg.connect, empty_database, autocommit=True)
    with connect() as hearing, connect() as speaking:
        with closing(Ear(hearing, speaking)) as ear:
            yield ear


@pytest.mark.parametrize(("version", "revision"), [("0.16", 18), ("0.17", 19)])
def test_an_installation_is_announced_as_node_does(empty_database, node, heard, version, revision):
    node("migrate", version, empty_database, THEIRS)
    heard.end()
    theirs = heard.until_end()
    theirs.remove(("jobs:insert", ""))  # its revision 11 moves the jobs, though there are none
    with psycopg.connect(empty_database, autocommit=True) as connection:
        migrate(connection, OURS, revision=revision)
        heard.end()
        ours = heard.until_end()
        assert ours == theirs
        assert [channel for channel, _ in ours] == ["worker:migrate"] * revision
        migrate(connection, THEIRS)  # nothing to do
    node("migrate", version, empty_database, OURS)
    heard.end()
    assert heard.until_end() == []


def test_calls_are_announced_as_node_does(empty_database, node, heard, version):
    for schema in (OURS, THEIRS):
        node("migrate", version, empty_database, schema)
    heard.end()
    heard.until_end()
    options = RunnerOptions(connection_string=empty_database, schema=OURS)
    ours, their_calls = {}, []
    with closing(Client(CATALOG, runner_options=options)) as client:
        for name, our_call, their_call in calls(client, version):
            our_call()
            heard.end()
            ours[name] = heard.until_end()
            their_calls.append(their_call)
    node("announce", version, empty_database, THEIRS, json.dumps(their_calls))
    for name, found in ours.items():
        assert found == heard.until_end(), name
        assert bool(found) == (name not in SILENT), name


SILENT = {
    "unsafe_dedupe k", "remove nothing", "complete", "fail", "reschedule", "unlock", "clean up",
}  # fmt: skip


def calls(client, version):
    """Name, our call, and Node's: in this order they find the same rows on both sides."""
    theirs = f'"{THEIRS}"'
    yield "add", lambda: client.enqueue("one", {"a": 1}), ["addJob", "one", {"a": 1}]
    yield (
        "add for later",
        lambda: client.enqueue("one", {}, run_at=LATER, queue_name="q"),
        f"select {theirs}.add_job('one', run_at => '{LATER}', queue_name => 'q')",
    )
    for mode in ("replace", "preserve_run_at", "unsafe_dedupe"):
        for key in ("k", mode):  # there already, but for the first; and new
            yield (
                f"{mode} {key}",
                lambda mode=mode, key=key: client.enqueue(
                    "one", {}, job_key=key, job_key_mode=mode
                ),
                ["addJob", "one", {}, {"jobKey": key, "jobKeyMode": mode}],
            )
    if version == "0.17":
        yield (
            "add many",
            lambda: client.enqueue_many([("one", {}), ("one", {}), ("one", {})]),
            ["addJobs", [{"identifier": "one", "payload": {}}] * 3],
        )
    for name in ("remove", "remove nothing"):
        yield name, lambda: client.dequeue("k"), f"select {theirs}.remove_job('k')"
    yield "complete", lambda: client.complete_jobs([1]), ["completeJobs", ["1"]]
    yield (
        "fail",
        lambda: client.permanently_fail_jobs([2], "no"),
        ["permanentlyFailJobs", ["2"], "no"],
    )
    yield (
        "reschedule",
        lambda: client.reschedule_jobs([2], attempts=1),
        ["rescheduleJobs", ["2"], {"attempts": 1}],
    )
    yield (
        "unlock",
        lambda: client.force_unlock_workers(["nobody"]),
        ["forceUnlockWorkers", ["nobody"]],
    )
    yield (
        "clean up",
        lambda: client.cleanup(["GC_JOB_QUEUES"]),
        ["cleanup", {"tasks": ["GC_JOB_QUEUES"]}],
    )
