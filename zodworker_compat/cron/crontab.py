"""The text of a crontab file, in graphile-worker's syntax."""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

from zodworker_compat.cron.errors import CrontabError
from zodworker_compat.cron.item import CronItem, CronOptions, refuse_duplicates
from zodworker_compat.cron.pattern import SPACES, compile_fields, whole
from zodworker_compat.errors import OptionError, PayloadSerialisationError

_LINE = re.compile(5 * f"([0-9*/,-]+)[{SPACES}]+" + r"([^\n\r\u2028\u2029]*)")
_COMMAND = re.compile(
    "([A-Za-z_][A-Za-z0-9_:/-]*)"  # task identifier
    rf"(?:[{SPACES}]+\?([^{SPACES}]+))?"  # ?options
    rf"(?:[{SPACES}]+(\{{.*\}}))?"  # {payload}
)
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def _seconds(text: str) -> int:
    return sum(
        whole(number) * _SECONDS[unit] for number, unit in re.findall("([0-9]+)([smhdw])", text)
    )


_OPTIONS: Final[Mapping[str, tuple[str, str, Callable[[str], Any]]]] = {
    "id": ("[A-Za-z_][A-Za-z0-9_-]*", "identifier", str),
    "fill": ("(?:[0-9]+[smhdw])+", "backfill_period", _seconds),
    "max": ("[0-9]+", "max_attempts", whole),
    "queue": ("[A-Za-z0-9_:-]+", "queue_name", str),
    "jobKey": (r"[\s\S]*", "job_key", str),
    "jobKeyMode": ("replace|preserve_run_at", "job_key_mode", str),
    "priority": ("-?[0-9]+", "priority", whole),
}
"""Key in the text: what its value must look like, its name in code, how to read it."""


def parse_crontab(text: str) -> list[CronItem]:
    """Read a crontab.

    A line is five time fields, a task identifier and, if wanted, `?options` and a JSON5 object:
    `0 4 * * 1 send_report ?fill=1d&queue=reports {weekly: true}`. Empty lines and lines that start
    with `#` are comments. Times are UTC. The syntax is graphile-worker 0.17.3's; 0.16.6 has no `/`
    in task identifiers.

    Raises:
        CrontabError: graphile-worker's texts. Refused here, though not there, is what no job can
            have: `max=0`, names that are too long, numbers beyond smallint, NaN and Infinity.
    """
    items = [
        _parse_line(line.strip(SPACES), number)
        for number, line in enumerate(re.split("\r?\n", text), 1)
        if line.strip(SPACES) and not line.strip(SPACES).startswith("#")
    ]
    refuse_duplicates(items, "crontab", "'?id=...'")
    return items


def _parse_line(line: str, number: int) -> CronItem:
    where = f"line {number} of crontab"
    if not (parts := _LINE.fullmatch(line)):
        raise CrontabError(f"Could not process line '{number}' of crontab: '{line}'")
    *fields, command = parts.groups()
    pattern = compile_fields(tuple(fields), where)
    if not (words := _COMMAND.fullmatch(command)):
        raise CrontabError(f"Invalid command specification in {where}.")
    task, query, payload = words.groups()
    options = _parse_options(query or "", where)
    try:
        return CronItem(
            task=task,
            match=pattern,
            identifier=options.pop("identifier", task),
            payload=_parse_payload(payload, where),
            options=CronOptions(**options),
        )
    except PayloadSerialisationError as error:
        raise CrontabError(f"Failed to parse JSON5 payload on {where}: {error}") from error
    except OptionError as error:
        raise CrontabError(f"Invalid command specification in {where}. {error}") from error


def _parse_options(query: str, where: str) -> dict[str, Any]:
    """Read `id=x&max=3`, percent escapes and `+` decoded, as keyword arguments."""
    given: dict[str, list[str]] = {}
    for key, value in parse_qsl(query, keep_blank_values=True):
        given.setdefault(key, []).append(value)
    options = {}
    for key, values in given.items():
        name, value = _parse_option(key, values, f"Options on {where} contains")
        options[name] = value
    if options.get("job_key"):
        options.setdefault("job_key_mode", "replace")
    return options


def _parse_option(key: str, values: list[str], problem: str) -> tuple[str, Any]:
    if len(values) > 1:
        raise CrontabError(
            f"{problem} invalid value for '{key}', did you specify it more than once?"
        )
    if key not in _OPTIONS:
        supported = ", ".join(f"'{name}'" for name in _OPTIONS)
        raise CrontabError(f"{problem} unsupported key '{key}'; supported keys are: {supported}.")
    syntax, name, read = _OPTIONS[key]
    [value] = values
    incompatible = (
        f"{problem} invalid value for '{key}', value '{value}' is not compatible with this option."
    )
    if not re.fullmatch(syntax, value):
        raise CrontabError(incompatible)
    try:
        result = read(value)
        if name != "identifier":
            CronOptions(**{name: result})
    except OptionError as error:
        raise CrontabError(f"{incompatible} {error}") from error
    return name, result


def _parse_payload(text: str | None, where: str) -> Any:
    if text is None:
        return None
    try:
        import json5  # noqa: PLC0415 - start-up time

        return json5.loads(text)
    except ValueError as error:
        problem = str(error).removeprefix("<string>:1 ")
    except RecursionError:
        problem = "it is nested too deeply"
    raise CrontabError(f"Failed to parse JSON5 payload on {where}: JSON5: {problem}")
