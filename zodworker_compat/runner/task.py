"""A task that can be run: how its payload is decoded and how its handler is called."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from attrs import field, frozen

from zodworker_compat.errors import ConfigurationError

MOST_ARGUMENTS: Final = 3


@frozen
class RunnableTask:
    """One task identifier, with what the runner needs to run its jobs."""

    identifier: str
    decode: Callable[[Any], Any]
    """The row's JSON value -> what the handler gets; raises PayloadValidationError."""
    handler: Callable[..., Any]
    """Async or sync; takes 1, 2 or 3 positional arguments: payload, job, helpers."""
    arity: int = field(init=False)
    is_async: bool = field(init=False)

    @arity.default
    def _arity(self) -> int:
        return positional_count(self.handler)

    @is_async.default
    def _is_async(self) -> bool:
        return is_async(self.handler)


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
    while isinstance(handler, partial):
        handler = handler.func
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(
        getattr(handler, "__call__", None)  # noqa: B004 - the method itself is wanted
    )
