"""The same calls on two databases: through our code on ours, through graphile-worker on Node's.

Time is virtual. Both databases have a function `now()` that hides PostgreSQL's, in the statements and
in the defaults of the columns, and reads a table. So the two sides live at the same microsecond: their
timestamps are compared exactly, and a lock becomes four hours old to the point.
"""

import asyncio
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from time import monotonic, sleep
from typing import Any

import psycopg
from psycopg import AsyncConnection, sql
from psycopg.types.json import set_json_loads

from zodworker_compat import RunnerOptions, WorkerCatalog
from zodworker_compat.client.client_async import AsyncClient
from zodworker_compat.database import queue
from zodworker_compat.database.migrate_async import migrate

START = datetime(2030, 1, 1, tzinfo=UTC)
LOCK_EXPIRY = timedelta(hours=4)
# Of a statement that waits or never ends; only a fault reaches it.
PATIENCE = os.environ.get("ZODWORKER_PARITY_PATIENCE", "120s")
LATEST = datetime.max.replace(tzinfo=UTC)

CLOCK = """
    create schema clock;
    create table clock.time (now timestamptz not null);
    insert into clock.time values ('2030-01-01 00:00:00Z');
    create function clock.now() returns timestamptz language sql stable as 'select now from clock.time';
    do $$ begin
        execute format('alter database %I set search_path to clock, pg_catalog, public', current_database());
        execute format('alter database %I set timezone to ''UTC''', current_database());
        execute format('alter database %I set statement_timeout to ''PATIENCE''', current_database());
    end $$;
""".replace("PATIENCE", PATIENCE)

# The notification is heard after all that were committed before it.
SNAPSHOT = """
    select pg_notify('jobs:insert', 'all heard'), json_build_object(
        'jobs', (
            select coalesce(json_agg(job order by job.id), '[]') from (
                select job.*, job.payload::text as payload, task.identifier, queue.queue_name
                from {schema}._private_jobs as job
                left join {schema}._private_tasks as task on task.id = job.task_id
                left join {schema}._private_job_queues as queue on queue.id = job.job_queue_id
            ) as job
        ),
        'queues', (
            select coalesce(json_agg(queue order by queue_name), '[]')
            from {schema}._private_job_queues as queue
        ),
        'tasks', (
            select coalesce(json_agg(identifier order by identifier), '[]')
            from {schema}._private_tasks
        ),
        'view', (select coalesce(json_agg(job order by job.id), '[]') from {schema}.jobs as job)
    )
"""
NAMED_BY_ID = ("id", "task_id", "job_queue_id")  # other numbers on the other side
TIMES = ("run_at", "created_at", "updated_at", "locked_at")
COLUMNS = (
    *TIMES, "payload", "priority", "attempts", "max_attempts", "last_error", "key", "locked_by",
    "revision", "flags", "is_available",
)  # fmt: skip
IDENTIFIERS = ("a", "b", "tâche 😀", "x" * 128)


class Refused(Exception):  # noqa: N818 - an answer like any other
    """PostgreSQL refused a call."""

    def __init__(self, sqlstate: str | None, constraint: str | None, message: str | None) -> None:
        super().__init__(sqlstate, constraint, message)
        of_the_queue = (sqlstate or "").startswith("GW")  # else the words are PostgreSQL's
        self.reason = (sqlstate, constraint, message if of_the_queue else None)

    @classmethod
    def by(cls, error: psycopg.Error) -> "Refused":
        return cls(error.sqlstate, error.diag.constraint_name, error.diag.message_primary)


