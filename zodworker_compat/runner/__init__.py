"""Runs jobs: claim, execute, settle."""

from zodworker_compat.runner.helpers import JobHelpers, SyncJobHelpers
from zodworker_compat.runner.retry import ExponentialBackoff, Retry
from zodworker_compat.runner.runner import Runner
from zodworker_compat.runner.task import RunnableTask, RunOptions

__all__ = [
    "ExponentialBackoff",
    "JobHelpers",
    "Retry",
    "RunOptions",
    "RunnableTask",
    "Runner",
    "SyncJobHelpers",
]
