"""Why a job does not run, and what needs a look, in words."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from zodworker_compat.client.reasons import findings, reasons
from zodworker_compat.client.wording import duration, plural
from zodworker_compat.database.status import (
    AllCounts,
    Heartbeat,
    JobReport,
    ListedJob,
    QueueCounts,
    Status,
    TaskCounts,
    WorkerView,
)
from zodworker_compat.job import Job

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def heartbeat(name: str = "pool-1", **given: Any) -> Heartbeat:
    values = {
        "pool_id": name, "name": "shop", "host": "web-1", "pid": 7, "version": "1", "concurrency": 5,
        "tasks": ("mail",), "started_at": NOW, "beat_at": NOW, "silent_for": timedelta(seconds=2),
        "is_dead": False, "recovered_at": None,
    }  # fmt: skip
    return Heartbeat(**{**values, **given})


def worker(name: str = "pool-1", state: Any = "unknown", **given: Any) -> WorkerView:
    beat = None if state == "unknown" else heartbeat(name, is_dead=state == "dead")
    values = {"jobs": 1, "queues": 0, "since": NOW - MINUTE, "heartbeat": beat}
    return WorkerView(locked_by=name, state=state, **{**values, **given})


def report(state: Any = "ready", job: Any = None, listed: Any = None, **given: Any) -> JobReport:
    row = {
        "id": 1, "task_identifier": "mail", "queue_name": None, "payload": {}, "priority": 0,
        "run_at": NOW, "attempts": 0, "max_attempts": 5, "last_error": None, "created_at": NOW,
        "updated_at": NOW, "key": None, "locked_at": None, "locked_by": None, "revision": 0,
        "flags": None, "job_queue_id": None, "task_id": 1, "is_available": True,
    }  # fmt: skip
    around = {"queue_locked_by": None, "queue_locked_at": None, "read_at": NOW, "cursor": "1"}
    values = {
        "holder": None, "running_in_queue": (), "ahead": 0, "handled_by": (heartbeat(),),
        "has_heartbeats": True, "paused_flags": (),
    }  # fmt: skip
    return JobReport(
        listed=ListedJob(
            job=Job(**{**row, **(job or {})}),
            payload_text="{}",
            state=state,
            **{**around, **(listed or {})},
        ),
        **{**values, **given},
    )


LOCKED = {"queue_locked_by": "pool-1", "queue_locked_at": NOW - 2 * MINUTE}
QUEUED = {"queue_name": "q"}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (report(), ["Nothing keeps it: the next worker that handles its task takes it."]),
        (
            report("failed", job={"attempts": 5}),
            ["It is out of attempts: 5 of 5 are used up."],
        ),
        (
            report("scheduled", job={"run_at": NOW + 90 * MINUTE}),
            ["It is not due yet: it may run in 1 h 30 min."],
        ),
        (
            report("retrying", job={"run_at": NOW + MINUTE, "attempts": 1}),
            ["It was tried 1 time, and is not due yet: it may run in 1 min."],
        ),
        (
            report(
                "running",
                job={"locked_at": NOW - MINUTE, "locked_by": "pool-1", "attempts": 2},
                holder=worker(state="alive"),
            ),
            [
                "It is running: locked by pool-1 for 1 min, attempt 2 of 5.",
                "pool-1 is alive: shop on web-1, process 7, last heartbeat 2 s ago.",
            ],
        ),
        (
            report(
                "running",
                job={"locked_at": NOW - MINUTE, "locked_by": "a b", "attempts": 2},
                holder=worker("a b", "dead"),
            ),
            [
                "It is running: locked by a b for 1 min, attempt 2 of 5.",
                (
                    "a b is dead: its last heartbeat was 2 s ago. Any living Python worker frees "
                    "what it held, or you do: zodworker unlock 'a b'"
                ),
            ],
        ),
        (
            report(job=QUEUED, listed=LOCKED, running_in_queue=("9",), holder=worker()),
            [
                "Its queue q is locked by pool-1 for 2 min; job 9 of it is running.",
                (
                    "pool-1 has no heartbeat here: a Node worker, or one that is gone. If it is "
                    "gone, any worker's sweep frees the lock in 3 h 59 min, or you do: zodworker "
                    "unlock --force pool-1"
                ),
            ],
        ),
        (
            report(job=QUEUED, listed=LOCKED),
            ["Its queue q is locked by pool-1 for 2 min; no job of it is running: left behind."],
        ),
        (
            report(handled_by=(), ahead=3, paused_flags=("f",)),
            [
                "No living Python worker handles mail; whether one of Node's does is not known.",
                "Its flag f is paused.",
                "Workers take 3 ready jobs before it.",
            ],
        ),
        (
            report(handled_by=(), has_heartbeats=False, ahead=1000),
            [
                "No Python worker is alive here; Node's would not show.",
                "Workers take at least 1,000 ready jobs before it.",
            ],
        ),
    ],
)
def test_why_a_job_does_not_run(given: JobReport, said: list[str]) -> None:
    assert reasons(given) == said


def status(**given: Any) -> Status:
    values = {
        "database": "d", "schema": "s", "revision": 18, "read_at": NOW, "tasks": [], "queues": [],
        "jobs": AllCounts(queues=0, blocked=0, running_since=None), "workers": [], "errors": [],
        "has_heartbeats": False, "hidden_from": None, "owner": "o",
    }  # fmt: skip
    return Status(**{**values, **given})


def queue(**given: Any) -> QueueCounts:
    values = {"ready": 2, "locked_by": "pool-1", "locked_at": NOW - MINUTE}
    return QueueCounts(queue_name="my q", **{**values, **given})


def task(minutes: int, ready: int = 1, name: str = "mail") -> TaskCounts:
    return TaskCounts(identifier=name, ready=ready, oldest_ready=minutes * MINUTE)


def found(given: Status) -> list[tuple[str, str]]:
    return [(one.problem, one.command) for one in findings(given)]


def test_all_is_well() -> None:
    assert found(status()) == []
    assert (
        found(
            status(
                tasks=[task(4)],
                queues=[queue(running=1), queue(ready=0), queue(locked_at=NOW)],
                workers=[worker(), worker(state="alive", since=None)],
                has_heartbeats=True,
            )
        )
        == []
    )


def test_a_queue_that_was_left_behind() -> None:
    stuck = (
        "Queue my q has been locked by pool-1 for 1 min, and none of its jobs is running: 2 ready "
        "jobs wait behind the lock."
    )

    assert found(status(queues=[queue()])) == [(stuck, "zodworker queues --queue 'my q'")]
    dead = worker(state="dead", jobs=0, queues=1)
    assert found(status(queues=[queue()], workers=[dead])) == [(stuck, "zodworker unlock pool-1")]


def test_workers_that_hold_what_they_should_not() -> None:
    long_ago = NOW - timedelta(hours=2)

    assert found(
        status(
            workers=[
                worker("a", "dead", queues=2),
                worker("b", "alive", since=long_ago),
                worker("c", since=long_ago),
            ]
        )
    ) == [
        ("Worker a is dead (silent for 2 s) and holds 1 job and 2 queues.", "zodworker unlock a"),
        (
            "Worker b is alive and holds 1 job, the oldest for 2 h.",
            "zodworker jobs --locked-by b --sort locked",
        ),
        (
            "Worker c has no heartbeat and holds 1 job, the oldest for 2 h.",
            "zodworker jobs --locked-by c --sort locked",
        ),
    ]


def test_backlogs_with_and_without_a_worker() -> None:
    waiting = [task(6), task(60, 3, "report")]
    late = (
        "Jobs wait too long: report has 3 ready jobs, the oldest due for 1 h.",
        "zodworker jobs --state ready --task report --sort next",
    )

    assert found(status(tasks=waiting)) == [late]
    assert found(
        status(tasks=waiting, workers=[worker(state="alive", since=None)], has_heartbeats=True)
    ) == [
        (
            "No living Python worker handles report: 3 ready jobs, the oldest due for 1 h.",
            "zodworker workers",
        ),
        (
            "Jobs wait too long: mail has 1 ready job, the oldest due for 6 min.",
            "zodworker jobs --state ready --task mail --sort next",
        ),
    ]


@pytest.mark.parametrize(
    ("failed", "problem"),
    [
        (1, "1 job is out of attempts."),
        (1200, "1,200 jobs are out of attempts, 1,200 of them mail."),
    ],
)
def test_failures(failed: int, problem: str) -> None:
    counts = AllCounts(queues=0, blocked=0, running_since=None, failed=failed)
    tasks = [TaskCounts(identifier="mail", failed=failed)]

    assert found(status(jobs=counts, tasks=tasks)) == [
        (problem, "zodworker jobs --state failed --sort newest")
    ]


@pytest.mark.parametrize(
    ("seconds", "said", "short"),
    [
        (-5, "0 s", "0 s"),
        (0.9, "0 s", "0 s"),
        (61, "1 min 1 s", "1 min"),
        (3600, "1 h", "1 h"),
        (90_061, "1 d 1 h", "1 d"),
    ],
)
def test_durations(seconds: float, said: str, short: str) -> None:
    assert duration(timedelta(seconds=seconds)) == said
    assert duration(timedelta(seconds=seconds), 1) == short


def test_plurals() -> None:
    assert [plural(count, "job") for count in (0, 1, 2, 1000)] == [
        "0 jobs",
        "1 job",
        "2 jobs",
        "1,000 jobs",
    ]
