"""What a worker does to the queue: claim, settle, give back, sweep, listen."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import datetime
from time import monotonic
from typing import Any, Final, NamedTuple

from psycopg import AsyncConnection, sql
from psycopg.rows import class_row, scalar_row, tuple_row

from zodworker_compat.database.statements import statement

MOST_BYTES: Final = 8_000_000
"""Of payloads, as they are stored: a claim that has reached them takes no further job."""


class Claimed(NamedTuple):
    """A claimed row as `claim.sql` returns it: cheap, since most of its columns are never read."""

    id: int
    task_id: int
    job_queue_id: int | None
    queue_name: str | None
    payload: str
    """JSON text: parsed when the job runs, so that one bad payload cannot spoil a batch."""
    priority: int
    run_at: datetime
    attempts: int
    max_attempts: int
    last_error: str | None
    created_at: datetime
    updated_at: datetime
    key: str | None
    locked_at: datetime
    revision: int
    flags: str | None
    """JSON text, too."""


class Batch(NamedTuple):
    """What one claim brought, best first."""

    jobs: list[Claimed]
    more: bool
    """Named queues had work that this claim could not see or get: ask again soon."""
    blocked: bool
    """Jobs wait in named queues that other pools hold."""


async def claim(
    connection: AsyncConnection[Any],
    schema: str,
    pool_id: str,
    task_ids: list[int],
    limit: int,
    forbidden: list[str] | None = None,
    with_queues: bool = True,
) -> Batch:
    """Claim up to `limit` available jobs of the tasks `task_ids`, at most one per named queue.

    Unless `forbidden` is None, jobs that have one of its flags are skipped, and of jobs with the same
    flags one is claimed. Without `with_queues`, jobs in named queues are left out.
    """
    async with connection.cursor(binary=True, row_factory=tuple_row) as cursor:
        await cursor.execute(
            statement("claim", schema, without="limited" if forbidden is None else None),
            {
                "forbidden": forbidden,
                "task_ids": task_ids,
                "pool_id": pool_id,
                "limit": limit,
                "most_bytes": MOST_BYTES,
                "look_ahead": 4 * limit + 100 if with_queues else 0,
            },
        )
        rows = await cursor.fetchall()
    *_, more, blocked = rows[0]
    # Without a row factory: called for each row, it would cost as much as all columns.
    return Batch([Claimed._make(row[:-2]) for row in rows if row[0] is not None], more, blocked)


async def hand_over(
    connection: AsyncConnection[Any], schema: str, queue_ids: Iterable[int]
) -> None:
    """Tell all workers of those queues that are free and have a job that is due."""
    await connection.execute(statement("hand_over", schema), {"queue_ids": list(queue_ids)})


class Unsettled(NamedTuple):
    """A job that a settling statement did not touch."""

    id: int
    is_busy: bool
    """An open transaction holds the row, try again; else the pool did not hold the job any more."""


async def complete(
    connection: AsyncConnection[Any],
    schema: str,
    pool_id: str,
    ids: Sequence[int],
    *,
    careful: bool = False,
) -> list[Unsettled]:
    """Delete finished jobs; return those that were not settled.

    `careful` steps over rows that are locked, at a price; else the statement waits for them.

    Raises:
        psycopg.errors.LockNotAvailable: not careful, and waited longer than `lock_timeout`.
    """
    return await _settle(connection, "complete", schema, {"pool_id": pool_id, "ids": ids}, careful)


async def fail(
    connection: AsyncConnection[Any],
    schema: str,
    pool_id: str,
    ids: Sequence[int],
    locked_at: Sequence[datetime],
    messages: Sequence[str | None],
    delays: Sequence[float | None],
    permanent: Sequence[bool],
    *,
    careful: bool = False,
) -> list[Unsettled]:
    """Write failures and postpone the jobs; return those that were not settled.

    Args:
        connection: in autocommit.
        schema: of the queue.
        pool_id: who must hold the jobs.
        ids: the jobs; the other sequences go with it.
        locked_at: when each was claimed.
        messages: each job's `last_error`.
        delays: seconds until it is tried again; None for graphile-worker's backoff.
        permanent: whether all its attempts are used up by this.
        careful: see `complete`.
    """
    parameters = {
        "pool_id": pool_id,
        "ids": ids,
        "locked_at": locked_at,
        "messages": messages,
        "delays": delays,
        "permanent": permanent,
    }
    return await _settle(connection, "fail", schema, parameters, careful)


async def return_jobs(
    connection: AsyncConnection[Any],
    schema: str,
    pool_id: str,
    ids: Sequence[int],
    locked_at: Sequence[datetime],
    messages: Sequence[str | None],
    *,
    careful: bool = False,
) -> list[Unsettled]:
    """Give jobs back uncounted; return those that were not settled; arguments as in `fail`."""
    parameters = {"pool_id": pool_id, "ids": ids, "locked_at": locked_at, "messages": messages}
    return await _settle(connection, "return_jobs", schema, parameters, careful)


class Held(NamedTuple):
    """A job that a pool holds."""

    id: int
    locked_at: datetime


async def held_jobs(connection: AsyncConnection[Any], schema: str, pool_id: str) -> list[Held]:
    """Return the jobs that a pool holds; reads the whole table, as no index has `locked_by`."""
    async with connection.cursor(binary=True, row_factory=class_row(Held)) as cursor:
        await cursor.execute(statement("held_jobs", schema), {"pool_id": pool_id})
        return await cursor.fetchall()


async def retake(
    connection: AsyncConnection[Any], schema: str, pool_id: str, jobs: Sequence[Claimed]
) -> set[int]:
    """Lock again what a server that crashed has forgotten; return the ids that the pool holds now.

    Args:
        connection: in autocommit.
        schema: of the queue.
        pool_id: who claimed the jobs.
        jobs: as they were claimed.
    """
    parameters = {
        "pool_id": pool_id,
        "ids": [job.id for job in jobs],
        "attempts": [job.attempts for job in jobs],
        "locked_at": [job.locked_at for job in jobs],
        "updated_at": [job.updated_at for job in jobs],
        "last_errors": [job.last_error for job in jobs],
    }
    return set(await _ids(connection, "retake", schema, parameters))


async def free_queues(
    connection: AsyncConnection[Any], schema: str, pool_id: str, jobs: Sequence[Claimed]
) -> None:
    """Free the named queues that a pool holds for jobs that are not its any more."""
    queued = [job for job in jobs if job.job_queue_id is not None]
    parameters = {
        "pool_id": pool_id,
        "ids": [job.job_queue_id for job in queued],
        "locked_at": [job.locked_at for job in queued],
    }
    await connection.execute(statement("free_queues", schema), parameters)


async def reschedule(
    connection: AsyncConnection[Any], schema: str, pool_id: str, job_id: int, payload: str
) -> int | None:
    """Put a claimed job back as a new one; return its id, None if this pool did not hold it.

    Args:
        connection: where the statement runs.
        schema: the queue's schema.
        pool_id: who holds the job.
        job_id: the job.
        payload: of the new job, as JSON text.
    """
    parameters = {"pool_id": pool_id, "job_id": job_id, "payload": payload}
    added = await _ids(connection, "reschedule", schema, parameters)
    return added[0] if added else None


async def sweep(connection: AsyncConnection[Any], schema: str) -> tuple[int, int]:
    """Free locks older than four hours; return how many jobs and queues were freed."""
    jobs = await _ids(connection, "sweep_jobs", schema, {})
    queues = await _ids(connection, "sweep_queues", schema, {})
    return len(jobs), len(queues)


async def resolve_tasks(
    connection: AsyncConnection[Any], schema: str, identifiers: Iterable[str]
) -> dict[int, str]:
    """Return the identifier of each task id, adding tasks that the table does not know yet."""
    wanted = sorted(identifiers)
    while True:
        cursor = await connection.execute(
            statement("resolve_tasks", schema), {"identifiers": wanted}
        )
        found = dict(await cursor.fetchall())
        if len(found) == len(wanted):
            return found


async def listen(connection: AsyncConnection[Any], *channels: str) -> None:
    """Subscribe to `channels`."""
    for channel in channels:
        await connection.execute(sql.SQL("listen {}").format(sql.Identifier(channel)))


async def unlisten(connection: AsyncConnection[Any], channel: str) -> None:
    """Unsubscribe."""
    await connection.execute(sql.SQL("unlisten {}").format(sql.Identifier(channel)))


async def notify(connection: AsyncConnection[Any], channel: str) -> None:
    """Send an empty notification."""
    await connection.execute(sql.SQL("notify {}").format(sql.Identifier(channel)))


async def hears(
    connection: AsyncConnection[Any], sender: AsyncConnection[Any], seconds: float
) -> bool:
    """Whether a notification comes through within `seconds` that another session sends.

    One of its own would: a pooler passes on what a server says while it answers. The channel is one
    that nobody else notifies, because behind a pooler in transaction mode LISTEN stays with the
    server, and the next client would get what comes.
    """
    channel = f"zodworker:{secrets.token_hex(8)}"
    await listen(connection, channel)
    await notify(sender, channel)
    heard = [each async for each in notifications(connection, seconds, most=1)]
    await unlisten(connection, channel)
    return bool(heard)


async def notifications(
    connection: AsyncConnection[Any], seconds: float, *, most: int | None = None
) -> AsyncIterator[tuple[str, str]]:
    """Yield (channel, payload) of what arrives within `seconds`, or until there are `most`."""
    deadline = monotonic() + seconds
    count = 0
    while True:
        async for notify in connection.notifies(timeout=0):
            yield notify.channel, notify.payload
            count += 1
        rest = deadline - monotonic()
        if rest <= 0 or (most is not None and count >= most):
            return
        await _readable(connection, rest)


async def _readable(connection: AsyncConnection[Any], seconds: float) -> None:
    """Wait until something arrives; psycopg would look ten times per second, 0.2 % of a core."""
    loop, arrived = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(connection.fileno(), arrived.set)
    try:
        async with asyncio.timeout(seconds):
            await arrived.wait()
    except TimeoutError:
        pass
    finally:
        loop.remove_reader(connection.fileno())


async def check(connection: AsyncConnection[Any]) -> None:
    """Ask the server for a sign of life."""
    await connection.execute("select 1")


async def _settle(
    connection: AsyncConnection[Any],
    name: str,
    schema: str,
    parameters: dict[str, Any],
    careful: bool,
) -> list[Unsettled]:
    text = statement(name, schema, without=None if careful else "careful")
    async with connection.cursor(binary=True, row_factory=class_row(Unsettled)) as cursor:
        await cursor.execute(text, parameters)
        return await cursor.fetchall()


async def _ids(
    connection: AsyncConnection[Any], name: str, schema: str, parameters: dict[str, Any]
) -> list[int]:
    async with connection.cursor(binary=True, row_factory=scalar_row) as cursor:
        await cursor.execute(statement(name, schema), parameters)
        return await cursor.fetchall()
