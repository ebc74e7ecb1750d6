"""What PostgreSQL says to those who have no queue there, in words that say what to do."""

from collections.abc import Iterator
from contextlib import contextmanager

from psycopg import errors

from zodworker_compat.database.statements import quoted
from zodworker_compat.errors import ConfigurationError, MigrationError


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
            "Install it with `zodworker migrate` or `await worker.migrate()`, or name the right schema."
        ) from error
    except errors.InsufficientPrivilege as error:
        raise ConfigurationError(
            f"This role may not use the queue in schema {quoted(schema)}: "
            f"{error.diag.message_primary}. Its tables let only their owner in (row level security): "
            "connect as the owner, or call a SECURITY DEFINER function of the owner's."
        ) from error
