"""What people type for a time and for a payload."""

import json
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

_UNITS = {"d": "days", "h": "hours", "m": "minutes", "s": "seconds"}
_DURATION = re.compile(r"(?:\d+[dhms])+", re.ASCII)


def parse_duration(text: str) -> timedelta:
    """Return the duration that "90s", "1h30m" or "30d" means.

    Raises:
        ValueError: it is none, or too long.
    """
    if not _DURATION.fullmatch(text):
        raise ValueError(f"{text!r} is not a duration: write 90s, 5m, 1h30m or 30d.")
    parts = re.findall(r"(\d+)([dhms])", text)
    try:
        return sum((timedelta(**{_UNITS[unit]: int(count)}) for count, unit in parts), timedelta())
    except (OverflowError, ValueError):
        raise ValueError(f"{text!r} is too long.") from None


def parse_time(text: str) -> datetime:
    """Return the time that "2026-01-31T12:00:00Z", "now", "+1h30m" (from now) or "-2h" (ago) means.

    Raises:
        ValueError: it is none of them, or has no time zone.
        OverflowError: Python knows no such time.
    """
    now = datetime.now(UTC)
    if text == "now":
        return now
    if text[:1] in {"+", "-"} and _DURATION.fullmatch(text[1:]):
        delay = parse_duration(text[1:])
        return now + delay if text[0] == "+" else now - delay
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            f"{text!r} is not a time: write 2026-01-31T12:00:00Z, now, or +5m, +1h30m, +2d from now, or -2h for ago."
        ) from None
    if time.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone: append Z for UTC, or e.g. +01:00.")
    return time


class Duration(click.ParamType[timedelta]):
    """A duration: 90s, 1h30m, 30d."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> timedelta:
        """Return the duration, or say how it is written."""
        if isinstance(value, timedelta):
            return value
        try:
            return parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Time(click.ParamType[datetime]):
    """A time in ISO 8601 with a time zone, or a delay from now."""

    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        """Return the time, or say how it is written."""
        try:
            return parse_time(value)
        except (ValueError, OverflowError) as error:
            self.fail(str(error), param, ctx)


def parse_json(text: str) -> Any:
    """Return a JSON value; NaN and Infinity, which Python would take, are refused.

    Raises:
        ValueError: it is not JSON.
    """

    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is not JSON")

    try:
        return json.loads(text, parse_constant=refuse)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_payload(argument: str) -> Any:
    """Return the payload that an argument gives: JSON, `@file`, or `-` for standard input.

    Raises:
        click.BadParameter: there is no such file, or it is not JSON.
    """
    try:
        if argument == "-":
            source, text = "standard input", sys.stdin.read()
        elif argument.startswith("@"):
            source, text = argument[1:], Path(argument[1:]).read_text("utf-8")
        else:
            source, text = "the payload", argument
    except (OSError, UnicodeDecodeError) as error:
        raise click.BadParameter(f"cannot read it: {error}", param_hint="PAYLOAD") from None
    try:
        return parse_json(text)
    except ValueError as error:
        quote = "; in a shell, quote it: '{\"id\": 1}'" if source == "the payload" else ""
        raise click.BadParameter(
            f"{source} is not JSON: {error}{quote}.", param_hint="PAYLOAD"
        ) from None
