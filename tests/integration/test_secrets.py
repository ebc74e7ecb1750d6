"""Passwords, payloads and hostile names: what must never be told, and what must never be executed."""

import ast
import asyncio
import io
import logging
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg_pool import AsyncConnectionPool

import zodworker_compat
from zodworker_compat import ZodWorker
from zodworker_compat.client.admin_async import AsyncAdmin
from zodworker_compat.database.connect import PRISMA_PARAMETERS, address, resolve_conninfo
from zodworker_compat.database.job_filter import JobFilter
from zodworker_compat.database.sessions import Session
from zodworker_compat.errors import ConfigurationError, PayloadValidationError
from zodworker_compat.limiter import PostgresRateLimiter
from zodworker_compat.runner_options import RunnerOptions

PACKAGE = Path(zodworker_compat.__file__).parent
SECRET = "hunter2"  # and every form of it below holds these letters
CATALOG = {"schema": {"task": {"type": "object"}}, "tasks": {"task": {}}}


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """All that is logged by anybody, as a formatter writes it."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield text
    root.setLevel(level)
    root.removeHandler(handler)


# --- connection strings

WRONG = [
    "postgresql://u:hunter2@127.0.0.1:1/d",
    "postgresql://u:%68unter2@127.0.0.1:1/d",
    "postgresql://127.0.0.1:1/d?user=u&password=hunter2",
    "postgresql://u:hunter2@[::1]:1/d",
    "postgresql://u:hunter2@127.0.0.1:1,127.0.0.1:2/d?target_session_attrs=read-write",
    "host=127.0.0.1 port=1 user=u password=hunter2",
    "host=127.0.0.1 port=1 user=u password='hunter2 \\' x'",
    "postgresql://u:hunter2@127.0.0.1:x/d",
    "postgresql://u:hunter2@127.0.0.1:99999/d",
    "postgresql://u:hunter2@127.0.0.1:1/d?sslmode=nonsense",
    "postgresql://u:hunter2@127.0.0.1:1/d?connect_timeout=x",
    # mistakes
    "postgresql://u:a@hunter2@127.0.0.1:1/d",
    "postgresql://u:a/hunter2@127.0.0.1:1/d",
    "postgresql://u:a?hunter2@127.0.0.1:1/d",
    "postgresql://u:a#hunter2@127.0.0.1:1/d",
    "postgresql://u:a:hunter2@127.0.0.1:1/d",
    "postgresql://u:a/b?hunter2@127.0.0.1:1/d",
    "postgresql://u:%zzhunter2@127.0.0.1:1/d",
    "postgresql://u:hunter2 127.0.0.1:1/d",
    "postgresql+psycopg://u:hunter2@127.0.0.1:1/d",
    "mysql://u:hunter2@127.0.0.1:1/d",
    "POSTGRESQL://u:hunter2@127.0.0.1:1/d",
    '"postgresql://u:hunter2@127.0.0.1:1/d"',
    "u:hunter2@127.0.0.1:1/d",
    "host=127.0.0.1 port=1 user=u password=a hunter2",
    "host=127.0.0.1 port=1 user=u password='hunter2",
    "host=127.0.0.1 port=1 user=u password=hunter2 bogus=1",
]


@pytest.mark.parametrize("url", WRONG)
async def test_no_password_is_in_an_error_a_log_or_a_repr(url, log) -> None:
    options = RunnerOptions(connection_string=url)
    worker = ZodWorker(name="test", **CATALOG, runner_options=options, handle_signals=False)
    worker.task("task")(print)
    told = [repr(options), repr(worker), repr(worker.sync)]
    for call in (
        lambda: worker.enqueue("task", {}),
        lambda: asyncio.to_thread(worker.sync.enqueue, "task", {}),
        worker.migrate,
        worker.run_once,
        AsyncAdmin(options).status,
    ):
        with pytest.raises(zodworker_compat.errors.ZodworkerError) as caught:
            await call()
        told += [repr(caught.value), "".join(traceback.format_exception(caught.value))]
    await worker.stop()
    # A traceback shows the line of the test that holds the secret, and nothing else of it.
    assert SECRET not in "".join([*told, log.getvalue()])


async def test_a_refused_password_is_not_told_whoever_raises(database, monkeypatch, log) -> None:
    """By PostgreSQL and psycopg themselves, with the password from each of the places."""
    parts = conninfo_to_dict(database)
    role = "zodworker_secret"
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("drop role if exists zodworker_secret")
        connection.execute("create role zodworker_secret nologin")
    plain = {name: str(parts[name]) for name in ("host", "port", "dbname") if name in parts}
    url = (
        f"postgresql://{role}:{quote(SECRET)}@/{plain['dbname']}"
        f"?host={quote(plain['host'], safe='')}&port={plain['port']}"
    )
    keywords = make_conninfo(**plain, user=role, password=SECRET)
    monkeypatch.setenv("PGPASSWORD", SECRET)
    told = []
    for conninfo in (url, keywords, make_conninfo(**plain, user=role)):
        worker = ZodWorker(
            name="test",
            **CATALOG,
            runner_options=RunnerOptions(connection_string=conninfo),
            handle_signals=False,
        )
        worker.task("task")(print)
        for call in (lambda worker=worker: worker.enqueue("task", {}), worker.run_once):
            with pytest.raises(zodworker_compat.errors.DatabaseUnavailableError) as caught:
                await call()
            told += traceback.format_exception(caught.value)
        await worker.stop()
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("drop role zodworker_secret")
    assert "FATAL" in "".join(told)
    assert SECRET not in "".join(told) + log.getvalue()


async def test_a_working_worker_tells_no_password_and_no_payload_above_debug(
    database, jobs, monkeypatch
) -> None:
    """Nor does the database hear of it: `application_name` and the statements are seen by others."""
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    text = io.StringIO()
    handler = logging.StreamHandler(text)
    handler.setLevel(logging.INFO)
    logging.getLogger("zodworker_compat").addHandler(handler)
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    await jobs.sql("drop role if exists zodworker_known")
    await jobs.sql(f"create role zodworker_known superuser login password '{SECRET}'")
    url = make_conninfo(database, user="zodworker_known", password=SECRET)
    worker = ZodWorker(
        name="test",
        **CATALOG,
        runner_options=RunnerOptions(connection_string=url),
        tracer_provider=provider,
        handle_signals=False,
    )
    names: list[str] = []

    @worker.task("task")
    async def task(payload, job, helpers) -> None:
        rows = await jobs.sql(
            "select application_name, query from pg_stat_activity where usename = 'zodworker_known'"
        )
        names.extend(f"{row['application_name']} {row['query']}" for row in rows)
        text.write(repr(job) + repr(helpers))
        if payload.get("fails"):
            raise ValueError("reason")

    await worker.enqueue("task", {"private": "hunter2 in a payload"})
    await worker.enqueue("task", {"private": "hunter2 in a payload", "fails": True})
    await jobs.sql("select graphile_worker.add_job('task', '[\"hunter2\"]')")
    with pytest.raises(PayloadValidationError) as caught:
        await worker.enqueue("task", ["hunter2", {"private": "hunter2"}])
    await worker.run_once()
    await worker.close()
    await jobs.sql("drop owned by zodworker_known")
    await jobs.sql("drop role zodworker_known")
    logging.getLogger("zodworker_compat").removeHandler(handler)
    told = [text.getvalue(), str(caught.value), *names]
    told += [span.to_json() for span in spans.get_finished_spans()]
    assert "reason" in text.getvalue()
    assert names
    assert SECRET not in "".join(told)


def test_a_session_and_a_pool_keep_their_connection_string_to_themselves() -> None:
    session = Session("postgresql://u:hunter2@h/d", application_name="x")
    pool = AsyncConnectionPool("postgresql://u:hunter2@h/d", open=False)
    assert SECRET not in repr(session) + repr(RunnerOptions(pool=pool))
    assert "password" not in address("postgresql://u:hunter2@h/d")


def test_prismas_parameters_hide_no_password() -> None:
    for name in PRISMA_PARAMETERS:
        assert resolve_conninfo(f"postgresql://u:p@h/d?{name}=hunter2", {}).endswith("/d")


def test_two_at_signs_are_told_to_be_encoded() -> None:
    with pytest.raises(ConfigurationError, match="percent-encode"):
        resolve_conninfo("postgresql://u:p@ss@h/d", {})


# --- names

HOSTILE = [
    'a"b',
    "a'b",
    "a%sb%(ids)s%",
    "a;drop schema public",
    "a\\b$1{}",
    "a -- b",
    "/* a",
    "a\nb -- c",
    "a$b",
    ":schema",
    "Graphile Worker",
    "a); select 1; --",
    "ü🐘",
    " ",
    "select",
    '"',
    "x" * 63,
    "a.b",
]


@pytest.mark.parametrize("schema", HOSTILE)
async def test_a_hostile_schema_name_is_only_a_name(empty_database, schema, eventually) -> None:
    """Through every public call, and nothing else in the database is touched."""
    options = RunnerOptions(connection_string=empty_database, schema=schema)
    limiter = PostgresRateLimiter({"rl:a": 1})
    worker = ZodWorker(
        name=schema,
        **CATALOG,
        runner_options=options,
        rate_limiter=limiter,
        handle_signals=False,
    )
    ran = []

    @worker.task("task")
    async def task(payload, job, helpers) -> None:
        ran.append(payload)
        if "more" in payload:
            await helpers.enqueue("task", {})

    @worker.recurring("minutely", match="* * * * *", backfill_period=timedelta(hours=1))
    async def minutely(run) -> None: ...

    await worker.migrate()
    await worker.initialize()
    later = datetime.now(UTC) + timedelta(days=1)
    await worker.enqueue("task", {"more": 1}, flags=["rl:a"], queue_name=schema, job_key=schema)
    await eventually(lambda: len(ran) >= 2, timeout=60)
    added = await worker.enqueue_many(
        [("task", {}, {"run_at": later, "job_key": f"{schema}{n}"}) for n in range(5)]
    )
    worker.sync.enqueue("task", {}, run_at=later)
    worker.sync.enqueue_many([("task", {}, {"run_at": later})])
    async with worker.transaction() as tx:
        await tx.enqueue("task", {}, run_at=later)
    assert await worker.dequeue(f"{schema}0") is not None
    ids = [job.id for job in added]
    await worker.reschedule_jobs(ids, priority=1)
    await worker.permanently_fail_jobs(ids[:2], schema)
    await worker.complete_jobs(ids[1:2])
    await worker.force_unlock_workers([schema])
    await limiter.pause("rl:a")
    await limiter.resume("rl:a")
    await worker.stop()
    worker.sync.close()
    await worker.cleanup(["DELETE_PERMAFAILED_JOBS", "GC_TASK_IDENTIFIERS", "GC_JOB_QUEUES"])
    admin = AsyncAdmin(options)
    status = await admin.status()
    assert status.schema == schema
    await admin.jobs(JobFilter(queues=[schema], keys=[schema]))
    await admin.crontabs()
    await admin.job(ids[3])
    await admin.preview(JobFilter(ids=ids))
    await admin.retry(JobFilter(tasks=[schema]))
    await admin.unlock([schema], force=True)
    await admin.close()
    await worker.close()
    async with await psycopg.AsyncConnection.connect(empty_database, autocommit=True) as connection:
        cursor = await connection.execute(
            "select nspname from pg_namespace where nspname !~ '^pg_' and nspname <> 'information_schema'"
        )
        assert {name for (name,) in await cursor.fetchall()} == {"public", schema}
        cursor = await connection.execute(
            sql.SQL("select count(*) from {}._private_jobs").format(sql.Identifier(schema))
        )
        assert await cursor.fetchone() is not None
        cursor = await connection.execute(
            "select relname from pg_class where relnamespace = 'public'::regnamespace"
        )
        assert await cursor.fetchall() == []


@pytest.mark.parametrize(
    "schema", ["$$", "x$graphile_worker_body$x", "$lock_names$", "\0", "\ud800", "", "x" * 64, None]
)
def test_a_name_that_could_leave_its_quotes_is_refused(schema) -> None:
    with pytest.raises(ConfigurationError, match="cannot be the name of a schema"):
        RunnerOptions(schema=schema)


# --- code

# What executes text or loads objects. The one `eval` reads the annotation of a handler.
FORBIDDEN = {"eval", "exec", "compile", "__import__"}
ALLOWED = {("handlers.py", "eval")}
FORBIDDEN_MODULES = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "yaml", "jsonpickle"}


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def test_no_module_evaluates_text_or_unpickles() -> None:
    found = set()
    for file in sources():
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            function = node.func if isinstance(node, ast.Call) else None
            if isinstance(function, ast.Name) and function.id in FORBIDDEN:
                found.add((file.name, function.id))
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
                for name in names:
                    if name.split(".")[0] in FORBIDDEN_MODULES:
                        found.add((file.name, name))
            if isinstance(node, ast.keyword) and node.arg == "shell":
                found.add((file.name, "shell="))
            if isinstance(node, ast.Attribute) and node.attr in {"system", "popen", "loads_pickle"}:
                found.add((file.name, node.attr))
    assert found == ALLOWED


def test_sql_text_is_in_files_alone() -> None:
    """What is built in Python is built of quoted names: there is one `sql.SQL(...)`, for LISTEN."""
    composed = {
        file.name
        for file in sources()
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "SQL"
    }
    assert composed <= {"queue.py"}


def test_every_dependency_is_locked_with_a_hash() -> None:
    import tomllib

    lock = tomllib.loads((PACKAGE.parent / "uv.lock").read_text("utf-8"))
    for package in lock["package"]:
        if "registry" in package["source"]:
            files = [
                *package.get("wheels", []),
                *([package["sdist"]] if "sdist" in package else []),
            ]
            assert files
            assert all(file["hash"].startswith("sha256:") for file in files)
        else:
            assert package["source"] in ({"editable": "."}, {"virtual": "."})
