"""Shows what a demo came to: the table of the tasks, the checks, the verdict."""

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import quantiles

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from zodworker_compat.demo.check import Check
from zodworker_compat.demo.measure import Attempt, Measurements
from zodworker_compat.demo.progress import number


def show_summary(
    console: Console,
    checks: Sequence[Check],
    measurements: Measurements,
    samples: Mapping[str, str],
    seconds: float,
) -> None:
    """Print the table, samples of what went wrong, the checks and one line that says it all."""
    console.print(task_table(measurements))
    for title, error in samples.items():
        console.print(Text(f"{title}: ", "bold").append(error, "not bold dim"))
    console.print()
    for one in checks:
        mark = Text("✓ ", "green") if one.ok else Text("✗ ", "bold red")
        console.print(mark.append(one.text, "" if one.ok else "red"), highlight=False)
    wrong = sum(not one.ok for one in checks)
    verdict = (
        f"{wrong} of {len(checks)} checks failed" if wrong else f"all {len(checks)} checks passed"
    )
    console.print()
    console.print(
        Text(
            f"{measurements.done:,} jobs in {seconds:.1f} s, up to {peak(measurements):,} in one "
            f"second; {verdict}.",
            "bold red" if wrong else "bold green",
        )
    )


def task_table(measurements: Measurements) -> Table:
    """Return a row for each task: counts, and median and 95th percentile of the times."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("task")
    for name in ("enqueued", "done", "retried", "failed"):
        table.add_column(name, justify="right")
    for name in ("wait ms\np50", "\np95", "run ms\np50", "\np95"):
        table.add_column(name, justify="right", style="cyan")
    for identifier, counts in measurements.counts().items():
        attempts = measurements.attempts[identifier]
        table.add_row(
            identifier,
            f"{counts.enqueued:,}",
            f"{counts.done:,}",
            number(counts.retried, "yellow"),
            number(counts.failed, "red"),
            *percentiles([attempt.wait for attempt in attempts]),
            *percentiles([attempt.run for attempt in attempts]),
        )
    return table


def percentiles(seconds: Sequence[float]) -> tuple[str, str]:
    """Return the median and the 95th percentile in milliseconds."""
    if len(seconds) < 2:  # noqa: PLR2004 - no quantile of one
        seconds = [*seconds, *seconds] or [0.0, 0.0]
    twentieths = quantiles(seconds, n=20, method="inclusive")
    return f"{twentieths[9] * 1000:,.0f}", f"{twentieths[18] * 1000:,.0f}"


def peak(measurements: Measurements) -> int:
    """Return how many jobs ended in the best second."""
    attempts: list[Attempt] = [one for some in measurements.attempts.values() for one in some]
    if not attempts:
        return 0
    start = min(attempt.ended_at for attempt in attempts)
    return max(
        Counter(int(one.ended_at - start) for one in attempts if one.last).values(), default=0
    )