class Side:
    """A database with a queue in it."""

    schema: str

    def __init__(self, url: str) -> None:
        self.url = url
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(CLOCK)
        self.connection = psycopg.connect(url, autocommit=True)
        # `infinity` is no datetime, so times stay JSON text until they are compared.
        set_json_loads(json.loads, self.connection)
        # PostgreSQL 18 plans the statements of a function for the values of the call, and then computes
        # `coalesce(32768, ...)::smallint`, an error even if no row would get it. After five calls
        # statistics decide whether it goes on so.
        self.connection.execute("set plan_cache_mode to force_generic_plan")
        self.connection.execute('listen "jobs:insert"')
        self.heard: list[str] = []
        self.other = psycopg.connect(url)
        """Another session, whose transaction stays open while something else happens."""

    def close(self) -> None:
        self.connection.close()
        self.other.close()

    def execute(self, query: str, parameters: Any = (), connection: Any = None) -> list[Any]:
        """Run SQL in which `{schema}` is the queue's; a row of one column is that column."""
        text = sql.SQL(query).format(schema=sql.Identifier(self.schema))
        try:
            cursor = (connection or self.connection).execute(text, parameters)
        except psycopg.Error as error:
            raise Refused.by(error) from error
        rows = cursor.fetchall() if cursor.description else []
        return [row[0] if len(row) == 1 else row for row in rows]

    def function(self, name: str, **arguments: Any) -> list[dict[str, Any]]:
        """Call one of the schema's functions, and return the jobs it returns."""
        casts = {"payload": "::json", "flags": "::text[]", "job_ids": "::bigint[]"}
        given = ", ".join(f"{name} => %({name})s{casts.get(name, '')}" for name in arguments)
        return self.execute(
            f"select to_json(job) from {{schema}}.{name}({given}) as job", arguments
        )

    def add_jobs(self, specs: list[dict[str, Any]], **preserve: bool) -> list[dict[str, Any]]:
        """Call the function `add_jobs`."""
        order = ("identifier", "payload", "queue_name", "run_at", "max_attempts", "job_key",
                 "priority", "flags")  # fmt: skip
        row = "row(%s, %s::json, %s, %s, %s, %s, %s, %s::text[])::{schema}.job_spec"
        rows = ", ".join([row] * len(specs))
        more = "".join(f", job_key_preserve_run_at => {value}" for value in preserve.values())
        return self.execute(
            f"select to_json(job) from {{schema}}.add_jobs(array[{rows}]::{{schema}}.job_spec[]{more}) as job",
            [spec.get(name) for spec in specs for name in order],
        )

    def snapshot(self) -> dict[str, list[Any]]:
        """Return all rows; what has been notified since the last time is in `heard` then."""
        [(_, found)] = self.execute(SNAPSHOT)
        payloads = [notify.payload for notify in self.connection.notifies(timeout=0)]
        assert payloads.pop() == "all heard"
        self.heard = payloads
        return found

    def clear(self) -> None:
        self.execute(
            "truncate {schema}._private_jobs, {schema}._private_job_queues, {schema}._private_tasks"
        )


class OurSide(Side):
    """Our code, on a schema that our code installed."""

    schema = "python side"

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.loop = asyncio.Runner()
        self.session = self.run(self._open())
        options = RunnerOptions(connection_string=url, schema=self.schema)
        tasks = dict.fromkeys(IDENTIFIERS, True)
        catalog = WorkerCatalog.of(schema=tasks, tasks={name: {} for name in tasks})
        self.client = AsyncClient(catalog, runner_options=options)
        # The tasks of a client's own catalog are never collected (departure 53).
        empty = WorkerCatalog.of(schema={}, tasks={})
        self.collector = AsyncClient(empty, runner_options=options)

    async def _open(self) -> AsyncConnection[Any]:
        connection = await AsyncConnection.connect(self.url, autocommit=True)
        await migrate(connection, self.schema, revision=18)
        await connection.execute("set enable_seqscan to off")  # as a worker does
        return connection

    def run(self, coroutine: Any) -> Any:
        try:
            return self.loop.run(coroutine)
        except psycopg.Error as error:
            raise Refused.by(error) from error

    def close(self) -> None:
        for each in (self.client, self.collector, self.session):
            self.run(each.close())
        self.loop.close()
        super().close()

    def queue(self, name: str, *arguments: Any, **options: Any) -> Any:
        """Call a function of `zodworker_compat.database.queue`."""
        return self.run(getattr(queue, name)(self.session, self.schema, *arguments, **options))

    def claim(self, pool: str, identifiers: list[str], limit: int, flags: list[str] | None) -> Any:
        tasks = self.queue("resolve_tasks", identifiers)
        batch = self.queue("claim", pool, list(tasks), limit, flags)
        return batch, [
            {**job._asdict(), "task_identifier": tasks[job.task_id]} for job in batch.jobs
        ]


