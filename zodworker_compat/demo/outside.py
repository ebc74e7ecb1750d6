"""The world outside the database: endpoints, providers, a mail server. Some of it is down."""

import asyncio
from collections.abc import Iterable

from zodworker_compat.demo.events import Event
from zodworker_compat.job import Job

LATENCY = 0.005
"""Seconds that a call takes."""


class ServiceUnavailableError(Exception):
    """What the demo calls did not answer, as `events.jsonl` asked for."""


class Outside:
    """Answers after a moment, or fails as often as the events ask for."""

    def __init__(self, events: Iterable[Event]) -> None:
        self._failures = {
            (event.id, identifier): count
            for event in events
            for identifier, count in event.failures.items()
            if isinstance(event.id, str)
        }

    async def call(self, event_id: str, job: Job) -> None:
        """Do the work of a job that needs the outside world.

        Raises:
            ServiceUnavailableError: this attempt is one of those that fail.
        """
        await asyncio.sleep(LATENCY)
        if job.attempts <= self._failures.get((event_id, job.task_identifier), 0):
            raise ServiceUnavailableError(f"no answer for {event_id}, attempt {job.attempts}")
