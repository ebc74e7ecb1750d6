"""`zodworker enqueue --from`: a file of jobs, all of them or none.

The file is read twice, first to check every line and then to enqueue, so that its size does not
matter.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Any

from attrs import define, field

from zodworker_compat.cli.values import parse_json, parse_time
from zodworker_compat.client.prepare import JobRequest
from zodworker_compat.client.wording import plural
from zodworker_compat.errors import EnqueueError
from zodworker_compat.options import as_dict, options_of

if TYPE_CHECKING:
    from zodworker_compat.client.client import Client

CHUNK = 1000
"""Jobs in one statement."""
MOST_SHOWN = 20
"""Bad lines that are shown; the others are counted."""

Advance = Callable[[int], object]


@contextmanager
def readable_twice(file: IO[bytes]) -> Iterator[IO[bytes]]:
    """Give a file, or a copy if it is a pipe."""
    if file.seekable():
        yield file
    else:
        with TemporaryFile() as copy:
            shutil.copyfileobj(file, copy)
            yield copy


def size(file: IO[bytes]) -> int:
    """Return the length of a file in bytes, and go to its start."""
    length = file.seek(0, os.SEEK_END)
    file.seek(0)
    return length


@define
class Check:
    """What the first reading found."""

    jobs: int = 0
    bad: list[tuple[int, str]] = field(factory=list)
    """Line numbers, from 1, and what is wrong with them."""
    _keys: dict[str, int] = field(factory=dict)

    def line(self, client: "Client", number: int, text: bytes) -> None:
        """Check one line."""
        try:
            request = parse_line(text)
            options = as_dict(request.options)
            spec = client.prepare(request.identifier, request.payload, **options)
            first = self._keys.setdefault(spec.job_key, number) if spec.job_key else number
            if first != number:
                raise ValueError(f"job_key {spec.job_key!r} is that of line {first} already")  # noqa: TRY301
        except Exception as error:  # noqa: BLE001 - a key function may raise anything
            self.bad.append((number, str(error)))
        else:
            self.jobs += 1

    def report(self, path: str) -> str:
        """Return the message about the bad lines."""
        shown = "".join(
            f"\n  line {number}: " + text.replace("\n", "\n  ")
            for number, text in self.bad[:MOST_SHOWN]
        )
        rest = len(self.bad) - MOST_SHOWN
        more = f"\n  ... and {rest:,} more" if rest > 0 else ""
        total = plural(self.jobs + len(self.bad), "job")
        are = "is" if len(self.bad) == 1 else "are"
        return (
            f"{len(self.bad):,} of {total} in {path} {are} wrong; "
            f"nothing was enqueued:{shown}{more}"
        )


def check(client: "Client", file: IO[bytes], path: str, advance: Advance) -> int:
    """Check every line, and return how many jobs there are.

    Args:
        client: knows the catalog.
        file: at its start.
        path: for messages.
        advance: is told of the bytes read.

    Raises:
        EnqueueError: some are wrong; says which and why.
    """
    found = Check()
    for number, text in numbered(file):
        found.line(client, number, text)
        advance(len(text))
    if found.bad:
        raise EnqueueError(found.report(path))
    return found.jobs


def enqueue_all(client: "Client", file: IO[bytes], advance: Advance) -> None:
    """Enqueue every line in one transaction.

    Args:
        client: knows the catalog and the database.
        file: at its start, checked.
        advance: is told of the jobs enqueued.
    """
    requests = (parse_line(text) for _, text in numbered(file))
    with client.transaction() as tx:
        while chunk := list(islice(requests, CHUNK)):
            tx.enqueue_many(chunk)
            advance(len(chunk))


def numbered(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Return the lines that hold something, with their numbers from 1."""
    return ((number, text) for number, text in enumerate(file, start=1) if text.strip())


def parse_line(text: bytes) -> JobRequest:
    """Return the job of a line: `{"identifier": ..., "payload": ..., option: ...}`.

    Raises:
        ValueError: it is not such an object.
        OptionError: an option is unknown or wrong.
    """
    try:
        given: Any = parse_json(text.decode("utf-8-sig").strip())
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON: {error.msg} at column {error.colno}") from None
    if not isinstance(given, dict) or not isinstance(given.get("identifier"), str):
        raise ValueError(  # noqa: TRY004 - JSON of the wrong shape
            'expected an object {"identifier": "...", "payload": ..., options}'
        )
    if isinstance(given.get("run_at"), str):
        given["run_at"] = parse_time(given["run_at"])
    arguments = {name: given.pop(name) for name in ("identifier", "payload") if name in given}
    return JobRequest(**arguments, options=options_of(given))
