"""What the schema's functions do, on the database itself.

`tests/parity` runs the same tests on a schema that graphile-worker made, but for those that are
`better`: there ours does more than graphile-worker's.
"""

import json
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from psycopg import errors
from psycopg.rows import dict_row
from psycopg.types.json import Json

PAST, R1, R2 = "2001-01-01 00:00:00+00", "2030-01-01 00:00:00+00", "2040-01-01 00:00:00+00"
READ = """
    select job.id, task.identifier as task, queue.queue_name as queue, job.payload::text as payload,
        job.priority, job.run_at, job.attempts, job.max_attempts, job.last_error, job.created_at,
        job.updated_at, job.key, job.locked_at, job.locked_by, job.revision, job.flags,
        job.is_available
    from graphile_worker._private_jobs as job
    left join graphile_worker._private_tasks as task on task.id = job.task_id
    left join graphile_worker._private_job_queues as queue on queue.id = job.job_queue_id
"""


def better(test):
    """Mark what graphile-worker's own functions do not do."""
    test.is_better = True
    return test


class Queue:
    """One connection to the schema, rows as dicts, times as text in UTC."""

    def __init__(self, url):
        self.connection = psycopg.connect(url, autocommit=True, row_factory=dict_row)
        self.connection.execute("set timezone to 'UTC'")
        self.connection.execute('listen "jobs:insert"')
        self.notifications()

    def execute(self, query, parameters=()):
        cursor = self.connection.execute(query, parameters)
        return cursor.fetchall() if cursor.description else []

    def call(self, function, **arguments):
        given = ", ".join(f"{name} => %({name})s" for name in arguments)
        return self.execute(f"select * from graphile_worker.{function}({given})", arguments)

    def add(self, identifier="t", **arguments):
        if "payload" in arguments:
            arguments["payload"] = as_json(arguments["payload"])
        [row] = self.call("add_job", identifier=identifier, **arguments)
        return row

    def add_many(self, *specs, preserve=False):
        rows = ", ".join(
            "row(%s, %s::json, %s, %s, %s, %s, %s, %s::text[])::graphile_worker.job_spec"
            for _ in specs
        )
        values = [value for spec in specs for value in spec_values(**spec)]
        return self.execute(
            f"select * from graphile_worker.add_jobs(array[{rows}]::graphile_worker.job_spec[], %s)",
            [*values, preserve],
        )

    def rows(self):
        return self.execute(READ + "order by job.id")

    def row(self, id_):
        return next((row for row in self.rows() if row["id"] == id_), None)

    def update(self, id_, **columns):
        assignments = ", ".join(f"{name} = %({name})s" for name in columns)
        self.execute(
            f"update graphile_worker._private_jobs set {assignments} where id = %(id)s",
            {"id": id_, **columns},
        )

    def notifications(self):
        """What has been heard since the last look; our own session's arrive with its commits."""
        heard = list(self.connection.notifies(timeout=0))
        return [notify.payload for notify in heard]

    def counts(self):
        return [json.loads(payload)["count"] if payload else "" for payload in self.notifications()]


def as_json(payload):
    return payload if payload is None or isinstance(payload, str) else Json(payload)


def spec_values(
    identifier="t",
    payload=None,
    queue_name=None,
    run_at=None,
    max_attempts=None,
    job_key=None,
    priority=None,
    flags=None,
):
    return [
        identifier, as_json(payload), queue_name, run_at, max_attempts, job_key, priority, flags
    ]  # fmt: skip


@pytest.fixture
def url(database):
    return database


@pytest.fixture
def queue(url):
    queue = Queue(url)
    yield queue
    queue.connection.close()


@pytest.fixture
def other(url):
    """A second session."""
    queue = Queue(url)
    yield queue
    queue.connection.close()


@pytest.fixture
def thread():
    with ThreadPoolExecutor(1) as executor:
        yield executor


STATES = {
    "pending": {},
    "failed once": {"attempts": 1, "last_error": "e"},
    "locked": {"attempts": 1, "locked_at": "now", "locked_by": "worker-1"},
    "locked for five hours": {"attempts": 1, "locked_at": "-5h", "locked_by": "worker-1"},
    "failed out": {"attempts": 5, "last_error": "e"},
    "failed out and locked": {"attempts": 5, "locked_at": "now", "locked_by": "worker-1"},
}
UNAVAILABLE = [name for name in STATES if name not in {"pending", "failed once"}]


