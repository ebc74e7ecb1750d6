"""The admin calls leave the tables as Node's WorkerUtils does; both work on schemas Node made."""

import json
from datetime import UTC, datetime

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row

from zodworker_compat import Client, RunnerOptions, WorkerCatalog

OURS, THEIRS = "python side", "node side"
STATES = {
    "unlocked": "attempts = 1, last_error = 'e'",
    "locked": "attempts = 1, locked_at = now() - interval '3 hours 59 minutes', locked_by = 'w1'",
    "locked for long": "attempts = 1, locked_at = now() - interval '5 hours', locked_by = 'w2'",
    "failed out": "attempts = 5, last_error = 'e'",
    "failed out, locked": "attempts = 5, locked_at = now(), locked_by = 'w1'",
}
ALL = ["GC_JOB_QUEUES", "GC_TASK_IDENTIFIERS", "DELETE_PERMAFAILED_JOBS"]  # not as they must run
TIMES = ("created_at", "updated_at", "locked_at")


@pytest.fixture(params=["0.16", "0.17"])
def version(request):
    return request.param


class Sides:
    """Two schemas with the same rows; Node is called on one, our client on the other."""

    def __init__(self, url, node, version):
        self.url, self.node, self.version = url, node, version
        catalog = WorkerCatalog.of(name="test", schema={}, tasks={})
        options = RunnerOptions(connection_string=url, schema=OURS)
        self.client = Client(catalog, runner_options=options)
        self.connection = psycopg.connect(url, autocommit=True, row_factory=dict_row)
        for schema in (OURS, THEIRS):
            node("migrate", version, url, schema)
            self.fill(schema)

    def execute(self, query, schema, parameters=None):
        cursor = self.connection.execute(
            sql.SQL(query).format(schema=sql.Identifier(schema)), parameters
        )
        return cursor.fetchall() if cursor.description else []

    def fill(self, schema):
        """Add a job of each state, in a queue of its name, its queue locked as by its worker."""
        for state, columns in STATES.items():
            [job] = self.execute(
                "select id from {schema}.add_job(%s, queue_name => %s, max_attempts => 5,"
                " run_at => '2030-01-01 00:00:00Z', job_key => %s, priority => 7, flags => '{{f}}')",
                schema,
                [f"task {state}", state, state],
            )
            self.execute(
                f"update {{schema}}._private_jobs set {columns} where id = %s", schema, [job["id"]]
            )
        self.execute(
            "update {schema}._private_job_queues as queue"
            " set locked_at = job.locked_at, locked_by = job.locked_by"
            " from {schema}._private_jobs as job where queue.id = job.job_queue_id",
            schema,
        )
        self.execute(
            "select {schema}.add_job('gone', queue_name => 'gone', job_key => 'x')", schema
        )
        self.execute("select {schema}.remove_job('x')", schema)

    def call_node(self, *calls):
        return json.loads(
            self.node("admin", self.version, self.url, THEIRS, json.dumps(calls)).stdout
        )

    def tables(self, schema):
        """All rows; of the times that are now(), whether they are set and whether they moved."""
        jobs = self.execute(
            "select *, payload::text as payload, updated_at > created_at as touched"
            " from {schema}._private_jobs order by id",
            schema,
        )
        queues = self.execute("select * from {schema}._private_job_queues order by id", schema)
        tasks = self.execute("select * from {schema}._private_tasks order by id", schema)
        return [
            [
                {name: value is None if name in TIMES else value for name, value in row.items()}
                for row in rows
            ]
            for rows in (jobs, queues, tasks)
        ]


@pytest.fixture
def sides(empty_database, node, version):
    sides = Sides(empty_database, node, version)
    yield sides
    sides.client.close()
    sides.connection.close()


