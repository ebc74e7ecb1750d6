"""Where the database is: an explicit connection string, `DATABASE_URL`, or the `PG*` variables."""

import os
import select
from asyncio import AbstractEventLoop
from collections.abc import Mapping

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo, timeout_from_conninfo

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
        "sslaccept",
        "sslidentity",
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
    connection_string: str | None = None, environ: Mapping[str, str] | None = None
) -> str:
    """Return the libpq connection string to use; "" leaves all to the `PG*` variables.

    Prisma's own URL parameters (`schema`, `pgbouncer`, …) are dropped.

    Raises:
        ConfigurationError: none is given, or it is not a connection string.
    """
    environ = os.environ if environ is None else environ
    given = (
        connection_string or environ.get("DATABASE_URL") or ""
    ).strip()  # files end in a newline
    if not given:
        if any(environ.get(name) for name in PG_VARIABLES):
            return ""
        raise ConfigurationError(NO_DATABASE)
    conninfo = _without_prisma(given)
    if problem := _problem(conninfo):
        source = "The connection string" if connection_string else "DATABASE_URL"
        raise ConfigurationError(f"{source} is not a PostgreSQL connection string: {problem}.")
    return conninfo


def _without_prisma(url: str) -> str:
    address, question_mark, query = url.partition("?")
    if not question_mark or not _is_url(url):
        return url
    kept = [each for each in query.split("&") if each.partition("=")[0] not in PRISMA_PARAMETERS]
    return f"{address}?{'&'.join(kept)}" if kept else address


def _is_url(text: str) -> bool:
    return text.startswith(("postgres://", "postgresql://"))


_ENCODE = "percent-encode / ? # @ and : in the user name and the password (/ is %2F, @ is %40)"


def _problem(conninfo: str) -> str | None:
    """Return what is wrong, in words that hold no part of it that may be the password."""
    authority, _, rest = conninfo.partition("://")[2].partition("/")
    is_split = "@" in rest.partition("?")[0] and "@" not in authority
    if _is_url(conninfo) and (is_split or authority.count("@") > 1):  # libpq cuts at the first
        return _ENCODE
    try:
        options = conninfo_to_dict(conninfo)
    except UnicodeEncodeError:
        return "it holds a lone surrogate"
    except psycopg.ProgrammingError:
        return _syntax_problem(conninfo)
    try:
        timeout_from_conninfo(options)
    except psycopg.ProgrammingError:
        return "connect_timeout must be a whole number of seconds"
    return None


def _syntax_problem(conninfo: str) -> str:
    if conninfo.startswith(("postgresql+", "postgres+")):
        return "leave out the driver's name; it begins with postgresql://"
    known = {option.keyword.decode() for option in pq.Conninfo.get_defaults()}
    names = [each.partition("=")[0] for each in conninfo.partition("?")[2].split("&")]
    if _is_url(conninfo) and (unknown := [name for name in names if name and name not in known]):
        return _ENCODE if "@" in unknown[0] else f"there is no parameter {unknown[0]!r}"
    return "expected postgresql://user:password@host:5432/name or 'host=... dbname=...'"


def is_gone(home: object) -> bool:
    """Whether what was opened at `home` cannot be used any more: a closed event loop, a process id.

    After a fork the parent's connections are not ours.
    """
    return home.is_closed() if isinstance(home, AbstractEventLoop) else home != os.getpid()


def is_readable(socket: int) -> bool:
    """Whether something has arrived at a socket, the end of the connection included."""
    poll = select.poll()
    poll.register(socket, select.POLLIN)
    return bool(poll.poll(0))


def with_defaults(conninfo: str, **defaults: str) -> str:
    """Return the connection string with `defaults` where it says nothing itself."""
    return make_conninfo("", **{**defaults, **conninfo_to_dict(conninfo)})


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