@pytest.fixture
def existing(queue):
    """Make a job with key k in one of `STATES`; returns its row."""

    def make(state, payload='{"a": 1}'):
        job = queue.add(
            "t1", payload=payload, queue_name="q1", run_at=R1, max_attempts=5, job_key="k",
            priority=7, flags=["f1"],
        )  # fmt: skip
        columns = {"created_at": PAST, "updated_at": PAST, **STATES[state]}
        if locked_at := columns.get("locked_at"):
            ago = {"now": "0", "-5h": "5 hours"}[locked_at]
            [now] = queue.execute("select now() - %s::interval as time", [ago])
            columns["locked_at"] = now["time"]
        queue.update(job["id"], **columns)
        queue.notifications()
        return queue.row(job["id"])

    return make


def time(queue, text):
    return queue.execute("select %s::timestamptz as time", [text])[0]["time"]


def is_fresh(queue, moment):
    """Whether a time is that of a call just made."""
    return queue.execute("select %s > now() - interval '1 minute' as fresh", [moment])[0]["fresh"]


NEW = {"payload": '{"b":2}', "run_at": R2, "job_key": "k"}
MODES = {
    "replace": lambda queue: queue.add("t2", **NEW),
    "null mode": lambda queue: queue.add("t2", **NEW, job_key_mode=None),
    "preserve_run_at": lambda queue: queue.add("t2", **NEW, job_key_mode="preserve_run_at"),
    "add_jobs": lambda queue: queue.add_many({"identifier": "t2", **NEW})[0],
    "add_jobs, preserving": lambda queue: queue.add_many(
        {"identifier": "t2", **NEW}, preserve=True
    )[0],
}
PRESERVING = {"preserve_run_at", "add_jobs, preserving"}


class TestKeyModes:
    @pytest.mark.parametrize("mode", [*MODES, "unsafe_dedupe"])
    def test_unknown_key_is_inserted(self, queue, mode):
        call = MODES.get(mode) or (lambda queue: queue.add("t2", **NEW, job_key_mode=mode))
        job = call(queue)
        assert (job["key"], job["revision"], job["is_available"]) == ("k", 0, True)
        row = queue.row(job["id"])
        assert (row["task"], row["payload"], row["run_at"]) == ("t2", '{"b":2}', time(queue, R2))
        assert queue.counts()[-1] == 1

    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("state", ["pending", "failed once"])
    def test_available_job_is_updated_in_place(self, queue, existing, state, mode):
        old = existing(state)
        job = MODES[mode](queue)
        [row] = queue.rows()
        keeps_run_at = mode in PRESERVING and state == "pending"
        assert job["id"] == row["id"] == old["id"]
        assert is_fresh(queue, row.pop("updated_at"))
        assert row == {
            "id": old["id"], "task": "t2", "queue": None, "payload": '{"b":2}', "priority": 0,
            "run_at": time(queue, R1 if keeps_run_at else R2), "attempts": 0, "max_attempts": 25,
            "last_error": None, "created_at": time(queue, PAST), "key": "k", "locked_at": None,
            "locked_by": None, "revision": 1, "flags": None, "is_available": True,
        }  # fmt: skip
        assert queue.counts() == [1]

    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("state", UNAVAILABLE)
    def test_unavailable_job_loses_its_key_to_a_new_one(self, queue, existing, state, mode):
        old = existing(state)
        job = MODES[mode](queue)
        left, new = queue.rows()
        assert is_fresh(queue, left.pop("updated_at"))
        assert left == {
            **{name: value for name, value in old.items() if name != "updated_at"},
            "key": None,
            "attempts": 5,
            "is_available": False,
        }
        assert new["id"] == job["id"] != old["id"]
        assert (new["key"], new["revision"], new["task"], new["payload"]) == (
            "k",
            0,
            "t2",
            '{"b":2}',
        )
        assert new["run_at"] == time(queue, R2)
        assert new["is_available"]
        assert queue.counts() == [1]

    @pytest.mark.parametrize("state", STATES)
    def test_unsafe_dedupe_only_counts(self, queue, existing, state):
        old = existing(state)
        job = queue.add("t2", **NEW, job_key_mode="unsafe_dedupe")
        [row] = queue.rows()
        assert job["id"] == old["id"]
        assert is_fresh(queue, row.pop("updated_at"))
        del old["updated_at"]
        assert row == {**old, "revision": 1}
        assert queue.counts() == []

    def test_mode_is_ignored_without_a_key(self, queue):
        assert queue.add(job_key_mode="bogus")["id"]

    def test_same_new_key_in_two_transactions_is_one_job(
        self, queue, other, thread, eventually_sync
    ):
        with queue.connection.transaction():
            first = queue.add("t", job_key="k")
            waiting = thread.submit(other.add, "t", job_key="k")
            eventually_sync(lambda: is_waiting(queue, other))
        second = waiting.result(10)
        assert (second["id"], second["revision"]) == (first["id"], 1)


