"""Results on the terminal with rich; in a pipe as plain text, one line per row."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import click


def is_terminal() -> bool:
    """Whether people are looking at standard output."""
    return sys.stdout.isatty()


def print_json(value: Any) -> None:
    """Print JSON: times as ISO 8601, durations in seconds."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=_plain))


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    raise TypeError(f"{value!r} is not JSON")


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table; columns that hold numbers are aligned to the right."""
    texts = [["" if cell is None else str(cell) for cell in row] for row in rows]
    numeric = [all(isinstance(row[i], int | None) for row in rows) for i in range(len(columns))]
    if is_terminal():
        _print_rich(title, columns, texts, numeric)
    else:
        _print_plain(title, columns, texts, numeric)


def _print_rich(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], numeric: Sequence[bool]
) -> None:
    from rich import box  # noqa: PLC0415 - start-up time
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    shown = [i for i in range(len(columns)) if any(row[i] for row in rows)]
    for i in shown:
        table.add_column(columns[i], justify="right" if numeric[i] else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(row[i]) for i in shown))  # Text: brackets in names are not markup
    Console().print(table)


def _print_plain(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], numeric: Sequence[bool]
) -> None:
    widths = [max(map(len, cells)) for cells in zip(columns, *rows, strict=True)]
    click.echo(title)
    for row in (columns, *rows):
        cells = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ]
        click.echo("  ".join(cells).rstrip())
    click.echo()


def duration(value: timedelta) -> str:
    """Return a duration in its two largest units, e.g. "2 h 5 min"."""
    seconds = int(value.total_seconds())
    units = [("d", 86400), ("h", 3600), ("min", 60), ("s", 1)]
    parts = []
    for name, size in units:
        count, seconds = divmod(seconds, size)
        parts.append((count, name))
    while len(parts) > 1 and parts[0][0] == 0:
        parts.pop(0)
    return " ".join(f"{count} {name}" for count, name in parts[:2] if count or name == "s")


@contextmanager
def progress(what: str, total: int, *, is_bytes: bool = False) -> Iterator[Callable[[int], object]]:
    """Show a bar on standard error while the block runs, if people are looking at it.

    Yields:
        The function to call with how much has been done since the last call.
    """
    if not sys.stderr.isatty():
        yield lambda _done: None
        return
    from rich.console import Console  # noqa: PLC0415 - start-up time
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn() if is_bytes else MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.advance(task, done)
