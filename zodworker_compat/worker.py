"""ZodWorker: the catalog, its handlers, enqueue and the runner in one object."""

import asyncio
import logging
import signal
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

from attrs import evolve

from zodworker_compat import maintenance, signals
from zodworker_compat.catalog import Task, WorkerCatalog
from zodworker_compat.client.client_async import AsyncClient
from zodworker_compat.cron import CronItem, Match
from zodworker_compat.cron.item import refuse_duplicates
from zodworker_compat.database.connect import resolve_conninfo
from zodworker_compat.database.pool_async import AsyncDatabase
from zodworker_compat.errors import ConfigurationError
from zodworker_compat.events import Events, Signalled
from zodworker_compat.handlers import payload_type_of
from zodworker_compat.job import Job
from zodworker_compat.limiter import ManagedRateLimiter, RateLimiter
from zodworker_compat.maintenance import CleanupOptions, Reporter
from zodworker_compat.observability.tracing import Tracing
from zodworker_compat.options import TaskKeywords, TaskOptions
from zodworker_compat.recurring import (
    CronKeywords,
    RecurringTaskSpec,
    check_command,
    cron_item,
    read_crontab,
    recurring_task,
)
from zodworker_compat.runner import Retry, RunnableTask, Runner, RunOptions
from zodworker_compat.runner.task import check_handler, without_run_options
from zodworker_compat.runner_options import RunnerOptions, as_timedelta

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

    from zodworker_compat.client.client import Client

logger = logging.getLogger(__name__)

Handler = TypeVar("Handler", bound=Callable[..., Any])


def _check_type(argument: str, given: object, kind: type) -> None:
    if given is not None and not isinstance(given, kind):
        raise ConfigurationError(
            f"{argument} must be {kind.__name__}(...), got {type(given).__name__}"
        )


