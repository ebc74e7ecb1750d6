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
def statement(name: str, schema: str, *, without: str | None = None) -> bytes:
    """Return the text of `sql/<name>.sql` with `:schema` replaced by the quoted schema name.

    Lines that end in the comment `-- <without>` are left out, and `:job_columns` stands for the
    columns that `rows.job_of` reads, of the row `job`.

    Parameters in the files are psycopg's (`%(name)s`), so a literal per cent sign is `%%`: give
    `execute` parameters, if only `{}`.
    """
    text = _read(name).replace(":job_columns", _read("job_columns").strip())
    lines = [line for line in text.splitlines() if not _COMMENT.match(line)]
    code = "\n".join(line for line in lines if not (without and line.endswith(f"-- {without}")))
    return code.replace(":schema", quoted(schema).replace("%", "%%")).encode()


def _read(name: str) -> str:
    return files("zodworker_compat.database").joinpath("sql", f"{name}.sql").read_text("utf-8")
