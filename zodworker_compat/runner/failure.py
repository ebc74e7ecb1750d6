"""What an exception leaves in `last_error`. Pure."""

from typing import Final

LONGEST_ERROR: Final = 10_000
"""Characters of `last_error`; the log has the rest."""


def error_text(error: BaseException) -> str:
    """Return `TypeName: message`, storable in PostgreSQL whatever the message holds (departure 9).

    graphile-worker 0.16.6 stores the message alone, and fails to fail on a NUL.
    """
    name = type(error).__name__
    try:
        message = str(error)
    except Exception as broken:  # noqa: BLE001 - a failing __str__ must not hide the failure
        message = f"(its message cannot be read: {type(broken).__name__})"
    return storable(f"{name}: {message}" if message else name)


def storable(text: str) -> str:
    r"""Escape what a PostgreSQL text cannot hold, and bound the length.

    NUL becomes `\x00` and a lone surrogate `\udXXX`, both spelled out.
    """
    if len(text) > LONGEST_ERROR:
        text = f"{text[:LONGEST_ERROR]}… ({len(text) - LONGEST_ERROR} more characters)"
    return text.encode(errors="backslashreplace").decode().replace("\0", "\\x00")
