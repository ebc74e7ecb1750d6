"""Keeps each task below its own concurrency."""

from collections import Counter
from collections.abc import Sequence

from zodworker_compat.database.queue import Claimed
from zodworker_compat.runner.pool import Pool


class Limits:
    """Counts the jobs of limited tasks that this process holds, waiting or running.

    A task without room is left out of the claim, so its backlog stays free for other workers and
    hides nothing from this one. A task with room may bring more than fits, so the claim is no
    larger than its room, unless claims of that size have brought none of its jobs: then it grows,
    lest a limited task without jobs make every claim small. What does not fit is given back.
    """

    def __init__(self, pool: Pool) -> None:
        self._identifiers = pool.identifiers
        self._most = {
            identifier: task.options.concurrency
            for identifier, task in pool.tasks.items()
            if task.options.concurrency and task.options.concurrency < pool.options.concurrency
        }
        self._held: Counter[str] = Counter()
        self._harmless: Counter[str] = Counter()
        """Per task: the size of a claim that is not expected to bring too many of its jobs."""

    def plan(self, task_ids: list[int], wanted: int) -> tuple[list[int], int]:
        """Return the ids of the tasks that have room, and how many of their jobs to claim."""
        full = {name for name in self._most if not self._room(name)}
        for name in self._most.keys() - full:
            wanted = min(wanted, max(self._room(name), self._harmless[name]))
        if full:
            task_ids = [task_id for task_id in task_ids if self._identifiers[task_id] not in full]
        return task_ids, wanted

    def admit(self, jobs: list[Claimed], limit: int) -> tuple[list[Claimed], Sequence[Claimed]]:
        """Count claimed jobs; return those that fit, and those to be given back.

        Args:
            jobs: what a claim as planned has brought.
            limit: how many it was to bring.
        """
        if not self._most:
            return jobs, ()
        fitting, excess, seen = [], [], set()
        for job in jobs:
            name = self._identifiers[job.task_id]
            seen.add(name)
            if name not in self._most or self._room(name):
                fitting.append(job)
                self._held[name] += 1
            else:
                excess.append(job)
        for name in self._most:
            if name in seen:
                self._harmless[name] = 0
            elif len(jobs) == limit and self._room(name):
                self._harmless[name] = 2 * limit
        return fitting, excess

    def release(self, *jobs: Claimed) -> None:
        """Note that this process does not hold these jobs any more."""
        if self._most:
            self._held.subtract(self._identifiers[job.task_id] for job in jobs)

    def _room(self, name: str) -> int:
        return max(0, self._most[name] - self._held[name])
