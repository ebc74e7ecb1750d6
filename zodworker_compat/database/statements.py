"""The statements of `sql/`, for one schema."""

import re
from functools import cache
from pathlib import Path

from psycopg import sql


def quoted(name: str) -> str:
    """Return an SQL identifier for `name`, quoted whatever it holds."""
    return sql.Identifier(name).as_string(None)


_FOLDER = Path(__file__).parent / "sql"
# Comments and indentation stay here: pg_stat_activity shows the first kilobyte of a statement, and
# psycopg parses one of over 4,096 bytes anew each time it is sent, 60 us for the claim.
_COMMENT = re.compile(r"\s*--")
_SCHEMA = re.compile("(')?:schema")
# In the order in which they are put in: the filter uses the state.
_PARTS = ("job_columns", "job_filter", "job_state", "job_update", "job_added", "rows_hidden")


@cache
def statement(name: str, schema: str, *, without: str | None = None) -> bytes:
    """Return the text of `sql/<name>.sql` with `:schema` replaced by the quoted schema name.

    Lines that end in the comment `-- <without>` are left out. `:job_columns` stands for the columns
    that `rows.job_of` reads, `:job_filter` for the conditions of a `JobFilter`, `:job_state` for the
    state, `:job_update` for what a keyed enqueue changes and `:job_added` for what it returns, all of
    the row `job`; `:rows_hidden` for whether the table `relation` hides rows from this role. The schema may also stand in a literal, `':schema.table'::regclass`.

    Parameters in the files are psycopg's (`%(name)s`), so a literal per cent sign is `%%`: give
    `execute` parameters, if only `{}`.
    """
    text = _without(_code(name), without)
    for part in _PARTS:
        text = text.replace(f":{part}", _without(_code(part), without).strip())
    name_in_sql = quoted(schema).replace("%", "%%")
    in_literal = "'" + name_in_sql.replace("'", "''")
    # In one pass: a name may hold ":schema" itself.
    return _SCHEMA.sub(lambda found: in_literal if found[1] else name_in_sql, text).encode()


def _without(code: str, mark: str | None) -> str:
    return "\n".join(
        line for line in code.splitlines() if not (mark and line.endswith(f"-- {mark}"))
    )


def _code(name: str) -> str:
    text = _FOLDER.joinpath(f"{name}.sql").read_text("utf-8")
    return "\n".join(line.strip() for line in text.splitlines() if not _COMMENT.match(line))
