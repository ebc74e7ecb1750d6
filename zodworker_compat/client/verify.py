"""Is a queue set up rightly? `verify` reads, and says what is wrong and how to mend it."""

from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Final

import psycopg
from psycopg import AsyncConnection

from zodworker_compat.client import checks
from zodworker_compat.client.checks import Check
from zodworker_compat.client.client_async import AsyncClient
from zodworker_compat.database import look_async as look
from zodworker_compat.database import queue
from zodworker_compat.database import verify as database
from zodworker_compat.database.connect import address, resolve_conninfo
from zodworker_compat.database.job_filter import JobFilter
from zodworker_compat.database.migrate_async import plan_migration
from zodworker_compat.database.sessions import Session
from zodworker_compat.database.status import ListedJob
from zodworker_compat.database.verify import Server
from zodworker_compat.errors import (
    ConfigurationError,
    DatabaseUnavailableError,
    MigrationError,
    PayloadValidationError,
)
from zodworker_compat.payload.stored import read_payload
from zodworker_compat.runner_options import RunnerOptions

SAMPLE: Final = 200
"""Waiting jobs whose payloads are looked at: those that come next."""
HEARING: Final = 5.0
"""Seconds that a notification may take."""


async def verify(
    options: RunnerOptions | None = None,
    *,
    client: AsyncClient | None = None,
    handled: Collection[str] = (),
    scheduled: Iterable[str] = (),
    patience: timedelta = timedelta(seconds=60),
) -> list[Check]:
    """Look at server, schema, role and workers, as a worker with these options would meet them.

    Nothing is written and nothing locked; one notification goes over a channel of its own.

    Args:
        options: connection string and schema; a `pool` is not used.
        client: the worker that is to run, for the tasks and schemas of its catalog.
        handled: the tasks that it handles: `worker.handled`.
        scheduled: the tasks that its crontab enqueues: of its `cron_items`.
        patience: how long one statement may take.

    Returns:
        All that was looked at, also what is ok. What cannot be looked at because of an error before
        it is left out.
    """
    options = options or (client.runner_options if client else RunnerOptions())
    found: list[Check] = []
    if client is not None:
        found += checks.check_handlers(handled, [*client.catalog], scheduled)
    try:
        async with _connected(options) as (connection, is_direct):
            server = await database.read_server(connection)
            found += await _look(connection, options, server, is_direct)
            if not any(one.level == "error" and one.subject in _BASICS for one in found):
                found += await _look_inside(connection, options, server, client, handled, patience)
    except (ConfigurationError, DatabaseUnavailableError) as error:
        mend = (
            "See to it that the server runs and can be reached from here, and that the URL is right"
        )
        found.append(Check("error", "database", str(error), mend))
    return found


_BASICS: Final = ("database", "schema", "tables", "rights")


@asynccontextmanager
async def _connected(options: RunnerOptions) -> AsyncIterator[tuple[AsyncConnection[Any], bool]]:
    session = _session(options)
    try:
        yield await session.connection(), session.is_direct
    finally:
        await session.close()


def _session(options: RunnerOptions) -> Session:
    return Session(resolve_conninfo(options.connection_string), application_name="zodworker")


async def _look(
    connection: AsyncConnection[Any], options: RunnerOptions, server: Server, is_direct: bool
) -> list[Check]:
    """Look at what needs no right to the tables."""
    schema = options.schema
    place = address(resolve_conninfo(options.connection_string))
    found = [*checks.check_server(server, place)]
    async with _connected(options) as (sender, _):
        is_heard = await queue.hears(connection, sender, HEARING)
    found.append(checks.check_notifications(is_direct, is_heard))
    setup = await database.read_setup(connection, schema)
    if "migrations" not in setup.tables or "select" not in setup.tables["migrations"].missing:
        try:
            found += checks.check_schema(schema, await plan_migration(connection, schema))
        except MigrationError as error:
            return [*found, Check("error", "schema", str(error))]
    if setup.tables:
        found += checks.check_setup(schema, setup, server)
    return found


async def _look_inside(
    connection: AsyncConnection[Any],
    options: RunnerOptions,
    server: Server,
    client: AsyncClient | None,
    handled: Collection[str],
    patience: timedelta,
) -> list[Check]:
    """Look at who works here, and at what waits."""
    schema = options.schema
    catalog = [*client.catalog] if client else []
    try:
        status = await look.read_status(connection, schema, queues=0, patience=patience)
        found = [
            *checks.check_workers(status, server.node_listeners),
            *checks.check_tasks(status, server.node_listeners, handled, catalog),
        ]
        if client is not None and handled:
            where = JobFilter(states=("ready", "scheduled", "retrying"), tasks=tuple(handled))
            page = await look.list_jobs(
                connection, schema, where, sort="next", limit=SAMPLE, patience=patience
            )
            wrong = [(one.job.id, said) for one in page.jobs if (said := _problem(client, one))]
            found += checks.check_payloads(len(page.jobs), wrong)
    except psycopg.errors.QueryCanceled:
        return [
            Check(
                "warning",
                "workers",
                f"PostgreSQL did not count the jobs within {patience.total_seconds():g} s.",
                "Allow it more time with --timeout; or vacuum (analyze) the jobs table",
            )
        ]
    return found


def _problem(client: AsyncClient, one: ListedJob) -> str | None:
    """Return why a job's payload will be refused when it runs; None if it will not."""
    task = client._prepare.overrides.get(one.job.task_identifier)
    if task is None:  # a recurring one, whose payload is cron's
        return None
    try:
        task.codec.check(read_payload(task.identifier, one.payload_text))
    except PayloadValidationError as error:
        return "; ".join(map(str, error.problems))
    return None
