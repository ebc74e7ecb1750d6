"""What every verb has: the common options, errors for people, and a connection.

Nothing heavy is imported at the top: `zodworker --help` must be quick.
"""

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from textwrap import dedent, indent
from typing import TYPE_CHECKING, Any, TypeVar

import click

from zodworker_compat.cli.safe import safe

if TYPE_CHECKING:
    from psycopg import AsyncConnection

    from zodworker_compat.client.admin import Admin

T = TypeVar("T")
Function = TypeVar("Function", bound=Callable[..., Any])

FAILED = 1
DEBUG = "zodworker.debug"
DEFAULT_SCHEMA = "graphile_worker"


def _debug_option() -> click.Option:
    """Return `--debug`."""

    def remember(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
        if value:
            context.meta[DEBUG] = True

    return click.Option(
        ["--debug"],
        is_flag=True,
        expose_value=False,
        is_eager=True,
        envvar="ZODWORKER_DEBUG",
        callback=remember,
        help="Show the traceback of an error.",
    )


class Manual(click.Command):
    """A command whose help ends in sections, e.g. "Examples", whose lines are kept as they are."""

    def __init__(
        self, *arguments: Any, sections: Mapping[str, str] | None = None, **settings: Any
    ) -> None:
        super().__init__(*arguments, **settings)
        self.params.append(_debug_option())
        self._sections = sections or {}

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's
        """Write the sections."""
        for title, text in self._sections.items():
            with formatter.section(title):
                formatter.write(indent(dedent(text).strip("\n"), "  ") + "\n")


class Verb(Manual):
    """A command that says in one paragraph what went wrong."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb; errors become a message and exit status 1, unless `--debug` is given."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except Exception as error:
            if DEBUG in ctx.meta:
                raise
            from zodworker_compat.cli.explain import explain  # noqa: PLC0415 - only in need

            text = safe(explain(error, ctx.params), lines=True)
            raise click.ClickException(text) from error


def database_options(function: Function) -> Function:
    """Add `--database-url` and `--schema`."""
    url = click.option(
        "--database-url",
        metavar="URL",
        envvar="ZODWORKER_DATABASE_URL",
        help="The database: a postgresql:// URL or libpq's key=value form. Default: "
        "ZODWORKER_DATABASE_URL, then DATABASE_URL, then PGHOST, PGDATABASE, ...",
    )
    schema = click.option(
        "--schema",
        metavar="NAME",
        envvar=["ZODWORKER_SCHEMA", "GRAPHILE_WORKER_SCHEMA"],
        help="The schema with graphile-worker's tables. Default: ZODWORKER_SCHEMA, then "
        f"GRAPHILE_WORKER_SCHEMA, then {DEFAULT_SCHEMA}.",
    )
    return url(schema(function))


json_option = click.option("--json", is_flag=True, help="Print JSON.")
json_lines_option = click.option(
    "--json", is_flag=True, help="Print JSON Lines: one object in each line."
)
timeout_option = click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    default=60,
    show_default=True,
    metavar="SECONDS",
    help="How long PostgreSQL may take for one statement; 0 is for ever.",
)


def run_async(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a verb's coroutine; a single error out of a group is raised as itself."""
    import asyncio  # noqa: PLC0415 - start-up time

    try:
        return asyncio.run(coroutine)
    except BaseExceptionGroup as group:
        first = group.exceptions[0]
        raise first from first.__cause__


@asynccontextmanager
async def connected(database_url: str | None) -> AsyncIterator["AsyncConnection[Any]"]:
    """Give an autocommit connection to the database that the options or the environment name.

    Raises:
        ConfigurationError: none is named.
        DatabaseUnavailableError: it cannot be reached.
    """
    from zodworker_compat.database.connect import resolve_conninfo  # noqa: PLC0415 - start-up time
    from zodworker_compat.database.sessions import Session  # noqa: PLC0415 - start-up time

    session = Session(resolve_conninfo(database_url), application_name="zodworker")
    try:
        yield await session.connection()
    finally:
        await session.close()


@contextmanager
def admin(
    database_url: str | None, schema: str | None, timeout: float, app: str | None = None
) -> Iterator["Admin"]:
    """Give the admin calls of the database that the options, the worker or the environment name.

    Raises:
        ConfigurationError: none is named.
    """
    from zodworker_compat.client.admin import Admin  # noqa: PLC0415 - start-up time
    from zodworker_compat.runner_options import RunnerOptions  # noqa: PLC0415

    if app is not None:
        from zodworker_compat.cli.app import load_worker  # noqa: PLC0415 - start-up time

        options = load_worker(app, database_url, schema).sync.runner_options
    else:
        options = RunnerOptions(connection_string=database_url, schema=schema or DEFAULT_SCHEMA)
    found = Admin(options, patience=timeout)
    try:
        yield found
    finally:
        found.close()
