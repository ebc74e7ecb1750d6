"""Breaks our SQL in many small ways and reports the ways that the state machine does not notice.

    .venv/bin/python tools/mutate_sql.py                           # all of it: an hour
    .venv/bin/python tools/mutate_sql.py migrations/018_add_job.sql --examples 300

A mutant is made in a copy of the tree, never here: a line left out, a comparison turned round, a
constant changed, and so on. It survives if `tests/parity/test_state_machine.py` passes on it. Then a
rule is missing there, or the change makes no difference; those that are known to make none are in
`NO_DIFFERENCE`, and are not tried.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
SQL = "zodworker_compat/database/sql"
# What graphile-worker does, too. The rest has nothing that it could be compared with; and of the tables
# `tests/parity/test_schema.py` compares every word.
COMPARED = (
    *(f"migrations/{name}.sql" for name in ("016_admin_functions", "017_jobs_view", "018_add_job")),
    *(
        f"{SQL}/{name}.sql"
        for name in (
            "insert_job", "insert_jobs", "job_update", "job_added", "add_job", "add_jobs", "remove_job", "job_columns", "names_of", "admin_complete",
            "admin_fail", "admin_reschedule", "admin_unlock", "admin_delete_failed",
            "admin_delete_queues", "admin_delete_tasks", "resolve_tasks", "claim", "complete", "fail",
            "return_jobs", "reschedule", "sweep_jobs", "sweep_queues",
        )
    ),
)  # fmt: skip
SWAPS: list[tuple[str, str | Callable[[re.Match[str]], str]]] = [
    (r"(?<![<>=:!?])<(?![>=])", "<="),
    (r"(?<![<>=:!?])<(?![>=])", ">"),
    (r"<=", "<"),
    (r"(?<![<>=:!?-])>(?!=)", ">="),
    (r">=", ">"),
    (r"(?<![<>=:!])=(?![>])", "<>"),
    (r"<>", "="),
    (r"\bis null\b", "is not null"),
    (r"\bis not null\b", "is null"),
    (r"\band\b", "or"),
    (r"\bor\b", "and"),
    (r"\bnot exists\b", "exists"),
    (r"(?<!not )\bexists\b", "not exists"),
    (r"\btrue\b", "false"),
    (r"\bfalse\b", "true"),
    (r"\bmin\(", "max("),
    (r"\bgreatest\(", "least("),
    (r"\bleast\(", "greatest("),
    (r" \+ ", " - "),
    (r" - ", " + "),
    (r"\b\d+\b", lambda match: str(int(match[0]) + 1)),
    (r"\b[1-9]\d*\b", lambda match: str(int(match[0]) - 1)),
    (r"\bnow\(\)", "now() + interval '1 hour'"),
    (r"\bexcluded\.", "jobs."),
    (r"\bjobs\.(?=(run_at|payload|attempts|max_attempts)\b)", "excluded."),
    (r"'preserve_run_at'", "'replace'"),
    (r"'unsafe_dedupe'", "'replace'"),
    (r"\bleft join\b", "join"),
    (r"\bskip locked\b", ""),
    (r"\bon conflict do nothing\b", ""),
    (r"\bunion all\b.*", ""),
    (r"\bdistinct\b(?! on)", ""),
    (r"\bcoalesce\(([^(),]+), [^()]*(\(\))?\)", r"\1"),
    (r"\bcoalesce\([^(),]+, ([^()]*(\(\))?)\)", r"\1"),
    (r"\bany\b", "all"),
]  # fmt: skip

# By the reason: regular expressions for mutants as they are reported.
NO_DIFFERENCE = {
    "the second turn is the last that has anything to do": (
        r"for v_turn in 1 \.\. 2 loop  ->  for v_turn in (1 \.\. 3|0 \.\. 2) loop",
    ),
    "the order of locks: one batch alone cannot deadlock, see integration/test_functions.py": (
        r"018.*: order by spec\.(identifier|queue_name)  ->  \(nothing\)",
        r"018.*: order by spec\.job_key, spec\.ordinality  ->  \(nothing\)",
    ),
    "the order is right with every plan that the tests see": (
        r"018.*: order by spec\.ordinality  ->  \(nothing\)",
        r"insert_jobs.sql:.*: order by place  ->  \(nothing\)",
        r"admin_\w+\.sql:.*: order by job\.id  ->  \(nothing\)",
    ),
    "on conflict do nothing drops what is there twice": (r"018.*: select distinct spec",),
    "the names were added just before": (
        r"018.*: left join :schema\._private_tasks .*->  join :schema",
    ),
    "two names for the same two groups": (r"018.*partition by job\.key is not null",),
    "only a trigger of somebody else's leads there, see integration/test_functions.py": (
        r"018.*: if cardinality\(v_jobs\) < cardinality\(specs\) then  ->  if .* > ",
        r"018.*: cardinality\(specs\) - cardinality\(v_jobs\), ",
    ),
    "an attribute of a function: test_schema.py compares them": (r"018.*: strict  ->",),
    "no row comes back, and the schema's function does the same": (
        r"insert_jobs?\.sql:.*: and not exists \(  ->  and exists",
        r"insert_jobs?\.sql:.*: where tgrelid = ",
        r"insert_jobs?\.sql:.*: and \(queue\.id is not null or .*->.* and %",
        r"insert_job\.sql:.*: left join :schema\._private_job_queues .*->  join",
    ),
    "the bytes of a batch are bounded by us alone, see integration/test_claim.py": (
        r"claim\.sql:.*: select id, .*->  select id, .*pg_column_size",
        r"claim\.sql:.*bytes_before.*->  .*bytes_before",
    ),
    "`more` is for us alone, see integration/test_claim.py": (
        r"claim\.sql:.*: (or )?\(+select count\(\*\) from (first_of_queue|waiting|picked)\)",
    ),
    "checked again in case the row has changed since the snapshot": (
        r"claim\.sql:.*: and is_available and run_at <= now\(\) and task_id",
        r"claim\.sql:94: for update skip locked",
    ),
    "times that Python does not have, see integration/test_hostile_rows.py": (
        r"claim\.sql:.*: greatest\(.*->  greatest\(",
    ),
    "a job whose task is gone, see integration/test_hostile_rows.py": (
        r"sql/(admin_\w+|remove_job|add_job)\.sql:.*: coalesce\(task\.identifier, [^)]*\).*  ->  task",
        r"sql/(admin_\w+|remove_job|add_job)\.sql:.*: left join .*_private_tasks .*->  join",
    ),
    "sorted already by the window": (r"claim\.sql:122: order by .*  ->  \(nothing\)",),
    "with flags the state machine claims one job (departure 46)": (
        r"claim\.sql:.*: where id not in \(select id from repeated\).*->  \(nothing\)",
    ),
    "some 1e-43 seconds": (r"fail\.sql:.*greatest\(-99,.*->.*greatest\(-(98|100),",),
    "more rows are held than are asked for": (
        r"(complete|fail|return_jobs)\.sql:.*: where id = any .*-- careful  ->  (\(nothing\)|.* or )",
        r"names_of\.sql:.*: where id = any.*->  \(nothing\)",
    ),
    "there are never so many jobs": (r"claim\.sql:.*: limit (100|%\(look_ahead\)s)  ->",),
}


class Mutant(NamedTuple):
    """One change of one file."""

    file: str
    line: int
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.before.strip()}  ->  {self.after.strip() or '(nothing)'}"


def mutants(file: str) -> Iterator[Mutant]:
    """Yield every mutant of a file."""
    for number, line in enumerate((ROOT / file).read_text("utf-8").splitlines(), 1):
        code, dashes, comment = line.partition("--")
        if not code.strip():
            continue
        left = ";" if code.rstrip().endswith(";") else ""
        afters = [left]
        for pattern, replacement in SWAPS:
            for match in re.finditer(pattern, code):
                new = replacement(match) if callable(replacement) else match.expand(replacement)
                afters.append(code[: match.start()] + new + code[match.end() :] + dashes + comment)
        for after in {" ".join(after.split()): after for after in afters}.values():
            yield Mutant(file, number, line, after)


def makes_a_difference(mutant: Mutant) -> bool:
    """Whether a call could show it."""
    patterns = [pattern for patterns in NO_DIFFERENCE.values() for pattern in patterns]
    return not any(re.search(pattern, str(mutant)) for pattern in patterns)


def copy_tree(folder: Path) -> None:
    """Copy what the tests need."""
    for name in ("zodworker_compat", "migrations", "catalog", "schemas", "examples", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)


def survivors(shard: list[Mutant], options: argparse.Namespace) -> list[Mutant]:
    """Run the state machine on each mutant; return those on which it passes."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as name:
        folder = Path(name) / "tree"
        copy_tree(folder)
        control = shard[0]._replace(after=shard[0].before)
        (folder / "mutants.json").write_text(json.dumps([control, *shard]), "utf-8")
        environ = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(folder), str(Path(__file__).parent)]),
            "PYTHONDONTWRITEBYTECODE": "1",
            "ZODWORKER_PARITY_EXAMPLES": str(options.examples),
            "ZODWORKER_PARITY_PATIENCE": "3s",
        }
        subprocess.run(
            [
                sys.executable, "-m", "pytest", "-s", "-p", "mutate_sql", "-p", "no:randomly",
                "-p", "no:terminal", "-p", "no:logging",
                "tests/parity/test_state_machine.py", "-k", "0.17",
            ],
            cwd=folder, env=environ, stderr=subprocess.DEVNULL, check=False,
        )  # fmt: skip
        results, tried = json.loads((folder / "results.json").read_text("utf-8"))
        alive = [Mutant(*fields) for fields in results]
        if control not in alive or tried != len(shard) + 1:
            raise SystemExit("The tests fail on what is not changed at all, or were broken off.")
        return [mutant for mutant in alive if mutant != control]


