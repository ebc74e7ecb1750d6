"""Options of a task and of one enqueue: their rules, and how they are merged.

Precedence is ZodWorker's since 2023-08-28: global < catalog < call, key by key, except that a
`queue_name` or `job_key` *function* (or template) in the catalog beats the call (P-1…P-12).
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final, Literal, TypeAlias, TypedDict, TypeVar, get_args

from attrs import Attribute, asdict, define, evolve, field, fields, frozen

from zodworker_compat.errors import OptionError, shown, suggestion

JobKeyMode = Literal["replace", "preserve_run_at", "unsafe_dedupe"]
JOB_KEY_MODES: Final = get_args(JobKeyMode)

SMALLINT: Final = range(-(2**15), 2**15)
MAX_QUEUE_NAME: Final = 128
MAX_JOB_KEY: Final = 512
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_PLACEHOLDER: Final = re.compile(r"\{payload((?:\.[A-Za-z_$][\w$]*)*)\}")


class Clear(Enum):
    """The type of `CLEAR`."""

    CLEAR = "CLEAR"

    def __repr__(self) -> str:
        return "CLEAR"


CLEAR: Final = Clear.CLEAR
"""JavaScript's `null`: removes the catalog's default for this call (P-3). `None` is `undefined`."""

T = TypeVar("T")
Clearable: TypeAlias = T | Clear | None
Computed: TypeAlias = str | Callable[[Any], str | None]


def _check_smallint(option: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise OptionError(option, f"expected a whole number, got {shown(value)}")
    if value not in SMALLINT:
        raise OptionError(
            option, f"{shown(value)} does not fit PostgreSQL's smallint (-32768 to 32767)"
        )


def check_priority(value: object) -> None:
    """Refuse what the column `priority smallint` cannot hold."""
    _check_smallint("priority", value)


def check_max_attempts(value: object) -> None:
    """Refuse zero and less: ZodWorker turned 0 into 25 (departure 5), PostgreSQL refuses the rest."""
    _check_smallint("max_attempts", value)
    if isinstance(value, int) and value < 1:
        raise OptionError("max_attempts", f"must be at least 1, got {shown(value)}")


def check_attempts(value: object) -> None:
    """Refuse what the column `attempts smallint` cannot hold; negative numbers are more tries."""
    _check_smallint("attempts", value)


def check_run_at(value: object) -> None:
    """Refuse a naive datetime: it would mean another time on another host."""
    if not isinstance(value, datetime):
        raise OptionError("run_at", f"expected a datetime with a time zone, got {shown(value)}")
    if value.utcoffset() is None:
        raise OptionError(
            "run_at", f"{value!r} has no time zone; use datetime.now(UTC) or .astimezone()"
        )
    try:
        value.astimezone(UTC)
    except OverflowError:
        raise OptionError("run_at", f"{value!r} is outside the years 1 to 9999 in UTC") from None


def _check_text(option: str, value: object, longest: int) -> None:
    if not isinstance(value, str):
        raise OptionError(option, f"expected a string, got {shown(value)}")
    if len(value) > longest:
        raise OptionError(option, f"is {len(value)} characters long; the table allows {longest}")
    if "\0" in value or (not value.isascii() and _SURROGATE.search(value)):
        raise OptionError(option, "holds NUL or a lone surrogate, which PostgreSQL cannot store")


def check_text(option: str, value: object) -> None:
    """Refuse what a column of type text cannot hold, and more than 2**20 characters."""
    _check_text(option, value, 2**20)


def check_queue_name(value: object) -> None:
    """Refuse what the column `queue_name` cannot hold."""
    _check_text("queue_name", value, MAX_QUEUE_NAME)


def check_job_key(value: object) -> None:
    """Refuse what the column `key` cannot hold."""
    _check_text("job_key", value, MAX_JOB_KEY)


def check_job_key_mode(value: object) -> None:
    """Refuse all but the three modes; "" is "not given", as in ZodWorker."""
    if not isinstance(value, str) or value not in {*JOB_KEY_MODES, ""}:
        raise OptionError(
            "job_key_mode", f"{shown(value)} is not one of {', '.join(JOB_KEY_MODES)}"
        )


def check_flags(value: object) -> None:
    """Refuse anything but a sequence of strings."""
    if isinstance(value, str) or not isinstance(value, (list, tuple, set, frozenset, Sequence)):
        raise OptionError("flags", f"expected a list of strings, got {shown(value)}")
    for flag in value:
        _check_text("flags", flag, 2**20)


def _checked(check: Callable[[object], None]) -> Callable[[object, "Attribute[Any]", Any], None]:
    def validator(_instance: object, _attribute: "Attribute[Any]", value: Any) -> None:
        if value is not None and value is not CLEAR:
            check(value)

    return validator


def _unless_function(
    check: Callable[[object], None],
) -> Callable[[object, "Attribute[Any]", Any], None]:
    def checked(value: object) -> None:
        if not callable(value):
            check(value)
            _check_template(value)

    return _checked(checked)


def _check_template(value: object) -> None:
    """Refuse what looks like a template and is none: a constant key would replace job after job."""
    if isinstance(value, str) and re.search("[{}]", _PLACEHOLDER.sub("", value)):
        raise OptionError(
            value, "is not a template; a placeholder is {payload.id} or {payload.a.b}"
        )
    if isinstance(value, str) and "${payload" in value:
        raise OptionError(value, "write {payload...} without the $ of JavaScript")


@frozen(kw_only=True)
class EnqueueOptions:
    """What one call to `enqueue` may say; `None` leaves the catalog's default in force.

    Every field also takes `CLEAR`, which removes the catalog's default for this call.
    """

    run_at: Clearable[datetime] = field(default=None, validator=_checked(check_run_at))
    """Earliest start, an aware datetime. Default: the transaction's start, by the database clock."""
    max_attempts: Clearable[int] = field(default=None, validator=_checked(check_max_attempts))
    """1 to 32767. Default 25."""
    job_key: Clearable[str] = field(default=None, validator=_checked(check_job_key))
    """1 to 512 characters, unique in the whole table; "" is "no key"."""
    job_key_mode: Clearable[JobKeyMode] = field(
        default=None, validator=_checked(check_job_key_mode)
    )
    """What happens to a waiting job of the same key. Default `replace`."""
    priority: Clearable[int] = field(default=None, validator=_checked(check_priority))
    """-32768 to 32767, smaller first. Default 0."""
    flags: Clearable[Sequence[str]] = field(default=None, validator=_checked(check_flags))
    """Labels that a limiter may forbid; an empty list overrides the catalog's."""
    queue_name: Clearable[str] = field(default=None, validator=_checked(check_queue_name))
    """Jobs of one named queue run one at a time, in every worker; at most 128 characters."""


