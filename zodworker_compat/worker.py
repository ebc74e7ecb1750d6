"""ZodWorker: the catalog, its handlers, enqueue and the runner in one object."""

import asyncio
import logging
import signal
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import cached_property
from typing import Any, TypedDict, TypeVar, Unpack

from attrs import evolve

from zodworker_compat import signals
from zodworker_compat.catalog import Task, WorkerCatalog
from zodworker_compat.client.client import Client
from zodworker_compat.client.client_async import AsyncClient
from zodworker_compat.database.connect import resolve_conninfo
from zodworker_compat.database.pool_async import AsyncDatabase
from zodworker_compat.errors import ConfigurationError
from zodworker_compat.handlers import payload_type_of
from zodworker_compat.options import Computed, JobKeyMode, TaskOptions
from zodworker_compat.payload import PayloadCodec
from zodworker_compat.runner import RunnableTask, Runner
from zodworker_compat.runner_options import RunnerOptions, as_timedelta

logger = logging.getLogger(__name__)

Handler = TypeVar("Handler", bound=Callable[..., Any])


class TaskKeywords(TypedDict, total=False):
    """`TaskOptions` as keyword arguments; see there."""

    max_attempts: int | None
    job_key: Computed | None
    job_key_mode: JobKeyMode | None
    priority: int | None
    flags: list[str] | None
    queue_name: Computed | None


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
        shutdown_timeout: how long running handlers may take after a stop; a bare number is seconds.
        delete_failed_jobs: True deletes a job whose handler fails on the last attempt, as ZodWorker
            did from 2024-05; False keeps it with its `last_error` (departure 3).
        handle_signals: stop gracefully on SIGTERM and SIGINT while the runner runs.
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
        handle_signals: bool = True,
    ) -> None:
        if catalog is not None and (schema is not None or tasks is not None):
            raise ConfigurationError("Give either catalog, or schema and tasks; not both.")
        if catalog is None:
            catalog = WorkerCatalog.of(schema=schema or {}, tasks=tasks or {}, name=name)
        super().__init__(
            catalog,
            runner_options=runner_options,
            defaults=defaults,
            validate_on_enqueue=validate_on_enqueue,
        )
        self.name = name
        self._handlers: dict[str, Callable[..., Any]] = {}
        self._shutdown_timeout = as_timedelta(shutdown_timeout)
        self._delete_failed_jobs = delete_failed_jobs
        self._handle_signals = handle_signals
        self._runner: Runner | None = None
        self._forget_signals: Callable[[], None] = lambda: None
        self._starting = asyncio.Lock()
        self._stopping: asyncio.Task[None] | None = None
        for identifier, handler in self.catalog.handlers.items():
            self.task(identifier)(handler)

    def task(
        self,
        identifier: str,
        *,
        schema: Mapping[str, Any] | bool | None = None,
        payload_type: Any = None,
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
            **options: override the catalog's; see `TaskOptions`.

        Raises:
            UnknownTaskError: the catalog has no such task, and no schema is given.
            ConfigurationError: the task has a handler already, or the worker is running.
            OptionError: an option is unknown or out of range.
        """
        if self._runner is not None:
            raise ConfigurationError(f"Register {identifier!r} before initialize().")
        if identifier in self._handlers:
            raise ConfigurationError(f"Task {identifier!r} has a handler already.")

        def register(handler: Handler) -> Handler:
            self._prepare.overrides[identifier] = self._define(
                identifier, schema, payload_type or payload_type_of(handler), options
            )
            self._handlers[identifier] = handler
            return handler

        return register

    def _define(
        self,
        identifier: str,
        schema: Mapping[str, Any] | bool | None,
        payload_type: Any,
        options: TaskKeywords,
    ) -> Task:
        own = TaskOptions.of(options)
        if schema is not None:
            return Task(
                identifier=identifier,
                codec=PayloadCodec.compile(identifier, schema, payload_type=payload_type),
                options=own,
            )
        task = self._prepare.task(identifier)
        codec = task.codec.typed(payload_type) if payload_type else task.codec
        return evolve(task, codec=codec, options=own.over(task.options))

    @cached_property
    def sync(self) -> Client:
        """The sync twin: the same catalog and options, for code that does not await.

        It has a pool of its own, so it needs `connection_string` or the environment.
        """
        client = Client(self.catalog, runner_options=evolve(self.runner_options, pool=None))
        client._prepare = self._prepare
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
                self._runner = await self._new_runner()
                self._listen_to_signals()
                try:
                    await self._runner.start()
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
        assert self._runner is not None  # noqa: S101 - for the type checker
        try:
            await self._runner.wait()
        finally:
            await self.stop()

    async def run_once(self) -> None:
        """Run what is due until nothing is left, then return; as graphile-worker's `--once`."""
        self._runner = await self._new_runner()
        self._listen_to_signals()
        try:
            await self._runner.run_once()
        finally:
            await self.stop()

    async def stop(self) -> None:
        """Stop claiming, wait for running handlers, hand back what has not started; leave nothing locked.

        After `shutdown_timeout` the rest is cancelled and handed back. Idempotent.
        """
        if self._runner is not None:
            await self._runner.stop()
        self._forget_signals()
        self._runner = None
        await self.close()

    async def _new_runner(self) -> Runner:
        if not self._handlers:
            raise ConfigurationError(
                f"Worker {self.name!r} has no handlers: register them with @worker.task(identifier)."
            )
        await self.migrate()
        tasks = {
            identifier: RunnableTask(
                identifier=identifier,
                decode=self._prepare.overrides[identifier].codec.decode,
                handler=handler,
            )
            for identifier, handler in self._handlers.items()
        }
        return Runner(
            name=self.name,
            conninfo=resolve_conninfo(self.runner_options.connection_string),
            options=self.runner_options,
            tasks=tasks,
            enqueuer=self,
            shutdown_timeout=self._shutdown_timeout,
            delete_failed_jobs=self._delete_failed_jobs,
        )

    def _listen_to_signals(self) -> None:
        if self._handle_signals:
            self._stopping = None
            self._forget_signals = signals.listen(self._on_signal)

    def _on_signal(self, number: signal.Signals) -> None:
        if self._stopping is not None:
            logger.info("[worker][%s] %s: shutting down already", self.name, number.name)
            return
        logger.info(
            "[worker][%s] %s: finishing running jobs, for %s at most",
            self.name,
            number.name,
            self._shutdown_timeout,
        )
        self._stopping = asyncio.create_task(self._stop_runner())

    async def _stop_runner(self) -> None:
        if self._runner is not None:
            await self._runner.stop()
