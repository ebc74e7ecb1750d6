"""What the revisions of graphile-worker's schema are, and what one schema needs."""

from attrs import frozen

from zodworker_compat import resources
from zodworker_compat.database.statements import quoted
from zodworker_compat.errors import MigrationError
from zodworker_compat.runner_options import schema_name_problem

BREAKING = frozenset({1, 3, 11, 13, 14, 16, 19})
"""The revisions that an older Node worker cannot run with, as graphile-worker 0.17.3."""

INSTALLED = 18
"""What a fresh schema gets: every graphile-worker since 0.16.6 runs on it."""

NEWEST = 19
"""The same schema, marked for graphile-worker 0.17: workers of 0.16 refuse to start on it."""

RELATIONS = (
    "_private_job_queues",
    "_private_jobs",
    "_private_known_crontabs",
    "_private_tasks",
    "job_spec",
    "jobs",
)

OLDEST_SERVER = 120000
PATIENCE = 10.0  # seconds without a new revision after which nobody is installing any more


@frozen
class Ledger:
    """What is there: the schema, its relations, and the rows of its table `migrations`."""

    has_schema: bool
    columns: frozenset[str]
    """Of the table `migrations`; empty if there is none."""
    relations: tuple[str, ...] = ()
    revisions: tuple[int, ...] = ()
    breaking: frozenset[int] = frozenset()
    age: float | None = None
    """Seconds since the newest row was written."""

    @property
    def is_readable(self) -> bool:
        """Whether `migrations` can be graphile-worker's."""
        return {"id", "ts"} <= self.columns

    @property
    def newest(self) -> int | None:
        """The revision the schema is at; None if it is not installed."""
        return max(self.revisions, default=None)

    @property
    def is_growing(self) -> bool:
        """Whether a Node worker seems to be installing this schema right now."""
        newest, age = self.newest, self.age
        return newest is not None and newest < INSTALLED and age is not None and age < PATIENCE


@frozen
class Script:
    """One step of a migration."""

    name: str
    """The file in `migrations/`, or what stands for a revision that leaves nothing behind."""
    sql: str
    """Its text for this schema; empty if there is nothing to do but to note the revision."""
    revision: int | None = None

    @property
    def is_breaking(self) -> bool:
        """Whether a Node worker that does not know this revision must stop."""
        return self.revision in BREAKING


@frozen
class Plan:
    """What `migrate` would do to a schema; falsy if that is nothing."""

    schema: str
    before: int | None
    """The revision found; None if the schema is not installed."""
    after: int
    preparation: tuple[Script, ...] = ()
    """Makes the schema and its table `migrations`, or completes that table."""
    revisions: tuple[Script, ...] = ()
    """Applied in one transaction, each with its row in `migrations`."""
    warning: str | None = None

    def __bool__(self) -> bool:
        return bool(self.preparation or self.revisions)


@frozen
class Migration:
    """What `migrate` did."""

    schema: str
    before: int | None
    """The revision found; None if the schema was not installed."""
    revision: int
    """The revision now."""
    warning: str | None = None


def check_server_version(server_version_num: int) -> None:
    """Refuse PostgreSQL 11 and older, as graphile-worker 0.16.6.

    Raises:
        MigrationError: `server_version_num` is below 120000.
    """
    if server_version_num < OLDEST_SERVER:
        raise MigrationError(
            "This version of Graphile Worker requires PostgreSQL v12.0 or greater "
            f"(detected `server_version_num` = {server_version_num})"
        )


def check_arguments(schema: str, revision: int | None) -> None:
    """Refuse names that PostgreSQL would change, and revisions that are not ours to install.

    Raises:
        MigrationError: says which values are possible.
    """
    if problem := schema_name_problem(schema):
        raise MigrationError(problem)
    if revision not in {None, INSTALLED, NEWEST}:
        raise MigrationError(
            f"Revision {revision} cannot be installed; choose {INSTALLED} (any graphile-worker since "
            f"0.16.6) or {NEWEST} (graphile-worker 0.17 only)"
        )


def make_plan(schema: str, ledger: Ledger, wanted: int | None = None) -> Plan:
    """Return what `schema` needs to be at revision `wanted`, or at any that can be used if None.

    Raises:
        MigrationError: the schema cannot be used: too new, too old, half installed or not
            graphile-worker's.
    """
    if ledger.columns and not ledger.is_readable:
        raise MigrationError(
            f"The table {quoted(schema)}.migrations is not graphile-worker's; choose another schema"
        )
    before = ledger.newest
    if before is None:
        if ledger.relations:
            raise MigrationError(
                f"Schema {quoted(schema)} has {', '.join(ledger.relations)}, but its table migrations "
                "does not say at which revision. If graphile-worker does not use it, choose another "
                "schema or drop it. Nothing was changed."
            )
    else:
        _check_usable(schema, ledger, before)
    after = max(before or 0, wanted or INSTALLED)
    return Plan(
        schema,
        before,
        after,
        preparation=_preparation(schema, ledger),
        revisions=tuple(_script(schema, n) for n in range((before or 0) + 1, after + 1)),
        warning=_warning(before, wanted) if before else None,
    )


def _check_usable(schema: str, ledger: Ledger, newest: int) -> None:
    if ledger.breaking and (breaking := max(ledger.breaking)) > NEWEST:
        raise MigrationError(
            f"Database is using Graphile Worker schema revision {newest} which includes breaking "
            f"migration {breaking}, but the currently running worker only supports up to revision "
            f"{NEWEST}. It would be unsafe to continue; please ensure all versions of Graphile "
            "Worker are compatible."
        )
    if newest < INSTALLED:
        raise MigrationError(
            f"Schema {quoted(schema)} is at graphile-worker's revision {newest}; at least "
            f"{INSTALLED} is needed. Stop all its workers, run "
            "`npx graphile-worker@0.16.6 --schema-only` once on this database and schema, start "
            "workers of 0.16.6 in their place, then try again. Nothing was changed."
        )
    if missing := set(RELATIONS) - set(ledger.relations):
        raise MigrationError(
            f"Schema {quoted(schema)} says that it is at graphile-worker's revision {newest}, but "
            f"it has no {', '.join(sorted(missing))}. Restore it, or drop it if its jobs are not "
            "needed. Nothing was changed."
        )


def _warning(newest: int, wanted: int | None) -> str | None:
    if newest > NEWEST:
        return (
            f"Database is using Graphile Worker schema revision {newest}, but the currently running "
            f"worker only supports up to revision {NEWEST} which may or may not be compatible. "
            "Please ensure all versions of Graphile Worker you're running are compatible. "
            "Attempting to continue regardless."
        )
    if wanted is not None and newest > wanted:
        return (
            f"The schema is at revision {newest} already and stays there: workers of "
            "graphile-worker 0.16 refuse to start on it."
        )
    return None


def _preparation(schema: str, ledger: Ledger) -> tuple[Script, ...]:
    names = []
    if not ledger.has_schema:
        names.append("000_schema")
    if "breaking" not in ledger.columns:
        names.append("000_migrations")
    return tuple(Script(name, _read(name, schema)) for name in names)


def _script(schema: str, revision: int) -> Script:
    """Return the step of one revision. Half of them leave nothing: later ones undid their work."""
    for file in resources.folder("migrations").glob(f"{revision:03}_*.sql"):
        return Script(file.stem, _read(file.stem, schema), revision)
    return Script(f"{revision:03} (leaves nothing)", "", revision)


def _read(name: str, schema: str) -> str:
    text = (resources.folder("migrations") / f"{name}.sql").read_text("utf-8")
    return text.replace(":schema", quoted(schema))
