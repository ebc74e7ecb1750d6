"""A throw-away PostgreSQL for the demo and the tests: found, started, ended, cleaned up."""

from zodworker_compat.embedded.binaries import Binaries, EmbeddedPostgresError, find_binaries
from zodworker_compat.embedded.server import EmbeddedPostgres

__all__ = ["Binaries", "EmbeddedPostgres", "EmbeddedPostgresError", "find_binaries"]
