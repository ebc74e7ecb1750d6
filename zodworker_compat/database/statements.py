"""The statements of `sql/`, for one schema."""

import re
from functools import cache
from importlib.resources import files

from psycopg import sql


def quoted(name: str) -> str:
    """Return an SQL identifier for `name`, quoted whatever it holds."""
    return sql.Identifier(name).as_string(None)


# The comments stay here: pg_stat_activity shows the first kilobyte of a statement.
_COMMENT = re.compile(r"\s*--")


@cache
def statement(name: str, schema: str) -> bytes:
    """Return the text of `sql/<name>.sql` with `:schema` replaced by the quoted schema name.

    Parameters in the files are psycopg's (`%(name)s`), so a literal per cent sign is `%%`: give
    `execute` parameters, if only `{}`.
    """
    text = files("zodworker_compat.database").joinpath("sql", f"{name}.sql").read_text("utf-8")
    code = "".join(line for line in text.splitlines(keepends=True) if not _COMMENT.match(line))
    return code.replace(":schema", quoted(schema).replace("%", "%%")).encode()