def main() -> None:
    """Make the mutants, run them, report."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "files", nargs="*", default=COMPARED, help="SQL files, from the top of the tree"
    )
    parser.add_argument("--examples", type=int, default=60, help="of the state machine, per mutant")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", help="a regular expression for the mutants, as they are reported")
    options = parser.parse_args()
    found = [mutant for file in options.files for mutant in mutants(file)]
    if options.only:
        found = [mutant for mutant in found if re.search(options.only, str(mutant))]
    every = [mutant for mutant in found if makes_a_difference(mutant)]
    shards = [every[start :: options.jobs] for start in range(options.jobs)]
    print(
        f"{len(every)} mutants, and {len(found) - len(every)} that make no difference", flush=True
    )
    with ThreadPoolExecutor(options.jobs) as threads:
        results = threads.map(lambda shard: survivors(shard, options), filter(None, shards))
        alive = [mutant for shard in results for mutant in shard]
    print(f"{len(alive)} survive, {len(every) - len(alive)} are noticed")
    sys.exit(bool(alive))


# --- inside pytest: this file is a plugin there

if "pytest" in sys.modules and Path("mutants.json").exists():
    import pytest
    from hypothesis import Phase, settings

    from zodworker_compat.database.statements import statement

    _given = [Mutant(*fields) for fields in json.loads(Path("mutants.json").read_text("utf-8"))]
    _dead: set[Mutant] = set()
    _ran: set[Mutant] = set()

    def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
        """Run every test once for each mutant."""
        metafunc.parametrize("mutant", _given, indirect=True, ids=map(str, range(len(_given))))

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
        """Take the mutants one by one, the random test last; some of them never end."""
        items.sort(key=lambda item: (_number(item.nodeid), "any_sequence" in item.nodeid))
        for item in items:
            item.add_marker(pytest.mark.timeout(120), append=False)

    def _number(nodeid: str) -> int:
        return int(re.findall(r"\d+", nodeid)[-1])

    @pytest.fixture(autouse=True)
    def mutant(request: pytest.FixtureRequest) -> Iterator[None]:
        """The mutant in the copied tree, while the test runs; if no test has noticed it yet."""
        change: Mutant = request.param
        if change in _dead:
            pytest.skip("it has been noticed")
        settings.register_profile(
            "mutants", deadline=None, derandomize=True, database=None, phases=[Phase.generate]
        )
        settings.load_profile("mutants")
        file = Path(change.file)
        text = file.read_text("utf-8")
        lines = text.splitlines()
        if lines[change.line - 1] != change.before:
            raise ValueError(f"the file has changed: {change}")
        lines[change.line - 1] = change.after
        file.write_text("\n".join(lines) + "\n", "utf-8")
        statement.cache_clear()
        _ran.add(change)
        _dead.add(change)  # unless the test passes
        yield
        file.write_text(text, "utf-8")
        statement.cache_clear()

    def pytest_runtest_logreport(report: pytest.TestReport) -> None:
        """Note who is still alive after a test."""
        if report.when == "call" and report.passed:
            change = _given[_number(report.nodeid)]
            _dead.discard(change)
            if "any_sequence" in report.nodeid and change.before != change.after:
                print(change, flush=True)

    def pytest_sessionfinish() -> None:
        """Write down who has survived, and of how many."""
        alive = [change for change in _given if change in _ran - _dead]
        Path("results.json").write_text(json.dumps([alive, len(_ran)]), "utf-8")


if __name__ == "__main__":
    main()
