"""`JSON.stringify` in Python: the text that ZodWorker would have stored for the same payload."""

import math
import re
from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from functools import cache
from json.encoder import encode_basestring as quote  # the C function where there is one
from typing import Any, Final
from uuid import UUID

import attrs

from zodworker_compat.errors import PayloadSerialisationError
from zodworker_compat.payload.formats import to_json_date
from zodworker_compat.payload.unset import UNSET

MAX_DEPTH: Final = 128
"""Deeper payloads are refused: what is enqueued must also be parsed, in a thousand Python frames."""


def stringify(payload: Any) -> str:
    """Return the text that `JSON.stringify(payload)` gives, in JavaScript's spelling.

    Mappings are objects (key order kept), lists and tuples arrays, aware datetimes
    `2024-01-02T03:04:05.678Z`, UUIDs strings, members of str and int enums their values, and
    attrs instances objects of their fields, without those that are `UNSET`, or None by default.
    Whole numbers are written exactly, also beyond 2**53.

    Raises:
        PayloadSerialisationError: JSON has no such value (NaN, Infinity, bytes, Decimal, sets,
            naive datetimes, ...), a key is not a string, or the payload contains itself or is
            nested more than 128 deep. Names the place by its JSON pointer.
    """
    return write(payload)[0]


def write(payload: Any) -> tuple[str, bool]:
    """Return the text of `stringify`, and whether `json.loads` makes of it what the payload is.

    It does if the payload is built of dicts, lists, strings, whole numbers, fractions, booleans and
    None, their subclasses excluded. Others may be read back as the same value, too.

    Raises:
        PayloadSerialisationError: as `stringify`.
    """
    odd: list[object] = []
    try:
        text = _write(payload, 0, odd)
    except _RefusedError as refused:
        raise PayloadSerialisationError(refused.pointer(), refused.problem) from None
    except RecursionError:
        raise PayloadSerialisationError("", "is nested too deeply, or contains itself") from None
    if text.isascii():
        return text, not odd
    escaped = _escape_surrogates(text)
    return escaped, not odd and escaped is text


class _RefusedError(Exception):
    """A value that JSON does not have; the callers add the way to it, innermost first."""

    def __init__(self, problem: str) -> None:
        self.problem = problem
        self.path: list[str | int] = []

    def pointer(self) -> str:
        return json_pointer(reversed(self.path))


def json_pointer(path: Any, longest: int = 20) -> str:
    """Return the JSON pointer (RFC 6901) of a path, cut short after `longest` steps."""
    steps = [str(step).replace("~", "~0").replace("/", "~1") for step in path]
    ending = "/…" if len(steps) > longest else ""
    return "".join(f"/{step}" for step in steps[:longest]) + ending


def _write(value: Any, depth: int, odd: list[object]) -> str:  # noqa: PLR0911 - the hot path: one line per kind of value
    """Write a value; what `json.loads` gives back as another is put into `odd`."""
    kind = type(value)
    if kind is str:
        return quote(value)
    if kind is dict:
        return _write_object(value, depth, odd)
    if value is None:
        return "null"
    if kind is bool:
        return "true" if value else "false"
    if kind is int:
        return _write_int(value)
    if kind is list:
        return _write_array(value, depth, odd)
    if kind is float and not value.is_integer():
        return number(value)
    odd.append(value)
    return _write_other(value, depth, odd)


def _write_object(value: Mapping[Any, Any], depth: int, odd: list[object]) -> str:
    if depth >= MAX_DEPTH:
        raise _RefusedError(f"is nested more than {MAX_DEPTH} deep, or contains itself")
    depth += 1
    key = None
    try:
        members = []
        for key, member in value.items():
            if type(key) is not str:
                _check_key(key)
                odd.append(key)
            text = quote(member) if type(member) is str else _write(member, depth, odd)
            members.append(f"{quote(key)}:{text}")
    except _RefusedError as refused:
        refused.path.append(str(key))
        raise
    return "{" + ",".join(members) + "}"


def _write_array(value: Any, depth: int, odd: list[object]) -> str:
    if depth >= MAX_DEPTH:
        raise _RefusedError(f"is nested more than {MAX_DEPTH} deep, or contains itself")
    depth += 1
    items: list[str] = []
    try:
        for item in value:
            items.append(_write(item, depth, odd))  # noqa: PERF401 - len(items) is the place of an error
    except _RefusedError as refused:
        refused.path.append(len(items))
        raise
    return "[" + ",".join(items) + "]"


def _check_key(key: object) -> None:
    if not isinstance(key, str):
        raise _RefusedError(
            f"the key {key!r:.60} is {a(type(key))}; JSON's keys are strings, use str(key)"
        )


