"""The statements of `sql/`, for one schema."""

from functools import cache
from importlib.resources import files

from psycopg import sql


def quoted(name: str) -> str:
    """Return an SQL identifier for `name`, quoted whatever it holds."""
    return sql.Identifier(name).as_string(None)


@cache
def statement(name: str, schema: str) -> bytes:
    """Return the text of `sql/<name>.sql` with `:schema` replaced by the quoted schema name.

    Parameters in the files are psycopg's (`%(name)s`), so a literal per cent sign is `%%`: give
    `execute` parameters, if only `{}`.
    """
    text = files("zodworker_compat.database").joinpath("sql", f"{name}.sql").read_text("utf-8")
    return text.replace(":schema", quoted(schema).replace("%", "%%")).encode()
