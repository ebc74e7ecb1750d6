"""The JSON that a row holds, as Python values. Rows are written by others too: anything may be in it."""

import json
from typing import Any

from zodworker_compat.errors import PayloadValidationError, Problem

_read = json.JSONDecoder().raw_decode


def read_payload(identifier: str, text: str) -> Any:
    """Return a stored payload.

    Raises:
        PayloadValidationError: it is JSON for PostgreSQL, but not for Python.
    """
    try:
        # json.loads looks for what PostgreSQL has refused already, which doubles its price.
        return _read(text.lstrip())[0]
    except RecursionError:
        problem = "is nested too deeply to be read"
    except ValueError as error:  # a whole number of more digits than int() takes
        problem = f"cannot be read: {error}"
    raise PayloadValidationError(identifier, [Problem("", problem)])


def payload_or_none(text: str) -> Any:
    """Return a stored payload for those who only look at a job; None if it cannot be read."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def read_flags(text: str | None) -> dict[str, bool] | None:
    """Return the flags of a row, by their names: those that jsonb's operator `?` finds.

    graphile-worker writes an object `{name: true}` or NULL. The flags of a list or a single string
    count, too; anything else, and what cannot be read, is no flag.
    """
    if text is None:
        return None
    try:
        flags = json.loads(text, parse_int=float)  # float() takes any number of digits
    except (ValueError, RecursionError):
        return None
    if isinstance(flags, dict):
        return {name: value is not False for name, value in flags.items()}
    if isinstance(flags, str):
        return {flags: True}
    if isinstance(flags, list):
        return {flag: True for flag in flags if isinstance(flag, str)}
    return None
