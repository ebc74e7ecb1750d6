"""Results on the terminal with rich; in a pipe as plain text, one line per row."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

import click

from zodworker_compat.cli.safe import safe, safe_json

if TYPE_CHECKING:
    from rich.console import RenderableType


T = TypeVar("T")


class Table(NamedTuple):
    """A table; numbers are aligned to the right. On a terminal, columns of nothing are left out."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    wide: str = ""
    """The column that is cut off if there is no room for it; the others are folded."""


class Line(NamedTuple):
    """A line of text, in one of rich's styles; a long one is folded, and stays indented."""

    text: str
    style: str = ""


Block: TypeAlias = Table | Line
CUT = 100
"""Characters of a wide column in a pipe."""
LEAST = 20
"""Characters that a wide column has on a terminal, however narrow that is."""


def is_terminal() -> bool:
    """Whether people are looking at standard output."""
    return sys.stdout.isatty()


def print_json(value: Any) -> None:
    """Print JSON: times as ISO 8601, durations in seconds."""
    text = json.dumps(value, indent=2, ensure_ascii=False, default=_plain)
    click.echo(safe_json(text))


def print_json_lines(values: Iterable[Any]) -> None:
    """Print one JSON value in each line."""
    for value in values:
        click.echo(safe_json(json.dumps(value, ensure_ascii=False, default=_plain)))


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    raise TypeError(f"{value!r} is not JSON")


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table."""
    show([Table(title, columns, rows)])


def show(blocks: Iterable[Block]) -> None:
    """Print tables and lines."""
    if is_terminal():
        from rich.console import Console  # noqa: PLC0415 - start-up time

        console = Console(highlight=False)
        for block in blocks:
            console.print(_rich(block, console.width))
    else:
        for block in blocks:
            click.echo(_plain_table(block) if isinstance(block, Table) else safe(block.text))


def show_again(
    read: Callable[[], T],
    blocks: Callable[[T], Iterable[Block]],
    line: Callable[[T], str],
    seconds: float,
) -> None:
    """Show what `read` returns on the whole terminal, again and again, until Ctrl-C.

    In a pipe or a file, each time is one line, which begins with the time. While the database
    cannot be read, that is what is shown, on a terminal above what was read last.
    """
    with suppress(KeyboardInterrupt):
        if not is_terminal():
            for found in _repeat(read, seconds):
                text = found.text if isinstance(found, Line) else line(found)
                click.echo(f"{moment(datetime.now(UTC))}  {safe(text)}")  # and flushes

        from rich.console import Console, Group  # noqa: PLC0415 - start-up time
        from rich.live import Live  # noqa: PLC0415

        console = Console(highlight=False)
        with Live(console=console, screen=True, auto_refresh=False) as live:
            last: list[Block] = []
            for found in _repeat(read, seconds):
                if isinstance(found, Line):
                    shown = [found, *last]
                else:
                    shown = last = [*blocks(found)]
                live.update(Group(*(_rich(one, console.width) for one in shown)), refresh=True)


def _repeat(read: Callable[[], T], seconds: float) -> Iterator[T | Line]:
    """Yield what `read` returns, without end; after the first time, why it could not."""
    import time  # noqa: PLC0415 - start-up time

    import psycopg  # noqa: PLC0415

    from zodworker_compat.cli.explain import explain  # noqa: PLC0415
    from zodworker_compat.errors import DatabaseUnavailableError  # noqa: PLC0415

    yield read()
    while True:
        time.sleep(seconds)
        try:
            found = read()
        except (DatabaseUnavailableError, psycopg.OperationalError) as error:
            yield Line(f"! {explain(error, {})}", "red")
        else:
            yield found


def _cells(table: Table, number: str = "") -> tuple[list[list[str]], list[bool]]:
    texts = [
        [
            ""
            if cell is None
            else format(cell, number)
            if isinstance(cell, int)
            else safe(str(cell))
            for cell in row
        ]
        for row in table.rows
    ]
    numeric = [
        all(isinstance(row[i], int | None) for row in table.rows) for i in range(len(table.columns))
    ]
    return texts, numeric


def _rich(block: Block, width: int) -> "RenderableType":
    return _rich_line(block, width) if isinstance(block, Line) else _rich_table(block, width)


def _rich_line(line: Line, width: int) -> "RenderableType":
    from textwrap import wrap  # noqa: PLC0415 - start-up time

    from rich.text import Text  # noqa: PLC0415 - brackets in names are not markup

    text = line.text.lstrip(" ")
    indent = " " * (len(line.text) - len(text))
    hanging = indent + "  " * text.startswith("! ")
    folded = wrap(
        safe(text),
        max(width, 20),
        initial_indent=indent,
        subsequent_indent=hanging,
        break_on_hyphens=False,
    )
    return Text("\n".join(folded), style=line.style)


def _rich_table(given: Table, width: int) -> "RenderableType":
    from rich import box  # noqa: PLC0415 - start-up time
    from rich.padding import Padding  # noqa: PLC0415
    from rich.table import Table as RichTable  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    texts, numeric = _cells(given, ",")
    table = RichTable(
        title=safe(given.title),
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        show_edge=False,
    )
    shown = [i for i in range(len(given.columns)) if any(row[i] for row in given.rows)]
    widths = {i: max(len(row[i]) for row in [given.columns, *texts]) for i in shown}
    if given.wide in given.columns and (wide := given.columns.index(given.wide)) in shown:
        others = sum(widths[i] + 2 for i in shown if i != wide)
        room = max(width - others - 1, LEAST)
        for row in texts:
            row[wide] = row[wide] if len(row[wide]) <= room else row[wide][: room - 1] + "…"
    for i in shown:
        table.add_column(
            given.columns[i], justify="right" if numeric[i] else "left", overflow="fold"
        )
    for row in texts:
        table.add_row(*(Text(row[i]) for i in shown))
    return Padding(table, (0, 0, 1, 0))


def _plain_table(table: Table) -> str:
    texts, numeric = _cells(table)
    texts = [
        [
            cell[:CUT] if name == table.wide else cell
            for name, cell in zip(table.columns, row, strict=True)
        ]
        for row in texts
    ]
    widths = [max(map(len, cells)) for cells in zip(table.columns, *texts, strict=True)]
    lines = [safe(table.title)]
    for row in (table.columns, *texts):
        cells = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines) + "\n"


def moment(value: datetime | None) -> str:
    """Return a time for people, in UTC."""
    return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC" if value else ""


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
