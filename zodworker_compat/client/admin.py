# Generated from admin_async.py by tools/async_to_sync.py: edit that file and run `make sync`.
"""Look at a queue, and act on its jobs: all that the `zodworker` command does, for programs."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import psycopg
from attrs import evolve
from psycopg import Connection

from zodworker_compat.client import admin_arguments as arguments
from zodworker_compat.cron import CronItem, Pattern, next_after
from zodworker_compat.cron.clock import MINUTE, newest
from zodworker_compat.cron.plan import LONGEST_CATCH_UP
from zodworker_compat.database import admin as acts
from zodworker_compat.database import look
from zodworker_compat.database.job_filter import JOB_SORTS, JobFilter, JobSort, job_id
from zodworker_compat.database.jobs import remove_job
from zodworker_compat.database.pool import Database
from zodworker_compat.database.refusals import explained
from zodworker_compat.database.status import (
    Crontab,
    JobPage,
    JobReport,
    Outcome,
    Preview,
    Status,
    Unlocked,
)
from zodworker_compat.errors import ConfigurationError, OptionError
from zodworker_compat.runner_options import RunnerOptions, as_timedelta

PATIENCE: Final = timedelta(seconds=60)
"""How long a statement may take: at a million jobs none took a second."""
_LATE: Final = timedelta(minutes=2)
"""A crontab whose minute is over for so long should have fired: cron fires within the minute."""

Progress = Callable[[int], object]
"""Is told how many jobs were changed since it was told last."""


class Admin:
    """Looks at a queue and acts on its jobs; needs neither a catalog nor handlers.

    Looking locks and changes nothing. Acting goes through graphile-worker's own functions, in
    batches of their own transactions, so that a million rows do not hold up the queue; what a worker
    holds is left alone and named in the `Outcome`.

    Args:
        runner_options: connection and schema; a `Client`'s or worker's `admin` has its own.
        patience: how long one statement may take; a bare number is seconds, 0 is for ever.
    """

    def __init__(
        self,
        runner_options: RunnerOptions | None = None,
        *,
        patience: timedelta | float = PATIENCE,
        _database: Database | None = None,
    ) -> None:
        options = runner_options or RunnerOptions()
        self._schema = options.schema
        self._database = _database or Database(options)
        self._patience = as_timedelta(patience)

    def status(
        self,
        *,
        queues: int = 20,
        queue_names: Iterable[str] | None = None,
        only_locked: bool = False,
        errors: int = 5,
        most_pages: int | None = None,
    ) -> Status:
        """Count jobs by state, task, queue and worker: one pass over the table, two with `errors`.

        Args:
            queues: how many named queues to return, those first that most need a look.
            queue_names: only these queues; None is all.
            only_locked: only queues that are locked.
            errors: how many of the most frequent errors to return.
            most_pages: of a jobs table with more pages of 8 kB, read about so many and estimate the
                counts, see `Status.sampled`; None reads all.
        """
        names = None if queue_names is None else arguments.texts("queue_names", queue_names)
        with self._connection() as connection:
            return look.read_status(
                connection,
                self._schema,
                queues=queues,
                queue_names=names,
                only_locked=only_locked,
                errors=errors,
                most_pages=most_pages,
                patience=self._patience,
            )

    def jobs(
        self,
        where: JobFilter | None = None,
        *,
        sort: JobSort = "id",
        limit: int = 50,
        after: str | None = None,
    ) -> JobPage:
        """List jobs, a page at a time.

        Args:
            where: which; None is all.
            sort: see `JobSort`.
            limit: how many at most.
            after: where to go on, `JobPage.after`.

        Raises:
            OptionError: there is no such order, or `after` is not of this order.
        """
        if sort not in JOB_SORTS:
            raise OptionError("sort", f"{sort!r} is not one of {', '.join(JOB_SORTS)}")
        if limit < 1:
            raise OptionError("limit", f"must be at least 1, got {limit}")
        with self._connection() as connection:
            return look.list_jobs(
                connection,
                self._schema,
                where or JobFilter(),
                sort=sort,
                limit=limit,
                after=after,
                patience=self._patience,
            )

    def job(self, number: str | int) -> JobReport | None:
        """Read all about one job; None if there is none of this id. `reasons` puts it into words."""
        wanted = job_id(number)
        with self._connection() as connection:
            return look.read_job(connection, self._schema, wanted, patience=self._patience)

    def crontabs(self, items: Sequence[CronItem] = ()) -> list[Crontab]:
        """Return the known crontabs, and those of `items`, by identifier.

        Args:
            items: a worker's `cron_items`: with them, it says when each fires next, and whether it
                missed the last time.
        """
        with self._connection() as connection:
            rows = look.read_crontabs(connection, self._schema, patience=self._patience)
        known = {row.pop("identifier"): row for row in rows}
        given = {item.identifier: item for item in items}
        now = rows[0]["read_at"] if rows else datetime.now(UTC)
        return [
            _crontab(name, now, known.get(name, {}), given.get(name))
            for name in sorted({*known, *given})
        ]

    def preview(self, where: JobFilter) -> Preview:
        """Count what an act on `where` would change, and what it would leave alone."""
        with self._connection() as connection:
            return look.preview(connection, self._schema, where, patience=self._patience)

    def retry(self, where: JobFilter, *, progress: Progress | None = None) -> Outcome:
        """Make jobs run now, with all their attempts before them. `last_error` is kept.

        No worker is woken: they find the jobs at their next poll.

        Args:
            where: which jobs.
            progress: is told of every batch.
        """
        changes = {"run_now": True, "run_at": None, "priority": None, "max_attempts": None}
        return self._act("reschedule", where, {**changes, "attempts": 0}, progress)

    def reschedule(
        self,
        where: JobFilter,
        *,
        run_at: datetime | None = None,
        priority: int | None = None,
        attempts: int | None = None,
        max_attempts: int | None = None,
        progress: Progress | None = None,
    ) -> Outcome:
        """Change when and how often jobs are tried; see `Client.reschedule_jobs`.

        Raises:
            OptionError: a value does not fit; nothing was sent.
        """
        changes = arguments.changes(
            run_at=run_at, priority=priority, attempts=attempts, max_attempts=max_attempts
        )
        return self._act("reschedule", where, {**changes, "run_now": False}, progress)

    def fail(
        self, where: JobFilter, reason: str | None = None, *, progress: Progress | None = None
    ) -> Outcome:
        """Bar jobs from being tried again, and keep them; see `Client.permanently_fail_jobs`."""
        if reason is not None:
            [reason] = arguments.texts("reason", [reason])
        return self._act("fail", where, {"reason": reason}, progress)

    def complete(self, where: JobFilter, *, progress: Progress | None = None) -> Outcome:
        """Delete jobs as if they had run; see `Client.complete_jobs`. This is how to remove, too."""
        return self._act("complete", where, {}, progress)

    def remove_keys(self, keys: Iterable[str]) -> Outcome:
        """Remove the jobs of these keys, as `Client.dequeue`.

        A job that is running is not stopped: it loses its key and will not be tried again; it is
        counted as changed.
        """
        wanted = dict.fromkeys(arguments.texts("keys", keys))
        with self._connection() as connection:
            missing = [key for key in wanted if remove_job(connection, self._schema, key) is None]
        return Outcome(changed=len(wanted) - len(missing), missing=tuple(missing))

    def unlock(
        self, workers: Iterable[str] | None = None, *, force: bool = False, dry_run: bool = False
    ) -> Unlocked:
        """Free what dead workers hold: their jobs run again, their named queues go on.

        Dead is a Python worker whose heartbeat says so. Others are left alone unless `force` is
        given: **what a living worker holds would run twice**. The attempts stay counted.

        Args:
            workers: `locked_by` of the workers; None is all that are dead.
            force: free also what workers hold that are alive, or that nobody can know of.
            dry_run: only say what would be done.
        """
        wanted = None if workers is None else set(arguments.texts("workers", workers))
        with self._connection() as connection:
            status = look.read_status(connection, self._schema, queues=0, patience=self._patience)
            holding = {one.locked_by: one for one in status.workers if one.since is not None}
            chosen = [
                one
                for name, one in holding.items()
                if (one.state == "dead" if wanted is None else name in wanted)
            ]
            freed = [one for one in chosen if force or one.state == "dead"]
            if freed and not dry_run:
                names = [one.locked_by for one in freed]
                acts.force_unlock_workers(connection, self._schema, names)
        return Unlocked(
            freed=freed,
            skipped=[one for one in chosen if one not in freed],
            missing=tuple(sorted((wanted or set()) - {*holding})),
        )

    def close(self) -> None:
        """Close this object's own connections; it opens new ones if it is used again."""
        self._database.close()

    def _act(
        self,
        act: acts.Act,
        where: JobFilter,
        changes: Mapping[str, Any],
        progress: Progress | None,
    ) -> Outcome:
        if where.is_everything:
            raise OptionError(
                "where", "an empty filter would act on all jobs; name all states if that is meant"
            )
        count = 0
        changed: set[int] = set()
        with self._connection() as connection:
            for ids in acts.act_on(connection, self._schema, act, where, changes):
                count += len(ids)
                if where.ids is not None:
                    changed.update(ids)
                if progress is not None:
                    progress(len(ids))
            if where.ids is None and "running" not in (where.states or ["running"]):
                return Outcome(changed=count)  # it can have met no job that a worker holds
            # Whatever the other conditions: an id that is there was not changed for a reason.
            again = where if where.ids is None else JobFilter(ids=where.ids)
            left = look.preview(connection, self._schema, again, patience=self._patience)
        if where.ids is None:
            return Outcome(changed=count, held=left.held)
        held = {number for one in left.held for number in one.ids}
        unchanged = [str(one) for one in dict.fromkeys(where.ids) if one not in changed]
        return Outcome(
            changed=count,
            held=left.held,
            missing=tuple(number for number in unchanged if number in left.missing),
            busy=tuple(n for n in unchanged if n not in left.missing and n not in held),
        )

    @contextmanager
    def _connection(self) -> Iterator[Connection[Any]]:
        with ExitStack() as stack:
            stack.enter_context(explained(self._schema))
            connection = stack.enter_context(self._database.connection())
            try:
                yield connection
            except psycopg.errors.QueryCanceled as error:
                raise ConfigurationError(
                    f"PostgreSQL gave up after {self._patience.total_seconds():g} s. Narrow the "
                    "filter, or allow it more time (patience; on the command line --timeout)."
                ) from error


def _crontab(name: str, now: datetime, row: Mapping[str, Any], item: CronItem | None) -> Crontab:
    fired, known_since = row.get("last_execution"), row.get("known_since")
    found = Crontab(identifier=name, known_since=known_since, last_execution=fired, read_at=now)
    if item is None:
        return found
    since = fired + MINUTE if fired else known_since
    zone = item.options.zone
    return evolve(
        found,
        pattern=item.match.text if isinstance(item.match, Pattern) else "(function)",
        time_zone=item.options.time_zone,
        next_at=next_after(item.match, zone, now),
        missed_at=since
        and newest(item.match, zone, max(since, now - LONGEST_CATCH_UP), now - _LATE),
    )
