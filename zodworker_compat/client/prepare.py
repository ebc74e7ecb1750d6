"""From what a caller says to the arguments of `add_job`: catalog, payload, options. No I/O."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from enum import Enum
from typing import Any, Final, TypeAlias, TypedDict

from attrs import define, field, frozen

from zodworker_compat.catalog import Task, WorkerCatalog, recurring_not_enqueued
from zodworker_compat.errors import BatchError, OptionError, UnknownTaskError, shown
from zodworker_compat.options import (
    NO_OPTIONS,
    Clearable,
    EnqueueOptions,
    JobKeyMode,
    JobSpec,
    TaskOptions,
    computed,
    merge,
    options_of,
)


class Undefined(Enum):
    """The type of `UNDEFINED`."""

    UNDEFINED = "UNDEFINED"

    def __repr__(self) -> str:
        return "UNDEFINED"


UNDEFINED: Final = Undefined.UNDEFINED
"""No payload given: stored as `{}` (P-18). `None` is JSON's null."""


class Options(TypedDict, total=False):
    """`EnqueueOptions` as keyword arguments; see there."""

    run_at: Clearable[datetime]
    max_attempts: Clearable[int]
    job_key: Clearable[str]
    job_key_mode: Clearable[JobKeyMode]
    priority: Clearable[int]
    flags: Clearable[Sequence[str]]
    queue_name: Clearable[str]


@frozen
class JobRequest:
    """One item of `enqueue_many`."""

    identifier: str
    payload: Any = UNDEFINED
    options: EnqueueOptions = field(factory=EnqueueOptions, converter=options_of)


Request: TypeAlias = (
    "JobRequest | tuple[str, Any] | tuple[str, Any, EnqueueOptions | Mapping[str, Any]]"
)


@frozen
class _Prepared:
    """A task with its options laid over the defaults."""

    task: Task
    options: TaskOptions
    alone: dict[str, Any] | None
    """What they make of a call that gives none; None if a function must look at the payload."""

    @classmethod
    def of(cls, task: Task, defaults: TaskOptions) -> "_Prepared":
        options = task.options.over(defaults)
        is_computed = computed(options.queue_name) or computed(options.job_key)
        return cls(task, options, None if is_computed else merge(options, NO_OPTIONS, None))

    def spec(self, payload: Any, options: EnqueueOptions, validate: bool) -> JobSpec:
        value = {} if payload is UNDEFINED else payload
        text = self.task.codec.encode(value, validate=validate)
        arguments = self.alone if options is NO_OPTIONS else None
        if arguments is None:
            arguments = merge(self.options, options, value)
        return JobSpec(
            identifier=self.task.identifier,
            payload=None if payload is UNDEFINED else text,
            **arguments,
        )


@define
class Preparer:
    """The catalog and the settings that every enqueue of a worker shares."""

    catalog: WorkerCatalog
    defaults: TaskOptions = field(factory=TaskOptions)
    """Global defaults, under the catalog's."""
    validate: bool = True
    overrides: dict[str, Task] = field(factory=dict)
    """Tasks whose options or schema the code sets, over the catalog's file."""
    recurring: set[str] = field(factory=set)
    """Recurring tasks that the code adds to the catalog's."""
    _prepared: dict[str, _Prepared] = field(factory=dict, init=False, repr=False)

    def task(self, identifier: str) -> Task:
        """Return the task.

        Raises:
            UnknownTaskError: the catalog has none of that identifier (P-15).
        """
        if not isinstance(identifier, str):
            raise OptionError("identifier", f"expected a string, got {type(identifier).__name__}")
        if identifier in self.overrides:
            return self.overrides[identifier]
        if identifier in self.recurring or identifier in self.catalog.recurring:
            raise recurring_not_enqueued(identifier, self.catalog.name)
        if self.overrides and identifier not in self.catalog:
            raise UnknownTaskError(identifier, {*self.catalog, *self.overrides}, self.catalog.name)
        return self.catalog.get(identifier)

    def spec(self, identifier: str, payload: Any, options: EnqueueOptions) -> JobSpec:
        """Return the arguments of `add_job`.

        Raises:
            EnqueueError: the identifier, the payload or an option is wrong.
        """
        return self._prepare(identifier).spec(payload, options, self.validate)

    def _prepare(self, identifier: str) -> _Prepared:
        """Return the task with its options laid over the defaults: once, as that takes 3 us."""
        task = self.task(identifier)
        prepared = self._prepared.get(identifier)
        if prepared is None or prepared.task is not task:  # the code has replaced it since
            prepared = self._prepared[identifier] = _Prepared.of(task, self.defaults)
        return prepared

    def specs(self, requests: Iterable[Request]) -> list[JobSpec]:
        """Return the arguments of every job of a batch.

        Raises:
            BatchError: some are wrong; it holds every bad item with its index.
            OptionError: it is no list.
        """
        if not isinstance(requests, Iterable) or isinstance(requests, str | bytes | Mapping):
            raise OptionError("requests", f"expected a list of jobs, got {shown(requests)}")
        requests = list(requests)
        specs: list[JobSpec] = []
        failures: list[tuple[int, Exception]] = []
        keys: dict[str, int] = {}
        tasks: dict[str, _Prepared] = {}
        for index, request in enumerate(requests):
            try:
                identifier, payload, options = _parts(request)
                prepared = tasks.get(identifier) if isinstance(identifier, str) else None
                if prepared is None:
                    prepared = tasks[identifier] = self._prepare(identifier)
                spec = prepared.spec(payload, options, self.validate)
                if spec.job_key:
                    _refuse_repeated(spec.job_key, index, keys)
            except Exception as error:  # noqa: BLE001 - a key function may raise anything
                failures.append((index, error))
            else:
                specs.append(spec)
        if failures:
            raise BatchError(failures, len(requests))
        return specs


def _parts(request: Request) -> tuple[str, Any, EnqueueOptions]:
    if type(request) is tuple and len(request) in {2, 3}:  # without a JobRequest: 0.8 us
        identifier, payload, *options = request
        return identifier, payload, options_of(options[0]) if options else NO_OPTIONS
    item = as_request(request)
    return item.identifier, item.payload, item.options


def _refuse_repeated(job_key: str, index: int, first_use: dict[str, int]) -> None:
    if (first := first_use.setdefault(job_key, index)) != index:
        raise OptionError("job_key", f"{job_key!r} is the key of item {first} already")


def as_request(request: Request) -> JobRequest:
    """Return an item of `enqueue_many`, given as one or as (identifier, payload[, options])."""
    if isinstance(request, JobRequest):
        return request
    if isinstance(request, tuple) and 1 <= len(request) <= 3:  # noqa: PLR2004
        return JobRequest(*request)
    raise OptionError(
        "item",
        f"expected JobRequest or (identifier, payload, options), got {type(request).__name__}",
    )
