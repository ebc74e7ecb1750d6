"""Random calls on our side and on Node's: tables, results, SQLSTATEs and notifications are the same.

The examples of the random test are the same in every run, unless their number is given. Then they are
other ones each time:

    ZODWORKER_PARITY_EXAMPLES=2000 make test ARGS=tests/parity/test_state_machine.py
"""

import os
from contextlib import closing, contextmanager
from itertools import product
from pathlib import Path
from secrets import token_hex

import psycopg
import pytest
from differential import both_sides
from differential.answers import hold_rows, ids_and_locks
from differential.both_sides import Refused
from differential.departures import give_back
from differential.draws import EXPIRES, HALF_AN_HOUR, MILLISECOND, MODES, NAMES, ODD, POOLS, SECONDS
from differential.machine import OTHERS, Machine
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

HERE = Path(__file__).parent
EXAMPLES = os.environ.get("ZODWORKER_PARITY_EXAMPLES")
STEPS = 30


@contextmanager
def database_of(server):
    name = f"test_{token_hex(6)}"
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute(f"create database {name} template template0")
        try:
            yield server.dsn(name)
        finally:
            connection.execute(f"drop database {name} with (force)")


@pytest.fixture(scope="module", params=["0.16", "0.17"])
def node_side(request, server, answering_node, node_modules):
    with database_of(server) as url:
        script = (HERE / "node" / "answer.js").read_text()
        with closing(both_sides.NodeSide(url, request.param)) as side:
            arguments = (request.param, url, side.schema)
            with answering_node(script, *arguments, NODE_PATH=str(node_modules)) as ask:
                side.ask = ask
                side.call("sweep")  # answered once the schema is there
                yield side


@pytest.fixture
def sides(server, node_side):
    with database_of(server) as url, closing(both_sides.OurSide(url)) as ours:
        with closing(both_sides.BothSides(ours, node_side)) as sides:
            yield sides


@pytest.fixture
def machine(sides):
    return type("Differential", (Machine,), {"sides": sides})


@pytest.fixture
def state(machine):
    """A machine whose rules are called by hand: what a failure prints can be pasted here."""
    return machine()


NO_ROWS = ([], [])
ALL = list(NAMES)
AGES = (
    0 * SECONDS,
    *(EXPIRES + n for n in (-HALF_AN_HOUR, -MILLISECOND, 0 * SECONDS, MILLISECOND, HALF_AN_HOUR)),
)


LOCKS = [(None, AGES[0]), *product([POOLS[0]], AGES)]
STATES = [
    {
        "pool": pool,
        "age": age,
        "attempts": attempts,
        "last_error": "boom" if attempts else None,
        "queue": queue,
        "age_of_queue": age,
    }
    for (pool, age), attempts in product(LOCKS, [0, 1, 2])
    for queue in (["same", "free", POOLS[1]] if attempts == 1 else ["same"])
]
STATES += [  # the pool holds the queue for another job
    STATES[-1] | {"queue": POOLS[0], "age_of_queue": age} for age in AGES
]
EVERY = range(len(STATES))


def fill(state):
    """Add a job in each state, each with a key and a queue of its own."""
    specs = [
        {"identifier": "a", "job_key": f"key {n}", "queue_name": f"queue {n}", "max_attempts": 2}
        | {"payload": [n] if n % 2 else {"n": n}, "priority": n, "flags": ["f"], "run_at": -SECONDS}
        for n in EVERY
    ]
    state.add_jobs_in_sql(specs=specs, odd={}, preserve={}, when=None)
    for id_, found in zip(list(state.sides.jobs), STATES, strict=True):
        state.find(id_, found)
    state.sides.compare()


def add_to_each(state, name, spec):
    for n in EVERY:
        getattr(state, name)(spec={"job_key": f"key {n}", **spec}, odd={}, when=None)


def add_to_all(state, name, spec, **preserve):
    specs = [{"job_key": f"key {n}", **spec} for n in EVERY]
    getattr(state, name)(specs=specs, when=None, **preserve)


