"""jsonschema's errors, told to people: the place by its JSON pointer, what was expected and what came."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from zodworker_compat.errors import Problem
from zodworker_compat.payload.parse import discriminated
from zodworker_compat.payload.stringify import json_pointer, number

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator

_Error: TypeAlias = Any
"""A jsonschema ValidationError; its annotations say that every attribute may be unset."""

MOST_PROBLEMS: Final = 50
LONGEST_VALUE: Final = 60

_KINDS: Final = {
    "string": "a string",
    "number": "a number",
    "integer": "a whole number",
    "boolean": "true or false",
    "object": "an object",
    "array": "an array",
    "null": "null",
}
_FORMATS: Final = {
    "uri": "a URL with its scheme, such as https://example.com/",
    "date-time": "a date, such as 2024-01-02T03:04:05.678Z",
}
_LIMITS: Final = {
    "minimum": "must be at least {limit}",
    "maximum": "must be at most {limit}",
    "exclusiveMinimum": "must be greater than {limit}",
    "exclusiveMaximum": "must be less than {limit}",
    "multipleOf": "must be a multiple of {limit}",
    "minLength": "must be at least {limit} characters long",
    "maxLength": "must be at most {limit} characters long",
    "minItems": "must have at least {limit} items",
    "maxItems": "must have at most {limit} items",
    "minProperties": "must have at least {limit} keys",
    "maxProperties": "must have at most {limit} keys",
    "pattern": "must match the pattern {limit}",
}


def find_problems(validator: "Draft202012Validator", value: Any) -> list[Problem]:
    """Return all that is wrong with a value, in the order of its keys; at most 50 problems.

    Values are shown cut to 60 characters, and never whole: messages end in logs.
    """
    try:
        errors = sorted(validator.iter_errors(value), key=lambda error: error.json_path)
        problems = list(dict.fromkeys(_translate_all(errors)))
    except RecursionError:
        return [Problem("", "is nested too deeply to be checked")]
    except OverflowError:  # jsonschema divides by `multipleOf` as floats
        return [Problem("", "holds a number that is too large to be checked")]
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # of Rust, where Python's stack ends
            raise
        return [Problem("", "is nested too deeply to be checked")]
    if len(problems) > MOST_PROBLEMS:
        more = Problem("", f"and {len(problems) - MOST_PROBLEMS} more problems")
        return [*problems[:MOST_PROBLEMS], more]
    return problems


def _translate_all(errors: Iterable[_Error]) -> Iterable[Problem]:
    for error in errors:
        yield from _translate(error)


def _translate(error: _Error) -> Iterable[Problem]:
    if error.validator in {"oneOf", "anyOf"}:
        yield from _translate_union(error)
    elif error.validator == "required":
        for name in error.validator_value:
            if name not in error.instance:
                place = json_pointer([*error.absolute_path, name])
                yield Problem(place, f"is required, but missing{_misspelt(error, name)}")
    else:
        yield Problem(json_pointer(error.absolute_path), _message(error))


def _misspelt(error: _Error, name: str) -> str:
    """Name the key that may have been meant: unknown keys are accepted, so nothing else does."""
    known = error.schema.get("properties", {}) if isinstance(error.schema, Mapping) else {}
    unknown = [str(key) for key in error.instance if key not in known]
    near = get_close_matches(name, unknown, n=1, cutoff=0.6)
    return f"; {near[0]!r} is given, which the schema does not know" if near else ""


def _message(error: _Error) -> str:
    word, wanted, value = error.validator, error.validator_value, error.instance
    if word in {"const", "enum"}:
        return expected_one_of([wanted] if word == "const" else wanted, value)
    if word in {"additionalProperties", "unevaluatedProperties"} and wanted is False:
        return f"has keys the schema does not know: {_unknown_keys(error)}"
    if word == "type":
        message = f"expected {kinds(wanted)}"
    elif word == "format":
        message = f"expected {_FORMATS.get(wanted, wanted)}"
    elif word in _LIMITS:
        message = _LIMITS[word].format(limit=wanted)
    elif word == "not" and not wanted:
        message = "must not be there"
    else:
        message = f"does not satisfy {word!r}: {_cut(json.dumps(wanted))}"
    return f"{message}, got {show(value)}"


def _unknown_keys(error: _Error) -> str:
    known = error.schema.get("properties", {})
    unknown = [key for key in error.instance if key not in known]
    return ", ".join(f"{_cut(repr(key))}{_near(key, known)}" for key in unknown[:5])


def _near(word: Any, known: Iterable[str]) -> str:
    near = get_close_matches(word, known, n=1) if isinstance(word, str) else []
    return f" (did you mean {near[0]!r}?)" if near else ""


def _translate_union(error: _Error) -> Iterable[Problem]:
    """Explain a failed union by its nearest branch: the one its discriminator names, if it has one."""
    value = error.instance
    place = json_pointer(error.absolute_path)
    if error.schema.get("x-zod") == "coerce.date" and not isinstance(value, str | int | float):
        yield Problem(
            place, f"expected {_FORMATS['date-time']}, or milliseconds, got {show(value)}"
        )
        return
    branches: dict[int, list[_Error]] = {}
    for inner in error.context or ():
        branches.setdefault(int(inner.schema_path[0]), []).append(inner)
    if not branches:
        yield Problem(place, f"fits more than one of the alternatives, got {show(value)}")
        return
    tag = error.schema.get("x-zod-discriminator")
    by_tag = discriminated(error.schema, error.validator_value)
    if by_tag and isinstance(value, dict):
        yield from _translate_tagged(error, tag, by_tag, branches)
        return
    own = {index: [e for e in inner if not e.path] for index, inner in branches.items()}
    fitting = [
        index for index, inner in own.items() if not any(e.validator == "type" for e in inner)
    ]
    if fitting:
        yield from _translate_all(branches[min(fitting, key=lambda index: len(branches[index]))])
    else:
        wanted = [
            kind
            for inner in own.values()
            for e in inner
            if e.validator == "type"
            for kind in (
                [e.validator_value] if isinstance(e.validator_value, str) else e.validator_value
            )
        ]
        yield Problem(place, f"expected {kinds(list(dict.fromkeys(wanted)))}, got {show(value)}")


def _translate_tagged(
    error: _Error,
    tag: str,
    by_tag: Mapping[Any, int],
    branches: Mapping[int, list[_Error]],
) -> Iterable[Problem]:
    place = json_pointer([*error.absolute_path, tag])
    named = error.instance.get(tag)
    if isinstance(named, str | int) and named in by_tag:
        yield from _translate_all(branches[by_tag[named]])
    elif tag in error.instance:
        yield Problem(place, expected_one_of(list(by_tag), named))
    else:
        choices = ", ".join(json.dumps(choice) for choice in by_tag)
        yield Problem(place, f"is required, but missing; one of {choices}")


def kinds(wanted: str | Sequence[str]) -> str:
    """Return JSON types in words: "a string or null"."""
    names = [wanted] if isinstance(wanted, str) else wanted
    return " or ".join(_KINDS.get(name, name) for name in names)


def expected_one_of(choices: Sequence[Any], value: Any) -> str:
    """Say which values were possible, and suggest the nearest."""
    listed = _cut(", ".join(json.dumps(choice, ensure_ascii=False) for choice in choices), 300)
    texts = [choice for choice in choices if isinstance(choice, str)]
    words = "expected" if len(choices) == 1 else "expected one of"
    return f"{words} {listed}, got {show(value)}{_near(value, texts)}"


def show(value: Any) -> str:
    """Describe a JSON value in at most about sixty characters."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        finite = isinstance(value, float) and math.isfinite(value)
        return f"the number {_cut(number(value) if finite else repr(value))}"
    if isinstance(value, str):
        return f"the string {_cut(json.dumps(value, ensure_ascii=False))}"
    if isinstance(value, list):
        return f"an array of {len(value)} item{'' if len(value) == 1 else 's'}"
    return f"an object with {_object_keys(value)}"


def _object_keys(value: Mapping[str, Any]) -> str:
    if not value:
        return "no keys"
    return _cut(("the keys " if len(value) > 1 else "the key ") + ", ".join(value))


def _cut(text: str, longest: int = LONGEST_VALUE) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
