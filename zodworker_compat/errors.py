"""The errors people see: what was wrong, where, and what to do about it."""

from collections.abc import Collection, Sequence
from difflib import get_close_matches

from attrs import frozen


class ZodworkerError(Exception):
    """The base of every error this package raises on purpose."""


class ConfigurationError(ZodworkerError):
    """The worker, its connection or its environment is set up wrongly."""


class DatabaseUnavailableError(ZodworkerError):
    """PostgreSQL could not be reached."""


class MigrationError(ZodworkerError):
    """The schema cannot be installed, adopted or used."""


class TransactionError(ZodworkerError):
    """The connection or session given as `tx` cannot carry an enqueue."""


class EnqueueError(ZodworkerError):
    """A job was not enqueued; nothing was written."""


class OptionError(EnqueueError, ValueError):
    """An enqueue or catalog option has a value that the jobs table cannot hold."""

    def __init__(self, option: str, problem: str) -> None:
        super().__init__(f"{option}: {problem}")
        self.option = option


class UnknownTaskError(EnqueueError, LookupError):
    """The catalog has no task of that identifier."""

    def __init__(self, identifier: str, known: Collection[str], catalog: str) -> None:
        super().__init__(
            f"Unknown task identifier {identifier!r} in catalog {catalog!r}."
            f"{suggestion(identifier, known)}"
        )
        self.identifier = identifier

    def __str__(self) -> str:  # LookupError's subclasses quote their argument
        return str(self.args[0])


@frozen
class Problem:
    """One violation of a schema: the JSON pointer to the value, and what is wrong with it."""

    pointer: str
    message: str

    def __str__(self) -> str:
        return f"{self.pointer or '(the payload itself)'}: {self.message}"


class PayloadValidationError(EnqueueError, ValueError):
    """A payload does not match the JSON Schema of its task."""

    def __init__(self, identifier: str, problems: Sequence[Problem]) -> None:
        lines = "".join(f"\n  {problem}" for problem in problems)
        super().__init__(f"The payload of {identifier!r} does not match its schema:{lines}")
        self.identifier = identifier
        self.problems = tuple(problems)


class PayloadSerialisationError(EnqueueError, ValueError):
    """A payload holds something that JSON cannot: NaN, a naive datetime, an object, a cycle."""

    def __init__(self, pointer: str, problem: str) -> None:
        super().__init__(
            f"The payload cannot be written as JSON at {pointer or 'its root'}: {problem}"
        )
        self.pointer = pointer


class BatchError(EnqueueError, ValueError):
    """Some items of an `enqueue_many` are wrong; none was enqueued.

    `failures` holds (index into the batch, error) for every bad item.
    """

    def __init__(self, failures: Sequence[tuple[int, Exception]], size: int) -> None:
        lines = "".join(f"\n  item {index}: {error}" for index, error in failures)
        super().__init__(f"{len(failures)} of {size} jobs cannot be enqueued; none was:{lines}")
        self.failures = tuple(failures)


class CatalogError(ConfigurationError):
    """A catalog or schema file is wrong: names the file, the identifier and the JSON pointer."""

    def __init__(
        self,
        problem: str,
        *,
        file: str | None = None,
        identifier: str | None = None,
        pointer: str | None = None,
    ) -> None:
        places = [file, f"task {identifier!r}" if identifier else None, pointer]
        where = ", ".join(place for place in places if place)
        super().__init__(f"{where}: {problem}" if where else problem)
        self.file, self.identifier, self.pointer = file, identifier, pointer


def suggestion(word: str, known: Collection[str]) -> str:
    """Return " Did you mean …?" for the nearest of `known`, or the known names if they are few."""
    if near := get_close_matches(word, known, n=3, cutoff=0.6):
        return f" Did you mean {' or '.join(map(repr, near))}?"
    if lower := [name for name in known if name.lower() == word.lower()]:
        return f" Did you mean {lower[0]!r}?"
    if 0 < len(known) <= 12:  # noqa: PLR2004 - a screen line
        return f" Known: {', '.join(sorted(known))}."
    return ""
