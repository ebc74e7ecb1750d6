"""Where the database is: an explicit connection string, `DATABASE_URL`, or the `PG*` variables."""

import os
from collections.abc import Mapping
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict

from zodworker_compat.errors import ConfigurationError, DatabaseUnavailableError

# Prisma writes its own settings into DATABASE_URL; libpq refuses what it does not know.
PRISMA_PARAMETERS = frozenset(
    {
        "schema",
        "connection_limit",
        "pool_timeout",
        "pgbouncer",
        "statement_cache_size",
        "socket_timeout",
    }
)
PG_VARIABLES = ("PGHOST", "PGHOSTADDR", "PGDATABASE", "PGSERVICE", "PGUSER")

NO_DATABASE = """\
No database is named. Give one of
  --database-url postgresql://user@host/name   (in Python: RunnerOptions(connection_string=...))
  DATABASE_URL in the environment
  PGHOST, PGDATABASE, ... in the environment
or try it without a server of your own: zodworker demo"""


def resolve_conninfo(
    connection_string: str | None = None, environ: Mapping[str, str] = os.environ
) -> str:
    """Return the libpq connection string to use; "" leaves all to the `PG*` variables.

    Prisma's own URL parameters (`schema`, `pgbouncer`, …) are dropped.

    Raises:
        ConfigurationError: none is given, or it is not a connection string.
    """
    given = connection_string or environ.get("DATABASE_URL")
    if not given:
        if any(environ.get(name) for name in PG_VARIABLES):
            return ""
        raise ConfigurationError(NO_DATABASE)
    source = "the connection string" if connection_string else "DATABASE_URL"
    conninfo = _without_prisma(given)
    try:
        conninfo_to_dict(conninfo)
    except psycopg.ProgrammingError:
        # libpq's own message may quote the password.
        raise ConfigurationError(
            f"{source} is not a PostgreSQL connection string; "
            "expected postgresql://user:password@host:5432/name or 'host=... dbname=...'"
        ) from None
    return conninfo


def _without_prisma(url: str) -> str:
    if not url.startswith(("postgres://", "postgresql://")):
        return url
    parts = urlsplit(url)
    query = parse_qsl(parts.query, keep_blank_values=True)
    kept = [(name, value) for name, value in query if name not in PRISMA_PARAMETERS]
    return url if len(kept) == len(query) else urlunsplit(parts._replace(query=urlencode(kept)))


def unavailable(conninfo: str, error: Exception) -> DatabaseUnavailableError:
    """Return the error that says where PostgreSQL was looked for and what it answered."""
    reason = " ".join(str(error).split()) or type(error).__name__
    return DatabaseUnavailableError(f"PostgreSQL cannot be reached ({address(conninfo)}): {reason}")


def address(conninfo: str) -> str:
    """Return host, port and database of a connection string for messages: never the password."""
    options = pq.Conninfo.get_defaults()  # the PG* variables among them
    defaults = {option.keyword.decode(): option.val.decode() for option in options if option.val}
    parts = {**defaults, **conninfo_to_dict(conninfo)}
    host = parts.get("host") or parts.get("hostaddr") or "the local socket"
    return f"host {host}, port {parts.get('port') or 5432}, database {parts.get('dbname') or '(default)'}"