def _write_int(value: int) -> str:
    try:
        return int.__repr__(value)
    except ValueError:
        raise _RefusedError("the whole number has more than 4300 digits") from None


def number(value: float) -> str:
    """Write a float as JavaScript prints it: the shortest digits, `1e21` but `0.000001`."""
    if not math.isfinite(value):
        raise _RefusedError(
            f"{value} is not a JSON number; JSON.stringify would have stored null, send None"
        )
    text = float.__repr__(value)
    if text.endswith(".0"):
        return "0" if value == 0 else text[:-2]
    if "e" not in text and not text.startswith(("0.0000", "-0.0000")):
        return text
    return _respell(text)


def _respell(text: str) -> str:
    """Turn Python's spelling of a very large or small number into JavaScript's."""
    mantissa, _, exponent = text.removeprefix("-").partition("e")
    sign = "-" if text.startswith("-") else ""
    whole, _, fraction = mantissa.partition(".")
    digits, power = whole + fraction, int(exponent) + len(whole)  # 0.digits * 10**power
    if len(digits) <= power <= 21:  # noqa: PLR2004
        return sign + digits.ljust(power, "0")
    if -6 < power <= 0:  # noqa: PLR2004
        return f"{sign}0.{'0' * -power}{digits}"
    point = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{sign}{digits[0]}{point}e{power - 1:+d}"


def _write_other(value: Any, depth: int, odd: list[object]) -> str:  # noqa: PLR0911 - as above, for the rarer kinds
    if isinstance(value, Enum) and not isinstance(value, str | int):
        raise _RefusedError(f"is {value!r:.60}; send its value")
    if isinstance(value, str):
        return quote(value)
    if isinstance(value, int):
        return _write_int(value)
    if isinstance(value, float):
        return number(value)
    if isinstance(value, datetime):
        return _write_date(value)
    if isinstance(value, UUID):
        return f'"{value}"'
    if isinstance(value, Mapping):
        return _write_object(value, depth, odd)
    if isinstance(value, list | tuple):
        return _write_array(value, depth, odd)
    if attrs.has(type(value)):
        return _write_object(unstructured(value), depth, odd)
    raise _RefusedError(_advice(value))


def _write_date(value: datetime) -> str:
    try:
        return f'"{to_json_date(value)}"'
    except ValueError:
        raise _RefusedError(
            f"{value!r} has no time zone; use datetime.now(UTC) or .astimezone()"
        ) from None
    except OverflowError:
        raise _RefusedError(f"{value!r} is outside the years 1 to 9999 in UTC") from None


def unstructured(instance: Any) -> dict[str, Any]:
    """Return the fields of an attrs instance under their JSON names, without the unset ones."""
    members = {}
    for name, key, optional in _members(type(instance)):  # type: ignore[arg-type] # cache's Hashable
        value = getattr(instance, name)
        if value is not UNSET and not (optional and value is None):
            members[key] = value
    return members


@cache
def _members(kind: Any) -> list[tuple[str, str, bool]]:
    return [
        (field.name, json_name(field), field.default is None)
        for field in attrs.fields(attrs.resolve_types(kind))
    ]


def json_name(field: "attrs.Attribute[Any]") -> str:
    """Return the key of a field: its own name, or `metadata={"json": name}`."""
    return str(field.metadata.get("json", field.name))


_ADVICE: Final[Mapping[str, str]] = {
    "date": "send .isoformat(), or an aware datetime",
    "time": "send .isoformat()",
    "timedelta": "send .total_seconds()",
    "Decimal": "send str(value) or float(value)",
    "bytes": "send base64 or a string",
    "bytearray": "send base64 or a string",
    "memoryview": "send base64 or a string",
    "set": "send sorted(value) or list(value)",
    "frozenset": "send sorted(value) or list(value)",
    "Unset": "UNSET only stands for a missing field of a payload class",
}


def _advice(value: object) -> str:
    kind = type(value).__name__
    return f"is {a(type(value))}; {_ADVICE.get(kind, 'send a mapping of JSON values')}"


def a(kind: type) -> str:
    """Return a type's name with its article."""
    return f"{'an' if kind.__name__[0].lower() in 'aeiou' else 'a'} {kind.__name__}"


_SURROGATES = re.compile("[\ud800-\udbff][\udc00-\udfff]|[\ud800-\udfff]")


def _escape_surrogates(text: str) -> str:
    """Join surrogate pairs and escape lone surrogates, as a well-formed JSON.stringify does."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return _SURROGATES.sub(_well_formed, text)
    return text


def _well_formed(match: re.Match[str]) -> str:
    found = match[0]
    if len(found) == 1:
        return f"\\u{ord(found):04x}"
    return found.encode("utf-16", "surrogatepass").decode("utf-16")
