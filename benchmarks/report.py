"""The results for people: Markdown."""

from collections.abc import Iterator, Sequence

from benchmarks.catalogue import MEASUREMENTS
from benchmarks.results import Results, short
from benchmarks.systems import OURS, SYSTEMS
from benchmarks.targets import TARGETS

RATE = "jobs/s"


def report(results: Results) -> str:
    """Return the header, the targets and all figures."""
    return "\n".join([*_header(results), *_targets(results), *_figures(results), *_errors(results)])


def _header(results: Results) -> Iterator[str]:
    yield "# Benchmark results"
    yield ""
    for name, value in results.header.items():
        yield f"- {name}: {value}"
    yield ""


def _targets(results: Results) -> Iterator[str]:
    yield "## Targets"
    yield ""
    yield "Medians over the rounds; ratios are formed within a round. In brackets: least and most."
    yield ""
    yield "| target | number | bound | | ours | floor |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for target in TARGETS:
        number = target.result(results)
        bound = f"{'≤' if target.at_most else '≥'} {target.bound:g}"
        verdict = "not measured" if number is None else "met" if target.is_met(number) else "missed"
        ours = results.spread(*target.key)
        floor = results.spread(*target.floor) if target.floor else None
        cells = [
            target.title, number, bound, verdict,
            f"{short(ours.middle)} {target.key[2]}" if ours and target.others else None,
            floor and short(floor.middle),
        ]  # fmt: skip
        yield _row(cells)
    yield ""


def _figures(results: Results) -> Iterator[str]:
    for measurement in MEASUREMENTS:
        mine = [one for one in results.figures if one.measurement == measurement.name]
        if not mine:
            continue
        names = list(dict.fromkeys(figure.name for figure in mine))
        yield f"## {measurement.title[:1].upper()}{measurement.title[1:]}"
        yield ""
        yield _row(["system", *names, "ours ÷ it"])
        yield _row(["---"] * (len(names) + 2))
        for system in SYSTEMS:
            spreads = [results.spread(measurement.name, system.name, name) for name in names]
            if any(spreads):
                key = (measurement.name, OURS.name, names[0])
                ratio = results.ratio(key, [(measurement.name, system.name, names[0])])
                yield _row([system.name, *spreads, None if system is OURS else ratio])
        yield ""


def _errors(results: Results) -> Iterator[str]:
    if results.errors:
        yield "## Not measured"
        yield ""
        yield from (f"- {' … '.join(shortened(error))}" for error in results.errors)
        yield ""


def shortened(error: str) -> list[str]:
    """Return the first and the last line of an error; all of it is in the raw figures."""
    lines = error.strip().splitlines()
    return lines if len(lines) < 2 else [lines[0], lines[-1]]  # noqa: PLR2004


def _row(cells: Sequence[object]) -> str:
    return f"| {' | '.join('' if cell is None else str(cell) for cell in cells)} |"
