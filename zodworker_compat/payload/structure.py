"""Parsed JSON values as instances of attrs classes, by cattrs."""

import re
from collections.abc import Callable
from datetime import datetime
from functools import cache, reduce
from operator import or_
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin
from uuid import UUID

import attrs
from cattrs import Converter, transform_error
from cattrs.gen import make_dict_structure_fn, override
from cattrs.strategies import configure_union_passthrough

from zodworker_compat.errors import CatalogError, Problem
from zodworker_compat.payload.parse import parse_coerced_date
from zodworker_compat.payload.stringify import json_name
from zodworker_compat.payload.unset import Unset

Structure = Callable[[Any], Any]


def compile_structure(kind: Any) -> Structure | None:
    """Return the function that makes a `kind` of a parsed value; None if the value is one already.

    Args:
        kind: an attrs class, a union of attrs classes, or a container of them. Other types
            (dict, Any, TypedDict, ...) leave the parsed value as it is: the schema has judged it.

    Raises:
        CatalogError: cattrs cannot fill this type.
    """
    if not _holds_classes(kind):
        return None
    try:
        hook = _converter(detailed=False).get_structure_hook(kind)
    except Exception as error:
        raise CatalogError(f"the payload type {kind!r} cannot be filled: {error}") from error
    return lambda value: hook(value, kind)


def explain(kind: Any, value: Any, error: Exception) -> list[Problem]:
    """Say why a value that fits its schema does not fit its class."""
    try:
        _converter(detailed=True).structure(value, kind)
    except Exception as detailed:  # noqa: BLE001 - whatever cattrs or a converter raised is the answer
        return [_problem(line) for line in transform_error(detailed)]
    return [Problem("", f"does not fit {kind!r}: {error}")]


def _problem(line: str) -> Problem:
    message, _, path = line.rpartition(" @ ")
    pointer = re.sub(r"\.|\['?|'?\]", "/", path.removeprefix("$")).rstrip("/")
    return Problem(
        pointer.replace("//", "/"), f"{message} (the schema accepts it, the payload class does not)"
    )


def _holds_classes(kind: Any) -> bool:
    if attrs.has(get_origin(kind) or kind):
        return True
    return get_origin(kind) is not Literal and any(map(_holds_classes, get_args(kind)))


@cache
def _converter(*, detailed: bool) -> Converter:
    converter = Converter(detailed_validation=detailed)
    configure_union_passthrough(str | int | float | bool | None, converter)
    converter.register_structure_hook(int, lambda value, _: _whole(value))
    converter.register_structure_hook(float, lambda value, _: _real(value))
    converter.register_structure_hook(str, lambda value, _: _exactly(str, value))
    converter.register_structure_hook(bool, lambda value, _: _exactly(bool, value))
    converter.register_structure_hook(datetime, lambda value, _: _moment(value))
    converter.register_structure_hook(UUID, lambda value, _: UUID(value))
    converter.register_structure_hook_func(_is_free, lambda value, _: value)
    converter.register_structure_hook_factory(_may_be_unset, _set_hook(converter))
    converter.register_structure_hook_factory(attrs.has, _class_hook(converter, detailed=detailed))
    return converter


def _is_free(kind: Any) -> bool:
    """Whether only the schema says what is inside: JSON's containers, and unions of them."""
    if kind in {dict, list, dict[str, Any], list[Any]}:
        return True
    if get_origin(kind) not in {Union, UnionType}:
        return False
    members = get_args(kind)
    containers = [each for each in members if get_origin(each) in {dict, list} or _is_free(each)]
    return (
        bool(containers) and not _holds_classes(kind) and len(members) > 1 + (NoneType in members)
    )


def _may_be_unset(kind: Any) -> bool:
    return get_origin(kind) in {Union, UnionType} and Unset in get_args(kind)


def _set_hook(converter: Converter) -> Callable[[Any], Any]:
    """Structure `T | Unset` as `T`: a missing key is the default's business."""

    def make(kind: Any) -> Any:
        rest = reduce(or_, (each for each in get_args(kind) if each is not Unset))
        hook = converter.get_structure_hook(rest)
        return lambda value, _: hook(value, rest)

    return make


def _class_hook(converter: Converter, *, detailed: bool) -> Callable[[Any], Any]:
    def make(kind: Any) -> Any:
        fields = attrs.fields(attrs.resolve_types(get_origin(kind) or kind))
        renamed: dict[str, Any] = {
            field.name: override(rename=json_name(field))
            for field in fields
            if json_name(field) != field.name
        }
        return make_dict_structure_fn(
            kind, converter, _cattrs_detailed_validation=detailed, **renamed
        )

    return make


def _exactly(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise TypeError(f"expected {kind.__name__}, got {type(value).__name__}")
    return value


def _whole(value: Any) -> Any:
    whole = isinstance(value, float) and value.is_integer()
    return int(value) if whole else _exactly(int, value)


def _real(value: Any) -> Any:
    return float(value) if type(value) is int else _exactly(float, value)


def _moment(value: Any) -> Any:
    moment = value if isinstance(value, datetime) else parse_coerced_date(value)
    return _exactly(datetime, moment)