@frozen(kw_only=True)
class TaskOptions:
    """A task's defaults in the catalog.

    `queue_name` and `job_key` may be functions of the payload or templates
    (`"runs:{payload.id}"`); those beat what a call says, as in ZodWorker (P-10, P-12).
    """

    max_attempts: int | None = field(default=None, validator=_checked(check_max_attempts))
    job_key: Computed | None = field(default=None, validator=_unless_function(check_job_key))
    job_key_mode: JobKeyMode | None = field(default=None, validator=_checked(check_job_key_mode))
    priority: int | None = field(default=None, validator=_checked(check_priority))
    flags: Sequence[str] | None = field(default=None, validator=_checked(check_flags))
    queue_name: Computed | None = field(default=None, validator=_unless_function(check_queue_name))

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> "TaskOptions":
        """Return keyword arguments as options.

        Raises:
            OptionError: an option is unknown or its value is wrong.
        """
        refuse_unknown(given, TASK_OPTION_NAMES)
        return cls(**given)

    def over(self, defaults: "TaskOptions") -> "TaskOptions":
        """Return these options, with `defaults` where nothing is set."""
        return evolve(
            defaults, **{name: value for name, value in as_dict(self).items() if value is not None}
        )


class TaskKeywords(TypedDict, total=False):
    """`TaskOptions` as keyword arguments; see there."""

    max_attempts: int | None
    job_key: Computed | None
    job_key_mode: JobKeyMode | None
    priority: int | None
    flags: list[str] | None
    queue_name: Computed | None


@define(kw_only=True)  # not frozen: making one is a tenth of a bulk enqueue, and would be a fifth
class JobSpec:
    """The arguments of graphile-worker's `add_job`, ready to be bound; `None` is SQL NULL."""

    identifier: str
    payload: str | None = field(repr=False)
    queue_name: str | None = None
    run_at: datetime | None = None
    max_attempts: int | None = None
    job_key: str | None = None
    priority: int | None = None
    flags: list[str] | None = None
    job_key_mode: str | None = None


