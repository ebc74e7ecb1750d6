"""The public names of the package: `from zodworker_compat import ZodWorker`."""

from zodworker_compat.catalog import WorkerCatalog
from zodworker_compat.client.client import Client
from zodworker_compat.client.prepare import JobRequest
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
    TransactionError,
    UnknownTaskError,
    ZodworkerError,
)
from zodworker_compat.job import Job
from zodworker_compat.options import CLEAR, EnqueueOptions, TaskOptions
from zodworker_compat.runner import JobHelpers
from zodworker_compat.runner_options import RunnerOptions
from zodworker_compat.worker import ZodWorker

__all__ = [
    "CLEAR",
    "BatchError",
    "CatalogError",
    "CleanupResult",
    "Client",
    "ConfigurationError",
    "DatabaseUnavailableError",
    "EnqueueError",
    "EnqueueOptions",
    "Job",
    "JobHelpers",
    "JobRequest",
    "MigrationError",
    "OptionError",
    "PayloadSerialisationError",
    "PayloadValidationError",
    "RunnerOptions",
    "TaskOptions",
    "TransactionError",
    "UnknownTaskError",
    "WorkerCatalog",
    "ZodWorker",
    "ZodworkerError",
]
