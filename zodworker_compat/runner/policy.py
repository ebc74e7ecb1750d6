"""How much to claim ahead, and how long to wait before trying again. Pure."""

import math
import random
from typing import Final

HORIZON: Final = 0.075
"""Seconds of work that may wait in the local buffer: no job is kept from another worker longer."""
LARGEST_BUFFER: Final = 2000
"""Jobs: it is filled up when half of it is empty, so a claim brings 1,000 while 1,000 are run. Claims of
250 cost 10 % more CPU and keep the slots waiting; twice as many bring nothing more."""
LARGEST_BYTES: Final = 16_000_000
"""Of payloads in the buffer."""
LONGEST_DELAY: Final = 5.0


def buffer_size(seconds_per_job: float | None, concurrency: int, bytes_per_job: float = 1) -> int:
    """Return how many jobs to hold beyond those that run.

    A worker that takes jobs one by one spends most of its time on the way to the database: fast
    handlers get `HORIZON` seconds of work ahead. Handlers that take longer than that get none, so
    that what waits stays free for other workers; nothing is known at first, so nothing is held.

    Args:
        seconds_per_job: recent mean time of one job in one slot; None if none has ended yet.
        concurrency: slots of this worker.
        bytes_per_job: mean size of a payload, at least 1.
    """
    if seconds_per_job is None or seconds_per_job > HORIZON:
        return 0
    most = int(min(LARGEST_BUFFER, LARGEST_BYTES / bytes_per_job))
    if seconds_per_job * most <= HORIZON * concurrency:
        return most
    return int(HORIZON * concurrency / seconds_per_job)


def retry_delay(attempt: int, jitter: float | None = None) -> float:
    """Return seconds to wait after failure number `attempt` (from 0) to reach PostgreSQL.

    50 ms * e^attempt, at most 5 s, times 0.5 to 1, as graphile-worker 0.16.6 reconnects its
    listener, but with a lower limit.

    Args:
        attempt: failures before this one.
        jitter: 0 to 1; drawn if not given.
    """
    jitter = random.random() if jitter is None else jitter  # noqa: S311 - not a secret
    return min(LONGEST_DELAY, 0.05 * math.exp(min(attempt, 20))) * (0.5 + math.sqrt(jitter) / 2)
