"""The jobs that were claimed and have not started."""

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Sequence
from time import monotonic

from zodworker_compat.database.queue import Claimed
from zodworker_compat.runner.policy import buffer_size


class Buffer:
    """A queue between the claimer and the slots, which asks for more before it is empty."""

    def __init__(
        self, concurrency: int, on_low: Callable[[], None], *, claim_ahead: bool = True
    ) -> None:
        self._concurrency = concurrency
        self._on_low = on_low
        self._claim_ahead = claim_ahead
        self._jobs: deque[Claimed] = deque()
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._moved_at = 0.0
        self._low = 0
        self._is_more = False
        self._bytes = 1.0
        self._mean: float | None = None
        self.busy = 0
        """Slots that run a job."""
        self.closed = False

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits and nothing runs."""
        return not (self._jobs or self.busy)

    def wanted(self) -> int:
        """Return how many jobs to claim now: the free slots, and what may be held ahead."""
        ahead = buffer_size(self._mean, self._concurrency, self._bytes) if self._claim_ahead else 0
        self._low = ahead // 2
        if self.closed or len(self._jobs) > self._low:
            return 0
        return max(0, self._concurrency - self.busy - len(self._jobs) + ahead)

    def stalled(self) -> float:
        """Return for how many seconds no slot has come for the jobs that wait; 0 if none waits."""
        return monotonic() - self._moved_at if self._jobs else 0.0

    @property
    def is_low(self) -> bool:
        """Whether it is time to claim again, as the last claim left some."""
        return self._is_more and len(self._jobs) <= self._low

    def put(self, jobs: Sequence[Claimed], *, is_more: bool) -> None:
        """Add claimed jobs and wake as many slots; `is_more` says that the claim left some."""
        self._is_more = is_more
        if jobs:
            self._bytes = max(1.0, sum(len(job.payload) for job in jobs) / len(jobs))
        if not self._jobs:
            self._moved_at = monotonic()
        self._jobs.extend(jobs)
        wanted = len(self._jobs)
        while wanted and self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():  # its slot was cancelled
                waiter.set_result(None)
                wanted -= 1

    async def take(self) -> Claimed | None:
        """Return the next job, None when the buffer is closed; `done` must follow."""
        while not self._jobs:
            if self.closed:
                return None
            waiter = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            await waiter
        self.busy += 1
        self._moved_at = monotonic()
        job = self._jobs.popleft()
        if self._is_more and len(self._jobs) <= self._low:
            self._on_low()
        return job

    def done(self, seconds: float) -> None:
        """Note that a slot is free again, and how long its job took."""
        self.busy -= 1
        self._mean = seconds if self._mean is None else self._mean + (seconds - self._mean) / 16
        if not self._jobs:
            self._on_low()

    def jobs(self) -> list[Claimed]:
        """The jobs that wait."""
        return [*self._jobs]

    def drop(self, ids: Collection[int]) -> list[Claimed]:
        """Take out some of the jobs that wait."""
        dropped = [job for job in self._jobs if job.id in ids]
        self._jobs = deque(job for job in self._jobs if job.id not in ids)
        return dropped

    def drain(self) -> list[Claimed]:
        """Take out all that waits, to be given back; hold nothing until a job ends quickly."""
        jobs = list(self._jobs)
        self._jobs.clear()
        self._mean = None
        return jobs

    def close(self) -> list[Claimed]:
        """Let the slots end after their present job; return what has not started."""
        self.closed = True
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)
        self._waiting.clear()
        return self.drain()
