"""Whether a queue is set up rightly, and how to mend it. Pure: from what was read, to words."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import timedelta
from typing import Final, Literal, TypeAlias

from attrs import frozen

from zodworker_compat.client.reasons import LONG_RUN, command
from zodworker_compat.client.wording import duration, plural
from zodworker_compat.database.revisions import Plan
from zodworker_compat.database.statements import quoted
from zodworker_compat.database.status import Status
from zodworker_compat.database.verify import JobsTable, Server, Setup

Level: TypeAlias = Literal["ok", "warning", "error"]

MOST_NAMED: Final = 5
SKEW: Final = timedelta(seconds=2)
"""A `run_at` that a program computes by its own clock is off by that."""
ROOM: Final = 10
"""Connections: a worker process has five of its own and four of its pool at most, and one is for you."""
LONG_TRANSACTION: Final = timedelta(hours=1)
MANY_DEAD: Final = 100_000
"""Dead rows, if they are also more than twice the living: autovacuum does not keep up."""
BLOATED: Final = 1_000_000_000
LARGE_ROW: Final = 10_000
"""Bytes. A table of a gigabyte with more of them for each job is mostly empty space."""
WORKERS_TABLE: Final = "zodworker_workers"


@frozen
class Check:
    """One thing that was looked at."""

    level: Level
    """"warning": it works, but not as it should; "error": it does not, or loses jobs."""
    subject: str
    found: str
    mend: str | None = None
    """What to do: a command, SQL, or a sentence. None if it is ok, or if `found` says it."""


def check_server(server: Server, place: str) -> Iterator[Check]:
    """Look at the server: is it the one that can be written to, does it keep what it is told."""
    yield Check("ok", "database", f"PostgreSQL {server.version}, {place}, role {server.role}")
    if server.is_standby:
        yield Check(
            "error",
            "database",
            "This server is a standby: nothing can be written.",
            "Name the primary, e.g. with both hosts and target_session_attrs=read-write in the URL.",
        )
    elif server.is_read_only:
        yield Check(
            "error",
            "database",
            f"Transactions of the role {server.role} are read-only (default_transaction_read_only).",
            f"alter role {quoted(server.role)} set default_transaction_read_only = off",
        )
    yield from _durability(server)
    yield from _clock(server)
    if server.free_connections < ROOM:
        yield Check(
            "warning",
            "connections",
            f"{plural(server.free_connections, 'connection')} can still be opened; a worker process "
            "has up to nine.",
            "Raise max_connections or the limit of the role or database, lower max_pool_size, or let "
            "those who only enqueue go through a pooler.",
        )
    else:
        yield Check("ok", "connections", f"{server.free_connections:,} more can be opened")
    longest = server.longest_transaction
    if longest is not None and longest > LONG_TRANSACTION:
        yield Check(
            "warning",
            "vacuum",
            f"A transaction has been open for {duration(longest)}: meanwhile no vacuum removes the "
            "rows of jobs that are done, and claims become slower.",
            "select pid, state, query from pg_stat_activity where xact_start is not null "
            "order by xact_start; then pg_terminate_backend(pid), or idle_in_transaction_session_timeout",
        )


def _durability(server: Server) -> Iterator[Check]:
    if not server.syncs:
        yield Check(
            "warning",
            "durability",
            "fsync is off, as for a database that may be lost: a crash of the machine may lose jobs, "
            "or all of it.",
            "alter system set fsync = on; select pg_reload_conf()",
        )
    elif server.synchronous_commit == "off":
        yield Check(
            "warning",
            "durability",
            "synchronous_commit is off for this role: a crash of PostgreSQL may forget jobs that were "
            "enqueued in the last moments. (Workers switch it off themselves where that loses nothing.)",
            f"alter role {quoted(server.role)} reset synchronous_commit, or the like for the database",
        )
    else:
        yield Check("ok", "durability", "What is committed survives a crash")


def _clock(server: Server) -> Iterator[Check]:
    ahead = abs(server.skew)
    if ahead - server.skew_known_to <= SKEW:
        yield Check("ok", "clock", f"Within {SKEW.total_seconds():g} s of the database's")
        return
    order = "behind" if server.skew > timedelta(0) else "ahead of"
    yield Check(
        "warning",
        "clock",
        f"This machine's clock is {duration(ahead)} {order} the database's. Workers only use the "
        "database's, but a run_at that is computed here is off by so much.",
        "Let NTP set it: timedatectl set-ntp true",
    )


def check_schema(schema: str, plan: Plan) -> Iterator[Check]:
    """Look at the revision of the schema."""
    if plan.before is None:
        yield Check(
            "error",
            "schema",
            f"{schema} is not installed in this database.",
            f"{command('migrate', '--schema', schema)}, or name the right one with --schema",
        )
    elif plan.warning:
        yield Check("warning", "schema", plan.warning, "pip install --upgrade zodworker-compat")
    elif plan:
        yield Check(
            "warning",
            "schema",
            f"{schema} is at revision {plan.before}, and its table migrations is of an old form.",
            command("migrate", "--schema", schema),
        )
    else:
        yield Check("ok", "schema", f"{schema} is at graphile-worker's revision {plan.before}")


def check_setup(schema: str, setup: Setup, server: Server) -> Iterator[Check]:
    """Look at the tables, and at what the role may do with them."""
    yield from _rights(schema, setup, server.role)
    yield from _structure(schema, setup)
    if WORKERS_TABLE in setup.tables:
        yield Check("ok", "recovery", "Workers have heartbeats: the jobs of a killed one are freed")
    elif any(table.may_create for table in setup.tables.values()):
        yield Check("ok", "recovery", "The first worker that starts makes the table of heartbeats")
    else:
        yield Check(
            "warning",
            "recovery",
            f"There is no table {WORKERS_TABLE}, and the role {server.role} may not make it: the jobs "
            "of a worker that is killed stay locked for four hours, as with Node's.",
            "Start a Python worker as the owner of the schema once, or make it as docs/security.md says",
        )
    if setup.jobs is not None:
        yield from _jobs_table(schema, setup.jobs, server.autovacuums)


def _rights(schema: str, setup: Setup, role: str) -> Iterator[Check]:
    tables = [*setup.tables.values()]
    grants = []
    if any(not table.may_use_schema for table in tables):
        grants.append(f"grant usage on schema {quoted(schema)} to {quoted(role)};")
    grants += [
        f"grant {', '.join(table.missing)} on {quoted(schema)}.{quoted(table.name)} to {quoted(role)};"
        for table in tables
        if table.missing
    ]
    if grants:
        yield Check(
            "error",
            "rights",
            f"The role {role} may not do all that a worker does (docs/security.md has other roles).",
            " ".join(grants),
        )
    hidden = [table for table in tables if table.hides_rows]
    if hidden:
        yield Check(
            "error",
            "rights",
            f"Row level security hides the rows of {_names(table.name for table in hidden)} from the "
            f"role {role}: it sees no job, and can enqueue none.",
            f"Connect as their owner, {hidden[0].owner}; or as that: "
            + " ".join(
                f"create policy {quoted(role)} on {quoted(schema)}.{quoted(table.name)} "
                f"to {quoted(role)} using (true);"
                for table in hidden
            ),
        )
    if tables and not grants and not hidden:
        yield Check("ok", "rights", f"The role {role} may do all that a worker does")


def _structure(schema: str, setup: Setup) -> Iterator[Check]:
    for kind in ("column", "index", "function"):
        names = [name for of_kind, name in setup.lacking if of_kind == kind]
        if names:
            yield Check(
                "error",
                "tables",
                f"graphile-worker's revision 18 has what {schema} has not: {kind} {_names(names)}.",
                _MEND[kind],
            )
    if not setup.lacking:
        yield Check("ok", "tables", "Columns, indexes and functions are graphile-worker's")


_MEND: Final = {
    "column": "Undo what was changed by hand, or restore the schema from a backup",
    "index": "Make it again, or reindex it if it is invalid: \\d on a schema that `zodworker migrate` "
    "made in an empty database shows how it is defined",
    "function": "Restore it from a backup, or grant execute on it: PostgreSQL lets everybody call it, "
    "unless that was revoked",
}


def _jobs_table(schema: str, jobs: JobsTable, autovacuums: bool) -> Iterator[Check]:
    table = f"{quoted(schema)}._private_jobs"
    if jobs.is_unlogged:
        yield Check(
            "error",
            "durability",
            "The jobs table is unlogged: a crash of PostgreSQL empties it.",
            f"alter table {table} set logged",
        )
    if jobs.has_no_autovacuum or not autovacuums:
        yield Check(
            "warning",
            "vacuum",
            "Autovacuum is off: every job leaves a dead row, and claims become slower and slower.",
            f"alter table {table} reset (autovacuum_enabled)"
            if jobs.has_no_autovacuum
            else "alter system set autovacuum = on; select pg_reload_conf()",
        )
    is_behind = jobs.dead_rows > max(MANY_DEAD, 2 * jobs.live_rows)
    is_empty = jobs.bytes > max(BLOATED, LARGE_ROW * jobs.live_rows)
    if is_behind or is_empty:
        yield Check(
            "warning",
            "vacuum",
            f"The jobs table has {jobs.bytes // 1_000_000:,} MB for {plural(jobs.live_rows, 'job')} "
            f"and {plural(jobs.dead_rows, 'dead row')}.",
            f"vacuum (verbose, analyze) {table} says what keeps them; vacuum full gives the space "
            "back, and stops the queue meanwhile",
        )
    elif not jobs.has_no_autovacuum and autovacuums:
        yield Check("ok", "vacuum", f"Autovacuum is on; {plural(jobs.dead_rows, 'dead row')}")
    if jobs.triggers:
        yield Check(
            "warning",
            "tables",
            f"The jobs table has triggers of its own ({_names(jobs.triggers)}), so jobs are enqueued "
            "by graphile-worker's functions, which is slower; what a trigger refuses does not run.",
            "Drop what is not needed",
        )


def check_notifications(is_direct: bool, is_heard: bool) -> Check:
    """Look at what lies between us and PostgreSQL."""
    if is_heard:
        between = "" if is_direct else ", with a pooler in between"
        return Check("ok", "notifications", f"A notification comes through{between}")
    return Check(
        "warning",
        "notifications",
        "No notification comes through"
        + (": " if is_direct else ": a pooler in transaction mode (PgBouncer, say) is in between; ")
        + "workers find new jobs by polling only.",
        "Give workers a connection string to PostgreSQL itself or to a pooler in session mode; who "
        "only enqueues may stay where he is",
    )


def check_workers(status: Status, node_listeners: int) -> Iterator[Check]:
    """Look at who works here, and whose locks were left behind."""
    alive = [one.heartbeat for one in status.workers if one.state == "alive" and one.heartbeat]
    versions = sorted({one.version for one in alive})
    about = f", version {' and '.join(versions)}" if versions else ""
    yield Check("ok", "workers", f"{plural(len(alive), 'Python worker')} alive{about}")
    if generations := _generations(status, node_listeners):
        yield Check("ok", "workers", f"Seen of Node: {', '.join(generations)}")
    for one in status.workers:
        if one.since is None:
            continue
        held = f"{plural(one.jobs, 'job')} and {plural(one.queues, 'queue')}"
        if one.state == "dead":
            yield Check(
                "warning",
                "workers",
                f"{one.locked_by} is dead and holds {held}; a living Python worker would free them.",
                command("unlock", one.locked_by),
            )
        elif one.state == "unknown" and status.read_at - one.since > LONG_RUN:
            yield Check(
                "warning",
                "workers",
                f"{one.locked_by} has no heartbeat and has held {held} for "
                f"{duration(status.read_at - one.since)}: one of Node's, or gone.",
                f"If its process has ended: {command('unlock', '--force', one.locked_by)}",
            )


def _generations(status: Status, node_listeners: int) -> list[str]:
    """Return what the locks and the sessions tell of Node's workers."""
    unknown = [one.locked_by for one in status.workers if one.state == "unknown"]
    old = sum(name.startswith("worker-") for name in unknown)
    new = sum(name.startswith(("pool-", "otpool-")) for name in unknown)
    return [
        words
        for count, words in (
            (old, f"locks of {plural(old, 'worker')} of graphile-worker 0.16 or older"),
            (new, f"locks of {plural(new, 'pool')} of 0.17, or of Python without heartbeat"),
            (
                node_listeners,
                f"{plural(node_listeners, 'session')} listening for jobs in this database",
            ),
        )
        if count
    ]


