"""The checker finds what is wrong with a ledger, and nothing in one that is right."""

import pytest
from attrs import evolve
from harness.checker import UNWRITTEN, check
from harness.ledger import Excuse, Ledger, Run, Writer, now
from hypothesis import given, settings
from hypothesis import strategies as st

LATER = 100 * UNWRITTEN


@st.composite
def sound_ledgers(draw):
    """Ledgers of jobs that ran one after the other, some of them after failures."""
    ledger, time = Ledger(), 0
    for number in range(draw(st.integers(1, 12))):
        token = f"job-{number}"
        ledger.intended.add(token)
        if draw(st.integers(0, 5)) == 0:
            ledger.rolled_back.add(token)
            continue
        ledger.committed.add(token)
        queue = draw(st.sampled_from([None, "a", "b"]))
        for outcome in [*draw(st.lists(st.sampled_from(["raised", "cancelled"]))), "ok"]:
            start = time + draw(st.integers(0, 100))
            time = start + draw(st.integers(1, 100))
            process = draw(st.sampled_from(["one", "two"]))
            ledger.runs.append(
                Run(
                    token=token,
                    process=process,
                    queue=queue,
                    start=start,
                    end=time,
                    outcome=outcome,
                )
            )
    return ledger


def succeeded(ledger, draw):
    runs = [run for run in ledger.runs if run.outcome == "ok"]
    return draw(st.sampled_from(runs)) if runs else None


@given(sound_ledgers())
def test_nothing_is_found_in_a_sound_ledger(ledger):
    verdict = check(ledger)

    assert verdict.problems == []
    assert not verdict.repeated
    assert not verdict.overlapped


def lose_a_job(ledger, run):
    ledger.runs = [other for other in ledger.runs if other.token != run.token]


def fail_at_last(ledger, run):
    ledger.runs[ledger.runs.index(run)] = evolve(run, outcome="raised")


def repeat_it(ledger, run):
    ledger.runs.append(evolve(run, start=run.end + LATER, end=run.end + LATER + 1))


def run_it_twice_at_once(ledger, run):
    ledger.runs.append(evolve(run, process="three"))


def overlap_in_the_queue(ledger, run):
    ledger.runs[ledger.runs.index(run)] = evolve(run, queue="c")
    ledger.runs.append(evolve(run, token="other", queue="c", start=run.end - 1, end=run.end + 9))
    ledger.intended.add("other")


def run_what_was_rolled_back(ledger, run):
    ledger.runs.append(evolve(run, token="rolled back", queue=None))
    ledger.intended.add("rolled back")
    ledger.rolled_back.add("rolled back")


def run_what_nobody_enqueued(ledger, run):
    ledger.runs.append(evolve(run, token="nobody's", queue=None))


def hang(ledger, run):
    ledger.runs.append(evolve(run, token="hung", queue=None, end=None, outcome=None))
    ledger.intended.add("hung")


def leave_a_lock(ledger, run):
    ledger.left.append({"id": 1, "queue_name": "a", "locked_by": "pool"})


def leave_a_job(ledger, run):
    row = {"id": 1, "attempts": 1, "max_attempts": 25, "locked_by": None, "last_error": "x"}
    ledger.left.append(row)


def fail_without_a_reason(ledger, run):
    row = {"id": 1, "attempts": 25, "max_attempts": 25, "locked_by": None, "last_error": None}
    ledger.left.append(row)


DOCTORS = {
    lose_a_job: "lost",
    fail_at_last: "lost",
    repeat_it: "repeated",
    run_it_twice_at_once: "overlapped",
    overlap_in_the_queue: "overlapped",
    run_what_was_rolled_back: "ghost",
    run_what_nobody_enqueued: "ghost",
    hang: "hung",
    leave_a_lock: "stuck",
    leave_a_job: "stuck",
    fail_without_a_reason: "stuck",
}


@pytest.mark.parametrize("doctor", DOCTORS)
@settings(max_examples=20)
@given(ledger=sound_ledgers(), data=st.data())
def test_a_doctored_ledger_is_found_out(doctor, ledger, data):
    run = succeeded(ledger, data.draw)
    if run is None:
        return
    unrelated = Excuse(fault="x", process="four", since=0, until=LATER, overlap=True)
    past = Excuse(fault="x", process=None, since=-2, until=-1, overlap=True)
    ledger.excuses += [unrelated, past]

    doctor(ledger, run)

    found = {problem.partition(":")[0] for problem in check(ledger).problems}
    assert DOCTORS[doctor] in found


def one_repeated(*excuses, second=1000, deaths=None, end=100):
    ledger = Ledger(intended={"a"}, committed={"a"}, excuses=[*excuses], deaths=deaths or {})
    outcome = None if end is None else "ok"
    ledger.runs = [
        Run(token="a", process="one", queue="q", start=0, end=end, outcome=outcome),
        Run(token="a", process="two", queue="q", start=second, end=second + 1, outcome="ok"),
    ]
    return check(ledger)


KILLED = Excuse(fault="kill", process="one", since=150, until=160)


def test_a_result_that_was_not_written_is_an_excuse():
    verdict = one_repeated(KILLED)

    assert verdict.problems == []
    assert verdict.repeated == {"kill": 1}


def test_a_run_that_ended_long_before_the_fault_has_none():
    late = evolve(KILLED, since=LATER, until=LATER)

    assert one_repeated(late, second=LATER + 1).problems != []


def test_a_killed_process_ran_until_it_died():
    assert one_repeated(KILLED, deaths={"one": 160}, end=None).problems == []
    overlapping = one_repeated(KILLED, deaths={"one": 160}, end=None, second=155)
    assert any(problem.startswith("overlapped") for problem in overlapping.problems)


def test_only_who_was_taken_for_dead_while_it_lived_may_overlap():
    frozen = evolve(KILLED, fault="freeze", since=50, overlap=True)

    verdict = one_repeated(frozen, second=90)

    assert verdict.problems == []
    assert verdict.overlapped["freeze"] > 0


def test_a_job_that_failed_for_good_is_not_stuck():
    row = {"id": 1, "attempts": 25, "max_attempts": 25, "locked_by": None, "last_error": "why"}

    assert check(Ledger(left=[row])).problems == []


def test_what_processes_write_is_read(tmp_path):
    writer = Writer(tmp_path, "one")
    writer.write("intended", tokens=["a", "b"])
    writer.write("committed", tokens=["a"])
    since = now()
    with writer.run("a", "q"):
        pass
    with pytest.raises(ValueError, match="no"), writer.run("b", None):
        raise ValueError("no")
    unended = writer.run("b", None)
    unended.__enter__()

    ledger = Ledger()
    ledger.read(tmp_path)

    assert (ledger.intended, ledger.committed) == ({"a", "b"}, {"a"})
    assert [(run.token, run.queue, run.outcome) for run in ledger.runs] == [
        ("a", "q", "ok"),
        ("b", None, "raised"),
        ("b", None, None),
    ]
    assert since <= ledger.runs[0].start <= ledger.runs[0].end <= now()
