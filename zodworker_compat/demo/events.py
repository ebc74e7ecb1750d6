"""What the outside world sends: the lines of `events.jsonl`."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from attrs import field, frozen

from zodworker_compat import resources
from zodworker_compat.errors import ConfigurationError

EVENTS_FILE = "events.jsonl"


@frozen(kw_only=True)
class Event:
    """One line: an event as trigger.dev's API takes it, and what is to go wrong with it."""

    line: int
    id: Any
    """A string; some lines have something else, which `deliverEvent` refuses."""
    name: str
    source: str
    payload: Mapping[str, Any]
    environment: str = "PRODUCTION"
    """In DEVELOPMENT a run has one attempt."""
    deliver_after: float = 0
    """Seconds until it is delivered; a later version of the event replaces it until then."""
    task_delay: float = 0
    """Seconds that the task of its run waits."""
    failures: Mapping[str, int] = field(factory=dict)
    """How many attempts of a task fail, by task identifier."""


def read_events(path: Path | None = None) -> list[Event]:
    """Read a file of events; by default the package's own.

    Raises:
        ConfigurationError: the file cannot be read, or a line is no event.
    """
    path = path or resources.folder("examples") / EVENTS_FILE
    try:
        with path.open(encoding="utf-8") as lines:
            return parse_events(lines, str(path))
    except OSError as error:
        raise ConfigurationError(f"Cannot read the events: {error}") from error


def parse_events(lines: Iterable[str], file: str = EVENTS_FILE) -> list[Event]:
    """Return the events of lines of JSON.

    Raises:
        ConfigurationError: a line is no event.
    """
    events = []
    for number, line in enumerate(lines, start=1):
        try:
            events.append(_event(number, json.loads(line)))
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigurationError(f"{file}:{number}: not an event: {error!r}") from error
    return events


def _event(line: int, given: Mapping[str, Any]) -> Event:
    return Event(
        line=line,
        id=given["id"],
        name=given["name"],
        source=given["source"],
        payload=given["payload"],
        environment=given.get("environment", "PRODUCTION"),
        deliver_after=float(given.get("deliverAfter", 0)),
        task_delay=float(given.get("taskDelay", 0)),
        failures=given.get("failures", {}),
    )
