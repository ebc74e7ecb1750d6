"""A task that can be run: how its payload is decoded, how its handler is called and limited."""

import inspect
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial
from typing import Any, Final

from attrs import Attribute, field, fields, frozen

from zodworker_compat.errors import ConfigurationError
from zodworker_compat.runner.retry import Retry
from zodworker_compat.runner_options import as_timedelta

MOST_ARGUMENTS: Final = 3


def _seconds(value: timedelta | float | None) -> timedelta | None:
    return None if value is None else as_timedelta(value)


def _positive(_instance: object, attribute: "Attribute[Any]", value: Any) -> None:
    zero = timedelta(0) if isinstance(value, timedelta) else 0
    if value is not None and value <= zero:
        raise ConfigurationError(
            f"{attribute.name} of a task must be greater than zero, got {value!r}"
        )


def _callable(_instance: object, _attribute: object, value: Any) -> None:
    if value is not None and not callable(value):
        raise ConfigurationError(
            f"retry of a task must be a function of (job, exception), got {value!r}"
        )


@frozen(kw_only=True)
class RunOptions:
    """How the jobs of one task are run in this process; nothing of it is in the database."""

    timeout: timedelta | None = field(default=None, converter=_seconds, validator=_positive)
    """How long one run may take; a bare number is seconds. None: for ever.

    A run that takes longer fails with a TimeoutError. An async handler is cancelled, and
    again every 5 s while it goes on; it fails even if it swallows that, but not before it ends. A sync one cannot be stopped: its job
    fails at the deadline, so it may start again elsewhere while the thread goes on, and what the
    thread does after that changes nothing of the job. The handler should look at
    `helpers.abort_signal`, which is set then; its slot stays taken until it returns."""
    retry: Retry | None = field(default=None, validator=_callable)
    """(job, exception) -> delay until the next attempt, None for graphile-worker's. See `Retry`."""
    concurrency: int | None = field(default=None, validator=_positive)
    """How many jobs of the task this process holds at a time, those that wait in its local queue
    included. None: as many as there are slots. For one at a time in all processes, use a queue."""


@frozen
class RunnableTask:
    """One task identifier, with what the runner needs to run its jobs."""

    identifier: str
    decode: Callable[[Any], Any]
    """The row's JSON value -> what the handler gets; raises PayloadValidationError."""
    handler: Callable[..., Any]
    """Async or sync; takes 1, 2 or 3 positional arguments: payload, job, helpers."""
    options: RunOptions = RunOptions()
    keep_failed: bool = False
    """Its failed jobs are kept even with `delete_failed_jobs`, as those of recurring tasks (P-45)."""
    is_limited: bool = True
    """It goes through the rate limiter, as the tasks of a catalog do, and recurring ones do not (P-53)."""
    arity: int = field(init=False)
    is_async: bool = field(init=False)

    @arity.default
    def _arity(self) -> int:
        return positional_count(self.handler)

    @is_async.default
    def _is_async(self) -> bool:
        return is_async(self.handler)


def without_run_options(
    tasks: Mapping[str, Any],
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Take `timeout`, `retry` and `concurrency`, which are not the catalog's, out of literal tasks."""
    names = [attribute.name for attribute in fields(RunOptions)]
    own, run_options = {}, {}
    for identifier, given in tasks.items():
        if isinstance(given, Mapping):
            run_options[identifier] = {name: given[name] for name in names if name in given}
            given = {name: value for name, value in given.items() if name not in names}  # noqa: PLW2901
        own[identifier] = given
    return own, run_options


def check_handler(identifier: str, handler: Any) -> None:
    """Refuse what cannot be called as a handler, and name its task.

    Raises:
        ConfigurationError: see `positional_count`, or it is not callable at all.
    """
    if not callable(handler):
        raise ConfigurationError(f"Task {identifier!r}: {handler!r} is no function.")
    if is_generator(handler):
        raise ConfigurationError(
            f"Task {identifier!r}: {handler!r} is a generator: a job would end before its body runs. "
            "A handler has no yield."
        )
    try:
        positional_count(handler)
    except ConfigurationError as error:
        raise ConfigurationError(f"Task {identifier!r}: {error}") from None


def positional_count(handler: Callable[..., Any]) -> int:
    """Return how many of (payload, job, helpers) a handler takes.

    Arguments with defaults count, as they do when a callback is given more; `*args` takes all.

    Raises:
        ConfigurationError: it takes none, or needs more than three or a keyword.
    """
    try:
        parameters = inspect.signature(handler).parameters.values()
    except (TypeError, ValueError):  # a builtin without a signature
        return 1
    positional = [p for p in parameters if p.kind in {p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD}]
    required = [p for p in positional if p.default is p.empty]
    keywords = [p for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    takes_all = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    if not (positional or takes_all) or len(required) > MOST_ARGUMENTS or keywords:
        raise ConfigurationError(
            f"The handler {handler!r} must take 1 to 3 positional arguments "
            f"(payload, job, helpers); its signature is {inspect.signature(handler)}."
        )
    return MOST_ARGUMENTS if takes_all else min(len(positional), MOST_ARGUMENTS)


def is_async(handler: Callable[..., Any]) -> bool:
    """Whether calling `handler` gives a coroutine: functions, methods, partials, objects."""
    return any(map(inspect.iscoroutinefunction, _functions(handler)))


def is_generator(handler: Callable[..., Any]) -> bool:
    """Whether calling `handler` gives a generator, sync or async, of whose body nothing has run."""
    found = _functions(handler)
    return any(map(inspect.isgeneratorfunction, found)) or any(
        map(inspect.isasyncgenfunction, found)
    )


def _functions(handler: Callable[..., Any]) -> tuple[Any, Any]:
    while isinstance(handler, partial):
        handler = handler.func
    return handler, getattr(handler, "__call__", None)  # noqa: B004 - the method itself is wanted
