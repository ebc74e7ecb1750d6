"""The tasks of a worker: identifiers with their schemas and default options, from files or code."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from attrs import define, field, frozen

from zodworker_compat import resources
from zodworker_compat.errors import (
    CatalogError,
    OptionError,
    UnknownTaskError,
    shown,
    suggestion,
)
from zodworker_compat.options import TaskOptions, check_text
from zodworker_compat.payload import PayloadCodec
from zodworker_compat.payload.codec import fast_validator, reference_validator
from zodworker_compat.payload.keywords import misspelt
from zodworker_compat.payload.problems import find_problems
from zodworker_compat.payload.stringify import json_pointer

MAX_IDENTIFIER: Final = 128
_OPTIONS: Final = {
    "maxAttempts": "max_attempts",
    "jobKey": "job_key",
    "jobKeyMode": "job_key_mode",
    "priority": "priority",
    "flags": "flags",
    "queueName": "queue_name",
}


@frozen
class Task:
    """One task of a catalog."""

    identifier: str
    codec: PayloadCodec
    options: TaskOptions


@frozen
class RecurringTask:
    """A task that cron enqueues; its payload is graphile-worker's `{"_cron": {...}}`."""

    identifier: str
    match: str
    """The five fields of a crontab line, UTC."""
    options: Mapping[str, Any]
    """graphile-worker's cron item options, in its words; `backfillPeriod` is milliseconds."""


@frozen
class _Source:
    """Where a task's schema is: in a file, or here."""

    schema: Any
    file: Path | None = None
    folders: tuple[Path, ...] = ()


@define(eq=False)
class _LazyTasks(Mapping[str, Task]):
    """Reads and compiles the schema of a task when the task is first asked for."""

    _sources: Mapping[str, _Source]
    _options: Mapping[str, TaskOptions]
    _made: dict[str, Task] = field(factory=dict)

    def __getitem__(self, identifier: str) -> Task:
        if identifier not in self._made:
            codec = _compile(identifier, self._sources[identifier])
            self._made[identifier] = Task(identifier, codec, self._options[identifier])
        return self._made[identifier]

    def __contains__(self, identifier: object) -> bool:
        return identifier in self._sources

    def __iter__(self) -> Iterator[str]:
        return iter(self._sources)

    def __len__(self) -> int:
        return len(self._sources)

    def check(self) -> list[CatalogError]:
        """Return what is wrong with the schemas, one error per task at most."""
        errors = []
        for identifier, source in self._sources.items():
            try:
                _check_schema(identifier, source)
                _compile(identifier, source)
            except CatalogError as error:
                errors.append(error)
        return errors


