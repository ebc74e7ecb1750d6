"""What is logged, at which level and with which fields; and what never is."""

import logging

import pytest

from zodworker_compat import RunnerOptions, ZodWorker
from zodworker_compat.observability.logs import FIELDS

SECRET = "hunter2-payload"
OWN = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


@pytest.fixture
def worker(database):
    """A worker with a task that works and one that fails for good."""
    worker = ZodWorker(name="wq", runner_options=RunnerOptions(connection_string=database))

    @worker.task("works", schema=True)
    async def works(payload):
        pass

    @worker.task("fails", schema=True, max_attempts=1)
    async def fails(payload):
        raise ValueError("broken")

    return worker


@pytest.fixture
async def records(worker, caplog):
    """The records of one of each: enqueue, run, failure, dequeue."""
    caplog.set_level(logging.DEBUG, "zodworker_compat")
    await worker.enqueue("works", {"token": SECRET}, queue_name="serial")
    await worker.enqueue("fails", {"token": SECRET})
    await worker.enqueue_many([("works", {"token": SECRET}, {"job_key": "k"})])
    await worker.dequeue("k")
    await worker.dequeue("k")
    await worker.initialize()
    await worker.stop()
    await worker.run_once()
    return [record for record in caplog.records if record.name.startswith("zodworker_compat")]


def one(records, message):
    [record] = [record for record in records if record.getMessage().startswith(message)]
    return record


async def test_enqueue_and_dequeue_say_what_zodworker_said(records):
    first = next(r for r in records if r.getMessage() == "Enqueued worker task")
    assert (first.name, first.levelname) == ("zodworker_compat.client", "DEBUG")
    assert (first.task_identifier, first.queue_name) == ("works", "serial")
    assert first.payload == {"token": SECRET}
    assert first.duration_ms > 0
    assert one(records, "Enqueued worker tasks").count == 1
    assert one(records, "dequeued worker task").job_key == "k"
    assert one(records, "could not remove job, job_key did not exist").levelname == "DEBUG"


async def test_a_run_says_when_it_starts_and_ends(records):
    called = next(r for r in records if r.getMessage() == "Received worker task, calling handler")
    assert (called.name, called.levelname, called.worker) == (
        "zodworker_compat.runner",
        "DEBUG",
        "wq",
    )
    completed = one(records, "Completed job")
    assert completed.levelname == "INFO"
    assert (completed.task_identifier, completed.attempt, completed.queue_name) == (
        "works",
        1,
        "serial",
    )
    assert completed.duration_ms > 0
    failed = one(records, "Failed job")
    assert failed.levelname == "ERROR"
    assert failed.exc_info


async def test_a_worker_says_when_it_starts_and_stops(records):
    started = one(records, "[worker][wq] started")
    assert (started.name, started.levelname, started.worker) == (
        "zodworker_compat.worker",
        "DEBUG",
        "wq",
    )
    assert [r for r in records if r.getMessage() == "[worker][wq] stopped"]


async def test_a_payload_is_on_no_record_above_debug(records):
    holders = [record for record in records if SECRET in str(vars(record))]
    assert holders
    assert {record.levelname for record in holders} == {"DEBUG"}
    assert not [record for record in holders if SECRET in record.getMessage()]


async def test_every_field_is_a_known_one(records):
    for record in records:
        assert set(vars(record)) - OWN <= set(FIELDS), record.getMessage()


async def test_a_password_is_on_no_record(caplog):
    caplog.set_level(logging.DEBUG)
    worker = ZodWorker(
        name="away",
        runner_options=RunnerOptions(
            connection_string="postgresql://u:s3cret-password@127.0.0.1:1/d"
        ),
    )
    worker.task("t", schema=True)(print)
    with pytest.raises(Exception, match=r"127\.0\.0\.1") as raised:
        await worker.initialize()
    texts = [str(raised.value), *(str(vars(record)) for record in caplog.records)]
    assert "s3cret-password" not in " ".join(texts)


async def test_without_debug_nothing_is_made_for_it(worker, caplog):
    caplog.set_level(logging.INFO, "zodworker_compat")
    await worker.enqueue("works", {"token": SECRET})
    await worker.run_once()
    assert [record.getMessage()[:13] for record in caplog.records] == ["Completed job"]
