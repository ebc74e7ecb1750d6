"""SIGTERM and SIGINT for every worker of a process, installed once per event loop."""

import asyncio
import logging
import signal
from collections.abc import Callable

logger = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT)
_listeners: dict[asyncio.AbstractEventLoop, list[Callable[[signal.Signals], None]]] = {}


def listen(listener: Callable[[signal.Signals], None]) -> Callable[[], None]:
    """Call `listener` on each SIGTERM or SIGINT until the returned function is called.

    Outside the main thread Python cannot handle signals: then nothing is installed, and whoever
    runs the loop stops the workers.
    """
    loop = asyncio.get_running_loop()
    listeners = _listeners.setdefault(loop, [])
    if not listeners:
        try:
            for number in SIGNALS:
                loop.add_signal_handler(number, _deliver, loop, number)
        except (ValueError, RuntimeError, NotImplementedError):
            logger.debug("signals are not handled outside the main thread")
            del _listeners[loop]
            return lambda: None
    listeners.append(listener)

    def forget() -> None:
        if listener in listeners:
            listeners.remove(listener)
        if not listeners and _listeners.pop(loop, None) is not None and not loop.is_closed():
            for number in SIGNALS:
                loop.remove_signal_handler(number)

    return forget


def _deliver(loop: asyncio.AbstractEventLoop, number: signal.Signals) -> None:
    for listener in list(_listeners.get(loop, ())):
        listener(number)
