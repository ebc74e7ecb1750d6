"""What a handler says about itself: the class that its payload parameter is annotated with."""

import inspect
from collections.abc import Callable
from dataclasses import is_dataclass
from types import UnionType
from typing import Any, Union, get_args, get_origin

import attrs

from zodworker_compat.errors import ConfigurationError


def payload_type_of(handler: Callable[..., Any]) -> Any | None:
    """Return the attrs class, or union of attrs classes, of a handler's first parameter.

    None if it is annotated with anything else, or not at all: then the handler gets the dict.

    Raises:
        ConfigurationError: the annotation cannot be resolved, or is a dataclass or pydantic model.
    """
    function = inspect.unwrap(getattr(handler, "func", handler))  # a partial's
    if not inspect.isroutine(function):
        function = type(function).__call__
    parameters = [
        parameter
        for parameter in inspect.signature(handler).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    annotation = parameters[0].annotation if parameters else None
    if isinstance(annotation, str):
        annotation = _resolved(annotation, function)
    if is_payload_type(annotation):
        return annotation
    if is_dataclass(annotation) or hasattr(annotation, "model_validate"):
        raise ConfigurationError(
            f"The handler {function.__qualname__} takes {annotation!r}, but payloads become "
            "attrs classes only: make it one (@attrs.frozen), or take a dict and convert it."
        )
    return None


def _resolved(annotation: str, function: Any) -> Any:
    try:
        return eval(annotation, getattr(function, "__globals__", {}))  # noqa: S307 - the module's own code
    except NameError as error:
        raise ConfigurationError(
            f"The handler {function.__qualname__} takes a payload of type {annotation!r}, which its module "
            f"does not define ({error}): import it there, or say @worker.task(..., payload_type=...)."
        ) from error


def is_payload_type(annotation: Any) -> bool:
    """Whether payloads can be structured into it: an attrs class or a union of attrs classes."""
    if get_origin(annotation) in (Union, UnionType):
        return all(is_payload_type(member) for member in get_args(annotation))
    return isinstance(annotation, type) and attrs.has(annotation)
