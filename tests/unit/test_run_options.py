"""Options of a run, retry policies, what a failure becomes, and the limits of tasks."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zodworker_compat import (
    ConfigurationError,
    ExponentialBackoff,
    Job,
    PermanentFailure,
    RetryAfter,
    RunOptions,
)
from zodworker_compat.database.refusals import is_about_rows
from zodworker_compat.runner.failure import failure_of
from zodworker_compat.runner.limits import Limits

NOW = datetime.now(UTC)


def job(attempts: int = 1, max_attempts: int = 25) -> Job:
    fields: dict[str, Any] = dict.fromkeys(field.name for field in Job.__attrs_attrs__)
    fields |= {"id": "1", "attempts": attempts, "max_attempts": max_attempts}
    times = dict.fromkeys(("run_at", "created_at", "updated_at", "locked_at"), NOW)
    return Job(**fields | times)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"timeout": 0}, "timeout of a task must be greater than zero"),
        ({"timeout": timedelta(seconds=-1)}, "timeout of a task must be greater than zero"),
        ({"concurrency": 0}, "concurrency of a task must be greater than zero"),
        ({"retry": 30}, r"retry of a task must be a function of \(job, exception\)"),
    ],
)
def test_wrong_run_options_are_refused(options, problem) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        RunOptions(**options)


def test_a_bare_timeout_is_seconds() -> None:
    assert RunOptions(timeout=1.5).timeout == timedelta(seconds=1.5)


def test_the_default_backoff_doubles_from_30_seconds() -> None:
    waits = [ExponentialBackoff()(job(attempts), ValueError()) for attempts in range(1, 6)]
    assert waits == [30, 60, 120, 240, 480]


@given(st.integers(-(2**15), 2**15), st.floats(1, 1e9), st.floats(0, 1e6))
def test_a_backoff_is_never_longer_than_its_most(attempts, base, unit) -> None:
    policy = ExponentialBackoff(base=base, unit=unit, most=timedelta(hours=1))
    assert 0 <= policy(job(attempts), ValueError()) <= 3600


@pytest.mark.parametrize("wrong", [{"base": 0.5}, {"unit": -1}, {"most": float("inf")}])
def test_a_wrong_backoff_is_refused(wrong) -> None:
    with pytest.raises(ValueError, match=r"must be >= 1|delayed by 0 s to 100 years"):
        ExponentialBackoff(**wrong)


@pytest.mark.parametrize("delay", [-1, float("nan"), float("inf"), timedelta(days=40_000)])
def test_a_delay_that_no_clock_has_is_refused_where_it_is_raised(delay) -> None:
    with pytest.raises(ValueError, match="delayed by 0 s to 100 years"):
        RetryAfter(delay)


@pytest.mark.parametrize(
    ("error", "delay", "message"),
    [
        (ValueError("boom"), None, "ValueError: boom"),
        (RetryAfter(30), 30, "RetryAfter: in 30 s"),
        (RetryAfter(timedelta(minutes=1), "busy"), 60, "RetryAfter: busy (in 60 s)"),
        (PermanentFailure("gone"), 0, "PermanentFailure: gone"),
        (PermanentFailure(), 0, "PermanentFailure"),
    ],
)
def test_what_an_exception_makes_of_its_job(error, delay, message) -> None:
    failure = failure_of(job(), error, retry=None, delete_last=True)
    assert (failure.delay, failure.message) == (delay, message)
    is_permanent = isinstance(error, PermanentFailure)
    assert failure.is_permanent is failure.is_last is failure.is_deleted is is_permanent


def test_a_last_failure_is_deleted_only_if_it_shall_be() -> None:
    last = job(25, 25)
    assert failure_of(last, ValueError(), retry=None, delete_last=True).is_deleted
    kept = failure_of(last, ValueError(), retry=None, delete_last=False)
    assert (kept.is_last, kept.is_deleted) == (True, False)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (psycopg.errors.RaiseException, True),
        (psycopg.errors.ForeignKeyViolation, True),
        (psycopg.errors.UntranslatableCharacter, True),
        (psycopg.DataError, True),
        (psycopg.OperationalError, False),
        (psycopg.errors.SerializationFailure, False),
        (psycopg.errors.UndefinedTable, False),
        (psycopg.errors.InsufficientPrivilege, False),
        (psycopg.errors.AdminShutdown, False),
        (psycopg.errors.ReadOnlySqlTransaction, False),
    ],
)
def test_which_refusals_are_the_rows_fault(error, expected) -> None:
    assert is_about_rows(error("x")) is expected


def limits(concurrency: int = 10, **most: int) -> Limits:
    tasks = {name: SimpleNamespace(options=RunOptions(concurrency=n)) for name, n in most.items()}
    tasks["free"] = SimpleNamespace(options=RunOptions())
    identifiers = dict(enumerate(tasks))
    pool: Any = SimpleNamespace(
        tasks=tasks, identifiers=identifiers, options=SimpleNamespace(concurrency=concurrency)
    )
    return Limits(pool)


def claimed(task_id: int) -> Any:
    return SimpleNamespace(task_id=task_id)


def test_without_limits_everything_is_claimed() -> None:
    unlimited = limits(a=10)  # as many as there are slots is no limit
    assert unlimited.plan([0, 1], 500) == ([0, 1], 500)
    assert unlimited.admit([claimed(0)] * 500, 500) == ([claimed(0)] * 500, ())


def test_a_full_task_is_not_claimed_until_one_of_its_jobs_ends() -> None:
    one = limits(a=2)
    ids, size = one.plan([0, 1], 500)
    assert (ids, size) == ([0, 1], 2)
    fitting, excess = one.admit([claimed(0), claimed(0)], 2)
    assert (len(fitting), excess) == (2, [])
    assert one.plan([0, 1], 500) == ([1], 500)
    one.release(claimed(0))
    assert one.plan([0, 1], 500) == ([0, 1], 1)


def test_claims_grow_while_a_limited_task_has_no_jobs() -> None:
    one = limits(a=2)
    sizes = []
    for _ in range(5):
        _ids, size = one.plan([0, 1], 100)
        sizes.append(size)
        jobs = [claimed(1)] * size
        one.admit(jobs, size)
        one.release(*jobs)
    assert sizes == [2, 4, 8, 16, 32]
    fitting, excess = one.admit([claimed(0)] * 5 + [claimed(1)] * 59, 64)
    assert Counter(job.task_id for job in fitting) == {0: 2, 1: 59}
    assert len(excess) == 3
    one.release(claimed(0), claimed(0))
    assert one.plan([0, 1], 100) == ([0, 1], 2)
