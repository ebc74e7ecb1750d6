"""Which jobs may not run now: ZodWorker's `rateLimiter`, and one that keeps its state in PostgreSQL."""

from zodworker_compat.limiter.postgres import Limits, PostgresRateLimiter
from zodworker_compat.limiter.protocol import (
    ManagedRateLimiter,
    RateLimiter,
    Reschedule,
    Task,
)

__all__ = [
    "Limits",
    "ManagedRateLimiter",
    "PostgresRateLimiter",
    "RateLimiter",
    "Reschedule",
    "Task",
]
