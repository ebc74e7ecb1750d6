"""Random calls on our side and on Node's: tables, results, SQLSTATEs and notifications are the same.

More examples than in CI, with seeds of their own:

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
from differential.both_sides import Refused
from differential.draws import EXPIRES, HALF_AN_HOUR, MILLISECOND, MODES, NAMES, ODD, POOLS, SECONDS
from differential.machine import OTHERS, Machine
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

HERE = Path(__file__).parent
EXAMPLES = int(os.environ.get("ZODWORKER_PARITY_EXAMPLES", "30"))
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
EVERY = range(len(STATES))


def fill(state, **options):
    """Add a job in each state, each with a key and a queue of its own."""
    specs = [
        {"identifier": "a", "job_key": f"key {n}", "queue_name": f"queue {n}", "max_attempts": 2}
        | {"payload": [n], "priority": n, "flags": ["f"], "run_at": -SECONDS, **options}
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
    lambda state: state.force_unlock_workers(pools=[POOLS[0]], when=None),
    lambda state: state.sweep(when=None),
    lambda state: state.cleanup(
        tasks=["DELETE_PERMAFAILED_JOBS", "GC_JOB_QUEUES"], keep=[], when=None
    ),
    lambda state: state.claim(
        pool=POOLS[1], identifiers=ALL, limit=len(EVERY), flags=None, held=NO_ROWS, when=None
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
    for (name, arguments), lost in product(ends, [None, *POOLS]):
        state = machine()
        specs = [
            {"identifier": "a", "run_at": -n * SECONDS, **queue}
            for n, queue in enumerate([{}, {"queue_name": "q"}] * 6)
        ]
        state.add_jobs_in_sql(specs=specs, odd={}, preserve={}, when=None)
        for attempts, id_ in enumerate(state.sides.jobs):
            state.sides.change(id_, "attempts = %s", attempts)
        state.sides.compare()
        state.claim(pool=POOLS[0], identifiers=ALL, limit=12, flags=None, held=NO_ROWS, when=None)
        if lost:  # half of the jobs to the other pool, or to a later claim of the same one
            for id_ in list(state.sides.jobs)[::2]:
                state.sides.change(
                    id_, "locked_by = %s, locked_at = %s", lost, state.sides.now + MILLISECOND
                )
            state.sides.compare()
        getattr(state, name)(
            pool=POOLS[0], numbers=range(12), careful=careful, forget=False, when=None, **arguments
        )


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


@pytest.mark.timeout(600 if EXAMPLES <= 200 else 0)
def test_any_sequence_of_calls(machine):
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            suppress_health_check=list(HealthCheck),
        ),
    )
