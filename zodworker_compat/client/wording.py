"""Numbers and durations as people say them."""

from datetime import timedelta

_UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))


def plural(count: int, noun: str) -> str:
    """Return a count with its noun: "1 job", "1,204 jobs"."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def duration(value: timedelta, units: int = 2) -> str:
    """Return a duration in its largest units, e.g. "2 h 5 min"; "0 s" for less than a second."""
    seconds = max(0, int(value.total_seconds()))
    fitting = [(name, size) for name, size in _UNITS if seconds >= size or size == 1]
    words: list[str] = []
    for name, size in fitting[:units]:
        count, seconds = divmod(seconds, size)
        if count or not words:
            words.append(f"{count} {name}")
    return " ".join(words)
