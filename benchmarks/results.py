"""The raw figures of a run, and what is computed from them."""

from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

from attrs import asdict, define, field, frozen

from benchmarks.systems import System


@frozen
class Figure:
    """One figure of one system in one round."""

    round: int
    measurement: str
    system: str
    name: str
    value: float


@frozen
class Spread:
    """The median over the rounds, and the extremes."""

    middle: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Return the spread of at least one value."""
        return cls(median(values), min(values), max(values))

    def __str__(self) -> str:
        return f"{short(self.middle)} ({short(self.least)}–{short(self.most)})"  # noqa: RUF001


def short(value: float) -> str:
    """Return a number with three significant digits, thousands separated."""
    if abs(value) >= 100:  # noqa: PLR2004
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"  # noqa: PLR2004


@define
class Results:
    """All figures of a run, with what it ran on."""

    header: dict[str, str]
    figures: list[Figure] = field(factory=list)
    errors: list[str] = field(factory=list)

    def add(self, round_: int, measurement: str, system: System, values: dict[str, float]) -> None:
        """Keep the figures of one measurement."""
        self.figures += [
            Figure(round_, measurement, system.name, name, value) for name, value in values.items()
        ]

    def by_round(self, measurement: str, system: str, name: str) -> dict[int, float]:
        """Return a figure by round; empty if it was not measured."""
        wanted = (measurement, system, name)
        return {
            figure.round: figure.value
            for figure in self.figures
            if (figure.measurement, figure.system, figure.name) == wanted
        }

    def spread(self, measurement: str, system: str, name: str) -> Spread | None:
        """Return a figure over all rounds."""
        values = self.by_round(measurement, system, name)
        return Spread.of(list(values.values())) if values else None

    def ratio(
        self,
        ours: tuple[str, str, str],
        others: Sequence[tuple[str, str, str]],
        best: Callable[..., float] = max,
    ) -> Spread | None:
        """Return ours ÷ the best of the others, round by round, since a round is interleaved."""
        mine = self.by_round(*ours)
        theirs = [found for other in others if (found := self.by_round(*other))]
        if not theirs:
            return None
        ratios = []
        for round_, value in mine.items():
            rivals = [found[round_] for found in theirs if found.get(round_)]
            if rivals:
                ratios.append(value / best(rivals))
        return Spread.of(ratios) if ratios else None

    def as_json(self) -> dict[str, Any]:
        """Return all of it for `json.dump`."""
        return asdict(self)

    @classmethod
    def from_json(cls, loaded: dict[str, Any]) -> "Results":
        """The reverse of `as_json`."""
        figures = [Figure(**figure) for figure in loaded["figures"]]
        return cls(loaded["header"], figures, loaded["errors"])