@frozen(eq=False)
class WorkerCatalog:
    """The tasks and recurring tasks of one worker; made by `load` or `of`.

    Iterates over the identifiers of its tasks; recurring identifiers are not among them, as
    they cannot be enqueued (P-15).
    """

    name: str
    tasks: Mapping[str, Task]
    recurring: Mapping[str, RecurringTask] = MappingProxyType({})
    handlers: Mapping[str, Callable[..., Any]] = MappingProxyType({})
    """The functions given to `of` with their tasks."""

    @classmethod
    def load(cls, name_or_path: str | Path) -> "WorkerCatalog":
        """Read a catalog file; a schema is read when its task is first used.

        Args:
            name_or_path: "workerQueue", "executionWorker" or "taskOperationWorker", or the path
                of your own file (anything with a slash or `.json`). Paths of schemas in it are
                relative to it, and lead to its own folder (and below) or to a folder `schemas`
                beside that; a `$ref` in a schema file is relative to the schema file.

        Raises:
            CatalogError: no such catalog, or the file is not one: names the place.
        """
        return _load(_find(name_or_path))

    @classmethod
    def of(
        cls,
        *,
        schema: Mapping[str, Any],
        tasks: Mapping[str, TaskOptions | Mapping[str, Any]],
        name: str = "catalog",
    ) -> "WorkerCatalog":
        """Make a catalog in code, as ZodWorker's `schema` and `tasks`.

        Args:
            schema: a JSON Schema per identifier; True or None accepts anything.
            tasks: the options per identifier, in Python's or TypeScript's spelling
                (`max_attempts` or `maxAttempts`), with the `handler` among them or without it.
            name: for error messages.

        Raises:
            CatalogError: an unknown option, a bad value, a bad schema, a task without a schema or a
                schema without a task.
        """
        return _of(schema, tasks, name)

    def get(self, identifier: str) -> Task:
        """Return a task.

        Raises:
            UnknownTaskError: there is none of that identifier; says so if it is a recurring one.
            CatalogError: its schema cannot be used.
        """
        if identifier in self.tasks:
            return self.tasks[identifier]
        if identifier in self.recurring:
            raise recurring_not_enqueued(identifier, self.name)
        raise UnknownTaskError(identifier, list(self.tasks), self.name)

    def check(self) -> None:
        """Check every schema of the catalog: draft 2020-12, references that lead somewhere.

        Raises:
            CatalogError: names each file, identifier and JSON pointer.
        """
        errors = self.tasks.check() if isinstance(self.tasks, _LazyTasks) else []
        if len(errors) == 1:
            raise errors[0]
        if errors:
            lines = "".join(f"\n  {error}" for error in errors)
            raise CatalogError(f"{len(errors)} tasks of catalog {self.name!r} are wrong:{lines}")

    def __contains__(self, identifier: object) -> bool:
        return identifier in self.tasks

    def __iter__(self) -> Iterator[str]:
        return iter(self.tasks)

    def __len__(self) -> int:
        return len(self.tasks)


def recurring_not_enqueued(identifier: str, catalog: str) -> UnknownTaskError:
    """Return the error about a recurring task that somebody wants to enqueue (P-15)."""
    error = UnknownTaskError(identifier, [], catalog)
    problem = f"{identifier!r} is a recurring task of catalog {catalog!r}"
    error.args = (f"{problem}: its crontab enqueues it, and it cannot be enqueued by hand.",)
    return error


def shipped() -> list[str]:
    """Return the names of the catalogs that come with the package: trigger.dev's workers."""
    return sorted(path.stem for path in resources.folder("catalog").glob("*.json"))


@cache
def recurring_codec(identifier: str) -> PayloadCodec:
    """Return the codec of what cron stores as the payload of a recurring task."""
    file = resources.folder("schemas") / "shared" / "recurring.json"
    return _compile(identifier, _Source(None, file, (file.parent.parent,)))


def _find(name_or_path: str | Path) -> Path:
    if isinstance(name_or_path, str) and not re.search(r"[/\\]|\.json$", name_or_path):
        if name_or_path not in shipped():
            raise CatalogError(
                f"there is no catalog {name_or_path!r}; shipped are {', '.join(shipped())}."
                f"{suggestion(name_or_path, shipped())} For a file of yours, give its path."
            )
        return resources.folder("catalog") / f"{name_or_path}.json"
    return _path(Path(name_or_path), CatalogError)


def _path(path: Path, error: Callable[..., CatalogError]) -> Path:
    try:
        return path.resolve()
    except (OSError, ValueError, RuntimeError) as problem:  # NUL, a lone surrogate, a ring of links
        raise error(f"there is no such path as {shown(str(path))}: {problem}") from None


