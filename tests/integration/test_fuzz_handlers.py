"""Handlers, hooks and listeners that misbehave: the job fails with a reason, the others run."""

import asyncio
import functools
import io
import logging
import sys
from collections.abc import Iterator

import pytest

from zodworker_compat import ZodWorker
from zodworker_compat.errors import ConfigurationError, RetryAfter
from zodworker_compat.runner.task import RunnableTask, RunOptions
from zodworker_compat.runner_options import RunnerOptions


class Log(logging.StreamHandler):
    """Formats records as a real log does, and keeps their texts from pytest's reports: xdist cannot
    send surrogates."""

    def emit(self, record: logging.LogRecord) -> None:
        super().emit(record)
        record.exc_info = record.exc_text = None


@pytest.fixture(autouse=True)
def log() -> Iterator[io.StringIO]:
    handler = Log(io.StringIO())
    logger = logging.getLogger("zodworker_compat")
    logger.addHandler(handler)
    yield handler.stream
    logger.removeHandler(handler)


class MuteError(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")

    def __repr__(self) -> str:
        raise ValueError("no words")


class LeaverError(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)


class EndlessError(Exception):
    def __str__(self) -> str:
        return str(self)


class NoTextError(Exception):
    def __str__(self) -> str:
        return 5  # noqa: PLE0307


class OddText(str):
    __slots__ = ()

    def __format__(self, spec: str) -> str:
        raise RuntimeError

    def __getitem__(self, index: object) -> str:
        raise RuntimeError

    def __len__(self) -> int:
        return 0


class OddWordsError(Exception):
    def __str__(self) -> str:
        return OddText("odd words")


class ForgetfulRetry(RetryAfter):
    def __init__(self) -> None:  # without super(): it has no delay
        pass


class Meta(type):
    @property
    def __name__(cls) -> str:
        return "Renamed"


class OddError(Exception, metaclass=Meta):
    pass


def chained(length: int) -> Exception:
    last = ValueError("the first")
    for _ in range(length):
        last, cause = ValueError("effect"), last
        last.__cause__ = cause
    return last


def cyclic() -> Exception:
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one
    one.__context__, two.__context__ = two, one
    return one


def grouped(depth: int) -> BaseExceptionGroup:
    group = BaseExceptionGroup("inmost", [KeyError("a"), SystemExit(1)])
    for _ in range(depth):
        group = BaseExceptionGroup("outer", [group, ValueError("b")])
    return group


def noted(note: object) -> Exception:
    error = ValueError("noted")
    error.__notes__ = note
    return error


LONG = "x" * 10_000_000
# What a handler raises, and what `last_error` then holds.
RAISED = {
    "NUL": (ValueError("a\0b"), "ValueError: a\\x00b"),
    "surrogate": (ValueError("\ud800"), "ValueError: \\ud800"),
    "10 MB": (ValueError(LONG), f"ValueError: {'x' * 100}"),
    "10 MB of NUL": (ValueError(LONG.replace("x", "\0")), "\\x00\\x00"),
    "mute": (MuteError(), "MuteError: (its message cannot be read: ValueError)"),
    "exits in __str__": (LeaverError(), "LeaverError: (its message cannot be read: SystemExit)"),
    "endless": (EndlessError(), "EndlessError: (its message cannot be read: RecursionError)"),
    "__str__ gives a number": (
        NoTextError(),
        "NoTextError: (its message cannot be read: TypeError)",
    ),
    "odd string": (OddWordsError(), "OddWordsError: odd words"),
    "odd arguments": (ValueError(object, [...], b"\xff"), "ValueError: (<class 'object'>"),
    "odd class": (OddError("x"), "Renamed: x"),
    "long class name": (type("X" * 100_000, (Exception,), {})("m"), "XXXXX"),
    "odd class name": (type("a b\n'\u202e", (Exception,), {})("m"), "a b\n'\u202e: m"),
    "10,000 causes": (chained(10_000), "ValueError: effect"),
    "cyclic causes": (cyclic(), "ValueError: one"),
    "odd notes": (noted(5), "ValueError: noted"),
    "mute notes": (noted([MuteError(), None]), "ValueError: noted"),
    "group": (
        ExceptionGroup("of", [ValueError("a"), KeyError("b")]),
        "ExceptionGroup: of (2 sub-exceptions): ValueError: a; KeyError: 'b'",
    ),
    "group of mutes": (
        ExceptionGroup("of", [MuteError()]),
        "MuteError: (its message cannot be read",
    ),
    "groups 2000 deep": (grouped(2000), "BaseExceptionGroup: outer (2 sub-exceptions): KeyError"),
    "wide group": (ExceptionGroup("of", [ValueError("a")] * 10_000), "10000 sub-exceptions"),
    "retry without a delay": (ForgetfulRetry(), "ForgetfulRetry"),
    "SystemExit": (SystemExit(2), "SystemExit: 2"),
    "KeyboardInterrupt": (KeyboardInterrupt(), "KeyboardInterrupt"),
    "GeneratorExit": (GeneratorExit(), "GeneratorExit"),
    "CancelledError": (asyncio.CancelledError("mine"), "CancelledError: mine"),
    "StopIteration": (StopIteration(1), "StopIteration"),
    "StopAsyncIteration": (StopAsyncIteration(), "StopAsyncIteration"),
    "MemoryError": (MemoryError(), "MemoryError"),
    "RecursionError": (RecursionError("deep"), "RecursionError: deep"),
    "BaseException": (BaseException("base"), "BaseException: base"),
}


@pytest.mark.parametrize("timeout", [None, 60], ids=["for ever", "in time"])
@pytest.mark.parametrize("kind", ["async", "after a wait", "sync"])
async def test_whatever_a_handler_raises_is_written_and_other_jobs_run(
    jobs,
    make_runner,
    kind,
    timeout,  # noqa: ASYNC109 - the task's
) -> None:
    ran = []

    def act(payload: str) -> None:
        if payload in RAISED:
            raise RAISED[payload][0]
        ran.append(payload)

    async def act_async(payload: str) -> None:
        if kind == "after a wait":
            await asyncio.sleep(0)
        act(payload)

    names = [*RAISED]
    for name in names:
        await jobs.add(payload=name)
        await jobs.add(payload=f"healthy {name}")
    handler = act if kind == "sync" else act_async
    await make_runner({"task": task_of(handler, timeout)}, concurrency=3).run_once()
    errors = await jobs.sql(
        "select payload #>> '{}' as name, last_error, locked_at, attempts"
        " from graphile_worker._private_jobs"
    )
    assert sorted(row["name"] for row in errors) == sorted(names)
    assert len(ran) == len(names)
    for row in errors:
        assert RAISED[row["name"]][1] in row["last_error"]
        assert len(row["last_error"]) < 70_000
        assert (row["locked_at"], row["attempts"]) == (None, 1)


def task_of(handler, timeout=None, retry=None) -> RunnableTask:
    return RunnableTask(
        "task", lambda payload: payload, handler, RunOptions(timeout=timeout, retry=retry)
    )


async def test_a_handler_that_cancels_its_own_task_fails_or_ends(jobs, make_runner) -> None:
    async def handler(payload) -> None:
        asyncio.current_task().cancel()
        if payload.get("waits"):
            await asyncio.sleep(60)

    await jobs.add()
    waits = await jobs.add(payload={"waits": True})
    await make_runner(handler, concurrency=1).run_once()
    [row] = await jobs.all()
    assert (row["id"], row["last_error"]) == (waits, "CancelledError")
    assert row["locked_at"] is None


# What a handler may return; a job has no result, so it is dropped.
RETURNED = (None, 0, "text", [1], NotImplemented, Exception("returned"), type, float("nan"), ...)


@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_what_a_handler_returns_is_dropped(jobs, make_runner, kind) -> None:
    async def handler_async(payload) -> object:
        return RETURNED[payload]

    for number in range(len(RETURNED)):
        await jobs.add(payload=number or None)
    handler = handler_async if kind == "async" else lambda payload: RETURNED[payload or 0]
    if kind == "async":
        await jobs.sql(
            "update graphile_worker._private_jobs set payload = '0' where payload::text = '{}'"
        )
    else:
        await jobs.sql(
            "update graphile_worker._private_jobs set payload = 'null' where payload::text = '{}'"
        )
    await make_runner(handler).run_once()
    assert await jobs.empty()


@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_a_returned_coroutine_is_awaited_as_a_promise_is(jobs, make_runner, kind) -> None:
    ran = []

    async def work(payload) -> None:
        await asyncio.sleep(0)
        ran.append(payload)
        raise ValueError("in the end")

    async def forgot_await(payload) -> object:
        return work(payload)

    job_id = await jobs.add()
    await make_runner(forgot_await if kind == "async" else lambda payload: work(payload)).run_once()  # noqa: PLW0108 - a function of its own kind
    assert ran == [{}]
    assert (await jobs.row(job_id))["last_error"] == "ValueError: in the end"


def generator(payload):
    yield payload


async def async_generator(payload):
    yield payload


class Generating:
    def __call__(self, payload):
        yield payload


@pytest.mark.parametrize(
    "handler",
    [generator, async_generator, Generating(), functools.partial(generator), Generating().__call__],
)
async def test_a_generator_is_no_handler(jobs, make_runner, handler) -> None:
    """Nothing of its body would run, and the job would count as done."""
    worker = ZodWorker(name="test", schema={"task": True}, tasks={"task": {}})
    with pytest.raises(ConfigurationError, match=r"Task 'task': .* is a generator"):
        worker.task("task")(handler)

    job_id = await jobs.add()
    await make_runner(lambda payload: handler(payload)).run_once()  # noqa: PLW0108 - a function of its own kind
    assert "returned a generator" in (await jobs.row(job_id))["last_error"]


HOOK_ERRORS = (ValueError("hook"), MuteError(), SystemExit(1), KeyboardInterrupt(), GeneratorExit())


@pytest.mark.parametrize("error", HOOK_ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_hooks_and_listeners_that_raise_change_nothing(jobs, database, error, kind) -> None:
    told = []

    def hook(*arguments: object) -> None:
        told.append(arguments)
        raise error

    async def hook_async(*arguments: object) -> None:
        hook(*arguments)

    called = hook if kind == "sync" else hook_async
    worker = ZodWorker(
        name="test",
        runner_options=RunnerOptions(connection_string=database),
        on_error=called,
        handle_signals=False,
    )

    @worker.task("task", schema=True, retry=hook)
    async def handler(payload) -> None:
        if payload["fails"]:
            raise ValueError("the handler's")

    for event in ("job:start", "job:success", "job:error", "job:complete", "worker:getJob:start"):
        worker.events.on(event, called)
    await worker.migrate()
    for fails in (True, False):
        await jobs.add(payload={"fails": fails})
    await worker.run_once()
    [row] = await jobs.all()
    assert row["last_error"] == "ValueError: the handler's"
    assert await jobs.locked() == 0
    assert told


async def test_a_log_handler_that_raises_leaves_no_job_locked(jobs, make_runner) -> None:
    class Raising(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            if "Failed job" in record.getMessage():
                raise SystemError("the log is full")
            return True

    logger = logging.getLogger("zodworker_compat.runner")
    refusing = Raising()
    logger.addFilter(refusing)
    try:

        def handler(payload) -> None:
            raise ValueError("the handler's")

        job_id = await jobs.add()
        await make_runner(handler).run_once()
        row = await jobs.row(job_id)
    finally:
        logger.removeFilter(refusing)
    assert (row["last_error"], row["locked_at"]) == ("ValueError: the handler's", None)


async def test_deep_recursion_in_a_handler_is_a_failure(jobs, make_runner) -> None:
    def deep(number: int) -> int:
        return deep(number + 1) + 1

    async def handler(payload) -> None:
        deep(0)

    job_id = await jobs.add()
    await make_runner(handler).run_once()
    assert (await jobs.row(job_id))["last_error"].startswith("RecursionError: ")
    assert sys.getrecursionlimit() > 100
