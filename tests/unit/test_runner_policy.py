"""What the runner decides without a database: sizes, delays, texts, signatures."""

import asyncio
import logging
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zodworker_compat.errors import ConfigurationError
from zodworker_compat.runner import RunnableTask
from zodworker_compat.runner.alarm import Alarm
from zodworker_compat.runner.failure import LONGEST_ERROR, error_text, storable
from zodworker_compat.runner.listen import breaking_revision, job_count
from zodworker_compat.runner.outage import Outage
from zodworker_compat.runner.policy import (
    HORIZON,
    LARGEST_BUFFER,
    LARGEST_BYTES,
    LONGEST_DELAY,
    buffer_size,
    retry_delay,
)
from zodworker_compat.runner.pool import new_pool_id
from zodworker_compat.runner.task import is_async, positional_count
from zodworker_compat.runner.threads import Threads

durations = st.floats(min_value=0, max_value=1e6)
slots = st.integers(min_value=1, max_value=1000)


def test_nothing_is_held_ahead_before_a_job_has_ended() -> None:
    assert buffer_size(None, 24) == 0


def test_slow_handlers_get_the_free_slots_only() -> None:
    assert buffer_size(HORIZON * 1.01, 24) == 0


def test_fast_handlers_get_the_largest_buffer() -> None:
    assert buffer_size(0.00001, 5) == LARGEST_BUFFER
    assert buffer_size(0, 1) == LARGEST_BUFFER


@given(durations, slots)
def test_the_buffer_never_holds_more_than_the_horizon_of_work(seconds: float, count: int) -> None:
    size = buffer_size(seconds, count)
    assert 0 <= size <= LARGEST_BUFFER
    assert size * seconds / count <= HORIZON * 1.001


def test_large_payloads_make_the_buffer_small() -> None:
    assert buffer_size(0.00001, 24, LARGEST_BYTES / 10) == 10
    assert buffer_size(0.00001, 24, 2 * LARGEST_BYTES) == 0


@given(st.integers(min_value=0, max_value=10_000), st.floats(min_value=0, max_value=1))
def test_retries_wait_longer_each_time_but_never_long(attempt: int, jitter: float) -> None:
    assert 0 < retry_delay(attempt, jitter) <= retry_delay(attempt + 1, jitter) <= LONGEST_DELAY


def test_the_first_retries_are_graphile_workers() -> None:
    delays = [round(retry_delay(attempt, 1.0) * 1000) for attempt in range(4)]
    assert delays == [50, 136, 369, 1004]


@given(st.text(st.characters(codec=None), max_size=200))
def test_any_error_text_can_be_stored(text: str) -> None:
    stored = storable(text)
    assert "\0" not in stored
    stored.encode("utf-8")


def test_nul_and_lone_surrogates_are_spelled_out() -> None:
    assert storable("a\0b\ud800c\u2603") == "a\\x00b\\ud800c\u2603"


def test_the_error_text_names_the_type() -> None:
    assert error_text(ValueError("no such run")) == "ValueError: no such run"
    assert error_text(ValueError()) == "ValueError"
    assert error_text(SystemExit(3)) == "SystemExit: 3"


def test_a_long_error_text_is_cut_and_says_so() -> None:
    text = storable("x" * (LONGEST_ERROR + 7))
    assert text.endswith("… (7 more characters)")
    assert len(text) < LONGEST_ERROR + 40


def test_an_exception_that_cannot_be_printed_still_has_a_text() -> None:
    class BrokenError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert error_text(BrokenError()) == "BrokenError: (its message cannot be read: RuntimeError)"


class Handlers:
    def one(self, payload): ...
    async def two(self, payload, job): ...
    def three(self, payload, job, helpers): ...
    @staticmethod
    def static(payload, job): ...
    @classmethod
    def of_class(cls, payload): ...


class CallableObject:
    async def __call__(self, payload, job, helpers): ...


@pytest.mark.parametrize(
    ("handler", "count"),
    [
        (Handlers().one, 1),
        (Handlers().two, 2),
        (Handlers().three, 3),
        (Handlers.static, 2),
        (Handlers.of_class, 1),
        (CallableObject(), 3),
        (partial(Handlers().three, helpers=None), 2),
        (partial(lambda tenant, payload: None, "t"), 1),
        (lambda payload, job=None: None, 2),
        (lambda *args: None, 3),
        (lambda payload, *rest: None, 3),
        (lambda payload, job=None, helpers=None, more=None: None, 3),
        (lambda payload, *, retries=3: None, 1),
        (print, 3),
    ],
)
def test_a_handler_gets_as_many_arguments_as_it_takes(handler, count) -> None:
    assert positional_count(handler) == count


@pytest.mark.parametrize(
    "handler", [lambda: None, lambda a, b, c, d: None, lambda payload, *, needed: None]
)
def test_a_handler_that_cannot_be_called_is_refused_at_once(handler) -> None:
    with pytest.raises(ConfigurationError, match="1 to 3 positional arguments"):
        RunnableTask("t", lambda payload: payload, handler)


@pytest.mark.parametrize(
    ("handler", "expected"),
    [
        (Handlers().two, True),
        (Handlers().one, False),
        (CallableObject(), True),
        (partial(partial(Handlers().two), job=None), True),
        (lambda payload: None, False),
    ],
)
def test_async_handlers_are_recognised(handler, expected) -> None:
    assert is_async(handler) is expected


def test_pool_ids_are_graphile_workers() -> None:
    assert len({new_pool_id() for _ in range(100)}) == 100
    assert new_pool_id().startswith("pool-")
    assert len(new_pool_id()) == len("pool-") + 18


@pytest.mark.parametrize(
    ("payload", "count"),
    [
        ('{"r":0.5,"count":3}', 3),
        ('{"r":0.5,"count":-1}', -1),
        ('{"count":"many"}', 1),
        ("", 1),
        ("[]", 1),
        ("no json", 1),
    ],
)
def test_a_notification_says_how_many_jobs_there_are(payload, count) -> None:
    assert job_count(payload) == count


@pytest.mark.parametrize(
    ("payload", "revision"),
    [
        ('{"migrationNumber":20,"breaking":true}', 20),
        ('{"migrationNumber":20,"breaking":false}', 0),
        ('{"breaking":true}', 0),
        ("no json", 0),
    ],
)
def test_only_a_breaking_migration_counts(payload, revision) -> None:
    assert breaking_revision(payload) == revision


async def test_a_pulse_before_the_wait_is_not_lost() -> None:
    alarm = Alarm()
    alarm.pulse()
    alarm.pulse()
    async with asyncio.timeout(60):
        await alarm.wait()
        await alarm.wait(0.01)


def test_an_outage_is_logged_once(caplog) -> None:
    outage = Outage(logging.getLogger("test"), "claim jobs")
    with caplog.at_level(logging.INFO, "test"):
        outage.worked()
        for _ in range(5):
            outage.failed(OSError("gone"))
        outage.worked()
        outage.worked()
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


async def test_threads_return_results_and_raise_errors() -> None:
    threads = Threads(2, "test")

    def leave() -> None:
        raise SystemExit(1)

    outcomes = await asyncio.gather(*(threads.submit(pow, 2, n) for n in range(5)))
    assert outcomes == [(1, None), (2, None), (4, None), (8, None), (16, None)]
    _, error = await threads.submit(leave)
    assert isinstance(error, SystemExit)
    threads.stop()