class TestDefaults:
    def test_of_add_job(self, queue):
        job = queue.add("t")
        row = queue.row(job["id"])
        assert row["created_at"] == row["updated_at"] == row["run_at"]
        for name in ("created_at", "updated_at", "run_at"):
            assert is_fresh(queue, row.pop(name))
        assert row == {
            "id": job["id"], "task": "t", "queue": None, "payload": "{}", "priority": 0,
            "attempts": 0, "max_attempts": 25, "last_error": None, "key": None, "locked_at": None,
            "locked_by": None, "revision": 0, "flags": None, "is_available": True,
        }  # fmt: skip

    def test_add_jobs_has_the_same(self, queue):
        one = queue.row(queue.add("t")["id"])
        [job] = queue.add_many({"identifier": "t"})
        many = queue.row(job["id"])
        for name in ("id", "created_at", "updated_at", "run_at"):
            del one[name], many[name]
        assert one == many

    def test_empty_names_are_names(self, queue):
        row = queue.row(queue.add("", queue_name="")["id"])
        assert (row["task"], row["queue"]) == ("", "")

    def test_tasks_and_queues_are_made_once(self, queue):
        for _ in range(2):
            queue.add("t", queue_name="q")
            queue.add_many({"queue_name": "q"}, {"queue_name": "q"})
        assert len(queue.execute("select from graphile_worker._private_tasks")) <= 1
        [tasks] = queue.execute("select count(*) as n from graphile_worker._private_tasks")
        [queues] = queue.execute("select count(*) as n from graphile_worker._private_job_queues")
        assert (tasks["n"], queues["n"]) == (1, 1)

    @pytest.mark.parametrize(
        ("flags", "stored"), [([], None), (["b", "a", "b"], {"a": True, "b": True})]
    )
    def test_flags(self, queue, flags, stored):
        assert queue.add(flags=flags)["flags"] == stored
        assert queue.add_many({"flags": flags})[0]["flags"] == stored


class TestPayloads:
    @pytest.mark.parametrize(
        "text", ["null", "1", '"text"', '{"b" :2, "a":1,"b":3}', "[1,2 ]", '"\\u0000"']
    )
    def test_text_is_stored_as_given(self, queue, text):
        assert queue.row(queue.add(payload=text)["id"])["payload"] == text
        assert queue.row(queue.add_many({"payload": text})[0]["id"])["payload"] == text

    @pytest.mark.parametrize("mode", ["replace", "preserve_run_at", "add_jobs"])
    @pytest.mark.parametrize("state", ["pending", "failed once"])
    def test_two_arrays_are_joined(self, queue, existing, state, mode):
        existing(state, payload='[1,{"b":2,"a":1}]')
        add_payload(queue, mode, "[3,3]")
        assert queue.rows()[0]["payload"] == '[1, {"a": 1, "b": 2}, 3, 3]'

    @pytest.mark.parametrize("mode", ["replace", "preserve_run_at", "add_jobs"])
    @pytest.mark.parametrize(
        ("old", "new", "stored"),
        [("[1]", '{"a":1}', '{"a":1}'), ("[1]", None, "{}"), ('{"a":1}', "[2,3]", "[2,3]")],
    )
    def test_anything_else_is_replaced(self, queue, existing, mode, old, new, stored):
        existing("pending", payload=old)
        add_payload(queue, mode, new)
        assert queue.rows()[0]["payload"] == stored

    @pytest.mark.parametrize("state", UNAVAILABLE)
    def test_arrays_of_an_unavailable_job_stay_with_it(self, queue, existing, state):
        existing(state, payload="[1]")
        add_payload(queue, "replace", "[2,3]")
        assert [row["payload"] for row in queue.rows()] == ["[1]", "[2,3]"]

    def test_unsafe_dedupe_never_joins(self, queue, existing):
        existing("pending", payload="[1]")
        add_payload(queue, "unsafe_dedupe", "[2]")
        assert queue.rows()[0]["payload"] == "[1]"


