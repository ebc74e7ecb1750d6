"""What the tests against the real graphile-worker use."""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

HERE = Path(__file__).parent
sys.path.append(str(HERE))  # for `differential`: pytest's importlib mode finds no siblings

Node = Callable[..., subprocess.CompletedProcess[str]]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    here = [item for item in items if item.path.is_relative_to(HERE)]
    for item in here:
        item.add_marker(pytest.mark.parity)
    if left_out := [item for item in here if is_better(item)]:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def is_better(item: pytest.Item) -> bool:
    """Whether a test is about something that graphile-worker itself does not do."""
    places = (getattr(item, name, None) for name in ("function", "cls"))
    return any(getattr(place, "is_better", False) for place in places)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock that other processes wait for."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """The folder of the installed npm packages, shared by all sessions with the same lock file."""
    if not shutil.which("npm") or not shutil.which("node"):
        message = "node and npm are needed to compare with graphile-worker"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    lock_file = HERE / "package-lock.json"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    version = hashlib.sha256(lock_file.read_bytes()).hexdigest()[:16]
    folder = cache / "zodworker-compat-parity" / version
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / "lock"):
        if not (folder / "installed").exists():
            for file in (HERE / "package.json", lock_file):
                shutil.copy(file, folder)
            subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=folder, check=True)
            (folder / "installed").touch()
    return folder / "node_modules"


@pytest.fixture(scope="session")
def answering_node(
    node_modules: Path,
) -> Callable[..., AbstractContextManager[Callable[[str, Any], str]]]:
    """A Node process that answers each line of JSON, [question, value], with one line.

    `with answering_node(script, *arguments, NODE_PATH=...) as ask: ask(question, value)`.
    """

    @contextmanager
    def answering(
        script: str, *arguments: str, **environ: str
    ) -> Iterator[Callable[[str, Any], str]]:
        process = subprocess.Popen(
            ["node", "-e", script, *arguments],
            env={**os.environ, "TZ": "UTC", **environ},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        assert process.stdin is not None
        assert process.stdout is not None

        def ask(question: str, value: Any) -> str:
            process.stdin.write(json.dumps([question, value]) + "\n")
            process.stdin.flush()
            return process.stdout.readline()

        try:
            yield ask
        finally:
            process.stdin.close()
            process.wait(timeout=60)
            process.stdout.close()

    return answering


@pytest.fixture(scope="session")
def node(node_modules: Path) -> Node:
    """Run a script of `node/`: `node("migrate", "0.16", url, schema)`."""

    def run(script: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        result = subprocess.run(
            ["node", HERE / "node" / f"{script}.js", *arguments],
            env={**os.environ, "NODE_PATH": str(node_modules)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if check and result.returncode:
            pytest.fail(f"node {script} {arguments}: {result.stderr}")
        return result

    return run


CATALOGS = {
    "schema": """
        select n.nspacl::text, pg_catalog.obj_description(n.oid) as comment
        from pg_namespace n where n.nspname = %(schema)s
    """,
    "relations": """
        select c.relname, c.relkind, c.relpersistence, c.relrowsecurity, c.relforcerowsecurity,
            c.relacl::text, c.reloptions, c.relreplident, a.amname,
            obj_description(c.oid, 'pg_class') as comment,
            pg_get_userbyid(c.relowner) = current_user as owned
        from pg_class c left join pg_am a on a.oid = c.relam
        where c.relnamespace = %(schema_id)s order by c.relname
    """,
    "columns": """
        select c.relname, row_number() over (partition by c.oid order by a.attnum) as position,
            a.attname, format_type(a.atttypid, a.atttypmod) as type, a.attnotnull, a.attidentity,
            a.attgenerated, a.attstorage, a.attcollation::regcollation::text as collation,
            a.attacl::text, a.attstattarget, pg_get_expr(d.adbin, d.adrelid) as default
        from pg_class c
        join pg_attribute a on a.attrelid = c.oid
        left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
        where c.relnamespace = %(schema_id)s and a.attnum > 0 and not a.attisdropped
            and c.relkind not in ('i', 'S')
        order by c.relname, position
    """,
    "constraints": """
        select c.conname, c.contype, c.conrelid::regclass::text as relation, c.condeferrable,
            c.convalidated, pg_get_constraintdef(c.oid) as definition
        from pg_constraint c
        where c.connamespace = %(schema_id)s and c.contype <> 'n' order by relation, c.conname
    """,
    "indexes": """
        select pg_get_indexdef(i.indexrelid) as definition, i.indisvalid, i.indisunique
        from pg_index i join pg_class c on c.oid = i.indexrelid
        where c.relnamespace = %(schema_id)s order by definition
    """,
    "sequences": """
        select c.relname, format_type(s.seqtypid, null) as type, s.seqstart, s.seqincrement,
            s.seqmax, s.seqmin, s.seqcache, s.seqcycle,
            d.refobjid::regclass::text as of_table, d.refobjsubid as of_column, d.deptype
        from pg_sequence s
        join pg_class c on c.oid = s.seqrelid
        left join pg_depend d on d.classid = 'pg_class'::regclass and d.objid = c.oid
            and d.refclassid = 'pg_class'::regclass
        where c.relnamespace = %(schema_id)s order by c.relname
    """,
    "types": """
        select t.typname, t.typtype, t.typacl::text, e.typname as array_of
        from pg_type t left join pg_type e on e.typarray = t.oid
        where t.typnamespace = %(schema_id)s order by t.typname
    """,
    "views": """
        select c.relname, pg_get_viewdef(c.oid) as definition
        from pg_class c where c.relnamespace = %(schema_id)s and c.relkind = 'v' order by c.relname
    """,
    "functions": """
        select p.proname, p.prokind, pg_get_function_arguments(p.oid) as arguments,
            pg_get_function_result(p.oid) as result, p.proretset, l.lanname, p.proisstrict,
            p.provolatile, p.proparallel, p.prosecdef, p.proleakproof, p.procost, p.prorows,
            p.proconfig, p.proacl::text, obj_description(p.oid, 'pg_proc') as comment
        from pg_proc p join pg_language l on l.oid = p.prolang
        where p.pronamespace = %(schema_id)s order by p.proname, arguments
    """,
    "triggers": """
        select t.tgname, t.tgrelid::regclass::text as relation
        from pg_trigger t join pg_class c on c.oid = t.tgrelid
        where c.relnamespace = %(schema_id)s order by t.tgname
    """,
    "policies": """
        select p.polname from pg_policy p join pg_class c on c.oid = p.polrelid
        where c.relnamespace = %(schema_id)s order by p.polname
    """,
    "rules": """
        select r.rulename, c.relname from pg_rewrite r join pg_class c on c.oid = r.ev_class
        where c.relnamespace = %(schema_id)s order by c.relname, r.rulename
    """,
    "default privileges": """
        select defaclobjtype, defaclacl::text from pg_default_acl
        where defaclnamespace = %(schema_id)s
    """,
}


@pytest.fixture(scope="session")
def introspect() -> Callable[..., dict[str, Any]]:
    """`introspect(url, schema)`: all that the catalogs say of a schema, and its revisions.

    Left out are the bodies of functions. Times of the rows of `migrations` and the bodies come with
    `exactly=True`, for before and after.
    """

    def read(url: str, schema: str = "graphile_worker", *, exactly: bool = False) -> dict[str, Any]:
        found: dict[str, Any] = {}
        with psycopg.connect(url, row_factory=dict_row) as connection:
            # Names are then printed without the schema, so that two schemas compare.
            connection.execute("select set_config('search_path', quote_ident(%s), false)", [schema])
            [row] = connection.execute(
                "select oid from pg_namespace where nspname = %s", [schema]
            ).fetchall()
            names = {"schema": schema, "schema_id": row["oid"]}
            for subject, query in CATALOGS.items():
                found[subject] = connection.execute(query, names).fetchall()
            revisions = connection.execute("select * from migrations order by id").fetchall()
            found["revisions"] = [(row["id"], row["breaking"]) for row in revisions]
            if exactly:
                found["times"] = [row["ts"] for row in revisions]
                found["bodies"] = connection.execute(
                    "select oid, xmin::text, proname, prosrc from pg_proc"
                    " where pronamespace = %(schema_id)s order by oid",
                    names,
                ).fetchall()
                found["versions"] = connection.execute(
                    "select oid, xmin::text, relname from pg_class"
                    " where relnamespace = %(schema_id)s order by oid",
                    names,
                ).fetchall()
        return found

    return read
