"""What PostgreSQL says to those who have no queue there, in words that say what to do."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import psycopg
from psycopg import errors

from zodworker_compat.database.statements import quoted
from zodworker_compat.errors import ConfigurationError, MigrationError

# Classes of SQLSTATE that say nothing of a row: the connection, the session, the transaction, the
# schema and its permissions, the server. Time or an operator mends them, so they are waited out.
_NOT_ABOUT_ROWS: Final = frozenset(
    "08 25 26 28 3D 3F 40 42 53 55 57 58 72 F0 XX".split()  # noqa: SIM905 - a table of codes
)


def is_about_rows(error: psycopg.Error) -> bool:
    """Whether the statement was refused for what is in its rows: the same rows fail again."""
    if error.sqlstate is None:  # psycopg's own: a value that cannot be sent, or no connection
        return isinstance(error, psycopg.DataError)
    return error.sqlstate[:2] not in _NOT_ABOUT_ROWS


@contextmanager
def explained(schema: str) -> Iterator[None]:
    """Explain the errors of a schema that is not installed, or not this role's to use.

    Raises:
        MigrationError: there is no queue in the schema.
        ConfigurationError: the role lacks a privilege, or row level security shuts it out.
    """
    try:
        yield
    except (
        errors.InvalidSchemaName,
        errors.UndefinedTable,
        errors.UndefinedFunction,
        errors.UndefinedObject,
    ) as error:
        raise MigrationError(
            f"Schema {quoted(schema)} holds no queue in this database ({error.diag.message_primary}). "
            "Install it with `zodworker migrate` or `await worker.migrate()`, or name the right schema; "
            "one for enqueuing only (docs/security.md) can do nothing else."
        ) from error
    except errors.InsufficientPrivilege as error:
        raise ConfigurationError(
            f"This role may not use the queue in schema {quoted(schema)}: "
            f"{error.diag.message_primary}. Its tables let in their owner and roles with grants and a "
            "policy of row level security: connect as one of them, or have this role's rights completed; "
            "docs/security.md has the SQL for workers, admins and enqueuers."
        ) from error
