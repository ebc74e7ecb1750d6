"""What zod's `parse` makes of a valid JSON value: stripped, with defaults, dates as datetimes.

A schema is compiled once into closures; `None` stands for "leave the value as it is".
"""

import re
from collections.abc import Callable, Mapping
from copy import deepcopy
from datetime import datetime
from typing import Any, Final

from zodworker_compat.payload.formats import from_milliseconds, parse_date

Parse = Callable[[Any], Any]
IsValid = Callable[[Any], bool]
CompileValidator = Callable[[Any], IsValid]

_SCALARS: Final = frozenset({"string", "number", "integer", "boolean", "null"})


def compile_parse(schema: Any, validator: CompileValidator) -> Parse | None:
    """Compile a bundled schema into zod's `parse`, for values that are valid already.

    - Objects with `properties` lose the keys that the schema does not name, unless
      `additionalProperties` (a record's values) or `patternProperties` speak of them;
    - `default` fills in a missing property;
    - `x-zod: coerce.date` and `x-zod: date` become aware datetimes in UTC. The original accepts
      a plain `date` never, as JSON has none (P-47); here its ISO string is a kindness;
    - `x-zod-preprocess: addMissingVersionField` adds `version: "1"` (P-48);
    - of `anyOf` and `oneOf` the branch that `x-zod-discriminator` names, else the first that the
      value is valid for, is applied;
    - a schema without any of these leaves its value untouched, whatever it holds.

    Args:
        schema: a schema whose references are all `#/$defs/...`, see `bundle`.
        validator: compiles a subschema into "is it valid".
    """
    return _Compiler(
        schema.get("$defs", {}) if isinstance(schema, dict) else {}, validator
    ).compile(schema)


def _keep(value: Any) -> Any:
    """Leave a record as it is, and say so: beside it in an `allOf`, nothing is stripped."""
    return value


class _Compiler:
    def __init__(self, definitions: Mapping[str, Any], validator: CompileValidator) -> None:
        self._definitions = definitions
        self._validator = validator
        self._compiled: dict[str, Parse | None] = {}
        self._compiling: set[str] = set()

    def compile(self, schema: Any) -> Parse | None:
        if not isinstance(schema, dict):
            return None
        if schema.get("x-zod") in {"coerce.date", "date"}:
            return parse_coerced_date
        if isinstance(schema.get("type"), str) and schema["type"] in _SCALARS:
            return None
        parts = [
            part
            for part in (
                self._object(schema),
                self._array(schema),
                self._reference(schema.get("$ref")),
                *(self.compile(each) for each in schema.get("allOf", ())),
                self._union(schema, "oneOf"),
                self._union(schema, "anyOf"),
            )
            if part is not None
        ]
        return _preprocess(schema, _merge(parts))

    def _reference(self, ref: str | None) -> Parse | None:
        if ref is None:
            return None
        name = ref.removeprefix("#/$defs/")
        if name in self._compiling:  # recursive: look it up when it runs

            def again(value: Any) -> Any:
                parse = self._compiled[name]
                return value if parse is None else parse(value)

            return again
        if name not in self._compiled:
            self._compiling.add(name)
            self._compiled[name] = self.compile(self._definitions[name])
            self._compiling.discard(name)
        return self._compiled[name]

    def _object(self, schema: Mapping[str, Any]) -> Parse | None:
        properties = schema.get("properties")
        additional = schema.get("additionalProperties")
        patterns = schema.get("patternProperties", {})
        if not (properties or patterns or isinstance(additional, dict) or additional is True):
            return None
        known = {name: self.compile(each) for name, each in (properties or {}).items()}
        defaults = {
            name: each["default"]
            for name, each in (properties or {}).items()
            if isinstance(each, dict) and "default" in each
        }
        if patterns or isinstance(additional, dict) or additional is True:
            extra = None if additional is None else self.compile(additional) or _keep
            matching = [(re.compile(p), self.compile(s) or _keep) for p, s in patterns.items()]
            if not (known or matching) and extra is _keep:
                return _keep
            return _record(known, defaults, matching, extra)
        if any(known.values()) or defaults:
            return _object(known, defaults)
        return _plain_object(tuple(known))

    def _array(self, schema: Mapping[str, Any]) -> Parse | None:
        first = [self.compile(each) for each in schema.get("prefixItems", ())]
        rest = self.compile(schema.get("items"))
        if rest is None and not any(first):
            return None
        return _array(first, rest)

    def _union(self, schema: Mapping[str, Any], word: str) -> Parse | None:
        branches = schema.get(word, ())
        parses = [self.compile(branch) for branch in branches]
        if not any(parses):
            return None
        if by_tag := discriminated(schema, branches):
            tag = schema["x-zod-discriminator"]
            return _tagged(tag, {value: parses[index] or _keep for value, index in by_tag.items()})
        checks = [self._validator({**b, "$defs": self._definitions}) for b in branches]
        return _first(list(zip(checks, (parse or _keep for parse in parses), strict=True)))