def add_payload(queue, mode, payload):
    if mode == "add_jobs":
        queue.add_many({"payload": payload, "job_key": "k"})
    else:
        queue.add(payload=payload, job_key="k", job_key_mode=mode)


class TestRefusals:
    @pytest.mark.parametrize(
        ("arguments", "constraint"),
        [
            ({"identifier": "x" * 129}, "tasks_identifier_check"),
            ({"queue_name": "x" * 129}, "job_queues_queue_name_check"),
            ({"job_key": "x" * 513}, "jobs_key_check"),
            ({"job_key": ""}, "jobs_key_check"),
            ({"max_attempts": 0}, "jobs_max_attempts_check"),
            ({"max_attempts": -1}, "jobs_max_attempts_check"),
        ],
    )
    def test_limits(self, queue, arguments, constraint):
        for call in (lambda: queue.add(**arguments), lambda: queue.add_many(arguments)):
            with pytest.raises(errors.CheckViolation) as caught:
                call()
            assert caught.value.diag.constraint_name == constraint
        assert queue.rows() == []

    def test_the_longest_names(self, queue):
        queue.add("x" * 128, queue_name="q" * 128, job_key="k" * 512, max_attempts=1)
        queue.add("ü" * 128)

    @pytest.mark.parametrize("option", ["max_attempts", "priority"])
    @pytest.mark.parametrize("value", [40000, -40000])
    def test_smallint(self, queue, option, value):
        with pytest.raises(errors.NumericValueOutOfRange, match="smallint out of range"):
            queue.add(**{option: value})

    def test_null_identifier(self, queue):
        for call in (lambda: queue.add(None), lambda: queue.add_many({"identifier": None})):
            with pytest.raises(errors.NotNullViolation) as caught:
                call()
            assert caught.value.diag.table_name == "_private_tasks"
            assert caught.value.diag.column_name == "identifier"

    def test_null_flag(self, queue):
        for call in (lambda: queue.add(flags=[None]), lambda: queue.add_many({"flags": [None]})):
            with pytest.raises(errors.InvalidParameterValue, match="field name must not be null"):
                call()

    @pytest.mark.parametrize("mode", ["bogus", "", "REPLACE"])
    def test_job_key_mode(self, queue, mode):
        with pytest.raises(psycopg.Error) as caught:
            queue.add(job_key="k", job_key_mode=mode)
        assert caught.value.sqlstate == "GWBKM"
        assert caught.value.diag.message_primary == (
            "Invalid job_key_mode value, expected 'replace', 'preserve_run_at' or 'unsafe_dedupe'."
        )

    @pytest.mark.parametrize("state", [None, *STATES])
    def test_one_key_twice_in_a_batch(self, queue, existing, state):
        if state:
            existing(state)
        with pytest.raises(errors.CardinalityViolation, match="a second time"):
            queue.add_many({"job_key": "k"}, {"job_key": "k"})

    def test_one_bad_spec_leaves_none_of_the_batch(self, queue):
        with pytest.raises(errors.CheckViolation):
            queue.add_many({}, {"max_attempts": 0}, {"job_key": "k"})
        assert queue.rows() == []
        assert queue.notifications() == []


