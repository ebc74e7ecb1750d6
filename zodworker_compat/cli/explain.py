"""Errors as one paragraph: what was wrong, where, and what to do."""

from collections.abc import Mapping
from typing import Any

import psycopg

from zodworker_compat.cli.base import DEFAULT_SCHEMA
from zodworker_compat.errors import UnknownTaskError, ZodworkerError

NOT_INSTALLED = (
    psycopg.errors.InvalidSchemaName,
    psycopg.errors.UndefinedTable,
    psycopg.errors.UndefinedFunction,
    psycopg.errors.UndefinedColumn,
)


def explain(error: Exception, parameters: Mapping[str, Any]) -> str:
    """Return the message for an error of a verb that was called with `parameters`."""
    wants_worker = "app" in parameters and not (parameters["app"] or parameters.get("catalog"))
    if isinstance(error, UnknownTaskError) and wants_worker:
        return (
            f"{error} For a task of yours, name its worker with --app or its file with --catalog."
        )
    if isinstance(error, ZodworkerError | OSError):
        return str(error)
    if isinstance(error, psycopg.Error):
        return _explain_database(error, parameters.get("schema") or DEFAULT_SCHEMA)
    return (
        f"{type(error).__name__}: {error}\n"
        "That should not happen; --debug shows where it does. Please report it."
    )


def _explain_database(error: psycopg.Error, schema: str) -> str:
    said = " ".join(
        part
        for part in (error.diag.message_primary, error.diag.message_detail, error.diag.message_hint)
        if part
    ) or " ".join(str(error).split())
    if isinstance(error, NOT_INSTALLED):
        return (
            f"The schema {schema!r} of this database holds no queue that zodworker can use "
            f"({said}). Install it with `zodworker migrate`, or name another with --schema."
        )
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return (
            f"PostgreSQL: {said}. graphile-worker's tables serve their owner only (row level "
            f"security): connect as the role that installed the schema {schema!r}, or as one "
            "with BYPASSRLS and the rights on it."
        )
    return f"PostgreSQL: {said}"