OPTION_NAMES: Final = tuple(attribute.name for attribute in fields(EnqueueOptions))
NO_OPTIONS: Final = EnqueueOptions()
TASK_OPTION_NAMES: Final = tuple(attribute.name for attribute in fields(TaskOptions))


def refuse_unknown(given: Mapping[str, Any], known: Collection[str]) -> None:
    """Refuse option names that do not exist; TypeScript's `runAt` is told that it is `run_at`.

    Raises:
        OptionError: names the nearest option.
    """
    for name in given:
        if name not in known:
            snake_case = re.sub("[A-Z]", lambda match: f"_{match[0].lower()}", str(name))
            raise OptionError(str(name), f"there is no such option.{suggestion(snake_case, known)}")


def options_of(given: EnqueueOptions | Mapping[str, Any] | None) -> EnqueueOptions:
    """Return options, given as such or as keyword arguments.

    Raises:
        OptionError: an option is unknown or its value is wrong.
    """
    if isinstance(given, EnqueueOptions):
        return given
    if not given:
        return NO_OPTIONS
    if not isinstance(given, Mapping):
        raise OptionError("options", f"expected a mapping, got {type(given).__name__}")
    refuse_unknown(given, OPTION_NAMES)
    return EnqueueOptions(**given)


def as_dict(options: EnqueueOptions | TaskOptions | JobSpec) -> dict[str, Any]:
    """Return the fields as a dict, values untouched."""
    return asdict(options, recurse=False)


def merge(task: TaskOptions, call: EnqueueOptions, payload: Any) -> dict[str, Any]:
    """Merge a task's options with a call's into the option arguments of `add_job`.

    Args:
        task: the catalog's options, global defaults already under them.
        call: what this enqueue says.
        payload: the payload as the caller gave it, for functions and templates (P-11).

    Raises:
        OptionError: a function or template gave something the table cannot hold.
        Exception: whatever a function raises; nothing has been written then (P-10).
    """
    merged = _overlaid(task, call)
    if queue_name := computed(task.queue_name):
        merged["queue_name"] = _call("queue_name", queue_name, payload)
        if merged["queue_name"] is not None:
            check_queue_name(merged["queue_name"])
    if job_key := computed(task.job_key):
        merged["job_key"] = _call("job_key", job_key, payload) or call_only(call.job_key)
        if merged["job_key"] is not None:
            check_job_key(merged["job_key"])
    for name in ("queue_name", "job_key", "job_key_mode"):
        merged[name] = merged[name] or None
    if merged["run_at"] is not None:
        merged["run_at"] = merged["run_at"].astimezone(UTC)
    if merged["flags"] is not None:
        merged["flags"] = list(merged["flags"])
    return merged


def _overlaid(task: TaskOptions, call: EnqueueOptions) -> dict[str, Any]:
    merged: dict[str, Any] = {"run_at": None}  # a task has none
    for name in TASK_OPTION_NAMES:
        merged[name] = getattr(task, name)
    if call is not NO_OPTIONS:
        for name in OPTION_NAMES:
            value = getattr(call, name)
            if value is not None:
                merged[name] = None if value is CLEAR else value
    return merged


def _call(option: str, function: Callable[[Any], str | None], payload: Any) -> str | None:
    try:
        return function(payload)
    except Exception as error:
        error.add_note(
            f"raised by the task's {option} function, which gets the payload as enqueued"
        )
        raise


def call_only(value: Clearable[str]) -> str | None:
    """Return what the call itself said."""
    return None if value is CLEAR else value


def computed(option: Computed | None) -> Callable[[Any], str | None] | None:
    """Return the function that an option stands for: itself, a template's, or None if it is plain."""
    if callable(option):
        return option
    if isinstance(option, str) and "{payload" in option:
        return lambda payload: render(option, payload)
    return None


def render(template: str, payload: Any) -> str:
    """Fill `{payload.a.b}` in a template of the catalog.

    Raises:
        OptionError: the payload has no such member, or it is not a string or a number.
    """

    def replace(match: re.Match[str]) -> str:
        value = payload
        for name in match[1].split(".")[1:]:
            value = value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise OptionError(template, f"the payload has no string or whole number at {match[0]}")
        return str(value)

    return _PLACEHOLDER.sub(replace, template)
