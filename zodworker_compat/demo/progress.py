"""Shows a demo while it runs: a live table on a terminal, a line now and then in a pipe."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from attrs import define, field
from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from zodworker_compat.demo.ingest import Ingest
from zodworker_compat.demo.measure import Measurements
from zodworker_compat.demo.outcome import WORKER_OF, Outcome

LIVE_EVERY = 0.1
LINE_EVERY = 2.0
"""Seconds between two pictures, and between two lines."""
BAR = 14
"""Columns."""
SLOW = 20
"""Jobs per second below which nothing but retries is left."""
SPEED_OVER = 2.0
"""Seconds over which jobs per second are averaged."""


@define
class Progress:
    """What is shown, and what it is made of."""

    console: Console
    expected: Outcome
    ingest: Ingest
    measurements: Measurements
    _started_at: float = field(factory=time.monotonic)
    _history: list[tuple[float, int]] = field(factory=list)

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._started_at

    @asynccontextmanager
    async def shown(self) -> AsyncIterator[None]:
        """Show it until the block ends."""
        show = self._live() if self.console.is_terminal else self._lines()
        task = asyncio.create_task(show)
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def _live(self) -> None:
        with Live(console=self.console, auto_refresh=False, transient=True) as live:
            while True:
                live.update(self.picture(), refresh=True)
                await asyncio.sleep(LIVE_EVERY)

    async def _lines(self) -> None:
        while True:
            await asyncio.sleep(LINE_EVERY)
            self.console.print(f"{self.seconds:4.0f} s  {self._totals()}", highlight=False)

    def picture(self) -> RenderableType:
        """Return the live table."""
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
        table.add_column("task")
        table.add_column("worker", style="dim")
        for name in ("waiting", "done", "retried", "failed"):
            table.add_column(name, justify="right", width=7)
        table.add_column("", width=BAR)
        for identifier, counts in self.measurements.counts().items():
            ended, total = counts.done + counts.failed, self.expected.counts[identifier].enqueued
            table.add_row(
                identifier,
                WORKER_OF[identifier],
                f"{max(0, counts.enqueued - ended):,}",
                f"{counts.done:,}",
                number(counts.retried, "yellow"),
                number(counts.failed, "red"),
                ProgressBar(total=total, completed=ended, width=BAR),
            )
        return Group(table, Text(self._totals(), style="bold"))

    def _totals(self) -> str:
        speed = self._speed()
        only_waiting = self.ingest.read == self.expected.read and speed < SLOW
        return (
            f"{self.ingest.read:,} of {self.expected.read:,} events read, "
            f"{self.measurements.done:,} jobs done, {speed:,.0f} jobs/s"
            f"{'; the rest waits for its retry or its time' if only_waiting else ''}"
        )

    def _speed(self) -> float:
        now = time.monotonic()
        self._history.append((now, self.measurements.done))
        while self._history[0][0] < now - SPEED_OVER and len(self._history) > 2:  # noqa: PLR2004
            self._history.pop(0)
        (then, before), (_, done) = self._history[0], self._history[-1]
        return (done - before) / (now - then) if now > then else 0.0


def number(count: int, style: str) -> Text:
    """Return a count that stands out unless it is zero."""
    return Text(f"{count:,}", style=style if count else "dim")