class TestBatches:
    @pytest.mark.parametrize("keyed", [False, True])
    @pytest.mark.parametrize("size", [1, 2, 1000])
    def test_every_spec_becomes_a_job(self, queue, size, keyed):
        specs = [
            {
                "identifier": f"t{n % 7}",
                "payload": str(n),
                "queue_name": f"q{n % 3}" if n % 2 else None,
                "job_key": f"k{n}" if keyed else None,
            }
            for n in range(size)
        ]
        assert len(queue.add_many(*specs)) == size
        stored = {(row["task"], row["payload"], row["queue"], row["key"]) for row in queue.rows()}
        assert stored == {
            (spec["identifier"], spec["payload"], spec["queue_name"], spec["job_key"])
            for spec in specs
        }
        assert queue.counts() == [size]

    @better
    @pytest.mark.parametrize("keyed", [False, True])
    def test_rows_come_in_the_order_of_the_specs(self, queue, existing, keyed):
        existing("locked")
        specs = [
            {"identifier": f"t{n % 7}", "payload": n, "job_key": "k" if keyed and n == 20 else None}
            for n in range(40)
        ]
        assert [row["payload"] for row in queue.add_many(*specs)] == list(range(40))

    def test_keyed_and_unkeyed_specs_mix(self, queue, existing):
        existing("pending")
        rows = queue.add_many({"job_key": "k"}, {}, {"job_key": "l"}, {})
        assert {row["id"] for row in rows} == {row["id"] for row in queue.rows()}
        assert sorted(row["key"] or "" for row in rows) == ["", "", "k", "l"]

    def test_no_specs_make_no_jobs(self, queue):
        assert queue.add_many() == []
        assert queue.execute("select * from graphile_worker.add_jobs(null)") == []
        assert queue.notifications() == ["", ""]


class TestNotifications:
    def test_each_job_of_a_transaction_is_told(self, queue):
        with queue.connection.transaction():
            for _ in range(5):
                queue.add()
        heard = [json.loads(payload) for payload in queue.notifications()]
        assert [message["count"] for message in heard] == [1] * 5
        assert len({message["r"] for message in heard}) == 5

    def test_a_batch_is_told_once_with_its_size(self, queue, existing):
        existing("pending")
        queue.add_many({"job_key": "k"}, {}, {})
        assert queue.counts() == [3]

    def test_admin_functions_tell_nothing(self, queue, existing):
        ids = [existing("pending")["id"]]
        queue.call("reschedule_jobs", job_ids=ids)
        queue.call("permanently_fail_jobs", job_ids=ids)
        queue.call("force_unlock_workers", worker_ids=["worker-1"])
        queue.call("complete_jobs", job_ids=ids)
        assert queue.notifications() == []


LOCKABLE = [name for name in STATES if name not in {"locked", "failed out and locked"}]
RUNNING = ["locked", "failed out and locked"]


class TestRemoveJob:
    @pytest.mark.parametrize("state", LOCKABLE)
    def test_deletes_a_job_that_does_not_run(self, queue, existing, state):
        old = existing(state)
        [row] = queue.call("remove_job", job_key="k")
        assert (row["id"], row["key"]) == (old["id"], "k")
        assert queue.rows() == []
        assert queue.counts() == [-1]

    @pytest.mark.parametrize("state", RUNNING)
    def test_a_running_job_is_its_last_try(self, queue, existing, state):
        old = existing(state)
        [row] = queue.call("remove_job", job_key="k")
        assert (row["id"], row["key"], row["attempts"]) == (old["id"], None, 5)
        [left] = queue.rows()
        assert is_fresh(queue, left.pop("updated_at"))
        del old["updated_at"]
        assert left == {**old, "key": None, "attempts": 5, "is_available": False}
        assert queue.notifications() == []

    @pytest.mark.parametrize("key", ["unknown", None])
    def test_no_such_job_is_a_row_of_nulls(self, queue, existing, key):
        existing("pending")
        [row] = queue.call("remove_job", job_key=key)
        assert set(row.values()) == {None}
        assert len(queue.rows()) == 1


