"""Times of PostgreSQL as Python's, which has no infinity and no year before 1 or after 9999."""

from datetime import UTC, datetime

from psycopg import DataError
from psycopg.abc import Buffer
from psycopg.types.datetime import TimestamptzBinaryLoader

EARLIEST = datetime.min.replace(tzinfo=UTC)
LATEST = datetime.max.replace(tzinfo=UTC)


class BoundedLoader(TimestamptzBinaryLoader):
    """Loads a time that Python does not have as the nearest it has.

    A job parked at `infinity` must not make an error of a change that is done already.
    """

    def load(self, data: Buffer) -> datetime:
        """Return the aware datetime."""
        try:
            return super().load(data)
        except DataError:
            is_negative = bytes(data)[0] & 0x80  # microseconds from 2000-01-01, big-endian
            return EARLIEST if is_negative else LATEST
