"""What the demo must come to, worked out from the input alone. Pure.

Nothing here is shared with the handlers: this is the other side of the comparison.
"""

from collections.abc import Iterable
from typing import Final

from attrs import define, evolve, field

from zodworker_compat.demo.events import Event
from zodworker_compat.demo.outcome import WORKER_OF, Counts, Outcome

MAX_ATTEMPTS: Final = {
    "deliverEvent": 5,
    "events.invokeDispatcher": 6,
    "startRun": 4,
    "performRunExecutionV2": 12,
    "performTaskOperation": 3,
    "scheduleEmail": 3,
}
"""trigger.dev's, which the catalog must say."""
MAILS: Final = {
    "user.login": "magic_link",
    "user.invited": "invite",
    "user.mfa_enabled": "mfa-enabled",
}
SERIAL: Final = "invoice.issued"
SERVICE_UNAVAILABLE: Final = "ServiceUnavailableError: no answer for {}, attempt {}"


def expect(events: Iterable[Event]) -> Outcome:
    """Return what must be there when the demo is over."""
    given = list(events)
    valid = [event for event in given if isinstance(event.id, str)]
    last_versions = {event.id: event for event in valid}
    tally = Tally()
    for event in last_versions.values():
        tally.follow(event)
    return Outcome(
        read=len(given),
        refused=frozenset(event.line for event in given if not isinstance(event.id, str)),
        debounced=len(valid) - len(last_versions),
        counts=tally.counts,
        events={
            event.id: {"payload": event.payload, "delivered": True}
            for event in last_versions.values()
        },
        runs=tally.runs,
        tasks=tally.tasks,
        outbox=tally.outbox,
        failed_jobs=tally.failed_jobs,
        serial=tally.serial,
        delayed=tally.delayed,
    )


@define
class Tally:
    """Follows events one by one through the six tasks."""

    counts: dict[str, Counts] = field(factory=lambda: dict.fromkeys(WORKER_OF, Counts()))
    runs: dict[str, str] = field(factory=dict)
    tasks: dict[str, str] = field(factory=dict)
    outbox: dict[str, str] = field(factory=dict)
    failed_jobs: dict[str, str] = field(factory=dict)
    serial: int = 0
    delayed: int = 0

    def follow(self, event: Event) -> None:
        """Add one event and all that it leads to."""
        run, task = f"run_{event.id}", f"task_{event.id}"
        self._job(event, "deliverEvent", event.id)
        self._job(event, "events.invokeDispatcher", f"on:{event.name}")
        self._job(event, "startRun", run)
        self.runs[run] = "STARTED"
        if not self._job(event, "performRunExecutionV2", run):
            return
        self.runs[run], self.tasks[task] = "EXECUTED", "WAITING"
        self.serial += event.name == SERIAL
        if not self._job(event, "performTaskOperation", task):
            return
        self.runs[run], self.tasks[task] = "SUCCESS", "COMPLETED"
        self.delayed += event.task_delay > 0
        if kind := MAILS.get(event.name):
            sent = self._job(event, "scheduleEmail", task)
            recipient = event.payload["email"]
            self.outbox[task] = f"{kind} to {recipient}, {'sent' if sent else 'not sent'}"

    def _job(self, event: Event, identifier: str, row: str) -> bool:
        """Count one job; return whether it ends well."""
        attempts = MAX_ATTEMPTS[identifier]
        if identifier == "performRunExecutionV2" and event.environment == "DEVELOPMENT":
            attempts = 1
        failures = event.failures.get(identifier, 0)
        failed = failures >= attempts
        counts = self.counts[identifier]
        self.counts[identifier] = evolve(
            counts,
            enqueued=counts.enqueued + 1,
            done=counts.done + (not failed),
            retried=counts.retried + min(failures, attempts - 1),
            failed=counts.failed + failed,
        )
        if failed:
            error = SERVICE_UNAVAILABLE.format(event.id, attempts)
            self.failed_jobs[f"{identifier} {row}"] = error
        return not failed
