"""Takes events in, as trigger.dev's API did: the row and its job in one transaction."""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby

from attrs import define, field
from psycopg.types.json import Jsonb

from zodworker_compat.demo.business import Business
from zodworker_compat.demo.events import Event
from zodworker_compat.errors import PayloadValidationError
from zodworker_compat.worker import ZodWorker

PRODUCERS = 4


@define
class Ingest:
    """Enqueues `deliverEvent` for every event; counts as it goes."""

    worker: ZodWorker
    business: Business
    clock_ahead: float = 0.0
    """Seconds by which this machine's clock is ahead of the database's."""
    read: int = 0
    refused: dict[int, PayloadValidationError] = field(factory=dict)
    """By line."""

    async def take(self, events: Sequence[Event]) -> None:
        """Take all events in; versions of one event in their order, others side by side."""
        groups = (list(versions) for _, versions in groupby(events, lambda event: str(event.id)))
        try:
            async with asyncio.TaskGroup() as producers:
                for _ in range(PRODUCERS):
                    producers.create_task(self._produce(groups))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def _produce(self, groups: Iterator[Iterable[Event]]) -> None:
        for versions in groups:
            for event in versions:
                await self._take_one(event)
                self.read += 1

    async def _take_one(self, event: Event) -> None:
        deliver_at = datetime.now(UTC) + timedelta(seconds=event.deliver_after - self.clock_ahead)
        try:
            async with self.worker.transaction() as tx:
                await tx.enqueue(
                    "deliverEvent",
                    {"id": event.id},
                    job_key=f"event:{event.id}",
                    run_at=deliver_at if event.deliver_after else None,
                )
                await self.business.execute(
                    tx.connection,
                    "add_event",
                    id=event.id,
                    name=event.name,
                    source=event.source,
                    environment=event.environment,
                    payload=Jsonb(event.payload),
                    task_delay=event.task_delay,
                    deliver_at=deliver_at,
                )
        except PayloadValidationError as error:
            self.refused[event.line] = error
