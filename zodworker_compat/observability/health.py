"""Whether a worker lives and does its work: what its events say, and whether its event loop turns."""

import asyncio
from datetime import datetime
from time import monotonic
from typing import Any, Final

from zodworker_compat.events import Event, Events, PoolFailure

TICK: Final = 0.5
"""Seconds between two turns of the event loop that are looked at."""
OVER: Final = 45.0
"""Seconds after which a failed claim is over that was not followed by another: claims are repeated
every 5 s, and take 30 s at most, but none is made while all slots are taken."""


class Health:
    """What is known of one worker; any thread may ask.

    Args:
        events: of the worker.
        patience: how many seconds its event loop may stand still.
    """

    def __init__(self, events: Events, patience: float) -> None:
        self._patience = patience
        self._turned_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.state = "not started"
        """not started, starting, running, stopping, stopped."""
        self.listener = "not started"
        """listening, connecting (or polling for ever, behind a pooler), lost: and why."""
        self.claimed_at: float | None = None
        """Local time of the last claim that was answered."""
        self._claim_error: tuple[float, str] | None = None
        events.on("pool:create", self._created)
        events.on("pool:release", self._released)
        events.on("stop", self._stopping)
        events.on("worker:getJob:error", self._claim_failed)
        events.on("pool:listen:connecting", lambda _: self._listens("connecting"))
        events.on("pool:listen:success", lambda _: self._listens("listening"))
        events.on("pool:listen:error", lambda event: self._listens(f"lost: {_words(event)}"))

    def claimed(self, _clock: datetime | None, _began: float, ended: float) -> None:
        """Note a claim that was answered; see `Meter`."""
        self.claimed_at = ended
        self._claim_error = None
        if self.state == "starting":
            self.state = "running"

    def blocked_for(self) -> float:
        """Return for how many seconds the event loop has stood still, if that is too long; else 0."""
        if self.state in {"not started", "stopped"}:
            return 0
        silence = monotonic() - self._turned_at
        return silence if silence > self._patience else 0

    def problems(self) -> list[str]:
        """Return why the worker does not do its work; empty if it does."""
        found = []
        if self.state != "running":
            found.append(f"the worker is {self.state}")
        if seconds := self.blocked_for():
            found.append(
                f"its event loop has been blocked for {seconds:.1f} s: a handler computes in it, or "
                "calls something that waits; make it a plain function, which runs in a thread"
            )
        if (error := self._claim_error) is not None and monotonic() - error[0] < OVER:
            found.append(f"it cannot claim jobs: {error[1]}")
        return found

    def claim_age(self) -> float | None:
        """Return the seconds since the last claim that was answered."""
        return None if self.claimed_at is None else monotonic() - self.claimed_at

    def report(self) -> dict[str, Any]:
        """Return what is known, for JSON."""
        age = self.claim_age()
        return {
            "state": self.state,
            "listener": self.listener,
            "last_claim_seconds": None if age is None else round(age, 3),
            "problems": self.problems(),
        }

    def _created(self, _event: Event) -> None:
        self.state, self.claimed_at, self._claim_error = "starting", None, None
        self._tick(asyncio.get_running_loop())

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        self._turned_at = monotonic()
        self._timer = loop.call_later(TICK, self._tick, loop)

    def _stopping(self, _event: Event) -> None:
        self.state = "stopping"

    def _released(self, _event: Event) -> None:
        self.state, self.listener = "stopped", "stopped"
        if self._timer is not None:
            self._timer.cancel()

    def _claim_failed(self, event: PoolFailure) -> None:
        self._claim_error = monotonic(), _words(event)

    def _listens(self, state: str) -> None:
        self.listener = state


def _words(event: PoolFailure) -> str:
    return " ".join(f"{type(event.error).__name__}: {event.error}".split())
