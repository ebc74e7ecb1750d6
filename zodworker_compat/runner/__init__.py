"""Runs jobs: claim, execute, settle."""

from zodworker_compat.runner.helpers import JobHelpers, SyncJobHelpers
from zodworker_compat.runner.runner import Runner
from zodworker_compat.runner.task import RunnableTask

__all__ = ["JobHelpers", "RunnableTask", "Runner", "SyncJobHelpers"]