class NodeSide(Side):
    """graphile-worker, on a schema that graphile-worker installed."""

    schema = "graphile_worker"

    ask: Callable[[str, Any], str]
    """Of `answering_node`, which installs the schema, so it comes after the clock."""

    def __init__(self, url: str, version: str) -> None:
        super().__init__(url)
        self.version = version

    def call(self, name: str, *arguments: Any) -> Any:
        """Make a call of `node/answer.js`."""
        answer = json.loads(self.ask(name, arguments))
        if error := answer.get("error"):
            raise Refused(error["sqlstate"], error["constraint"], error["message"])
        return answer["result"]

    def claim(self, pool: str, identifiers: list[str], limit: int, flags: list[str] | None) -> Any:
        """Claim up to `limit` jobs, one by one: so never two of a queue (departure 7)."""
        jobs = []
        while len(jobs) < limit and (job := self.call("claim", pool, identifiers, flags)):
            jobs.append(job)
        return jobs


class BothSides:
    """Our side and Node's, whose rows must be the same after every call."""

    def __init__(self, ours: OurSide, theirs: NodeSide) -> None:
        self.ours, self.theirs = ours, theirs
        self.each = (ours, theirs)
        self.threads = ThreadPoolExecutor(2)
        self.start()

    def close(self) -> None:
        self.threads.shutdown()

    def start(self) -> None:
        """Begin anew, with empty tables."""
        for side in self.each:
            side.other.rollback()
            side.clear()
        self.now = START
        self.pairs: dict[int, int] = {}
        """Node's id of the same job, by ours."""
        self.jobs: dict[int, dict[str, Any]] = {}
        """Our rows, by id."""
        self.queues: dict[str, dict[str, Any]] = {}
        self.randoms: set[float] = set()
        self.set_clock(START)
        self.compare(notified=False)

    def set_clock(self, now: datetime) -> None:
        self.now = now
        for side in self.each:
            side.execute("update clock.time set now = %s", [now])

    def sql(self, query: str, parameters: Any = ()) -> None:
        """Run the same SQL on both sides."""
        for side in self.each:
            side.execute(query, parameters)

    def change(self, job: int, assignment: str, *values: Any) -> None:
        """Change a job on both sides."""
        for side, id_ in zip(self.each, (job, self.pairs[job]), strict=True):
            side.execute(
                f"update {{schema}}._private_jobs set {assignment} where id = %s", [*values, id_]
            )

    def compare(self, *, notified: bool = True, again: int = 0) -> None:
        """Fail unless the tables, and what was notified since the last time, are the same.

        Args:
            notified: False leaves the notifications out.
            again: of so many jobs of a batch our side may have told twice.
        """
        ours, theirs = (side.snapshot() for side in self.each)
        same("tasks", ours["tasks"], theirs["tasks"])
        same("queues", nameless(ours["queues"]), nameless(theirs["queues"]))
        self._pair(by_id(ours["jobs"]), by_id(theirs["jobs"]))
        for name in ("jobs", "view"):
            theirs_by_id = by_id(theirs[name])
            for id_, row in by_id(ours[name]).items():
                twin = theirs_by_id.pop(self.pairs[id_], None)
                same(f"{name}, our id {id_}", nameless([row]), nameless([twin] if twin else []))
            same(name, [], list(theirs_by_id.values()))
        if notified:
            counts = [self._counts(side.heard) for side in self.each]
            if again and len(counts[0]) > len(counts[1]):
                same("last notification", counts[0].pop(), {"count": again})
            same("notifications", *counts)
        self.jobs = by_id(ours["jobs"])
        self.queues = {row["queue_name"]: row for row in ours["queues"]}
        self._break_ties()

    def _pair(self, ours: dict[int, Any], theirs: dict[int, Any]) -> None:
        """Find the twin of each new job: new on Node's side too, and equal."""
        self.pairs = {our: their for our, their in self.pairs.items() if our in ours}
        known = set(self.pairs.values())
        new = [sorted_rows(row for id_, row in ours.items() if id_ not in self.pairs),
               sorted_rows(row for id_, row in theirs.items() if id_ not in known)]  # fmt: skip
        same("new jobs", *(nameless(rows) for rows in new))
        self.pairs.update((our["id"], their["id"]) for our, their in zip(*new, strict=True))

    def _counts(self, payloads: list[str]) -> list[Any]:
        """Return what each notification says, but for its random number."""
        counts: list[Any] = []
        for payload in payloads:
            heard = json.loads(payload) if payload else {}
            random = heard.pop("r", None)
            assert (random is None) == (not payload), payload
            assert random is None or (0 <= random < 1 and random not in self.randoms), payload
            self.randoms.add(random)
            counts.append(heard)
        return counts

    def _break_ties(self) -> None:
        """Make jobs differ in priority or time: which of two equal ones comes first is open."""
        taken = set()
        for id_, row in self.jobs.items():
            run_at = row["run_at"]
            while (row["priority"], run_at) in taken and run_at != "infinity":
                run_at = (moment(run_at) - timedelta(milliseconds=1)).isoformat()
            taken.add((row["priority"], run_at))
            if run_at != row["run_at"]:
                row["run_at"] = run_at
                self.change(id_, "run_at = %s", run_at)

    def beside(
        self, hold: Callable[[Any, Side], None], call: Callable[[Side], Any], *, commit: bool
    ) -> list[Any]:
        """Return what `call` gives on each side when another session has just done `hold`.

        That session's transaction ends when the call waits for it, or is done.
        """

        def wait(side: Side, future: Any) -> Any:
            pid = side.connection.info.backend_pid
            deadline = monotonic() + 60
            while not future.done() and not side.execute(BLOCKED, [pid], side.other)[0]:
                assert monotonic() < deadline, "neither done nor blocked after 60 s"
                sleep(0.0005)
            side.other.commit() if commit else side.other.rollback()
            return future.result()

        for side in self.each:
            hold(side.other, side)
        futures = [self.threads.submit(call, side) for side in self.each]
        return [wait(side, future) for side, future in zip(self.each, futures, strict=True)]


BLOCKED = "select exists (select from pg_locks where not granted and pid = %s)"


def moment(value: Any) -> Any:
    """Return a time that comes as text or as a datetime as a datetime."""
    if value == "infinity":
        return LATEST
    return datetime.fromisoformat(value) if isinstance(value, str) else value


def by_id(rows: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    return {row["id"]: row for row in rows}


def sorted_rows(rows: Any) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: json.dumps(nameless([row]), sort_keys=True))


def nameless(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows without the numbers that differ."""
    return [{name: row[name] for name in row if name not in NAMED_BY_ID} for row in rows]


def columns(job: Any) -> dict[str, Any]:
    """Return what a job says in every language, whether it comes from a call or from a table."""
    found = {name: job[name] for name in COLUMNS if name in job}
    found.update({name: moment(found[name]) for name in TIMES if name in found})
    return found


def same(what: str, ours: Any, theirs: Any) -> None:
    """Fail unless both are equal."""
    if ours != theirs:
        raise AssertionError(f"{what}\n  ours: {show(ours)}\n  Node: {show(theirs)}")


def show(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
