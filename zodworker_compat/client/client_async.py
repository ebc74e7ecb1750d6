"""Enqueue, dequeue, transactions and admin calls: the half of ZodWorker that needs no runner."""

import logging
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from time import perf_counter
from typing import TYPE_CHECKING, Any, Unpack

from attrs import frozen
from psycopg import AsyncConnection

from zodworker_compat.catalog import WorkerCatalog
from zodworker_compat.client import admin_arguments as arguments
from zodworker_compat.client.prepare import (
    UNDEFINED,
    Options,
    Preparer,
    Request,
)
from zodworker_compat.client.transactions_async import connection_of
from zodworker_compat.database import admin_async as admin
from zodworker_compat.database import jobs_async as jobs
from zodworker_compat.database.cleanup import CLEANUP_TASKS, CleanupResult, CleanupTask
from zodworker_compat.database.migrate_async import migrate
from zodworker_compat.database.pool_async import AsyncDatabase
from zodworker_compat.database.refusals import explained
from zodworker_compat.database.revisions import Migration
from zodworker_compat.errors import TransactionError
from zodworker_compat.garbage import no_collection
from zodworker_compat.job import Job
from zodworker_compat.observability.logs import job_fields, milliseconds
from zodworker_compat.observability.tracing import Tracing
from zodworker_compat.options import JobSpec, TaskOptions, check_job_key, options_of
from zodworker_compat.runner_options import RunnerOptions

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

    from zodworker_compat.client.admin_async import AsyncAdmin
    from zodworker_compat.events import Meter

logger = logging.getLogger("zodworker_compat.client")