CALLS = [
    lambda state: state.complete_jobs(jobs=EVERY, when=None),
    lambda state: state.permanently_fail_jobs(jobs=EVERY, reason=None, when=None),
    lambda state: state.permanently_fail_jobs(jobs=EVERY, reason="bang", when=None),
    lambda state: state.reschedule_jobs(jobs=EVERY, changes={}, when=None),
    lambda state: state.reschedule_jobs(
        jobs=EVERY,
        changes={"run_at": SECONDS, "priority": 9, "attempts": 1, "max_attempts": 1},
        when=None,
    ),
    *(
        lambda state, call=call: state.admin_in_sql(jobs=EVERY, call=call, when=None)
        for call in (
            ("complete_jobs", {}),
            ("permanently_fail_jobs", {}),
            ("permanently_fail_jobs", {"error_message": ""}),
            ("reschedule_jobs", {}),
            ("reschedule_jobs", {"run_at": SECONDS, "priority": 0, "attempts": 0}),
            ("reschedule_jobs", {"max_attempts": 1}),
            ("reschedule_jobs", {"max_attempts": 0}),
        )
    ),
    *(
        lambda state, pools=pools: state.force_unlock_workers(pools=pools, when=None)
        for pools in ([], [POOLS[0]], ["nobody", *POOLS])
    ),
    lambda state: state.sweep(when=None),
    lambda state: state.cleanup(
        tasks=["DELETE_PERMAFAILED_JOBS", "GC_JOB_QUEUES"], keep=[], when=None
    ),
    *(
        lambda state, keep=keep: [
            state.add_job(spec={"identifier": "b", "job_key": "key 0"}, odd={}, when=None),
            state.claim(
                pool=POOLS[1], identifiers=ALL, limit=1, flags=None, held=NO_ROWS, when=None
            ),
            state.cleanup(tasks=["GC_TASK_IDENTIFIERS"], keep=keep, when=None),
        ]
        for keep in ([], [NAMES[2]], list(NAMES[1:3]))
    ),
    *(
        lambda state, limit=limit, flags=flags: state.claim(
            pool=POOLS[1], identifiers=ALL, limit=limit, flags=flags, held=NO_ROWS, when=None
        )
        for limit, flags in ((len(EVERY), None), (1, []), (1, ["f"]), (1, ["g"]))
    ),
    *(
        lambda state, name=name: [getattr(state, name)(key=f"key {n}", when=None) for n in EVERY]
        for name in ("remove_job", "remove_job_in_sql")
    ),
    *(
        lambda state, name=name, mode=mode, payload=payload: add_to_each(
            state, name, {"identifier": "b", "job_key_mode": mode, "payload": payload}
        )
        for name, mode, payload in product(["add_job", "add_job_in_sql"], MODES, [["new"], {}])
    ),
    *(
        lambda state, preserve=preserve: add_to_all(
            state, "add_jobs", {"identifier": "b", "payload": ["new"]}, preserve=preserve
        )
        for preserve in (False, True)
    ),
    *(
        lambda state, preserve=preserve, payload=payload: add_to_all(
            state,
            "add_jobs_in_sql",
            {"identifier": "b", "payload": payload},
            preserve={"job_key_preserve_run_at": preserve},
            odd={},
        )
        for preserve, payload in product([False, True], [["new"], {}])
    ),
]


@pytest.mark.timeout(600)
def test_every_call_on_a_job_in_every_state(machine):
    for call in CALLS:
        state = machine()
        fill(state)
        call(state)


def test_every_odd_value(machine):
    for spec in ({}, {"job_key": "k", "queue_name": "q", "payload": [1]}):
        state = machine()
        for odd in ({}, *ODD, {}):
            state.add_job_in_sql(spec={"identifier": "a", **spec}, odd=odd, when=None)
            state.add_jobs_in_sql(
                specs=[{"identifier": "a"}, {"identifier": "b", **spec}],
                odd=odd,
                preserve={},
                when=None,
            )


LOSSES = [None, *POOLS, "the queues"]


