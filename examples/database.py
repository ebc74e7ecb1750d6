"""A database for the examples: DATABASE_URL, else a PostgreSQL of their own."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from zodworker_compat.embedded import EmbeddedPostgres


@contextmanager
def database() -> Iterator[str]:
    """Give its URL; within the block DATABASE_URL, where every worker looks, says it too."""
    if url := os.environ.get("DATABASE_URL"):
        yield url
        return
    with EmbeddedPostgres() as server:
        os.environ["DATABASE_URL"] = server.dsn()
        try:
            yield server.dsn()
        finally:
            del os.environ["DATABASE_URL"]
