"""`zodworker catalog`: the tasks and their schemas."""

import json as jsonlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zodworker_compat.cli.base import Manual, Verb, json_option
from zodworker_compat.cli.completion import complete_catalog, complete_task
from zodworker_compat.cli.output import print_json, print_table

if TYPE_CHECKING:
    from zodworker_compat.catalog import RecurringTask, Task, WorkerCatalog

OPTIONS = ("priority", "max_attempts", "queue_name", "job_key", "job_key_mode", "flags")


class _Group(Manual, click.Group):
    """The group of the catalog's verbs."""


@click.group(
    cls=_Group,
    short_help="List, show and check tasks and schemas; write payload classes.",
    sections={
        "Examples": """
        zodworker catalog list
        zodworker catalog show startRun
        zodworker catalog check jobs/catalog.json
        zodworker catalog codegen jobs/catalog.json --out jobs/payloads
        """
    },
)
def catalog() -> None:
    """List, show and check the tasks of catalogs and their schemas; write payload classes.

    CATALOG is the name of one of the package's catalogs, or the path of a file of yours.
    """


def _load_all(names: Sequence[str]) -> "list[WorkerCatalog]":
    from zodworker_compat.catalog import WorkerCatalog, shipped  # noqa: PLC0415 - start-up time

    return [WorkerCatalog.load(name) for name in names or shipped()]


@catalog.command(
    "list",
    cls=Verb,
    sections={
        "Examples": """
        zodworker catalog list
        zodworker catalog list executionWorker --json
        """
    },
)
@click.argument("catalogs", metavar="[CATALOG]...", nargs=-1, shell_complete=complete_catalog)
@json_option
def list_tasks(catalogs: Sequence[str], json: bool) -> None:
    """List tasks with their default options; by default, of all the package's catalogs."""
    found = _load_all(catalogs)
    tasks = [(each, each.get(identifier)) for each in found for identifier in each]
    recurring = [(each, task) for each in found for task in each.recurring.values()]
    if json:
        print_json(
            {
                "tasks": [{"catalog": each.name, **_task(task)} for each, task in tasks],
                "recurring": [
                    {"catalog": each.name, **_recurring(task)} for each, task in recurring
                ],
            }
        )
        return
    print_table(
        "Tasks",
        ["task", *(name.replace("_", " ") for name in OPTIONS), "catalog"],
        [[*_task(task, as_text=True).values(), each.name] for each, task in tasks],
    )
    if recurring:
        print_table(
            "Recurring tasks",
            ["task", "match (UTC)", "options", "catalog"],
            [
                [task.identifier, task.match, _words(task.options), each.name]
                for each, task in recurring
            ],
        )


def _task(task: "Task", *, as_text: bool = False) -> dict[str, Any]:
    values = {name: getattr(task.options, name) for name in OPTIONS}
    if as_text:
        values["flags"] = ", ".join(values["flags"] or ())
    return {"identifier": task.identifier, **values}


def _recurring(task: "RecurringTask") -> dict[str, Any]:
    return {"identifier": task.identifier, "match": task.match, "options": dict(task.options)}


def _words(options: Any) -> str:
    return ", ".join(f"{name} {value}" for name, value in options.items())


@catalog.command(
    cls=Verb,
    sections={
        "Examples": """
        zodworker catalog show startRun
        zodworker catalog show sendMail --catalog jobs/catalog.json --json
        """
    },
)
@click.argument("identifier", metavar="IDENT", shell_complete=complete_task)
@click.option(
    "--catalog",
    metavar="NAME|PATH",
    help="Where the task is. Default: any of the package's catalogs.",
)
@json_option
def show(identifier: str, catalog: str | None, json: bool) -> None:
    """Show a task: its default options and its schema, with all references resolved."""
    from zodworker_compat.cli.app import load_catalog  # noqa: PLC0415 - start-up time

    found = load_catalog(catalog)
    if identifier in found.recurring:
        print_json(_recurring(found.recurring[identifier]))
        return
    task = found.get(identifier)
    if json:
        print_json({**_task(task), "schema": task.codec.schema})
        return
    click.echo(f"Task {identifier}")
    for option, value in _task(task, as_text=True).items():
        if value not in (None, "", identifier):
            click.echo(f"  {option.replace('_', ' ')}: {value}")
    click.echo("Schema of its payload")
    click.echo(jsonlib.dumps(task.codec.schema, indent=2, ensure_ascii=False))


@catalog.command(
    cls=Verb,
    sections={
        "Examples": """
        zodworker catalog check
        zodworker catalog check jobs/catalog.json
        """
    },
)
@click.argument("catalogs", metavar="[CATALOG]...", nargs=-1, shell_complete=complete_catalog)
def check(catalogs: Sequence[str]) -> None:
    """Check catalogs and every schema in them; by default, the package's own."""
    for each in _load_all(catalogs):
        each.check()
        recurring = f", {len(each.recurring)} recurring" if each.recurring else ""
        click.echo(f"{each.name}: {len(each)} tasks{recurring}, no problem found")


@catalog.command(
    cls=Verb,
    sections={
        "Examples": """
        zodworker catalog codegen jobs/catalog.json --out jobs/payloads
        zodworker catalog codegen jobs/catalog.json --out jobs/payloads --check
        """
    },
)
@click.argument("catalogs", metavar="[CATALOG]...", nargs=-1, shell_complete=complete_catalog)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="The Python package to write into; it is made if it is not there.",
)
@click.option("--check", is_flag=True, help="Write nothing; fail if something is out of date.")
def codegen(catalogs: Sequence[str], out: Path | None, check: bool) -> None:
    """Write payload classes from schemas: one module per catalog, one attrs class per task.

    Without CATALOG and --out, this package's own zodworker_compat.triggerdev.
    """
    from zodworker_compat import codegen as generator  # noqa: PLC0415 - start-up time

    if bool(catalogs) != bool(out):
        raise click.UsageError("Give both CATALOG and --out DIR, or neither.")
    directory = out or Path(generator.__file__).with_name("triggerdev")
    for each in _load_all(catalogs):
        if not check:
            for path in generator.write(each, directory):
                click.echo(f"Wrote {path}")
        elif not generator.is_current(each, directory):
            raise click.ClickException(
                f"The payload classes of {each.name} in {directory} are out of date: run "
                "`zodworker catalog codegen` with the same arguments, without --check."
            )