def twelve_claims(state, lost):
    """Claim jobs of every kind for the first pool, and let it lose half of them, or the queues."""
    kinds = [{}, {}, {"flags": ["f"]}, {"priority": 1}, {"max_attempts": 3}]
    specs = [
        {"identifier": "a", "run_at": -n * SECONDS, "job_key": f"key {n}", **kinds[n % 5]}
        | ({"queue_name": f"queue {n}"} if n % 5 == 1 else {})
        for n in range(20)
    ]
    state.add_jobs_in_sql(specs=specs, odd={}, preserve={}, when=None)
    for attempts, id_ in enumerate(state.sides.jobs):
        state.sides.change(id_, "attempts = %s", attempts)
    state.sides.compare()
    state.claim(pool=POOLS[0], identifiers=ALL, limit=12, flags=None, held=NO_ROWS, when=None)
    if lost == "the queues":
        state.sides.sql("update {schema}._private_job_queues set locked_by = %s", [POOLS[1]])
    elif lost:  # to the other pool, or to a later claim of the same one
        for id_ in list(state.sides.jobs)[::2]:
            state.sides.change(
                id_, "locked_by = %s, locked_at = %s", lost, state.sides.now + MILLISECOND
            )
    state.sides.compare()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("careful", [False, True])
def test_every_end_of_a_run(machine, careful):
    ends = [
        ("succeed", {}),
        *(
            ("fail", {"message": "bang", "delay": delay, "permanent": permanent})
            for delay, permanent in product([None, 7.5], [False, True])
        ),
        *(("give_back", {"message": message}) for message in (None, "bang")),
    ]
    for (name, arguments), lost in product(ends, LOSSES):
        state = machine()
        twelve_claims(state, lost)
        getattr(state, name)(
            pool=POOLS[0], numbers=range(8), careful=careful, forget=False, when=None, **arguments
        )


def test_a_job_is_put_back_as_it_was(machine):
    for lost in LOSSES:
        state = machine()
        twelve_claims(state, lost)
        for key in ("key 1", "key 2"):
            state.remove_job(key=key, when=None)
        state.add_job(spec={"identifier": "b", "job_key": "key 2"}, odd={}, when=None)
        for _ in range(2):
            for number in range(12):
                state.put_back(pool=POOLS[0], number=number, when=None)


def test_a_careful_end_steps_over_rows_that_another_session_holds(machine):
    """The others end as in Node."""
    for name in ("complete", "fail", "return_jobs"):
        state = machine()
        sides, pool = state.sides, POOLS[0]
        twelve_claims(state, None)
        refreshed = "locked_at = locked_at + interval '2 hours' where locked_by is not null"
        sides.sql("update {schema}._private_jobs set " + refreshed)
        _, jobs, of_node = zip(*state.claims, strict=True)
        ids, locks = ids_and_locks(jobs)
        messages = ["bang"] * len(ids)
        arguments = {
            "complete": [ids],
            "fail": [ids, locks, messages, [None] * len(ids), [False] * len(ids)],
            "return_jobs": [ids, locks, messages],
        }
        hold_rows(sides.ours, ids[::2], [])
        unsettled = sides.ours.queue(name, pool, *arguments[name], careful=True)
        sides.ours.other.rollback()
        assert sorted(unsettled) == [(id_, True) for id_ in sorted(ids[::2])]
        if name == "return_jobs":
            give_back(sides, pool, of_node[1::2], "bang")
        else:
            sides.theirs.call(name, pool, of_node[1::2], messages)
        sides.compare()


def test_a_key_whose_job_has_failed_for_good_gets_a_new_job(state):
    state.add_job(spec={"identifier": "a", "job_key": "k", "max_attempts": 1}, odd={}, when=None)
    state.claim(pool="pool-1", identifiers=ALL, limit=1, flags=None, held=NO_ROWS, when=None)
    state.fail(
        pool="pool-1", numbers=[0], message="boom", delay=None, permanent=False, forget=False,
        careful=False, when=None,
    )  # fmt: skip
    for add in (state.add_job, state.add_job_in_sql):
        add(spec={"identifier": "b", "job_key": "k"}, odd={}, when=None)
    assert [job["revision"] for job in state.sides.jobs.values()] == [0, 1]