def check_tasks(
    status: Status, node_listeners: int, handled: Collection[str], catalog: Collection[str]
) -> Iterator[Check]:
    """Look for jobs that wait, and whose task nobody knows.

    Args:
        status: the queue.
        node_listeners: see `Server`.
        handled: tasks that the worker which is being set up has handlers for.
        catalog: tasks that its catalog has.
    """
    alive = {
        task
        for one in status.workers
        if one.state == "alive" and one.heartbeat is not None
        for task in one.heartbeat.tasks
    }
    if not alive and not handled:
        return
    waiting = {
        one.identifier: one.ready + one.scheduled + one.retrying
        for one in status.tasks
        if one.ready + one.scheduled + one.retrying
    }
    orphans = {name: count for name, count in waiting.items() if name not in {*alive, *handled}}
    if not orphans:
        yield Check("ok", "tasks", "Every job that waits has a Python worker that handles its task")
        return
    named = _names(f"{name} ({plural(count, 'job')})" for name, count in orphans.items())
    if _generations(status, node_listeners):
        yield Check("ok", "tasks", f"Left to Node's workers: {named}")
        return
    unknown = [name for name in orphans if catalog and name not in catalog]
    misspelt = f" The worker's catalog has no {_names(unknown)}." if unknown else ""
    yield Check(
        "warning",
        "tasks",
        f"No living Python worker handles {named}, and none of Node's is seen.{misspelt}",
        "Start a worker that does; or see them with "
        + command("jobs", *(word for name in [*orphans][:MOST_NAMED] for word in ("--task", name))),
    )