class TestAdminFunctions:
    @pytest.mark.parametrize("state", LOCKABLE)
    def test_complete_deletes(self, queue, existing, state):
        old = existing(state)
        assert [row["id"] for row in queue.call("complete_jobs", job_ids=[old["id"], -1])] == [
            old["id"]
        ]
        assert queue.rows() == []

    @pytest.mark.parametrize("state", RUNNING)
    @pytest.mark.parametrize(
        "function", ["complete_jobs", "permanently_fail_jobs", "reschedule_jobs"]
    )
    def test_running_jobs_are_left_alone(self, queue, existing, state, function):
        old = existing(state)
        assert queue.call(function, job_ids=[old["id"]]) == []
        assert queue.rows() == [old]

    @pytest.mark.parametrize("state", LOCKABLE)
    @pytest.mark.parametrize(
        ("message", "stored"), [("m", "m"), ("", ""), (None, "Manually marked as failed")]
    )
    def test_fail_keeps_all_but_the_attempts(self, queue, existing, state, message, stored):
        old = existing(state)
        [row] = queue.call("permanently_fail_jobs", job_ids=[old["id"]], error_message=message)
        [left] = queue.rows()
        assert is_fresh(queue, left.pop("updated_at"))
        del old["updated_at"]
        assert left == {**old, "attempts": 5, "last_error": stored, "is_available": False}
        assert row["attempts"] == 5

    @pytest.mark.parametrize("state", LOCKABLE)
    def test_reschedule_sets_what_is_given(self, queue, existing, state):
        old = existing(state)
        given = {"run_at": time(queue, R2), "priority": -3, "attempts": 0, "max_attempts": 9}
        [row] = queue.call("reschedule_jobs", job_ids=[old["id"]], **given)
        [left] = queue.rows()
        assert is_fresh(queue, left.pop("updated_at"))
        del old["updated_at"]
        assert left == {**old, **given, "is_available": old["locked_at"] is None}
        assert row["priority"] == -3

    def test_reschedule_keeps_what_is_not_given(self, queue, existing):
        old = existing("failed once")
        queue.call("reschedule_jobs", job_ids=[old["id"]])
        [left] = queue.rows()
        assert is_fresh(queue, left.pop("updated_at"))
        del old["updated_at"]
        assert left == old

    def test_reschedule_checks_its_numbers(self, queue, existing):
        ids = [existing("pending")["id"]]
        queue.call("reschedule_jobs", job_ids=ids, attempts=-1)
        with pytest.raises(errors.CheckViolation):
            queue.call("reschedule_jobs", job_ids=ids, max_attempts=0)
        with pytest.raises(errors.NumericValueOutOfRange):
            queue.call("reschedule_jobs", job_ids=ids, priority=40000)

    def test_force_unlock_frees_jobs_and_queues_of_the_named(self, queue, existing):
        old = existing("locked")
        queue.execute(
            "update graphile_worker._private_job_queues set locked_at = now(), locked_by = 'worker-1'"
        )
        queue.call("force_unlock_workers", worker_ids=["worker-2"])
        assert queue.rows() == [old]
        queue.call("force_unlock_workers", worker_ids=["worker-2", "worker-1"])
        assert queue.rows() == [{**old, "locked_at": None, "locked_by": None, "is_available": True}]
        [row] = queue.execute("select * from graphile_worker._private_job_queues")
        assert (row["locked_at"], row["locked_by"], row["is_available"]) == (None, None, True)

    def test_a_queue_stays_locked_when_its_job_is_removed(self, queue, existing):
        old = existing("locked for five hours")
        queue.execute(
            "update graphile_worker._private_job_queues set locked_at = now(), locked_by = 'worker-1'"
        )
        queue.call("complete_jobs", job_ids=[old["id"]])
        [row] = queue.execute("select * from graphile_worker._private_job_queues")
        assert row["locked_by"] == "worker-1"


def claim(queue, key="k"):
    queue.execute(
        "update graphile_worker._private_jobs set attempts = attempts + 1, locked_at = now(),"
        " locked_by = 'worker-1' where key = %s",
        [key],
    )


def is_waiting(queue, other):
    [row] = queue.execute(
        "select cardinality(pg_blocking_pids(%s)) > 0 as waiting",
        [other.connection.info.backend_pid],
    )
    return row["waiting"]


@pytest.fixture
def eventually_sync():
    """Poll a condition, in a test that is not async."""
    from time import monotonic

    def wait_for(condition, timeout=60):
        deadline = monotonic() + timeout
        while not condition():
            assert monotonic() < deadline, "the condition did not become true"

    return wait_for


