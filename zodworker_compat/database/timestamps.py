"""Times of PostgreSQL as Python's, which has no infinity and no year before 1 or after 9999."""

from datetime import UTC, datetime

from psycopg import DataError
from psycopg.abc import Buffer
from psycopg.types.datetime import TimestamptzLoader

EARLIEST = datetime.min.replace(tzinfo=UTC)
LATEST = datetime.max.replace(tzinfo=UTC)


class BoundedLoader(TimestamptzLoader):
    """Loads a time that Python does not have as the nearest it has.

    A job parked at `infinity` must not make an error of a change that is done already.
    """

    def load(self, data: Buffer) -> datetime:
        """Return the aware datetime."""
        try:
            return super().load(data)
        except DataError:
            text = bytes(data)
            past = text.startswith(b"-") or text.endswith(b"BC")
            return EARLIEST if past else LATEST