class ZodWorker(AsyncClient):
    """One worker of trigger.dev: a catalog of tasks, an `enqueue`, and the runner of its handlers.

    Everything but `initialize`, `run_until_stopped` and `run_once` works without handlers and
    without a runner, so a web process uses the same object to enqueue.

    Args:
        name: shown in logs and in `pg_stat_activity`.
        catalog: a `WorkerCatalog`, or the name or path of one. Default: an empty one, filled by
            `@worker.task(..., schema=...)`.
        schema: the literal port: JSON Schemas by identifier, with `tasks`.
        tasks: the literal port: options and `handler` by identifier.
        runner_options: connection, schema, concurrency and poll interval.
        defaults: options of every task that its catalog entry does not set.
        validate_on_enqueue: False stores payloads unchecked, as ZodWorker did.
        shutdown_timeout: how long running handlers may take after a stop; a bare number is seconds,
            0 is for ever.
        delete_failed_jobs: True deletes a job whose handler fails on the last attempt, as ZodWorker
            did from 2024-05; False keeps it with its `last_error` (departure 3).
        on_error: called with (job, exception) after each failed run, when its failure is written;
            sync (then it must be short) or async. What it raises is logged.
        rate_limiter: says which flags must not run now, and has the last word when a job of the
            catalog starts: a `PostgresRateLimiter`, or your own `RateLimiter` (P-50…P-53).
        recurring_tasks: what `recurring` registers, by identifier: `RecurringTaskSpec`s or mappings
            of `match`, `handler` and, if wanted, `options`.
        crontab: lines in graphile-worker's syntax whose commands are tasks of the catalog. The
            job's payload is the line's with the member `_cron` added (which a schema that names its
            properties strips before the handler sees it). The job's options are the line's alone, as a Node process with the same line would enqueue it.
        crontab_file: the file of the crontab, read once.
        cleanup: delete jobs that have failed for good, regularly.
        reporter: gets the numbers of the clean-up, and of the queue at minute 50 of each hour.
        handle_signals: stop gracefully on SIGTERM, SIGINT and SIGHUP while the runner runs; what further
            signals do, and when the process is ended: see `zodworker_compat.signals`.
        tracer_provider: of OpenTelemetry; None is the global one, if it is set before the worker
            starts. See `zodworker_compat.observability.tracing`.
        trace_payloads: True writes payloads into the spans, as ZodWorker did; they may hold
            personal data.
    """

    def __init__(
        self,
        *,
        name: str,
        catalog: WorkerCatalog | str | None = None,
        schema: Mapping[str, Any] | None = None,
        tasks: Mapping[str, Any] | None = None,
        runner_options: RunnerOptions | None = None,
        defaults: TaskOptions | None = None,
        validate_on_enqueue: bool = True,
        shutdown_timeout: timedelta | float = timedelta(seconds=60),
        delete_failed_jobs: bool = False,
        on_error: Callable[[Job, BaseException], Any] | None = None,
        rate_limiter: RateLimiter | None = None,
        recurring_tasks: Mapping[str, RecurringTaskSpec | Mapping[str, Any]] | None = None,
        crontab: str | None = None,
        crontab_file: str | Path | None = None,
        cleanup: CleanupOptions | None = None,
        reporter: Reporter | None = None,
        handle_signals: bool = True,
        tracer_provider: "TracerProvider | None" = None,
        trace_payloads: bool = False,
    ) -> None:
        if catalog is not None and (schema is not None or tasks is not None):
            raise ConfigurationError("Give either catalog, or schema and tasks; not both.")
        tasks, run_options = without_run_options(tasks or {})
        if catalog is None:
            catalog = WorkerCatalog.of(schema=schema or {}, tasks=tasks, name=name)
        _check_type("runner_options", runner_options, RunnerOptions)
        _check_type("defaults", defaults, TaskOptions)
        _check_type("cleanup", cleanup, CleanupOptions)
        super().__init__(
            catalog,
            runner_options=runner_options,
            defaults=defaults,
            validate_on_enqueue=validate_on_enqueue,
        )
        self.name = name
        self.events = Events()
        """What the runner tells; see `zodworker_compat.events`."""
        self._meters = self.events.meters
        self._on_error = on_error
        self._run_options: dict[str, RunOptions] = {}
        self._tracing = Tracing(tracer_provider, payloads=trace_payloads, worker_name=name)
        self._handlers: dict[str, Callable[..., Any]] = {}
        self._shutdown_timeout = as_timedelta(shutdown_timeout)
        self._delete_failed_jobs = delete_failed_jobs
        self._rate_limiter = rate_limiter
        self._limiter_is_open = False
        self._handle_signals = handle_signals
        self._runner: Runner | None = None
        self._forget_signals: signals.Forget = lambda _clean=True, /: None
        self._starting = asyncio.Lock()
        for identifier, handler in self.catalog.handlers.items():
            self.task(identifier, **run_options.get(identifier, {}))(handler)
        self._recurring: dict[str, tuple[CronItem, RunnableTask]] = {}
        self._crontab = read_crontab(crontab, crontab_file)
        self._add_maintenance(cleanup, reporter)
        for identifier, given in (recurring_tasks or {}).items():
            self._add_recurring(identifier, RecurringTaskSpec.of(identifier, given))

    def task(
        self,
        identifier: str,
        *,
        schema: Mapping[str, Any] | bool | None = None,
        payload_type: Any = None,
        timeout: timedelta | float | None = None,
        retry: Retry | None = None,
        concurrency: int | None = None,
        **options: Unpack[TaskKeywords],
    ) -> Callable[[Handler], Handler]:
        """Register the handler of a task; a decorator.

        The handler takes `payload`, `(payload, job)` or `(payload, job, helpers)`, and is async or
        plain; a plain one runs in a thread. If its first parameter is annotated with an attrs class
        (or a union of them), it gets an instance, otherwise the validated dict.

        Args:
            identifier: a task of the catalog, or a new one if `schema` is given.
            schema: a JSON Schema (draft 2020-12) that replaces the catalog's; True accepts anything.
            payload_type: the attrs class, if there is no annotation to say it.
            timeout: how long a run may take; see `RunOptions`.
            retry: (job, exception) -> delay until the next attempt, or `ExponentialBackoff(...)`; see
                `RunOptions`. A handler may also raise `RetryAfter` or `PermanentFailure`.
            concurrency: how many of its jobs this process holds at a time; see `RunOptions`.
            **options: override the catalog's; see `TaskOptions`.

        Raises:
            UnknownTaskError: the catalog has no such task, and no schema is given.
            ConfigurationError: the task has a handler already, or the worker is running.
            OptionError: an option is unknown or out of range.
        """
        if not isinstance(identifier, str):
            raise ConfigurationError('Name the task: @worker.task("startRun"), not @worker.task.')
        if self._runner is not None:
            raise ConfigurationError(f"Register {identifier!r} before initialize().")
        if identifier in self._handlers:
            raise ConfigurationError(f"Task {identifier!r} has a handler already.")
        run_options = RunOptions(timeout=timeout, retry=retry, concurrency=concurrency)
        if identifier in self._prepare.recurring or identifier in self.catalog.recurring:
            raise ConfigurationError(
                f"{identifier!r} is a recurring task: use @worker.recurring, or another identifier."
            )

        def register(handler: Handler) -> Handler:
            check_handler(identifier, handler)
            self._prepare.overrides[identifier] = self._define(
                identifier, schema, payload_type or payload_type_of(handler), options
            )
            self._handlers[identifier] = handler
            self._run_options[identifier] = run_options
            return handler

        return register

    def recurring(
        self,
        identifier: str,
        *,
        match: Match | str | None = None,
        timeout: timedelta | float | None = None,
        retry: Retry | None = None,
        concurrency: int | None = None,
        **options: Unpack[CronKeywords],
    ) -> Callable[[Handler], Handler]:
        """Register a recurring task and its handler; a decorator.

        Its jobs are enqueued while a worker with it is running, once for each minute however many
        workers there are, Node's too. `enqueue` refuses it (P-15). The handler takes `run`,
        `(run, job)` or `(run, job, helpers)`; `run` is a `CronRun` with `ts` and `backfilled`. A
        job that fails on its last attempt is always kept (P-45).

        Args:
            identifier: a recurring task of the catalog, or a new one; no task may have it.
            match: five cron fields, UTC unless there is a `time_zone`, or a function of a `Digest`,
                quick and thread-safe; if it raises, it does not match. None is the catalog's.
            timeout: see `task`.
            retry: see `task`.
            concurrency: see `task`.
            **options: override the catalog's; see `CronOptions`.

        Raises:
            CrontabError: the match or an option is wrong.
            ConfigurationError: the identifier is taken, or the worker is running.
        """
        run_options = RunOptions(timeout=timeout, retry=retry, concurrency=concurrency)

        def register(handler: Handler) -> Handler:
            spec = RecurringTaskSpec(
                match=match, handler=handler, options=dict(options), run_options=run_options
            )
            self._add_recurring(identifier, spec)
            return handler

        return register

    def _add_recurring(
        self, identifier: str, spec: RecurringTaskSpec, kind: str = "recurring"
    ) -> None:
        if self._runner is not None:
            raise ConfigurationError(f"Register {identifier!r} before initialize().")
        if identifier in self._recurring:
            raise ConfigurationError(f"Recurring task {identifier!r} has a handler already.")
        if identifier in self.catalog or identifier in self._handlers:
            raise ConfigurationError(
                f"{identifier!r} is a task already; a recurring task needs another identifier."
            )
        self._recurring[identifier] = (
            cron_item(identifier, spec.match, spec.options, self.catalog.recurring.get(identifier)),
            recurring_task(identifier, spec.handler, spec.run_options, kind),
        )
        self._prepare.recurring.add(identifier)

    def _add_maintenance(self, cleanup: CleanupOptions | None, reporter: Reporter | None) -> None:
        if cleanup is not None:
            spec = RecurringTaskSpec(
                match=cleanup.frequency_expression,
                options=cleanup.task_options,
                handler=maintenance.cleanup_handler(self, cleanup, reporter),
            )
            self._add_recurring(maintenance.CLEANUP, spec, "cleanup")
        if reporter is not None:
            spec = RecurringTaskSpec(
                match=maintenance.REPORTER_MATCH,
                handler=maintenance.reporter_handler(self, reporter),
            )
            self._add_recurring(maintenance.REPORTER, spec, "cleanup")

    @property
    def handled(self) -> list[str]:
        """The identifiers that this worker has handlers for, recurring tasks among them."""
        return sorted({*self._handlers, *self._recurring})

    @property
    def cron_items(self) -> list[CronItem]:
        """What the worker's cron enqueues: clean-up, reporter, recurring tasks, crontab (P-54).

        Raises:
            CrontabError: the crontab names a task that the catalog does not have, or a payload that
                it does not take; or two items have one identifier.
        """
        for item in self._crontab:
            check_command(item, self._prepare)
        items = [*(item for item, _ in self._recurring.values()), *self._crontab]
        refuse_duplicates(items, "recurring tasks and crontab", "'?id=...'")
        return items

    def _define(
        self,
        identifier: str,
        schema: Mapping[str, Any] | bool | None,
        payload_type: Any,
        options: TaskKeywords,
    ) -> Task:
        own = TaskOptions.of(options)
        if schema is not None:
            made = WorkerCatalog.of(
                name=self.name, schema={identifier: schema}, tasks={identifier: own}
            ).get(identifier)
            return evolve(made, codec=made.codec.typed(payload_type))
        task = self._prepare.task(identifier)
        codec = task.codec.typed(payload_type) if payload_type else task.codec
        return evolve(task, codec=codec, options=own.over(task.options))

    @cached_property
    def sync(self) -> "Client":
        """The sync twin: the same catalog and options, for code that does not await.

        It has a pool of its own, so it needs `connection_string` or the environment.
        """
        from zodworker_compat.client.client import Client  # noqa: PLC0415 - start-up time

        client = Client(self.catalog, runner_options=evolve(self.runner_options, pool=None))
        client._prepare = self._prepare
        client._tracing = self._tracing
        client._meters = self._meters
        return client

    def configure(self, **changes: Any) -> None:
        """Change some of `runner_options` before the worker connects, as the command line does.

        Args:
            **changes: fields of `RunnerOptions`; a `connection_string` replaces a `pool`.

        Raises:
            ConfigurationError: the worker is running, or a value is out of range.
        """
        if self._runner is not None:
            raise ConfigurationError("configure() comes before initialize().")
        if "connection_string" in changes:
            changes = {"pool": None, **changes}
        self.runner_options = evolve(self.runner_options, **changes)
        self._database = AsyncDatabase(self.runner_options)
        self.__dict__.pop("sync", None)

    async def initialize(self) -> bool:
        """Install or adopt the schema, connect, and start to run jobs; a second call does nothing (P-57).

        Raises:
            ConfigurationError: no handler is registered, or no database is named.
            DatabaseUnavailableError: the database cannot be reached.
            MigrationError: the schema is of a revision this package does not know.
        """
        async with self._starting:
            if self._runner is None:
                self._runner = runner = await self._new_runner()
                self._listen_to_signals()
                try:
                    await self._open_limiter()
                    await runner.start()
                    self._tell(logging.DEBUG, "started as %s", runner.pool_id)
                except BaseException:
                    await self.stop()
                    raise
        return True

    async def run_until_stopped(self) -> None:
        """Run jobs until `stop()` or a signal.

        Raises:
            MigrationError: a migration that this package does not know broke the schema meanwhile.
            ZodworkerError: as `initialize`.
        """
        await self.initialize()
        try:
            if self._runner is not None:  # else it was stopped while it started
                await self._runner.wait()
        finally:
            await self.stop()

    async def run_once(self) -> None:
        """Run what is due until nothing is left, then return; as graphile-worker's `--once`.

        Raises:
            ConfigurationError: the worker is running already, or has no handlers.
        """
        if self._runner is not None:
            raise ConfigurationError(f"Worker {self.name!r} is running; stop it before run_once().")
        self._runner = runner = await self._new_runner()
        self._listen_to_signals()
        try:
            await self._open_limiter()
            await runner.run_once()
        finally:
            await self.stop()

    async def stop(self) -> None:
        """Stop claiming, wait for running handlers, hand back what has not started; leave nothing locked.

        After `shutdown_timeout` the rest is cancelled and handed back. Idempotent. A signal does
        the same; `zodworker_compat.signals` says what further ones do. In a handler it begins the
        stop and does not wait for it, which would be waiting for itself.
        """
        if self._runner is not None and self._runner.is_called_by_handler():
            self._runner.begin_stop()
            return
        try:
            if self._runner is not None:
                await self._runner.stop()
            if self._limiter_is_open and isinstance(self._rate_limiter, ManagedRateLimiter):
                self._limiter_is_open = False
                await self._rate_limiter.close()
        finally:
            if self._runner is not None:
                self._forget_signals(self._runner.is_clean)
                self._tell(logging.DEBUG, "stopped")
            self._runner = None
            await self.close()

    async def _new_runner(self) -> Runner:
        if not self._handlers and not self._recurring:
            raise ConfigurationError(
                f"Worker {self.name!r} has no handlers: register them with @worker.task(identifier)."
            )
        cron_items = self.cron_items
        await self.migrate()
        tasks = {
            identifier: RunnableTask(
                identifier=identifier,
                decode=self._prepare.overrides[identifier].codec.decode,
                handler=handler,
                options=self._run_options[identifier],
            )
            for identifier, handler in self._handlers.items()
        }
        tasks |= {identifier: task for identifier, (_, task) in self._recurring.items()}
        tasks = {identifier: self._traced(task) for identifier, task in tasks.items()}
        return Runner(
            name=self.name,
            conninfo=resolve_conninfo(self.runner_options.connection_string),
            options=self.runner_options,
            tasks=tasks,
            enqueuer=self,
            shutdown_timeout=self._shutdown_timeout,
            delete_failed_jobs=self._delete_failed_jobs,
            rate_limiter=self._rate_limiter,
            cron_items=cron_items,
            events=self.events,
            on_error=self._on_error,
        )

    def _traced(self, task: RunnableTask) -> RunnableTask:
        if task.identifier in {maintenance.CLEANUP, maintenance.REPORTER}:
            return task
        traced = self._tracing.run(
            task.handler,
            arity=task.arity,
            is_async=task.is_async,
            recurring=not task.is_limited,
        )
        return task if traced is task.handler else evolve(task, handler=traced)

    async def _open_limiter(self) -> None:
        if isinstance(self._rate_limiter, ManagedRateLimiter):
            await self._rate_limiter.open(self.runner_options)
            self._limiter_is_open = True

    def _listen_to_signals(self) -> None:
        if self._handle_signals:
            self._forget_signals = signals.listen(
                self._on_first_signal,
                self._on_later_signal,
                seconds=self._shutdown_timeout.total_seconds(),
            )

    def _on_first_signal(self, number: signal.Signals) -> None:
        if self._runner is not None:
            limit = f"{self._shutdown_timeout} at most" if self._shutdown_timeout else "no limit"
            self._tell(logging.INFO, "%s: finishing running jobs, for %s", number.name, limit)
            self.events.emit(
                "gracefulShutdown", Signalled(pool_id=self._runner.pool_id, signal=number.name)
            )
            self._runner.begin_stop()

    def _on_later_signal(self, number: signal.Signals) -> None:
        if self._runner is not None:
            self._tell(logging.WARNING, "%s: giving running jobs back", number.name)
            self.events.emit(
                "forcefulShutdown", Signalled(pool_id=self._runner.pool_id, signal=number.name)
            )
            self._runner.hasten()

    def _tell(self, level: int, message: str, *arguments: object) -> None:
        logger.log(
            level, f"[worker][%s] {message}", self.name, *arguments, extra={"worker": self.name}
        )