def _load(file: Path) -> WorkerCatalog:
    content = _read_json(file)
    _check_catalog(file, content)
    folders = (file.parent, file.parent.parent / "schemas")
    sources, options = {}, {}
    for identifier, entry in content["tasks"].items():
        error = partial(CatalogError, file=str(file), identifier=identifier)
        _check_identifier(identifier, error)
        options[identifier] = _task_options(
            {name: value for name, value in entry.items() if name in _OPTIONS}, error
        )
        schema = entry["schema"]
        if isinstance(schema, str):
            sources[identifier] = _Source(None, _path(file.parent / schema, error), folders)
        else:
            sources[identifier] = _Source(schema)
    recurring = {
        identifier: RecurringTask(identifier, entry["match"], entry.get("options", {}))
        for identifier, entry in content.get("recurring", {}).items()
    }
    if both := sorted(recurring.keys() & sources.keys()):
        raise CatalogError(
            "is both a task and a recurring task; rename one", file=str(file), identifier=both[0]
        )
    return WorkerCatalog(content.get("name", file.stem), _LazyTasks(sources, options), recurring)


def _of(
    schema: Mapping[str, Any],
    tasks: Mapping[str, TaskOptions | Mapping[str, Any]],
    name: str,
) -> WorkerCatalog:
    for word, given in (("schema", schema), ("tasks", tasks)):
        if not isinstance(given, Mapping):
            raise CatalogError(
                f"{word} must be a mapping by identifier, got {shown(given)}",
                file=f"catalog {name!r}",
            )
    sources, options, handlers = {}, {}, {}
    for identifier in [*schema, *(each for each in tasks if each not in schema)]:
        error = partial(CatalogError, file=f"catalog {name!r}", identifier=identifier)
        _check_identifier(identifier, error)
        if identifier not in tasks:
            raise error(f"has a schema but no task.{suggestion(identifier, tasks)}")
        if identifier not in schema:
            raise error(f"has no schema; True accepts any payload.{suggestion(identifier, schema)}")
        own = tasks[identifier]
        if isinstance(own, Mapping):
            handler = own.get("handler")
            if callable(handler):
                handlers[identifier] = handler
            elif handler is not None:
                raise error(f"the handler must be a function, got {handler!r:.60}")
            own = {key: value for key, value in own.items() if key != "handler"}
            own = _task_options(own, error)
        elif not isinstance(own, TaskOptions):
            raise error(f"expected the task's options, got {shown(own)}")
        sources[identifier] = _Source(True if schema[identifier] is None else schema[identifier])
        options[identifier] = own
        _check_schema(identifier, sources[identifier])
    return WorkerCatalog(name, _LazyTasks(sources, options), handlers=handlers)


def _check_identifier(identifier: object, error: Callable[..., CatalogError]) -> None:
    if not isinstance(identifier, str) or not 0 < len(identifier) <= MAX_IDENTIFIER:
        raise error(f"an identifier has 1 to {MAX_IDENTIFIER} characters, got {shown(identifier)}")
    try:
        check_text("an identifier", identifier)
    except OptionError as problem:
        raise error(str(problem)) from None


def _task_options(given: Mapping[str, Any], error: Callable[..., CatalogError]) -> TaskOptions:
    words = {**_OPTIONS, **{word: word for word in _OPTIONS.values()}}
    named: dict[str, Any] = {}
    for word, value in given.items():
        if word not in words:
            raise error(f"unknown option {word!r}.{suggestion(word, words)}", pointer=f"/{word}")
        if words[word] in named:
            raise error(f"{words[word]} is given twice, once in each spelling", pointer=f"/{word}")
        named[words[word]] = value
    try:
        return TaskOptions(**named)
    except OptionError as problem:
        raise error(str(problem)) from None


def _compile(identifier: str, source: _Source) -> PayloadCodec:
    def resolve(uri: str) -> Any:
        parts = urlsplit(uri)
        if parts.scheme != "file" or source.file is None:
            raise CatalogError(f"{uri} is not a file beside the schema")
        return _read_inside(source.folders, Path(unquote(parts.path)), None)

    schema = _schema(identifier, source)
    base_uri = source.file.as_uri() if source.file else ""
    place = {"file": str(source.file) if source.file else None, "identifier": identifier}
    try:
        return PayloadCodec.compile(identifier, schema, resolve=resolve, base_uri=base_uri)
    except CatalogError as error:
        problem = str(error).removeprefix(f"{error.pointer}: ")
        raise CatalogError(problem, **place, pointer=error.pointer) from None
    except Exception as error:
        raise CatalogError(
            f"the schema cannot be compiled: {error}; is it a draft 2020-12 schema?", **place
        ) from error


