"""`zodworker migrate`."""

from typing import TYPE_CHECKING

import click

from zodworker_compat.cli.base import (
    DEFAULT_SCHEMA,
    Verb,
    connected,
    database_options,
    run_async,
)

if TYPE_CHECKING:
    from zodworker_compat.database.revisions import Migration, Plan


SECTIONS = {
    "Examples": """
      zodworker migrate --plan
      zodworker migrate --database-url postgresql://localhost/app
      zodworker migrate --schema my_queue --revision 19
    """,
}


@click.command(cls=Verb, sections=SECTIONS, short_help="Install or adopt graphile-worker's schema.")
@database_options
@click.option(
    "--revision",
    type=click.Choice(["18", "19"]),
    help="graphile-worker's schema revision to install: 18 runs with every graphile-worker since "
    "0.16.6; 19 is the same schema, marked for 0.17, and stops workers of 0.16. Default: 18 for "
    "a new schema; an existing one is left at its revision.",
)
@click.option("--plan", is_flag=True, help="Show what would be done, and do nothing.")
def migrate(database_url: str | None, schema: str | None, revision: str | None, plan: bool) -> None:
    """Install graphile-worker's schema, or adopt the one that is there.

    What is installed is what a Node graphile-worker would install, so both can share it. A schema
    that is usable already is not touched. Safe to run twice, by several at once, and beside Node.
    `zodworker run` does it by itself; this is for roles that may not.
    """
    run_async(_migrate(database_url, schema or DEFAULT_SCHEMA, revision, plan))


async def _migrate(database_url: str | None, schema: str, revision: str | None, plan: bool) -> None:
    from zodworker_compat.database import migrate_async  # noqa: PLC0415 - start-up time

    number = int(revision) if revision else None
    async with connected(database_url) as connection:
        if plan:
            _show_plan(await migrate_async.plan_migration(connection, schema, revision=number))
        else:
            _show(await migrate_async.migrate(connection, schema, revision=number))


def _show_plan(plan: "Plan") -> None:
    if not plan:
        click.echo(f"Schema {plan.schema} is at revision {plan.after}: nothing to do.")
    else:
        before = "not installed" if plan.before is None else f"at revision {plan.before}"
        click.echo(
            f"Schema {plan.schema} is {before}; `zodworker migrate` would bring it to revision "
            f"{plan.after} with"
        )
        for script in (*plan.preparation, *plan.revisions):
            if script.sql:
                click.echo(f"  {script.name}.sql")
    _warn(plan.warning)


def _show(migration: "Migration") -> None:
    if migration.before is None:
        click.echo(f"Schema {migration.schema}: installed at revision {migration.revision}.")
    elif migration.before < migration.revision:
        click.echo(
            f"Schema {migration.schema}: brought from revision {migration.before} to "
            f"{migration.revision}."
        )
    else:
        click.echo(f"Schema {migration.schema} is at revision {migration.revision}: nothing to do.")
    _warn(migration.warning)


def _warn(warning: str | None) -> None:
    if warning:
        click.echo(f"Warning: {warning}", err=True)