def check_handlers(
    handled: Collection[str], catalog: Collection[str], scheduled: Iterable[str]
) -> Iterator[Check]:
    """Look at what a worker handles.

    Args:
        handled: tasks, and recurring ones, that have a handler.
        catalog: tasks that the catalog has.
        scheduled: tasks that its crontab enqueues.
    """
    known = [name for name in handled if name in catalog]
    more = [name for name in handled if name not in catalog]
    yield Check(
        "ok" if handled else "error",
        "handlers",
        f"{len(known)} of {plural(len(catalog), 'task')} of the catalog have handlers here"
        + (f", and so have, outside of it, {_names(more)}" if more else ""),
        None if handled else "Register them with @worker.task(identifier)",
    )
    for name in sorted({*scheduled} - {*handled}):
        yield Check(
            "warning",
            "handlers",
            f"The crontab enqueues {name}, for which there is no handler here.",
            f"@worker.task({name!r}), or see to it that another worker handles it",
        )


def check_payloads(looked_at: int, wrong: Sequence[tuple[str, str]]) -> Iterator[Check]:
    """Look at what waits: will the handlers take it? `wrong` holds (job id, problem)."""
    if not wrong:
        yield Check(
            "ok",
            "payloads",
            f"{plural(looked_at, 'waiting job')} looked at: they match their schemas",
        )
        return
    number, problem = wrong[0]
    yield Check(
        "warning",
        "payloads",
        f"{len(wrong)} of {plural(looked_at, 'waiting job')} looked at do not match their schema, and "
        f"will fail. Job {number}: {problem}",
        f"{command('job', number)}; mend the schema or the handler, or: "
        + command("fail", *(one for one, _ in wrong[:MOST_NAMED])),
    )


def _names(names: Iterable[str]) -> str:
    found = [*names]
    rest = len(found) - MOST_NAMED
    return ", ".join(found[:MOST_NAMED]) + (f" and {rest} more" if rest > 0 else "")
