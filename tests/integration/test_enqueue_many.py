"""enqueue_many: all or nothing, every bad item reported, results in the order of the requests."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zodworker_compat import (
    BatchError,
    Client,
    EnqueueOptions,
    JobRequest,
    OptionError,
    PayloadValidationError,
    RunnerOptions,
    UnknownTaskError,
    WorkerCatalog,
    ZodWorker,
)

ID = {"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]}
CATALOG = WorkerCatalog.of(
    name="test",
    schema={"a": True, "b": True, "c": True, "strict": ID},
    tasks={"a": {}, "b": {"queueName": "serial"}, "c": {"priority": 4}, "strict": {}},
)


def count(database: str) -> int:
    with psycopg.connect(database) as connection:
        row = connection.execute("select count(*) from graphile_worker._private_jobs").fetchone()
        assert row is not None
        return row[0]


async def test_every_bad_item_is_reported_and_none_is_written(
    worker: ZodWorker, database: str
) -> None:
    with pytest.raises(BatchError, match=r"5 of 7 jobs cannot be enqueued; none was") as caught:
        await worker.enqueue_many(
            [
                ("a", 1),
                ("missing", {}),
                ("strict", {"id": 7}),
                ("a", 1, {"runAt": None}),
                ("a", 1, {"job_key": "k"}),
                ("b", 1, {"job_key": "k"}),
                "not a request",
            ]
        )
    kinds = {index: type(error) for index, error in caught.value.failures}
    assert kinds == {
        1: UnknownTaskError,
        2: PayloadValidationError,
        3: OptionError,
        5: OptionError,
        6: OptionError,
    }
    assert "item 5: job_key: 'k' is the key of item 4 already" in str(caught.value)
    assert count(database) == 0


async def test_what_the_database_refuses_takes_all_with_it(
    worker: ZodWorker, database: str
) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(
            "alter table graphile_worker._private_jobs add check (payload::text <> '13')"
        )
    with pytest.raises(psycopg.errors.CheckViolation):
        await worker.enqueue_many([("a", n) for n in range(20)])
    assert count(database) == 0


async def test_nothing_to_do(worker: ZodWorker) -> None:
    assert await worker.enqueue_many([]) == []


REQUESTS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c"]),
        st.sampled_from([{}, 1, [1, 2], {"x": 1.5}, "text", None]),
        st.fixed_dictionaries(
            {},
            optional={
                "priority": st.integers(-2, 2),
                "max_attempts": st.sampled_from([1, 25]),
                "queue_name": st.sampled_from(["q1", "q2"]),
                "flags": st.sampled_from([[], ["f"], ["g", "f"]]),
                "run_at": st.sampled_from(
                    [datetime(2030, 1, 1, tzinfo=UTC) + timedelta(days=d) for d in (0, 1)]
                ),
                "job_key": st.integers(0, 10**6).map(str),
                "job_key_mode": st.sampled_from(["replace", "preserve_run_at", "unsafe_dedupe"]),
            },
        ),
    ),
    max_size=40,
    unique_by=lambda request: request[2].get("job_key", object()),
)


@given(requests=REQUESTS)
@settings(
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_each_result_is_the_job_of_its_request(
    database: str, requests: list[tuple[str, Any, dict[str, Any]]]
) -> None:
    client = Client(CATALOG, runner_options=RunnerOptions(connection_string=database))
    jobs = client.enqueue_many(requests)
    client.close()

    assert len({job.id for job in jobs}) == len(requests)
    for (identifier, payload, options), job in zip(requests, jobs, strict=True):
        assert job.task_identifier == identifier
        assert job.payload == payload
        assert job.priority == options.get("priority", 4 if identifier == "c" else 0)
        assert job.max_attempts == options.get("max_attempts", 25)
        assert job.queue_name == options.get("queue_name", "serial" if identifier == "b" else None)
        assert job.key == options.get("job_key")
        assert set(job.flags or ()) == set(options.get("flags", ()))
        assert job.run_at == options.get("run_at", job.created_at)
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("delete from graphile_worker._private_jobs")


@pytest.mark.parametrize("mode", ["replace", "preserve_run_at", "unsafe_dedupe"])
async def test_key_modes_hold_in_a_batch(worker: ZodWorker, mode: Any) -> None:
    later = datetime(2031, 1, 1, tzinfo=UTC)
    first = await worker.enqueue("a", "old", job_key="k", run_at=datetime(2030, 1, 1, tzinfo=UTC))
    options = EnqueueOptions(job_key="k", job_key_mode=mode, run_at=later)
    [other, second] = await worker.enqueue_many([("b", 1), JobRequest("c", "new", options)])
    assert other.task_identifier == "b"
    assert (second.id, second.revision) == (first.id, 1)
    expected = {
        "replace": ("c", "new", later),
        "preserve_run_at": ("c", "new", first.run_at),
        "unsafe_dedupe": ("a", "old", first.run_at),
    }
    assert (second.task_identifier, second.payload, second.run_at) == expected[mode]


@pytest.mark.parametrize("hour", [2, 3])
async def test_a_time_in_a_repeated_or_skipped_hour_is_one_job(
    worker: ZodWorker, database: str, hour: int
) -> None:
    berlin = ZoneInfo("Europe/Berlin")
    when = (
        datetime(2027, 10, 31, 2, 30, tzinfo=berlin)
        if hour == 2
        else datetime(2027, 3, 28, 2, 30, tzinfo=berlin)
    )
    jobs = await worker.enqueue_many([("a", 1, {"run_at": when}), ("a", 2, {"run_at": when})])
    assert [job.payload for job in jobs] == [1, 2]
    assert count(database) == 2


async def test_a_trigger_that_changes_jobs_does_not_double_them(
    worker: ZodWorker, database: str
) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(
            "create function calm() returns trigger language plpgsql as "
            "$$ begin new.priority := 9; return new; end $$;"
            "create trigger calm before insert on graphile_worker._private_jobs "
            "for each row execute function calm()"
        )
    [job] = await worker.enqueue_many([("a", 1)])
    assert job.priority == 9
    assert count(database) == 1


async def test_batches_that_share_keys_do_not_deadlock(worker: ZodWorker) -> None:
    items = [("a", n, {"job_key": str(n), "job_key_mode": "unsafe_dedupe"}) for n in range(40)]
    await asyncio.gather(
        *(worker.enqueue_many(batch) for batch in (items, items[::-1], items, items[::-1]))
    )


async def test_a_generator_and_odd_items(worker: ZodWorker) -> None:
    assert len(await worker.enqueue_many(("a", n) for n in range(3))) == 3
    assert (
        len(await worker.enqueue_many([("a", 1, None), JobRequest("a", 1, {"priority": 2})])) == 2
    )
    with pytest.raises(BatchError, match=r"item 1: identifier: expected a string, got NoneType"):
        await worker.enqueue_many((name, 1) for name in ("a", None))
