"""The three key modes on a job in each state, as graphile-worker 0.16.6 (section 2.5 of the list)."""

from datetime import UTC, datetime

import pytest

R1, R2 = datetime(2030, 1, 1, tzinfo=UTC), datetime(2031, 1, 1, tzinfo=UTC)
FIRST = {"run_at": R1, "priority": 1, "max_attempts": 3, "flags": ["a"]}
SECOND = {"run_at": R2, "priority": 7, "max_attempts": 9, "flags": ["z"]}
STATES = {
    "waiting": "attempts = 0",
    "retrying": "attempts = 1, last_error = 'e'",
    "running": "attempts = 1, locked_at = now(), locked_by = 'w'",
    "failed": "attempts = 3, last_error = 'e'",
}
MODES = [None, "replace", "preserve_run_at", "unsafe_dedupe"]


def said(job, options) -> bool:
    """Whether a job is what a call has asked for, but for its `run_at`."""
    return (job.priority, job.max_attempts, list(job.flags)) == (
        options["priority"],
        options["max_attempts"],
        options["flags"],
    )


@pytest.fixture
def twice(make_worker, table):
    """Enqueue E, bring it into a state, and enqueue S with the same key; returns both jobs."""

    async def enqueue_twice(state, mode):
        worker = make_worker(tasks={"e": {}, "s": {}})
        first = await worker.enqueue("e", 1, job_key="k", **FIRST)
        await table.set(STATES[state])
        return first, await worker.enqueue("s", 2, job_key="k", job_key_mode=mode, **SECOND)

    return enqueue_twice


@pytest.mark.parametrize("mode", MODES[:3])
@pytest.mark.parametrize("state", ["waiting", "retrying"])
async def test_a_job_that_waits_is_replaced_in_place(twice, state, mode) -> None:
    first, second = await twice(state, mode)
    assert (second.id, second.task_identifier, second.payload) == (first.id, "s", 2)
    assert said(second, SECOND)
    assert second.run_at == (R1 if (state, mode) == ("waiting", "preserve_run_at") else R2)
    assert (second.attempts, second.last_error, second.revision) == (0, None, 1)


@pytest.mark.parametrize("mode", MODES[:3])
@pytest.mark.parametrize("state", ["running", "failed"])
async def test_a_job_that_cannot_run_again_loses_its_key_to_a_new_one_d02(
    twice, table, state, mode
) -> None:
    first, second = await twice(state, mode)
    assert second.id != first.id
    assert (said(second, SECOND), second.run_at, second.revision) == (True, R2, 0)
    old = (await table.rows())[0]
    assert (old["id"], old["key"], old["attempts"]) == (int(first.id), None, 3)
    assert (old["locked_by"], old["last_error"]) == (
        ("w", None) if state == "running" else (None, "e")
    )


@pytest.mark.parametrize("state", STATES)
async def test_unsafe_dedupe_leaves_the_job_as_it_is(twice, table, state) -> None:
    first, second = await twice(state, "unsafe_dedupe")
    assert (second.id, second.task_identifier, second.payload) == (first.id, "e", 1)
    assert (said(second, FIRST), second.run_at, second.revision) == (True, R1, 1)
    row = await table.row()
    assert (row["attempts"], row["last_error"]) == {
        "waiting": (0, None),
        "retrying": (1, "e"),
        "running": (1, None),
        "failed": (3, "e"),
    }[state]


@pytest.mark.parametrize("mode", MODES)
async def test_lists_of_a_key_are_joined_d12(make_worker, mode) -> None:
    worker = make_worker()
    await worker.enqueue("t", [1], job_key="k")
    job = await worker.enqueue("t", [2, 3], job_key="k", job_key_mode=mode)
    assert job.payload == ([1] if mode == "unsafe_dedupe" else [1, 2, 3])
