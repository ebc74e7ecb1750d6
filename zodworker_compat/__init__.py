"""trigger.dev's ZodWorker for Python: typed jobs on graphile-worker's PostgreSQL tables."""

__version__ = "0.1.0"
