"""The command: python -m benchmarks [--quick] [--only NAME ...] [--rounds N]."""

import json
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path

import click
import psycopg

from benchmarks import install
from benchmarks.catalogue import MEASUREMENTS, QUICK_PLAN, Measurement
from benchmarks.header import header
from benchmarks.measurements.sizes import FULL, QUICK, Sizes
from benchmarks.process import BenchmarkError
from benchmarks.report import report
from benchmarks.results import Results
from benchmarks.stage import SETTINGS, Stage, on_disk
from benchmarks.systems import SYSTEMS, System
from zodworker_compat.embedded import EmbeddedPostgres

RESULTS = Path(__file__).parent / "results"
SCRATCH = Path("build", "benchmarks")
NAMES = [one.name for one in MEASUREMENTS] + [one.name for one in SYSTEMS]


@click.command()
@click.option("--quick", is_flag=True, help="Small sizes, one round: only proves that it runs.")
@click.option("--rounds", type=click.IntRange(min=1), help="Default: 5; with --quick, 1.")
@click.option(
    "--only",
    multiple=True,
    type=click.Choice(NAMES),
    help="Measurements and systems to be run, of all; may be repeated.",
)
@click.option(
    "--results",
    type=click.Path(path_type=Path, file_okay=False),
    help="The folder for results.json, results.md and results.svg. Default: benchmarks/results for "
    "a full run without errors, else build/benchmarks.",
)
@click.option("--list", "list_", is_flag=True, help="List measurements and systems, and end.")
def main(
    quick: bool, rounds: int | None, only: Sequence[str], results: Path | None, list_: bool
) -> None:
    """Compare ours, graphile-worker, other Python queues and plain SQL on one PostgreSQL."""
    if list_:
        for measurement in MEASUREMENTS:
            click.echo(
                f"{measurement.name:14} {measurement.title}: "
                + ", ".join(system.name for system in measurement.systems)
            )
        return
    plan = list(planned(only, quick))
    for needs, what in (("node", "graphile-worker"), ("peers", "the other Python queues")):
        if any(system.needs == needs and not system.is_installed() for _, system in plan):
            click.echo(f"{what} left out: not installed (python -m benchmarks.install)", err=True)
    plan = [(measurement, system) for measurement, system in plan if system.is_installed()]
    rounds = rounds or (1 if quick else 5)
    with EmbeddedPostgres(settings=SETTINGS, environ=on_disk()) as server:
        found = Results(header(server, rounds=rounds, quick=quick))
        with closing(Stage(server)) as stage:
            try:
                run(stage, plan, rounds, QUICK if quick else FULL, found)
            except KeyboardInterrupt:
                found.errors.append("interrupted")
    write(found, results or (SCRATCH if quick or only or found.errors else RESULTS))
    click.echo(report(found))
    sys.exit(1 if found.errors else 0)


def planned(only: Iterable[str], quick: bool) -> Iterable[tuple[Measurement, System]]:
    """Yield what is to be measured; names of measurements and of systems each narrow it down.

    A quick run without names is everything of ours, and each role of each adapter of the others.
    """
    names = set(only)
    measurements = names & {one.name for one in MEASUREMENTS}
    systems = names & {one.name for one in SYSTEMS}
    for measurement in MEASUREMENTS:
        for system in measurement.systems:
            if quick and not names and (measurement.name, system.name) not in QUICK_PLAN:
                continue
            if (not measurements or measurement.name in measurements) and (
                not systems or system.name in systems
            ):
                yield measurement, system


def run(
    stage: Stage,
    plan: Sequence[tuple[Measurement, System]],
    rounds: int,
    sizes: Sizes,
    results: Results,
) -> None:
    """Measure round by round, every second one backwards, so that nobody is always first."""
    start = time.monotonic()
    for round_ in range(1, rounds + 1):
        for measurement, system in plan if round_ % 2 else reversed(plan):
            what = f"round {round_}: {measurement.name}, {system.name}"
            begin = time.monotonic()
            try:
                figures = measurement.measure(stage, system, sizes)
            except (BenchmarkError, OSError, psycopg.Error) as error:
                results.errors.append(f"{what}: {error}")
                click.echo(f"{what}: {error}", err=True)
                continue
            results.add(round_, measurement.name, system, figures)
            shown = ", ".join(f"{name} {value:.5g}" for name, value in figures.items())
            took = f"[{time.monotonic() - begin:.1f} s, {time.monotonic() - start:.0f} s in all]"
            click.echo(f"{what}: {shown} {took}", err=True)


def write(results: Results, folder: Path) -> None:
    """Write the raw figures, the tables and, where matplotlib is installed, the plot."""
    folder.mkdir(parents=True, exist_ok=True)
    raw = folder / "results.json"
    raw.write_text(json.dumps(results.as_json(), indent=1) + "\n")
    (folder / "results.md").write_text(report(results))
    if python := install.python():
        plot = [str(python), str(Path(__file__).with_name("plot.py")), str(raw)]
        subprocess.run([*plot, str(folder / "results.svg")], check=False)


if __name__ == "__main__":
    main()