def discriminated(schema: Mapping[str, Any], branches: Any) -> dict[Any, int]:
    """Return the index of the branch for each value of the discriminator; empty if there is none."""
    tag = schema.get("x-zod-discriminator")
    by_tag: dict[Any, int] = {}
    for index, branch in enumerate(branches):
        member = branch.get("properties", {}).get(tag, {}) if isinstance(branch, dict) else {}
        for value in member.get("enum", [member["const"]] if "const" in member else []):
            by_tag[value] = index
    return by_tag if len(set(by_tag.values())) == len(branches) else {}


def parse_coerced_date(value: Any) -> datetime | None:
    """Return the moment that a date string or a number of milliseconds stands for."""
    return parse_date(value) if isinstance(value, str) else from_milliseconds(value)


def _plain_object(names: tuple[str, ...]) -> Parse:
    def parse(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {name: value[name] for name in names if name in value}

    return parse


def _object(known: Mapping[str, Parse | None], defaults: Mapping[str, Any]) -> Parse:
    members = tuple(known.items())

    def parse(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        parsed = {}
        for name, inner in members:
            if name in value:
                member = value[name]
                parsed[name] = member if inner is None else inner(member)
            elif name in defaults:
                parsed[name] = deepcopy(defaults[name])
        return parsed

    return parse


def _record(
    known: Mapping[str, Parse | None],
    defaults: Mapping[str, Any],
    patterns: list[tuple[re.Pattern[str], Parse]],
    extra: Parse | None,
) -> Parse:
    strict = _object(known, defaults)

    def parse(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        parsed = strict(value)
        for name, member in value.items():
            if name in known:
                continue
            inner = next((parse for pattern, parse in patterns if pattern.search(name)), extra)
            if inner is not None:
                parsed[name] = inner(member)
        return parsed

    return parse


def _array(first: list[Parse | None], rest: Parse | None) -> Parse:
    def parse(value: Any) -> Any:
        if not isinstance(value, list):
            return value
        parsed = []
        for index, item in enumerate(value):
            inner = first[index] if index < len(first) else rest
            parsed.append(item if inner is None else inner(item))
        return parsed

    return parse


def _tagged(tag: str, branches: Mapping[Any, Parse]) -> Parse:
    default = next(iter(branches.values()))

    def parse(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        # only a branch that does not require the discriminator is valid without it
        return branches.get(value.get(tag), default)(value)

    return parse


def _first(branches: list[tuple[IsValid, Parse]]) -> Parse:
    def parse(value: Any) -> Any:
        for is_valid, inner in branches:
            if is_valid(value):
                return inner(value)
        return value

    return parse


def _merge(parts: list[Parse]) -> Parse | None:
    """Join what parts of one schema make of an object, as zod's intersections do."""
    if len(parts) <= 1:
        return parts[0] if parts else None

    def parse(value: Any) -> Any:
        results = [part(value) for part in parts]
        if not all(isinstance(result, dict) for result in results):
            return next((result for result in results if result is not value), value)
        merged: dict[str, Any] = {}
        for result in results:
            merged |= result
        return merged

    return parse


def _preprocess(schema: Mapping[str, Any], inner: Parse | None) -> Parse | None:
    if schema.get("x-zod-preprocess") != "addMissingVersionField":
        return inner

    def parse(value: Any) -> Any:
        if isinstance(value, dict) and "version" not in value:
            value = {**value, "version": "1"}
        return value if inner is None else inner(value)

    return parse
