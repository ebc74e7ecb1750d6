"""Runs the demo from the first event to the last check."""

import asyncio
import logging
import secrets
import signal
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import psycopg
from attrs import frozen
from psycopg import AsyncConnection
from rich.console import Console

from zodworker_compat import signals
from zodworker_compat.database.connect import address, unavailable
from zodworker_compat.demo.business import Business
from zodworker_compat.demo.check import Check, check
from zodworker_compat.demo.events import Event, read_events
from zodworker_compat.demo.expected import expect
from zodworker_compat.demo.ingest import Ingest
from zodworker_compat.demo.measure import MeasuredWorker, Measurements
from zodworker_compat.demo.observe import observe, unfinished_jobs
from zodworker_compat.demo.outcome import Outcome
from zodworker_compat.demo.outside import Outside
from zodworker_compat.demo.progress import Progress
from zodworker_compat.demo.summary import show_summary
from zodworker_compat.demo.workers import Workers, build_workers
from zodworker_compat.errors import DatabaseUnavailableError
from zodworker_compat.runner_options import RunnerOptions

CONCURRENCY: Final = 8
"""Jobs at a time in each of the three workers."""
LIMIT: Final = timedelta(minutes=3)
"""When it gives up waiting for the last job; the checks then say what is missing. Two cores that do
little else need about 20 s."""


@frozen
class DemoReport:
    """How a demo ended."""

    checks: Sequence[Check] = ()
    signal: int | None = None
    """The signal that interrupted it."""

    @property
    def ok(self) -> bool:
        """Every number is as expected."""
        return self.signal is None and all(one.ok for one in self.checks)

    @property
    def exit_code(self) -> int:
        """0 if `ok`, 1 if a check failed, 128 + the signal's number if it was interrupted."""
        return 128 + self.signal if self.signal else int(not self.ok)


async def run(
    conninfo: str,
    *,
    events: Path | None = None,
    console: Console | None = None,
    limit: timedelta = LIMIT,
) -> DemoReport:
    """Run the demo on a server in schemas of its own, and drop them.

    Args:
        conninfo: a URL or DSN of a user who may create schemas.
        events: the input; by default `examples/events.jsonl` of this package.
        console: where progress and the summary go; by default standard output.
        limit: how long it waits for the last job.

    Raises:
        ConfigurationError: the events cannot be read.
        DatabaseUnavailableError: the server cannot be reached.
        psycopg.Error: the user may not create schemas, or the server went away.
    """
    console = console or Console()
    demo = asyncio.create_task(_run(conninfo, read_events(events), console, limit))
    caught: list[signal.Signals] = []

    def interrupt(number: signal.Signals) -> None:
        if not caught:  # a second one must not interrupt the cleaning up
            demo.cancel()
        caught.append(number)

    forget = signals.listen(interrupt)
    try:
        return await demo
    except asyncio.CancelledError:
        if not caught:
            raise
        console.print(f"Interrupted by {caught[0].name}; everything has been dropped.")
        return DemoReport(signal=caught[0])
    finally:
        forget()


async def _run(
    conninfo: str, events: Sequence[Event], console: Console, limit: timedelta
) -> DemoReport:
    suffix = secrets.token_hex(4)
    business = Business(f"zodworker_demo_{suffix}", f"zodworker_demo_queue_{suffix}")
    expected, measurements = expect(events), Measurements()
    options = RunnerOptions(
        connection_string=conninfo,
        schema=business.queue_schema,
        concurrency=CONCURRENCY,
        max_pool_size=CONCURRENCY + 4,
    )

    def make(name: str) -> MeasuredWorker:
        return MeasuredWorker(
            measurements,
            name=name,
            catalog=name,
            runner_options=options,
            handle_signals=False,
        )

    async with _schemas(conninfo, business, console), _connect(conninfo) as connection:
        measurements.clock_ahead = await _clock_ahead(connection, business)
        workers = build_workers(make, business, Outside(events))
        ingest = Ingest(workers.events, business, measurements.clock_ahead)
        progress = Progress(console, expected, ingest, measurements)
        console.print(
            f"{len(events):,} events and three workers on {address(conninfo)},\n"
            f"in the schemas {business.schema} and {business.queue_schema}.",
            highlight=False,
        )
        with _quiet():
            async with _running(workers), progress.shown():
                await ingest.take(events)
                await _done(connection, business, time.monotonic() + limit.total_seconds())
            seconds = progress.seconds
        observed = await observe(
            connection, business, measurements, read=ingest.read, refused=ingest.refused.keys()
        )
        checks = check(expected, observed)
        show_summary(console, checks, measurements, _samples(ingest, observed), seconds)
    return DemoReport(checks)


def _samples(ingest: Ingest, observed: Outcome) -> dict[str, str]:
    refused = [(f"Refused: line {line}", str(error)) for line, error in ingest.refused.items()]
    failed = [(f"Failed for good: {job}", error) for job, error in observed.failed_jobs.items()]
    return dict(refused[:1] + failed[:1])


@asynccontextmanager
async def _connect(conninfo: str) -> AsyncIterator[AsyncConnection[Any]]:
    try:
        connection = await AsyncConnection.connect(
            conninfo, autocommit=True, application_name="zodworker demo", connect_timeout=10
        )
    except psycopg.OperationalError as error:
        raise unavailable(conninfo, error) from error
    async with connection:
        yield connection


@asynccontextmanager
async def _schemas(conninfo: str, business: Business, console: Console) -> AsyncIterator[None]:
    """Make the business schema; drop it, and the queue's, whatever happens."""
    try:
        async with _connect(conninfo) as connection:
            await business.execute(connection, "create")
        yield
    finally:
        try:
            async with _connect(conninfo) as connection:  # the old one may be why we are here
                await business.execute(connection, "drop")
        except (DatabaseUnavailableError, psycopg.Error) as error:
            console.print(
                f"The schemas {business.schema} and {business.queue_schema} are left, because they "
                f"could not be dropped: {error}",
                style="red",
            )


async def _done(connection: AsyncConnection[Any], business: Business, deadline: float) -> None:
    """Wait until no job is left to do, or for the deadline."""
    while await unfinished_jobs(connection, business):
        if time.monotonic() > deadline:
            return
        await asyncio.sleep(0.1)


@asynccontextmanager
async def _running(workers: Workers) -> AsyncIterator[None]:
    everyone = (workers.events, workers.executions, workers.operations)
    try:
        for worker in everyone:
            await worker.initialize()
        yield
    finally:
        await asyncio.gather(*(worker.stop() for worker in everyone))


_levels: list[int] = []


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the failures that the demo asks for out of the log."""
    logger = logging.getLogger("zodworker_compat")
    _levels.append(logger.level)
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        level = _levels.pop()
        if not _levels:  # the last of the demos that overlapped: this is the level before the first
            logger.setLevel(level)


async def _clock_ahead(connection: AsyncConnection[Any], business: Business) -> float:
    row = await business.execute(connection, "clock")
    return time.time() - row[0] if row else 0.0
