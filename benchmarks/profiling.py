"""Where the time goes: our Python per job, by a sampling profiler, and the plans of the statements.

    python -m benchmarks.profiling worker     # samples a drain, and splits its CPU time
    python -m benchmarks.profiling plans      # EXPLAIN (ANALYZE, BUFFERS) of claim and settle
    python -m benchmarks.profiling functions  # cProfile: counts calls, but slows what it measures

For flame graphs, py-spy on a worker of one's own: py-spy record --format raw --pid PID.
"""

import asyncio
import cProfile
import pstats
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import click
import psycopg

from benchmarks.adapters.ours import SCHEMA, new_worker
from benchmarks.stage import SETTINGS, Stage, on_disk
from benchmarks.systems import OURS
from zodworker_compat.embedded import EmbeddedPostgres

INTERVAL = 0.004
"""Seconds of CPU time between two samples; the kernel takes no shorter ones."""


@contextmanager
def staged() -> Iterator[Stage]:
    """A server with our tables."""
    with EmbeddedPostgres(settings=SETTINGS, environ=on_disk()) as server:
        stage = Stage(server)
        try:
            stage.empty(OURS)
            yield stage
        finally:
            stage.close()


@click.group(help=__doc__.splitlines()[0])
def main() -> None:
    """Play the part of a group; its help is the module's."""


def _drain(stage: Stage, jobs: int) -> float:
    """Drain trivial jobs; returns CPU seconds."""
    stage.empty(OURS)
    stage.fill(OURS, jobs)
    worker = new_worker(connection_string=stage.url(OURS), **OURS.settings["runner_options"])

    @worker.task("trivial", schema=SCHEMA)
    async def trivial(_payload: dict[str, Any]) -> None:
        pass

    begin = time.process_time()
    asyncio.run(worker.run_once())
    return time.process_time() - begin


@main.command()
@click.option("--jobs", default=200_000, show_default=True)
def worker(jobs: int) -> None:
    """Sample the worker's Python while it drains trivial jobs, three validated fields each."""
    parts: Counter[str] = Counter()
    lines: Counter[str] = Counter()

    def sample(_number: int, frame: FrameType | None) -> None:
        if frame is not None:
            parts[_part(frame)] += 1
            code = frame.f_code
            lines[f"{_module(frame)}:{frame.f_lineno} {code.co_qualname}"] += 1

    with staged() as stage:
        _drain(stage, 2_000)
        signal.signal(signal.SIGPROF, sample)
        signal.setitimer(signal.ITIMER_PROF, INTERVAL, INTERVAL)
        try:
            seconds = _drain(stage, jobs)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
    samples, per_job = parts.total(), seconds / jobs * 1e6
    click.echo(f"{jobs} jobs, {samples} samples, {per_job:.1f} µs of CPU per job, of which")
    for part, count in parts.most_common():
        click.echo(f"  {count / samples * per_job:5.1f} µs  {count / samples:4.0%}  {part}")
    ours = sum(count for part, count in parts.items() if not part.startswith("psycopg"))
    click.echo(f"Our Python per job, without psycopg: {ours / samples * per_job:.1f} µs (≤ 25)")
    for line, count in lines.most_common(25):
        click.echo(f"  {count / samples * per_job:5.2f} µs  {line}")


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "?"))


def _part(frame: FrameType) -> str:
    """Return whose code runs, where a standard module counts for whoever calls it."""
    at: FrameType | None = frame
    while at is not None:
        module = _module(at)
        if module.startswith("zodworker_compat"):
            return ".".join(module.split(".")[:3])
        if module.startswith("psycopg"):
            return "psycopg"
        if module.startswith(("asyncio", "selectors")):
            return "asyncio"
        at = at.f_back
    return "other"


@main.command()
@click.option("--jobs", default=20_000, show_default=True)
def functions(jobs: int) -> None:
    """Count calls and their own time with cProfile."""
    with staged() as stage:
        _drain(stage, 2_000)
        profile = cProfile.Profile()
        profile.enable()
        _drain(stage, jobs)
        profile.disable()
        pstats.Stats(profile).strip_dirs().sort_stats("tottime").print_stats(30)


@main.command()
@click.option("--backlog", multiple=True, type=int, default=[10_000, 1_000_000], show_default=True)
def plans(backlog: tuple[int, ...]) -> None:
    """Explain the statements that a worker sends while it works on a backlog."""
    for jobs in backlog:
        with staged() as stage:
            stage.fill(OURS, jobs)
            stage.connection(OURS).execute("vacuum analyze graphile_worker._private_jobs")
            sent = asyncio.run(_statements_sent(stage, min(jobs // 2, 5_000)))
            with psycopg.connect(stage.url(OURS)) as connection:
                connection.execute("set enable_seqscan to off")  # as the worker does
                for name, plan in _explained(connection, sent):
                    click.echo(f"\n=== {name}, backlog of {jobs}\n{plan}")


Sent = dict[str, tuple[str, dict[str, Any]]]
"""Statement and parameters by "claim" and "settle"."""


async def _statements_sent(stage: Stage, jobs: int) -> Sent:
    """Return the largest claim and the largest settling of a worker's first jobs."""
    sent: Sent = {}
    execute = psycopg.AsyncCursor.execute

    async def note(self: Any, query: Any, params: Any = None, **more: Any) -> Any:
        text = query.decode() if isinstance(query, bytes) else str(query)
        is_claim = "attempts + 1" in text and "skip locked" in text
        is_settle = "delete from" in text and "_private_jobs" in text
        name = "claim" if is_claim else "settle" if is_settle else "other"
        if isinstance(params, dict) and _size(params) >= _size(sent.get(name, ("", {}))[1]):
            sent[name] = text, params
        return await execute(self, query, params, **more)

    psycopg.AsyncCursor.execute = note  # type: ignore[method-assign]
    count = 0
    enough = asyncio.Event()
    worker = new_worker(connection_string=stage.url(OURS), **OURS.settings["runner_options"])

    @worker.task("trivial", schema=SCHEMA)
    async def trivial(_payload: dict[str, Any]) -> None:
        nonlocal count
        count += 1
        if count == jobs:
            enough.set()

    await worker.initialize()
    await enough.wait()
    await worker.stop()
    psycopg.AsyncCursor.execute = execute  # type: ignore[method-assign]
    return sent


def _size(params: dict[str, Any]) -> int:
    """Return for how many jobs a statement is: the length of its lists, or its limit."""
    lists = [len(value) for name, value in params.items() if name == "ids"]
    return sum(lists) or int(params.get("limit", 0))


def _explained(connection: psycopg.Connection, sent: Sent) -> Iterator[tuple[str, str]]:
    """Explain a claim, and the settling of what it claimed; nothing of it is committed."""
    query, params = sent["claim"]
    yield "claim", _explain(connection, query, params)
    claimed = (
        "select id from graphile_worker._private_jobs where locked_by = %(pool_id)s limit %(n)s"
    )
    query, settle = sent["settle"]
    claim = {"pool_id": params["pool_id"], "n": _size(settle)}
    ids = [row[0] for row in connection.execute(claimed, claim)]
    yield "settle", _explain(connection, query, {**settle, "ids": ids})
    connection.rollback()


def _explain(connection: psycopg.Connection, query: str, params: dict[str, Any]) -> str:
    literal = psycopg.ClientCursor(connection).mogrify(query, params)
    plan = connection.execute(f"explain (analyze, buffers) {literal}".replace("%", "%%"), ())
    return "\n".join(row[0] for row in plan)


if __name__ == "__main__":
    main()
