"""`--app module:attribute` and `--catalog`: from a name to a worker or a catalog."""

import importlib
import sys
import traceback
from collections import ChainMap
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from zodworker_compat.catalog import WorkerCatalog
    from zodworker_compat.worker import ZodWorker


def load_worker(
    app: str,
    database_url: str | None = None,
    schema: str | None = None,
    concurrency: int | None = None,
    poll_interval: float | None = None,
    dead_after: float | None = None,
) -> "ZodWorker":
    """Import a worker; what is given replaces what its `runner_options` say.

    Modules are looked for in the current directory first, as `python -m` does.

    Raises:
        click.BadParameter: there is no such module or attribute, or it is not a worker.
        ConfigurationError: the module's own code fails.
    """
    worker = _find(app)
    changes: dict[str, Any] = {
        "connection_string": database_url,
        "schema": schema,
        "concurrency": concurrency,
        "poll_interval": None if poll_interval is None else timedelta(seconds=poll_interval),
        "dead_after": None if dead_after is None else timedelta(seconds=dead_after),
    }
    worker.configure(**{name: value for name, value in changes.items() if value is not None})
    return worker


def load_catalog(name: str | None) -> "WorkerCatalog":
    """Load a catalog by name or path; None is all of the package's own in one.

    Raises:
        CatalogError: there is none of that name, or it is wrong.
    """
    from zodworker_compat.catalog import WorkerCatalog, shipped  # noqa: PLC0415 - start-up time

    if name is not None:
        return WorkerCatalog.load(name)
    catalogs = [WorkerCatalog.load(each) for each in shipped()]
    return WorkerCatalog(
        " + ".join(catalog.name for catalog in catalogs),
        ChainMap(*(dict(catalog.tasks) for catalog in catalogs)),
        ChainMap(*(dict(catalog.recurring) for catalog in catalogs)),
    )


def _find(app: str) -> "ZodWorker":
    from zodworker_compat.errors import suggestion  # noqa: PLC0415 - start-up time
    from zodworker_compat.worker import ZodWorker  # noqa: PLC0415 - start-up time

    module_name, _, attribute = app.partition(":")
    if not module_name or not attribute:
        raise _wrong(f"{app!r} is not module:attribute, e.g. shop.jobs:worker.")
    module = _import(module_name)
    workers = [name for name, value in vars(module).items() if isinstance(value, ZodWorker)]
    try:
        found: Any = module
        for name in attribute.split("."):
            found = getattr(found, name)
    except AttributeError:
        hint = suggestion(attribute, workers) or " It holds no ZodWorker at all."
        raise _wrong(f"the module {module_name!r} has no {attribute!r}.{hint}") from None
    if not isinstance(found, ZodWorker):
        raise _wrong(
            f"{app} is of type {type(found).__name__}, not a ZodWorker.{suggestion('', workers)}"
        )
    return found


def _import(name: str) -> Any:
    from zodworker_compat.errors import ConfigurationError  # noqa: PLC0415 - start-up time

    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except Exception as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing and (name == missing or name.startswith(f"{missing}.")):
            raise _wrong(
                f"there is no module {name!r} (no {missing!r} in {here} or on PYTHONPATH)."
            ) from None
        reason = "".join(traceback.format_exception_only(error)).strip()
        if not isinstance(error, SyntaxError):  # says where itself
            place = traceback.extract_tb(error.__traceback__)[-1]
            reason = f"{reason} ({place.filename}, line {place.lineno})"
        raise ConfigurationError(f"The module {name!r} cannot be imported: {reason}") from error


def _wrong(message: str) -> click.BadParameter:
    return click.BadParameter(message, param_hint="--app")
