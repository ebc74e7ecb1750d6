"""The public names of the package: `from zodworker_compat import ZodWorker`."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from zodworker_compat.catalog import WorkerCatalog
from zodworker_compat.client.prepare import JobRequest
from zodworker_compat.cron import CronOptions, CrontabError
from zodworker_compat.database.cleanup import CleanupResult
from zodworker_compat.database.job_filter import JobFilter
from zodworker_compat.errors import (
    BatchError,
    CatalogError,
    ConfigurationError,
    DatabaseUnavailableError,
    EnqueueError,
    MigrationError,
    OptionError,
    PayloadSerialisationError,
    PayloadValidationError,
    PermanentFailure,
    RateLimiterError,
    RetryAfter,
    TransactionError,
    UnknownTaskError,
    ZodworkerError,
)
from zodworker_compat.events import Events
from zodworker_compat.job import Job
from zodworker_compat.limiter import PostgresRateLimiter, RateLimiter
from zodworker_compat.maintenance import CleanupOptions
from zodworker_compat.options import CLEAR, EnqueueOptions, TaskOptions
from zodworker_compat.recurring import CronRun, RecurringTaskSpec
from zodworker_compat.runner import ExponentialBackoff, JobHelpers, RunOptions, SyncJobHelpers
from zodworker_compat.runner_options import RunnerOptions
from zodworker_compat.worker import ZodWorker

if TYPE_CHECKING:
    from zodworker_compat.client.admin import Admin
    from zodworker_compat.client.admin_async import AsyncAdmin
    from zodworker_compat.client.client import Client

__all__ = [
    "CLEAR",
    "Admin",
    "AsyncAdmin",
    "BatchError",
    "CatalogError",
    "CleanupOptions",
    "CleanupResult",
    "Client",
    "ConfigurationError",
    "CronOptions",
    "CronRun",
    "CrontabError",
    "DatabaseUnavailableError",
    "EnqueueError",
    "EnqueueOptions",
    "Events",
    "ExponentialBackoff",
    "Job",
    "JobFilter",
    "JobHelpers",
    "JobRequest",
    "MigrationError",
    "OptionError",
    "PayloadSerialisationError",
    "PayloadValidationError",
    "PermanentFailure",
    "PostgresRateLimiter",
    "RateLimiter",
    "RateLimiterError",
    "RecurringTaskSpec",
    "RetryAfter",
    "RunOptions",
    "RunnerOptions",
    "SyncJobHelpers",
    "TaskOptions",
    "TransactionError",
    "UnknownTaskError",
    "WorkerCatalog",
    "ZodWorker",
    "ZodworkerError",
]

_NOT_FOR_WORKERS = {
    "Admin": "zodworker_compat.client.admin",
    "AsyncAdmin": "zodworker_compat.client.admin_async",
    "Client": "zodworker_compat.client.client",
}
"""Loaded at their first use: 25 ms that a worker's start need not take."""


def __getattr__(name: str) -> Any:
    if name not in _NOT_FOR_WORKERS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_NOT_FOR_WORKERS[name]), name)
