"""How a worker connects and how many jobs it runs: ZodWorker's `runnerOptions`."""

import re
from datetime import timedelta
from typing import Any, Final

from attrs import Attribute, field, frozen
from psycopg_pool import AsyncConnectionPool, ConnectionPool

from zodworker_compat.errors import ConfigurationError, shown

LONGEST_NAME: Final = 63
"""Bytes; PostgreSQL cuts off what is longer."""
_SCHEMA_NAME: Final = re.compile("[^\0\ud800-\udfff]+")
# The name stands in the bodies of functions too: it must not end their quotes.
_DOLLAR_QUOTE: Final = re.compile(r"\$\w*\$")


def as_timedelta(value: timedelta | float) -> timedelta:
    """Return a duration; a bare number is seconds (TypeScript's milliseconds ÷ 1000)."""
    if isinstance(value, timedelta):
        return value
    try:
        return timedelta(seconds=value)
    except TypeError:
        raise ConfigurationError(
            f"expected a timedelta or a number of seconds, got {value!r}"
        ) from None


def _positive(_instance: object, attribute: "Attribute[Any]", value: Any) -> None:
    if isinstance(value, timedelta):
        problem = None if value > timedelta(0) else "must be greater than zero"
    elif isinstance(value, int) and not isinstance(value, bool):
        problem = None if value > 0 else "must be greater than zero"
    else:
        problem = None if value is None else "must be a whole number"
    if problem:
        raise ConfigurationError(f"{attribute.name} {problem}, got {value!r}")


def _life(_instance: object, attribute: "Attribute[Any]", value: timedelta) -> None:
    if not timedelta(seconds=1) <= value <= timedelta(hours=1):
        raise ConfigurationError(f"{attribute.name} must be 1 second to 1 hour, got {value!r}")


def schema_name_problem(name: object) -> str | None:
    """Return why `name` cannot be the name of a schema; None if it can."""
    is_name = isinstance(name, str) and _SCHEMA_NAME.fullmatch(name)
    if is_name and len(str(name).encode()) <= LONGEST_NAME and not _DOLLAR_QUOTE.search(str(name)):
        return None
    return (
        f"{shown(name)} cannot be the name of a schema: 1 to {LONGEST_NAME} bytes, no NUL, no lone "
        "surrogate and no dollar quote such as $a$ among them"
    )


def _schema_name(_instance: object, _attribute: "Attribute[Any]", value: Any) -> None:
    if problem := schema_name_problem(value):
        raise ConfigurationError(problem)


@frozen(kw_only=True)
class RunnerOptions:
    """Connection, schema and concurrency of one worker.

    Defaults are trigger.dev's: five jobs at a time, a poll each second.
    """

    connection_string: str | None = field(default=None, repr=False)
    """A libpq URL or DSN. Default: `DATABASE_URL`, else the `PG*` variables."""
    pool: AsyncConnectionPool[Any] | ConnectionPool[Any] | None = field(default=None, repr=False)
    """Your application's pool, for `enqueue` (async; for `Client`, a `ConnectionPool`). The runner
    has connections of its own, so it needs `connection_string` or the environment besides."""
    schema: str = field(default="graphile_worker", validator=_schema_name)
    """The schema that holds graphile-worker's tables; any name, quoted by us."""
    concurrency: int = field(default=5, validator=_positive)
    """Jobs in flight at a time in this process."""
    poll_interval: timedelta = field(
        default=timedelta(seconds=1), converter=as_timedelta, validator=_positive
    )
    """How long an idle worker waits before it looks again if no notification came."""
    dead_after: timedelta = field(
        default=timedelta(seconds=15), converter=as_timedelta, validator=_life
    )
    """How long a worker may be silent before the others take its jobs: 1 s to 1 h. A killed worker's
    jobs are free again a fifth of it later at most. Raise it if handlers call C code that holds the
    interpreter's lock for longer; lower it to recover sooner, if the network is good."""
    max_pool_size: int | None = field(default=None, validator=_positive)
    """Connections of each pool beside the worker's own: enqueue, helpers, rate limiter. Default: 4."""
    prepared_statements: bool = True
    """False behind a pooler that hides. PgBouncer and its like are found, and then none are used."""