@better
class TestKeyBeingClaimed:
    """A worker claims the keyed job while it is to be replaced (graphile-worker #580)."""

    @pytest.mark.parametrize("mode", MODES)
    def test_the_new_job_is_scheduled(self, queue, other, existing, thread, eventually_sync, mode):
        old = existing("pending")
        with queue.connection.transaction():
            claim(queue)
            adding = thread.submit(MODES[mode], other)
            eventually_sync(lambda: is_waiting(queue, other))
        job = adding.result(10)
        claimed, new = queue.rows()
        assert (claimed["id"], claimed["key"], claimed["locked_by"]) == (
            old["id"],
            None,
            "worker-1",
        )
        assert (new["id"], new["key"], new["is_available"]) == (job["id"], "k", True)

    @pytest.mark.parametrize("mode", MODES)
    def test_a_claim_that_is_rolled_back_changes_nothing(
        self, queue, other, existing, thread, eventually_sync, mode
    ):
        old = existing("pending")
        with queue.connection.transaction(force_rollback=True):
            claim(queue)
            adding = thread.submit(MODES[mode], other)
            eventually_sync(lambda: is_waiting(queue, other))
        assert adding.result(10)["id"] == old["id"]
        assert len(queue.rows()) == 1

    @pytest.mark.parametrize("mode", MODES)
    def test_a_job_that_appears_and_is_claimed_meanwhile(
        self, queue, other, thread, eventually_sync, mode
    ):
        with queue.connection.transaction():
            first = queue.add(job_key="k")
            claim(queue)
            adding = thread.submit(MODES[mode], other)
            eventually_sync(lambda: is_waiting(queue, other))
        job = adding.result(10)
        assert [(row["id"], row["key"]) for row in queue.rows()] == [
            (first["id"], None),
            (job["id"], "k"),
        ]

    def test_no_spec_of_a_batch_is_lost_or_doubled(self, queue, other, thread, eventually_sync):
        specs = [
            {"payload": "1", "job_key": "a"},
            {"payload": "2"},
            {"payload": "3", "job_key": "k"},
            {"payload": "4", "job_key": "l"},
            {"payload": "5"},
        ]
        with queue.connection.transaction():
            for key in "kl":
                queue.add(payload="0", job_key=key)
                claim(queue, key)
            adding = thread.submit(other.add_many, *specs)
            eventually_sync(lambda: is_waiting(queue, other))
        assert sorted(row["payload"] for row in adding.result(10)) == [1, 2, 3, 4, 5]
        stored = sorted((row["payload"], row["key"]) for row in queue.rows() if row["is_available"])
        assert stored == [("1", "a"), ("2", None), ("3", "k"), ("4", "l"), ("5", None)]

    def test_repeatable_read_is_told_to_try_again(self, queue, other, existing):
        existing("pending")
        with pytest.raises(errors.SerializationFailure), other.connection.transaction():
            other.execute("set transaction isolation level repeatable read")
            other.rows()
            claim(queue)
            other.add(job_key="k")

    def test_batches_with_the_same_keys_do_not_deadlock(
        self, queue, other, thread, eventually_sync
    ):
        keys = ["a", "b"]
        for key in keys:
            queue.add(job_key=key)
        with queue.connection.transaction():
            queue.execute("select from graphile_worker._private_jobs where key = 'a' for update")
            adding = thread.submit(other.add_many, *({"job_key": key} for key in reversed(keys)))
            eventually_sync(lambda: is_waiting(queue, other))
            queue.add_many(*({"job_key": key} for key in keys))
        assert [row["revision"] for row in adding.result(10)] == [2, 2]

    def test_a_job_that_can_never_be_written_is_an_error(self, queue):
        """Such as one that a trigger drops: no endless loop, no silence."""
        queue.execute(
            "create function drop_it() returns trigger language plpgsql as 'begin return null; end'"
        )
        queue.execute(
            "create trigger dropped before insert on graphile_worker._private_jobs"
            " for each row execute function drop_it()"
        )
        for call in (
            queue.add,
            lambda: queue.add(job_key="k"),
            lambda: queue.add(job_key="k", job_key_mode="unsafe_dedupe"),
            lambda: queue.add_many({"job_key": "k"}, {}),
        ):
            with pytest.raises(errors.RaiseException, match="A trigger on _private_jobs kept"):
                call()


def test_isolation_level_of_the_caller_is_enough_for_unkeyed_jobs(queue):
    with queue.connection.transaction():
        queue.execute("set transaction isolation level serializable")
        assert queue.add("t", queue_name="q")["id"]
        assert len(queue.add_many({"identifier": "u"})) == 1
