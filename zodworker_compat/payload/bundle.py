"""One self-contained schema out of a schema and the files it refers to."""

from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Any, Final

from zodworker_compat.errors import CatalogError
from zodworker_compat.payload.formats import FIRST_MILLISECOND, LAST_MILLISECOND

Resolve = Callable[[str], Any]
"""Returns the schema that lies at an absolute URI; raises CatalogError if there is none."""

_SCHEMA: Final = frozenset(
    [
        "additionalProperties",
        "contains",
        "contentSchema",
        "else",
        "if",
        "items",
        "not",
        "propertyNames",
        "then",
        "unevaluatedItems",
        "unevaluatedProperties",
    ]
)
_SCHEMAS: Final = frozenset(
    [
        "allOf",
        "anyOf",
        "oneOf",
        "prefixItems",
        "properties",
        "patternProperties",
        "dependentSchemas",
    ]
)
_DATES: Final[Mapping[str, Any]] = {
    "date": {"type": "string", "format": "date-time"},
    "coerce.date": {
        "anyOf": [
            {"type": "string", "format": "date-time"},
            {"type": "number", "minimum": FIRST_MILLISECOND, "maximum": LAST_MILLISECOND},
        ]
    },
}
_DROPPED: Final = frozenset({"$schema", "$id", "$anchor", "$comment", "$defs", "definitions"})


def bundle(schema: Any, resolve: Resolve | None = None, base_uri: str = "") -> Any:
    """Return `schema` with every `$ref` made local: `#/$defs/<name>`.

    What `x-zod` says of dates is written out, so that a schema need not repeat which strings and
    milliseconds a Python datetime can hold.

    Args:
        schema: a draft 2020-12 schema.
        resolve: finds the schemas of other files; without it, only local references resolve.
        base_uri: where `schema` was found; relative references start there.

    Raises:
        CatalogError: a `$ref` leads nowhere; the pointer is that of the `$ref`.
    """
    return _Bundler(schema, resolve or _refuse, base_uri).result()


def subschemas(schema: Mapping[str, Any]) -> list[tuple[tuple[str | int, ...], Any]]:
    """Return the schemas directly inside a schema, each with the steps that lead to it."""
    found: list[tuple[tuple[str | int, ...], Any]] = []
    for word, value in schema.items():
        if word in _SCHEMA:
            found.append(((word,), value))
        elif word in _SCHEMAS and isinstance(value, list):
            found += [((word, index), one) for index, one in enumerate(value)]
        elif word in _SCHEMAS and isinstance(value, dict):
            found += [((word, name), one) for name, one in value.items()]
    return found


def _refuse(uri: str) -> Any:
    raise CatalogError(f"{uri} is another file or site; this schema can only refer to itself")


class _Bundler:
    def __init__(self, schema: Any, resolve: Resolve, base_uri: str) -> None:
        self._schema = schema
        self._resolver = _resolver(schema, resolve, base_uri) if "$ref" in str(schema) else None
        self._names: dict[int, str] = {}  # by identity: one definition per schema referred to
        self._defs: dict[str, Any] = {}

    def result(self) -> Any:
        body = self._copy(self._schema, self._resolver, "")
        return {**body, "$defs": self._defs} if self._defs else body

    def _copy(self, schema: Any, resolver: Any, pointer: str) -> Any:
        if not isinstance(schema, dict):
            return schema
        copy = {word: value for word, value in schema.items() if word not in _DROPPED}
        for (word, *step), part in subschemas(schema):
            inner = resolver
            if resolver and isinstance(part, dict) and isinstance(part.get("$id"), str):
                inner = _inside(resolver, part)
            place = "/".join(map(str, (pointer, word, *step)))
            new = self._copy(part, inner, place)
            if part is False and word == "properties":
                new = {"not": {}}  # jsonschema does not say where a False was violated
            if not step:
                copy[word] = new
            else:
                if copy[word] is schema[word]:
                    copy[word] = schema[word].copy()
                copy[word][step[0]] = new
        copy |= _DATES.get(copy.get("x-zod", ""), {})
        if "$ref" in copy:
            copy["$ref"] = self._reference(copy["$ref"], resolver, f"{pointer}/$ref")
        return copy

    def _reference(self, ref: Any, resolver: Any, pointer: str) -> str:
        from referencing.exceptions import Unresolvable  # noqa: PLC0415 - as in _resolver

        try:
            found = resolver.lookup(ref)
        except (Unresolvable, AttributeError, TypeError, ValueError) as error:
            reason = _reason(error)
            raise CatalogError(
                f"the reference {ref!r} leads nowhere: {reason}", pointer=pointer
            ) from None
        key = id(found.contents)
        if key not in self._names:
            name = self._names[key] = self._new_name(ref)
            self._defs[name] = {}  # keeps its place while what it refers to is copied
            self._defs[name] = self._copy(found.contents, found.resolver, f"/$defs/{name}")
        return f"#/$defs/{self._names[key]}"

    def _new_name(self, ref: str) -> str:
        path, _, fragment = ref.partition("#")
        stem = fragment.rpartition("/")[2] or PurePosixPath(path).stem or "root"
        names = (stem, *(f"{stem}{number}" for number in range(2, len(self._defs) + 3)))
        return next(name for name in names if name not in self._defs)


def _resolver(schema: Any, resolve: Resolve, base_uri: str) -> Any:
    # Most schemas refer to nothing, and start-up is 15 ms shorter without the library.
    from referencing import Registry  # noqa: PLC0415
    from referencing.jsonschema import DRAFT202012  # noqa: PLC0415
    from referencing.retrieval import to_cached_resource  # noqa: PLC0415

    @to_cached_resource(loads=lambda contents: contents, from_contents=DRAFT202012.create_resource)
    def retrieve(uri: str) -> Any:
        return resolve(uri)

    registry: Registry[Any] = Registry(retrieve=retrieve)  # type: ignore[call-arg] # its alias
    root = DRAFT202012.create_resource(schema)
    return registry.with_resource(base_uri, root).resolver(base_uri)


def _inside(resolver: Any, schema: Any) -> Any:
    from referencing.jsonschema import DRAFT202012  # noqa: PLC0415 - as in _resolver

    return resolver.in_subresource(DRAFT202012.create_resource(schema))


def _reason(error: BaseException) -> str:
    """Return what `resolve` said, which `referencing` wraps, or else what is wrong."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, CatalogError):
            return str(cause)
        cause = cause.__cause__ or cause.__context__
    return "there is no such definition"