def _schema(identifier: str, source: _Source) -> Any:
    if source.file is None:
        return source.schema
    return _read_inside(source.folders, source.file, identifier)


def _check_schema(identifier: str, source: _Source) -> None:
    schema = _schema(identifier, source)
    file = str(source.file) if source.file else None
    if not isinstance(schema, dict | bool):
        raise CatalogError(
            f"expected a JSON Schema (a mapping, or True), got {schema!r:.60}",
            file=file,
            identifier=identifier,
        )
    from jsonschema import Draft202012Validator  # noqa: PLC0415 - start-up time
    from jsonschema.exceptions import SchemaError  # noqa: PLC0415 - start-up time

    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise CatalogError(
            f"is not a draft 2020-12 schema: {error.message:.200}",
            file=file,
            identifier=identifier,
            pointer=json_pointer(error.absolute_path),
        ) from None
    except RecursionError:
        raise CatalogError(
            "the schema is nested too deeply", file=file, identifier=identifier
        ) from None
    for problem in misspelt(schema):
        raise CatalogError(
            problem.message, file=file, identifier=identifier, pointer=problem.pointer
        )


@cache
def _catalog_schema() -> Any:
    return _read_json(resources.folder("schemas") / "catalog.schema.json")


@cache
def _is_catalog() -> Callable[[Any], bool]:
    return fast_validator(_catalog_schema())


def _check_catalog(file: Path, content: Any) -> None:
    if _is_catalog()(content):
        return
    problems = find_problems(reference_validator(_catalog_schema()), content)
    if len(problems) == 1:
        where = re.match("/(?:tasks|recurring)/([^/]+)", problems[0].pointer)
        raise CatalogError(
            problems[0].message,
            file=str(file),
            identifier=where and where[1].replace("~1", "/").replace("~0", "~"),
            pointer=problems[0].pointer,
        )
    if problems:
        lines = "".join(f"\n  {problem}" for problem in problems)
        raise CatalogError(f"is not a catalog:{lines}", file=str(file))


def _read_inside(folders: tuple[Path, ...], file: Path, identifier: str | None) -> Any:
    """Read a schema file, if it lies where schemas may lie, also after links are followed."""
    if not any(file.resolve().is_relative_to(folder.resolve()) for folder in folders):
        raise CatalogError(
            f"the schema {file} lies outside {' and '.join(map(str, folders))}",
            identifier=identifier,
        )
    return _read_json(file, identifier)


def _read_json(file: Path, identifier: str | None = None) -> Any:
    error = partial(CatalogError, file=str(file), identifier=identifier)
    try:
        return json.loads(file.read_text("utf-8"), object_pairs_hook=_without_duplicates)
    except OSError as problem:
        raise error(f"cannot be read: {problem.strerror}") from None
    except json.JSONDecodeError as problem:
        raise error(
            f"is not JSON: {problem.msg} in line {problem.lineno}, column {problem.colno}"
        ) from None
    except UnicodeDecodeError as problem:
        raise error(f"is not UTF-8: {problem.reason} at byte {problem.start}") from None
    except _DuplicateKeyError as problem:
        raise error(f"holds the key {problem} twice in one object; remove one") from None
    except RecursionError:
        raise error("is nested too deeply") from None
    except ValueError as problem:  # a whole number of thousands of digits
        raise error(f"cannot be read: {problem}") from None


class _DuplicateKeyError(Exception):
    """An object of a JSON file names a key twice."""


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        names = [name for name, _ in pairs]
        raise _DuplicateKeyError(repr(next(name for name in names if names.count(name) > 1)))
    return members