class AsyncClient:
    """Enqueues the jobs of one catalog; works without `initialize` and without a runner (P-21).

    Args:
        catalog: the tasks; a `WorkerCatalog`, or the name or path of one to load.
        runner_options: connection and schema.
        defaults: options of every task that its catalog entry does not set.
        validate_on_enqueue: False stores payloads unchecked, as ZodWorker did (departure 1).
        tracer_provider: of OpenTelemetry; None is the global one. See `observability.tracing`.
        trace_payloads: True writes payloads into the spans; they may hold personal data.
    """

    def __init__(
        self,
        catalog: WorkerCatalog | str,
        *,
        runner_options: RunnerOptions | None = None,
        defaults: TaskOptions | None = None,
        validate_on_enqueue: bool = True,
        tracer_provider: "TracerProvider | None" = None,
        trace_payloads: bool = False,
    ) -> None:
        loaded = WorkerCatalog.load(catalog) if isinstance(catalog, str) else catalog
        self.runner_options = runner_options or RunnerOptions()
        self._prepare = Preparer(loaded, defaults or TaskOptions(), validate_on_enqueue)
        self._database = AsyncDatabase(self.runner_options)
        self._tracing = Tracing(tracer_provider, payloads=trace_payloads)
        self._meters: list[Meter] = []

    @property
    def catalog(self) -> WorkerCatalog:
        """The catalog this client was made with."""
        return self._prepare.catalog

    @property
    def graphile_worker_schema(self) -> str:
        """The schema that holds the queue's tables (ZodWorker's `graphileWorkerSchema`)."""
        return self.runner_options.schema

    @property
    def admin(self) -> "AsyncAdmin":
        """Look at the queue and act on its jobs, over this client's connections."""
        from zodworker_compat.client.admin_async import AsyncAdmin  # noqa: PLC0415 - start-up time

        return AsyncAdmin(self.runner_options, _database=self._database)

    def prepare(
        self, identifier: str, payload: Any = UNDEFINED, **options: Unpack[Options]
    ) -> JobSpec:
        """Return what `enqueue` would write, and write nothing: a check, or a dry run.

        Raises:
            EnqueueError: as `enqueue`.
        """
        return self._prepare.spec(identifier, payload, options_of(options))

    async def enqueue(
        self,
        identifier: str,
        payload: Any = UNDEFINED,
        *,
        tx: object = None,
        **options: Unpack[Options],
    ) -> Job:
        """Validate the payload, merge the options (global < catalog < call) and add the job.

        Args:
            identifier: the task, as the catalog spells it.
            payload: JSON values, or an attrs instance; stored verbatim.
            tx: the caller's transaction (see `enqueue_tx`); None uses a connection of our own
                and returns after the commit.
            **options: see `EnqueueOptions`. None is "not given", `CLEAR` removes a default.

        Returns:
            The job as the table holds it.

        Raises:
            UnknownTaskError: the catalog has no such task.
            PayloadValidationError: the payload does not match its schema; holds every problem.
            PayloadSerialisationError: the payload is not JSON.
            OptionError: an option is unknown or out of range.
            TransactionError: `tx` cannot carry a statement.
            DatabaseUnavailableError: no connection could be had.
            psycopg.Error: what PostgreSQL refused.
        """
        spec = self.prepare(identifier, payload, **options)
        start = perf_counter()
        with self._tracing.enqueue(spec) as traced:
            job = await self._add(traced, tx)
        for meter in self._meters:
            meter.enqueued((spec.identifier,))
        if logger.isEnabledFor(logging.DEBUG):
            extra = {**job_fields(job), "payload": job.payload, **_duration(start)}
            logger.debug("Enqueued worker task", extra=extra)
        return job

    async def enqueue_tx(
        self, tx: object, identifier: str, payload: Any = UNDEFINED, **options: Unpack[Options]
    ) -> Job:
        """Add a job in the caller's transaction: it exists, and wakes a worker, at the commit.

        Args:
            tx: a psycopg connection, a SQLAlchemy session or connection on psycopg 3, or what
                `transaction()` gives. It is never committed, rolled back or reconfigured.
            identifier: see `enqueue`.
            payload: see `enqueue`.
            **options: see `enqueue`.

        Raises:
            TransactionError: in autocommit outside a block, in a failed transaction, closed, or
                not a connection.
            EnqueueError: as `enqueue`.
        """
        if tx is None:
            raise TransactionError("enqueue_tx needs the transaction; without one, call enqueue.")
        return await self.enqueue(identifier, payload, tx=tx, **options)

    enqueueTx = enqueue_tx  # noqa: N815 - the name that ports look for

    async def enqueue_many(self, requests: Sequence[Request], *, tx: object = None) -> list[Job]:
        """Add all jobs or none, in one statement where their key modes allow it.

        Args:
            requests: `JobRequest`s, or tuples (identifier, payload) or (identifier, payload, options).
            tx: see `enqueue_tx`; None uses a transaction of our own.

        Returns:
            One job per request, in the order of the requests.

        Raises:
            BatchError: some items are wrong, or share a job key; holds each with its index.
        """
        with no_collection():
            specs = self._prepare.specs(requests)
        if not specs:
            return []
        start = perf_counter()
        with self._tracing.enqueue_many(specs) as traced:
            added = await self._add_all(traced, tx)
        for meter in self._meters:
            meter.enqueued(spec.identifier for spec in specs)
        if logger.isEnabledFor(logging.DEBUG):
            extra = {"count": len(added), **_duration(start)}
            logger.debug("Enqueued worker tasks", extra=extra)
        return added

    async def dequeue(self, job_key: str, *, tx: object = None) -> Job | None:
        """Remove the waiting job of a key and return it; None if there is none.

        A job that is running is not stopped: it loses its key, is barred from retries and is
        returned (P-31…P-36).

        Raises:
            OptionError: no job can have that key.
        """
        if job_key is not None:  # no job has NULL for its key (P-35)
            check_job_key(job_key)
        async with self._connection(tx) as connection:
            job = await jobs.remove_job(connection, self.runner_options.schema, job_key)
        if logger.isEnabledFor(logging.DEBUG):
            if job is None:
                extra: dict[str, object] = {"job_key": job_key}
                logger.debug("could not remove job, job_key did not exist", extra=extra)
            else:
                extra = {"job_key": job_key, **job_fields(job)}
                logger.debug("dequeued worker task", extra=extra)
        return job

    async def complete_jobs(self, ids: Iterable[str | int], *, tx: object = None) -> list[Job]:
        """Delete jobs as if they had run, failed ones too; as graphile-worker 0.16.6's `complete_jobs`.

        Args:
            ids: `Job.id`s, as strings or numbers; each once is enough.
            tx: the caller's transaction (see `enqueue_tx`); None uses a connection of our own.

        Returns:
            The deleted jobs, as they were, in the order of their ids. Ids that no job has are
            skipped, and so is a job that a worker locked within the last four hours: it may be
            running. A named queue that was locked with a job deleted after that time is freed.

        Raises:
            OptionError: an id is not a number; nothing was sent.
            TransactionError: `tx` cannot carry a statement.
            psycopg.Error: what PostgreSQL refused.
        """
        wanted = arguments.job_ids(ids)
        async with self._connection(tx) as connection:
            return await admin.complete_jobs(connection, self.runner_options.schema, wanted)

    async def permanently_fail_jobs(
        self, ids: Iterable[str | int], reason: str | None = None, *, tx: object = None
    ) -> list[Job]:
        """Bar jobs from being tried again, and keep them; `reschedule_jobs(attempts=0)` revives them.

        As graphile-worker 0.16.6's `permanently_fail_jobs`: `attempts` becomes `max_attempts`; the
        job key and `run_at` stay.

        Args:
            ids: see `complete_jobs`.
            reason: becomes `last_error`. None is "Manually marked as failed".
            tx: see `complete_jobs`.

        Returns:
            The failed jobs, in the order of their ids; missing and locked ones are skipped, see
            `complete_jobs`. One that was locked more than four hours ago stays locked until a
            worker's next sweep; its named queue is freed.

        Raises:
            OptionError: an id is not a number, or the reason cannot be stored; nothing was sent.
            TransactionError: `tx` cannot carry a statement.
            psycopg.Error: what PostgreSQL refused.
        """
        wanted = arguments.job_ids(ids)
        if reason is not None:
            [reason] = arguments.texts("reason", [reason])
        async with self._connection(tx) as connection:
            return await admin.permanently_fail_jobs(
                connection, self.runner_options.schema, wanted, reason
            )

    async def reschedule_jobs(
        self,
        ids: Iterable[str | int],
        *,
        run_at: datetime | None = None,
        priority: int | None = None,
        attempts: int | None = None,
        max_attempts: int | None = None,
        tx: object = None,
    ) -> list[Job]:
        """Change when and how often jobs are tried; as graphile-worker 0.16.6's `reschedule_jobs`.

        No worker is woken: a job that is due now is found by polling. `last_error` is kept.

        Args:
            ids: see `complete_jobs`.
            run_at: earliest start, an aware datetime.
            priority: -32768 to 32767, smaller first.
            attempts: how many tries count as used, -32768 to 32767; 0 revives a failed job.
            max_attempts: 1 to 32767.
            tx: see `complete_jobs`.

            None leaves a value as it is, and 0 is 0: Node's `rescheduleJobs` ignores a 0.

        Returns:
            The changed jobs, in the order of their ids; missing and locked ones are skipped, see
            `complete_jobs`. One that was locked more than four hours ago stays locked until a
            worker's next sweep, and runs after that; its named queue is freed.

        Raises:
            OptionError: an id is not a number, or a value does not fit; nothing was sent.
            TransactionError: `tx` cannot carry a statement.
            psycopg.Error: what PostgreSQL refused.
        """
        wanted = arguments.job_ids(ids)
        changes = arguments.changes(
            run_at=run_at, priority=priority, attempts=attempts, max_attempts=max_attempts
        )
        async with self._connection(tx) as connection:
            return await admin.reschedule_jobs(
                connection, self.runner_options.schema, wanted, changes
            )

    async def force_unlock_workers(self, worker_ids: Iterable[str], *, tx: object = None) -> None:
        """Free all jobs and named queues that these workers hold; they must be dead.

        What a living worker holds would run twice. As graphile-worker 0.16.6's
        `force_unlock_workers`: attempts stay counted, and no worker is woken.

        Args:
            worker_ids: `Job.locked_by`: the pool id of Python workers and of Node since 0.17, the
                worker id of Node before.
            tx: see `complete_jobs`.

        Raises:
            OptionError: an id is not a string; nothing was sent.
            TransactionError: `tx` cannot carry a statement.
            psycopg.Error: what PostgreSQL refused.
        """
        wanted = arguments.texts("worker_ids", worker_ids)
        async with self._connection(tx) as connection:
            await admin.force_unlock_workers(connection, self.runner_options.schema, wanted)

    async def cleanup(
        self,
        tasks: Iterable[CleanupTask] = ("GC_JOB_QUEUES",),
        *,
        task_identifiers_to_keep: Iterable[str] = (),
        tx: object = None,
    ) -> CleanupResult:
        """Delete what is left over; as graphile-worker 0.16.6's `cleanup`, but no job is lost by it.

        Args:
            tasks: any of these; they run in this order, each in a transaction of its own:

                - `DELETE_PERMAFAILED_JOBS`: unlocked jobs with `attempts` of `max_attempts` or more
                  (graphile-worker misses "more");
                - `GC_TASK_IDENTIFIERS`: identifiers that no job has. A running Node worker that
                  knows the id of a deleted one does not see new jobs of it until it is restarted;
                  ours look ids up again every 30 s;
                - `GC_JOB_QUEUES`: named queues that are unlocked and empty.
            task_identifiers_to_keep: those that workers elsewhere handle. The ones that this
                client knows are always kept.
            tx: see `complete_jobs`. Its locks keep all workers and enqueues waiting until it ends.

        Raises:
            OptionError: there is no such task; nothing was sent.
            TransactionError: `tx` cannot carry a statement.
            psycopg.errors.LockNotAvailable: a transaction that may have added jobs stayed open for
                three seconds; the tasks before it are done.
            psycopg.errors.InvalidTransactionState: `tx` is not READ COMMITTED.
            psycopg.Error: what else PostgreSQL refused.
        """
        wanted = arguments.cleanup_tasks(tasks)
        given = arguments.texts("task_identifiers_to_keep", task_identifiers_to_keep)
        known = self._prepare
        keep = {*given, *self.catalog, *self.catalog.recurring, *known.overrides, *known.recurring}
        deleted = dict.fromkeys(CLEANUP_TASKS, 0)
        for task in wanted:
            async with self._in_transaction(tx) as connection:
                deleted[task] = await admin.cleanup(
                    connection, self.runner_options.schema, task, keep
                )
        return CleanupResult(*deleted.values())

    @asynccontextmanager
    async def transaction(self) -> "AsyncIterator[AsyncTransaction]":
        """Open a transaction in which business SQL and jobs commit together.

        Any exception rolls both back.
        """
        async with self._database.connection() as connection, connection.transaction():
            yield AsyncTransaction(connection, self)

    async def migrate(self, revision: int | None = None) -> Migration:
        """Install or adopt the queue's schema; see `zodworker_compat.database.migrate`."""
        async with self._database.connection() as connection:
            return await migrate(connection, self.runner_options.schema, revision=revision)

    def pool_stats(self) -> dict[str, int]:
        """Return how many connections `enqueue` and its kin have: `size`, `in_use`, `waiting`."""
        return self._database.stats()

    async def close(self) -> None:
        """Close this client's own connections; it opens new ones if it is used again."""
        await self._database.close()

    async def _add(self, spec: JobSpec, tx: object) -> Job:
        async with self._connection(tx) as connection:
            return await jobs.add_job(connection, self.runner_options.schema, spec)

    async def _add_all(self, specs: Sequence[JobSpec], tx: object) -> list[Job]:
        if tx is None and not any(spec.job_key for spec in specs):
            # One statement needs no transaction of ours, which is two round trips.
            async with self._connection(None) as connection:
                added = await jobs.insert_jobs(connection, self.runner_options.schema, specs)
            if jobs.is_complete(added):
                return added
        async with self._in_transaction(tx) as connection:
            return await jobs.add_jobs(connection, self.runner_options.schema, specs)

    @asynccontextmanager
    async def _connection(self, tx: object) -> AsyncIterator[AsyncConnection[Any]]:
        with explained(self.runner_options.schema):
            if tx is None:
                async with self._database.connection() as connection:
                    yield connection
            else:
                yield await connection_of(tx)

    @asynccontextmanager
    async def _in_transaction(self, tx: object) -> AsyncIterator[AsyncConnection[Any]]:
        async with self._connection(tx) as connection:
            if tx is None:
                async with connection.transaction():
                    yield connection
            else:
                yield connection


@frozen
class AsyncTransaction:
    """An open transaction of ours: `connection` for business SQL, the rest for jobs."""

    connection: AsyncConnection[Any]
    _client: AsyncClient

    async def enqueue(
        self, identifier: str, payload: Any = UNDEFINED, **options: Unpack[Options]
    ) -> Job:
        """Add a job in this transaction; see `AsyncClient.enqueue`."""
        return await self._client.enqueue(identifier, payload, tx=self.connection, **options)

    async def enqueue_many(self, requests: Sequence[Request]) -> list[Job]:
        """Add all jobs or none in this transaction; see `AsyncClient.enqueue_many`."""
        return await self._client.enqueue_many(requests, tx=self.connection)

    async def dequeue(self, job_key: str) -> Job | None:
        """Remove a job in this transaction; see `AsyncClient.dequeue`."""
        return await self._client.dequeue(job_key, tx=self.connection)


def _duration(start: float) -> dict[str, object]:
    return {"duration_ms": milliseconds(perf_counter() - start)}
