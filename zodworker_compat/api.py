"""The public names of the package: `from zodworker_compat import ZodWorker`."""

from zodworker_compat.catalog import WorkerCatalog
from zodworker_compat.client.client import Client
from zodworker_compat.client.prepare import JobRequest
from zodworker_compat.cron import CronOptions, CrontabError
from zodworker_compat.database.cleanup import CleanupResult
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

__all__ = [
    "CLEAR",
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