def test_add_job_waits_for_another_session(machine):
    for other, commit, many in product(OTHERS, [False, True], [False, True]):
        state = machine()
        state.add_job(spec={"identifier": "a", "job_key": "k"}, odd={}, when=None)
        state.add_job_while_another_session(
            spec={"identifier": "b"}, key="k", many=many, other=other, commit=commit, when=None
        )


def test_a_lock_expires_after_four_hours_and_not_at_four_hours(machine):
    calls = {
        "complete_jobs": {"jobs": [0]},
        "permanently_fail_jobs": {"jobs": [0], "reason": None},
        "reschedule_jobs": {"jobs": [0], "changes": {"attempts": 1}},
        "remove_job": {"key": "k"},
        "sweep": {},
    }
    for (name, arguments), offset in product(calls.items(), [-1, 0, 1]):
        state = machine()
        state.add_job(
            spec={"identifier": "a", "job_key": "k", "queue_name": "q"}, odd={}, when=None
        )
        state.claim(pool="pool-1", identifiers=ALL, limit=1, flags=None, held=NO_ROWS, when=None)
        before = state.sides.jobs
        getattr(state, name)(**arguments, when=("expired", 0, offset * MILLISECOND))
        if name != "remove_job":  # which also changes a locked job
            assert (state.sides.jobs != before) == (offset > 0)


def test_a_job_of_a_held_queue_waits_for_it(state):
    for run_at in (-5 * SECONDS, -1 * SECONDS):
        state.add_job(
            spec={"identifier": "a", "queue_name": "q", "run_at": run_at}, odd={}, when=None
        )
    state.claim(pool="pool-1", identifiers=ALL, limit=2, flags=None, held=([0], []), when=None)
    assert not state.claims
    state.claim(pool="pool-1", identifiers=ALL, limit=2, flags=None, held=NO_ROWS, when=None)
    assert len(state.claims) == 1


def test_what_only_our_api_can_say(sides):
    """JSON's null as a payload, NUL in a batch, and an empty reason."""
    ours, theirs = sides.each
    ours.run(ours.client.enqueue("a", None, job_key="k"))
    theirs.call("addJob", "a", None, {"jobKey": "k"})
    ours.run(ours.client.enqueue_many([("a", "\0")]))
    if theirs.version != "0.16":
        with pytest.raises(Refused):
            theirs.call("addJobs", [{"identifier": "a", "payload": "\0"}], False)
    rows = [side.snapshot()["jobs"] for side in sides.each]
    assert [[row["payload"] for row in side] for side in rows] == [["null", '"\\u0000"'], ["{}"]]
    ours.run(ours.client.permanently_fail_jobs([rows[0][0]["id"]], ""))
    theirs.call("permanentlyFailJobs", [str(rows[1][0]["id"])], "")
    errors = [side.snapshot()["jobs"][0]["last_error"] for side in sides.each]
    assert errors == ["", "Manually marked as failed"]


def test_a_value_that_does_not_fit_is_refused_if_it_would_be_written(state):
    """However the session plans: it changes its mind after some calls, with the statistics."""
    fill(state)
    for side in state.sides.each:
        side.execute("analyze {schema}._private_jobs")
        for _ in range(6):
            side.function("reschedule_jobs", job_ids=[], max_attempts=1)
        for jobs in ([], [0]):
            call = ("reschedule_jobs", {"max_attempts": 32768})
            state.admin_in_sql(jobs=jobs, call=call, when=None)


@pytest.mark.timeout(0 if EXAMPLES else 600)
def test_any_sequence_of_calls(machine):
    same_ones = {} if EXAMPLES else {"derandomize": True, "database": None}
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=int(EXAMPLES or 30),
            stateful_step_count=STEPS,
            suppress_health_check=list(HealthCheck),
            **same_ones,
        ),
    )