IDS = ["1", "2", "3", "4", "5", "99", "1"]
LATER = datetime(2040, 1, 1, tzinfo=UTC)
FREE = ["1", "3", "4"]


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (["completeJobs", IDS], lambda client: client.complete_jobs(IDS)),
        (
            ["permanentlyFailJobs", IDS, "because"],
            lambda client: client.permanently_fail_jobs(IDS, "because"),
        ),
        (["permanentlyFailJobs", IDS], lambda client: client.permanently_fail_jobs(IDS)),
        (
            [
                "rescheduleJobs",
                IDS,
                {"runAt": LATER.isoformat(), "priority": -3, "attempts": 2, "maxAttempts": 9},
            ],
            lambda client: client.reschedule_jobs(
                IDS, run_at=LATER, priority=-3, attempts=2, max_attempts=9
            ),
        ),
        (["rescheduleJobs", IDS, {}], lambda client: client.reschedule_jobs(IDS)),
    ],
    ids=["complete", "fail with a reason", "fail", "reschedule", "reschedule nothing"],
)
def test_the_same_jobs_change_in_the_same_way(sides, theirs, ours):
    [of_node] = sides.call_node(theirs)
    of_ours = ours(sides.client)
    assert sorted(str(job["id"]) for job in of_node) == [job.id for job in of_ours] == FREE
    for job in of_ours:
        [twin] = [twin for twin in of_node if str(twin["id"]) == job.id]
        for column in ("priority", "attempts", "max_attempts", "last_error", "key", "revision"):
            assert getattr(job, column) == twin[column], column
    jobs, queues, tasks = sides.tables(THEIRS)
    # Better than Node: the queue of a stale lock is not left to the sweep.
    [stale] = [queue for queue in queues if queue["queue_name"] == "locked for long"]
    assert stale["locked_by"] == "w2"
    stale.update(locked_by=None, locked_at=True, is_available=True)
    assert sides.tables(OURS) == [jobs, queues, tasks]


def test_force_unlock(sides):
    sides.call_node(["forceUnlockWorkers", ["w2", "nobody"]])
    sides.client.force_unlock_workers(["w2", "nobody"])
    assert sides.tables(OURS) == sides.tables(THEIRS)
    assert [job["locked_by"] for job in sides.tables(OURS)[0]] == [None, "w1", None, None, "w1"]


@pytest.mark.parametrize("tasks", [[task] for task in ALL] + [ALL], ids=",".join)
def test_cleanup(sides, tasks):
    options = {"tasks": tasks, "taskIdentifiersToKeep": ["gone"]}
    sides.call_node(["cleanup", options])
    sides.client.cleanup(tasks, task_identifiers_to_keep=["gone"])
    assert sides.tables(OURS) == sides.tables(THEIRS)


def test_cleanup_without_arguments(sides):
    sides.call_node(["cleanup"])
    sides.client.cleanup()
    assert sides.tables(OURS) == sides.tables(THEIRS)


def test_node_takes_zero_for_nothing_and_we_do_not(sides):
    sides.call_node(["rescheduleJobs", ["4"], {"attempts": 0, "priority": 0}])
    sides.client.reschedule_jobs(["4"], attempts=0, priority=0)
    [theirs], [ours] = (
        [job for job in sides.tables(side)[0] if job["id"] == 4] for side in (THEIRS, OURS)
    )
    assert (theirs["attempts"], theirs["priority"]) == (5, 7)
    assert (ours["attempts"], ours["priority"]) == (0, 0)
    assert ours["is_available"]


def test_cleanup_misses_jobs_beyond_their_attempts_only_in_node(sides):
    for side in (OURS, THEIRS):
        sides.execute("update {schema}._private_jobs set attempts = 6 where id = 4", side)
    sides.call_node(["cleanup", {"tasks": ["DELETE_PERMAFAILED_JOBS"]}])
    assert sides.client.cleanup(["DELETE_PERMAFAILED_JOBS"]).jobs == 1
    assert [len(sides.tables(side)[0]) for side in (OURS, THEIRS)] == [4, 5]
