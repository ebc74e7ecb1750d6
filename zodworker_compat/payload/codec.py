"""A task's payload, on its way into the table and out of it."""

import json
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

import jsonschema_rs
from attrs import define, evolve, field

from zodworker_compat.errors import PayloadValidationError, Problem
from zodworker_compat.payload.bundle import Resolve, bundle
from zodworker_compat.payload.formats import is_date, is_url
from zodworker_compat.payload.parse import IsValid, Parse, compile_parse
from zodworker_compat.payload.problems import find_problems
from zodworker_compat.payload.stringify import write

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator, FormatChecker

    from zodworker_compat.payload.structure import Structure

FORMATS = {"uri": is_url, "date-time": is_date}

# jsonschema and cattrs are imported when they are needed: 40 ms of a worker's 200 until its first job.


def reference_validator(schema: Any) -> "Draft202012Validator":
    """Return jsonschema's validator of a bundled schema, with our formats asserted."""
    from jsonschema import Draft202012Validator  # noqa: PLC0415 - start-up time

    return Draft202012Validator(schema, format_checker=_format_checker())


@cache
def _format_checker() -> "FormatChecker":
    from jsonschema import FormatChecker  # noqa: PLC0415 - start-up time

    checker = FormatChecker(formats=())
    for name, check in FORMATS.items():
        checker.checks(name)(check)
    return checker


def _structure_of(payload_type: Any) -> "Structure | None":
    if payload_type is None:
        return None
    from zodworker_compat.payload.structure import compile_structure  # noqa: PLC0415 - start-up time

    return compile_structure(payload_type)


def fast_validator(schema: Any) -> IsValid:
    """Return the compiled "is it valid" of a bundled schema, with our formats asserted.

    Lone surrogates have no UTF-8, so jsonschema looks at the strings that hold them.
    """
    compiled = jsonschema_rs.Draft202012Validator(
        schema, formats=FORMATS, validate_formats=True, offline=True
    ).is_valid

    def is_valid(value: Any) -> bool:
        try:
            return compiled(value)
        except ValueError:
            return not find_problems(reference_validator(schema), value)

    return is_valid


@define(eq=False)
class PayloadCodec:
    """Validates and serialises the payloads of one task; validates, parses and structures them.

    Thread-safe; made by `compile`.
    """

    identifier: str
    schema: Any = field(repr=False)
    """The task's schema, self-contained: its references are all `#/$defs/...`."""
    payload_type: Any
    """What `decode` returns: an attrs class, a union of them, or None for JSON values."""
    _is_valid: IsValid = field(repr=False)
    _parse: Parse | None = field(repr=False)
    _structure: "Structure | None" = field(repr=False)

    @classmethod
    def compile(
        cls,
        identifier: str,
        schema: Any = None,
        *,
        payload_type: Any = None,
        resolve: Resolve | None = None,
        base_uri: str = "",
    ) -> "PayloadCodec":
        """Compile a schema; takes milliseconds, do it once per task.

        Args:
            identifier: named in errors.
            schema: JSON Schema draft 2020-12, with `x-zod` words; None or True accepts anything.
            payload_type: see the attribute.
            resolve: finds the schema at an absolute URI, for references to other files.
            base_uri: where the schema lies; relative references start there.

        Raises:
            CatalogError: a reference of the schema leads nowhere.
        """
        bundled = bundle(True if schema is None else schema, resolve, base_uri)
        return cls(
            identifier=identifier,
            schema=bundled,
            payload_type=payload_type,
            is_valid=fast_validator(bundled),
            parse=compile_parse(bundled, fast_validator),
            structure=_structure_of(payload_type),
        )

    def typed(self, payload_type: Any) -> "PayloadCodec":
        """Return a codec of the same schema whose `decode` gives `payload_type`."""
        return evolve(self, payload_type=payload_type, structure=_structure_of(payload_type))

    def encode(self, payload: Any, *, validate: bool = True) -> str:
        """Serialise a payload as `JSON.stringify` would, and check it against the schema.

        What is checked is the JSON that is stored, so that exactly those payloads are accepted
        which `decode` accepts when the job runs (P-30).

        Raises:
            PayloadSerialisationError: the payload has no JSON; see `stringify`.
            PayloadValidationError: the JSON does not match the schema; names every problem.
        """
        text, reads_back = write(payload)
        if not validate or self.schema is True:
            return text
        if not (reads_back and self._is_valid(payload)):  # else reading it is half of the work
            self.check(json.loads(text))
        return text

    def decode(self, value: Any) -> Any:
        """Make of a stored JSON value what the handler gets: validated, parsed and structured.

        Raises:
            PayloadValidationError: it does not match the schema, or the payload class.
        """
        self.check(value)
        parsed = value
        if self._parse is not None:
            try:
                parsed = self._parse(value)
            except RecursionError:
                problem = Problem("", "is nested too deeply")
                raise PayloadValidationError(self.identifier, [problem]) from None
        if self._structure is None:
            return parsed
        try:
            return self._structure(parsed)
        except Exception as error:
            from zodworker_compat.payload.structure import explain  # noqa: PLC0415 - start-up time

            problems = explain(self.payload_type, parsed, error)
            raise PayloadValidationError(self.identifier, problems) from error

    def check(self, value: Any) -> None:
        """Raise PayloadValidationError, with every problem, unless a JSON value matches the schema."""
        if self._is_valid(value):
            return
        if problems := find_problems(self._reference, value):
            raise PayloadValidationError(self.identifier, problems)

    @cached_property
    def _reference(self) -> "Draft202012Validator":
        return reference_validator(self.schema)
