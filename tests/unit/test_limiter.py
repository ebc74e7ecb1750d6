"""The PostgreSQL limiter, as far as it decides without its database."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from zodworker_compat import ConfigurationError, Job, PostgresRateLimiter
from zodworker_compat.database.statements import statement
from zodworker_compat.limiter import Limits, ManagedRateLimiter

NOW = datetime(2026, 7, 1, tzinfo=UTC)


def job(*flags: str) -> Job:
    return Job(
        id=1,
        task_identifier="task",
        queue_name=None,
        payload={"n": 1},
        priority=0,
        run_at=NOW,
        attempts=1,
        max_attempts=25,
        last_error=None,
        created_at=NOW,
        updated_at=NOW,
        key=None,
        locked_at=NOW,
        locked_by="pool-1",
        revision=0,
        flags=dict.fromkeys(flags, True) if flags else None,
        job_queue_id=None,
        task_id=1,
        is_available=False,
    )


async def outcome(limiter: PostgresRateLimiter, *flags: str) -> list[str]:
    """What becomes of a job of these flags: "ran" or "put back"."""
    calls: list[str] = []

    async def task(payload: Any, job: Job, helpers: Any) -> None:
        assert (payload, job.id, helpers) == ({"n": 1}, "1", "helpers")
        calls.append("ran")

    async def reschedule(payload: Any, job: Job) -> None:
        assert (payload, job.id) == ({"n": 1}, "1")
        calls.append("put back")

    await limiter.wrap_task(task, reschedule)({"n": 1}, job(*flags), "helpers")
    return calls


@pytest.mark.parametrize("flags", [(), ("org:1",), ("RL:1", " rl:1")])
async def test_a_job_without_a_limiting_flag_just_runs(flags: tuple[str, ...]) -> None:
    assert await outcome(PostgresRateLimiter(default=0), *flags) == ["ran"]


async def none_left(_flag: str) -> int:
    return 0


def unknown(flag: str) -> int:
    raise LookupError(flag)


@pytest.mark.parametrize("limits", [{"rl:a": 0}, lambda _flag: 0, none_left, unknown])
async def test_a_job_whose_flag_has_no_limit_above_zero_is_put_back(limits: Limits) -> None:
    assert await outcome(PostgresRateLimiter(limits), "rl:a") == ["put back"]


@pytest.mark.parametrize("limits", [None, {"rl:b": 3}, lambda _flag: None])
async def test_the_default_holds_for_flags_that_the_limits_do_not_know(
    limits: Limits | None,
) -> None:
    assert await outcome(PostgresRateLimiter(limits, default=0), "rl:a") == ["put back"]


async def test_another_prefix(caplog: pytest.LogCaptureFixture) -> None:
    limiter = PostgresRateLimiter(default=0, prefix="limit/")
    assert await outcome(limiter, "limit/a") == ["put back"]
    assert await outcome(limiter, "rl:a") == ["ran"]
    assert not caplog.records


async def test_without_a_worker_it_needs_to_be_told_its_database() -> None:
    with pytest.raises(ConfigurationError, match="give it runner_options"):
        await PostgresRateLimiter().pause("rl:a")


@pytest.mark.parametrize("window", [0, -1, timedelta(0)])
def test_a_window_of_nothing_is_refused(window: timedelta | float) -> None:
    with pytest.raises(ConfigurationError, match="window must be greater than zero"):
        PostgresRateLimiter(window=window)


def test_it_is_opened_and_closed_by_its_worker() -> None:
    assert isinstance(PostgresRateLimiter(), ManagedRateLimiter)


def test_a_worker_without_a_limiter_reads_no_flags_to_claim() -> None:
    plain = statement("claim", "graphile_worker", without="limited").decode()
    limited = statement("claim", "graphile_worker").decode()
    assert "forbidden" not in plain
    assert limited.count("%(forbidden)s") == 4
    assert [line for line in limited.splitlines() if "-- limited" not in line] == plain.splitlines()


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"report": 2}, "write 'rl:report'"),
        (2, "must be a mapping"),
        ({"rl:r": "2"}, "must be a whole number, got '2'"),
    ],
)
def test_limits_that_would_limit_nothing_are_refused(limits, message) -> None:
    with pytest.raises(ConfigurationError, match=message):
        PostgresRateLimiter(limits)
