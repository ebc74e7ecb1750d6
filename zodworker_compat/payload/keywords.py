"""Misspelt keywords of a schema, which JSON Schema accepts in silence: they validate nothing."""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any, Final

from zodworker_compat.errors import Problem

_SUBSCHEMAS: Final = frozenset(
    {"items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames"}
    | {"unevaluatedItems", "unevaluatedProperties", "contentSchema"}
)
_LISTS: Final = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_MAPS: Final = frozenset({"properties", "patternProperties", "$defs", "dependentSchemas"})
_OTHERS: Final = frozenset(
    {"type", "enum", "const", "multipleOf", "maximum", "exclusiveMaximum", "minimum"}
    | {"exclusiveMinimum", "maxLength", "minLength", "pattern", "maxItems", "minItems"}
    | {"uniqueItems", "maxContains", "minContains", "maxProperties", "minProperties", "required"}
    | {"dependentRequired", "format", "title", "description", "default", "examples", "deprecated"}
    | {"readOnly", "writeOnly", "contentEncoding", "contentMediaType"}
    | {"$schema", "$id", "$ref", "$anchor", "$comment", "$vocabulary", "$dynamicRef"}
    | {"$dynamicAnchor", "definitions", "dependencies"}
)
_KNOWN: Final = _SUBSCHEMAS | _LISTS | _MAPS | _OTHERS
ZOD: Final[Mapping[str, frozenset[str]]] = {
    "x-zod": frozenset({"coerce.date", "date"}),
    "x-zod-preprocess": frozenset({"addMissingVersionField"}),
}
"""Our own keywords that have a fixed set of values."""


def misspelt(schema: Any, pointer: str = "") -> Iterator[Problem]:
    """Yield the keywords that are nearly a known one, and the values of ours that mean nothing.

    Other unknown keywords are somebody's own vocabulary, and are accepted.
    """
    if not isinstance(schema, Mapping):
        return
    for word, value in schema.items():
        place = f"{pointer}/{word}"
        if word in ZOD and str(value) not in ZOD[word]:
            yield Problem(place, f"{value!r} is not one of {', '.join(sorted(ZOD[word]))}")
        elif word not in _KNOWN and (near := get_close_matches(word, _KNOWN, n=1, cutoff=0.75)):
            yield Problem(place, f"is no keyword of JSON Schema; did you mean {near[0]!r}?")
        elif word in _SUBSCHEMAS:
            yield from misspelt(value, place)
        elif word in _LISTS and isinstance(value, list):
            for index, each in enumerate(value):
                yield from misspelt(each, f"{place}/{index}")
        elif word in _MAPS and isinstance(value, Mapping):
            for name, each in value.items():
                yield from misspelt(each, f"{place}/{name}")
