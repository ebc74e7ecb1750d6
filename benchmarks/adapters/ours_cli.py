"""What `zodworker run --app benchmarks.adapters.ours_cli:worker` runs."""

import time

from zodworker_compat import ZodWorker

worker = ZodWorker(name="workerQueue", catalog="workerQueue")


@worker.task("startRun")
async def start_run(_payload: dict[str, object]) -> None:
    """Say when the first claim had come."""
    print(time.monotonic_ns(), flush=True)
