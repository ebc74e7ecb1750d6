"""A wake-up call that is not lost if nobody waits yet."""

import asyncio


class Alarm:
    """An event that one loop waits for; several pulses before it looks are one."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def pulse(self) -> None:
        """Wake the waiter, or let its next wait return at once."""
        if not self._event.is_set():
            self._event.set()

    async def wait(self, seconds: float | None = None) -> None:
        """Return at the next pulse, or after `seconds`."""
        loop = asyncio.get_running_loop()
        timer = None if seconds is None else loop.call_later(seconds, self._event.set)
        try:
            await self._event.wait()
        finally:
            self._event.clear()
            if timer is not None:
                timer.cancel()
