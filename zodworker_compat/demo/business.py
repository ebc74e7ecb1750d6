"""The business tables and their statements, one in each file of `sql/`."""

from functools import cache
from importlib.resources import files
from typing import Any

from attrs import frozen
from psycopg import AsyncConnection

from zodworker_compat.database.statements import quoted


@frozen
class Business:
    """A schema for the business tables, beside the schema of the queue."""

    schema: str
    queue_schema: str

    async def execute(
        self, connection: AsyncConnection[Any], statement: str, /, **parameters: Any
    ) -> tuple[Any, ...] | None:
        """Run `sql/<statement>.sql`; return its first row, or None."""
        cursor = await connection.execute(self._text(statement), parameters or None)
        return await cursor.fetchone() if cursor.description else None

    async def fetch_all(self, connection: AsyncConnection[Any], statement: str) -> dict[str, Any]:
        """Run `sql/<statement>.sql`, which gives two columns; return them as a dict."""
        cursor = await connection.execute(self._text(statement))
        return dict(await cursor.fetchall())

    def _text(self, statement: str) -> bytes:
        return statement_text(statement, self.schema, self.queue_schema)


@cache
def statement_text(name: str, schema: str, queue_schema: str) -> bytes:
    """Return the text of `sql/<name>.sql` with `:schema` and `:queue` replaced."""
    text = files("zodworker_compat.demo").joinpath("sql", f"{name}.sql").read_text("utf-8")
    return text.replace(":schema", quoted(schema)).replace(":queue", quoted(queue_schema)).encode()
