"""How a worker connects and how many jobs it runs: ZodWorker's `runnerOptions`."""

from datetime import timedelta
from typing import Any

from attrs import Attribute, field, frozen
from psycopg_pool import AsyncConnectionPool, ConnectionPool

from zodworker_compat.errors import ConfigurationError


def as_timedelta(value: timedelta | float) -> timedelta:
    """Return a duration; a bare number is seconds (TypeScript's milliseconds ÷ 1000)."""
    return value if isinstance(value, timedelta) else timedelta(seconds=value)


def _positive(_instance: object, attribute: "Attribute[Any]", value: Any) -> None:
    zero = timedelta(0) if isinstance(value, timedelta) else 0
    if value is not None and value <= zero:
        raise ConfigurationError(f"{attribute.name} must be greater than zero, got {value!r}")


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
    schema: str = "graphile_worker"
    """The schema that holds graphile-worker's tables; any name, quoted by us."""
    concurrency: int = field(default=5, validator=_positive)
    """Jobs in flight at a time in this process."""
    poll_interval: timedelta = field(
        default=timedelta(seconds=1), converter=as_timedelta, validator=_positive
    )
    """How long an idle worker waits before it looks again if no notification came."""
    max_pool_size: int | None = field(default=None, validator=_positive)
    """Connections of the worker's own pool. Default: 4 (claim, settle, enqueue, one spare)."""
    prepared_statements: bool = True
    """False behind a pooler that cannot keep prepared statements (pgbouncer before 1.21)."""
