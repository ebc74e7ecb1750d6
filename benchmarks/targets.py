"""What was set as a goal: each is one number that a run prints, and met or missed."""

from collections.abc import Callable, Sequence

from attrs import frozen

from benchmarks import systems as s
from benchmarks.results import Results, Spread
from benchmarks.systems import System

Key = tuple[str, str, str]


@frozen
class Target:
    """A goal for one figure of ours, as a ratio to others' or in its own unit.

    Args:
        title: what is compared.
        key: measurement, system and figure of ours.
        bound: the number to reach: at least, or at most if `at_most`.
        others: what ours is divided by: the best of them, in each round.
        at_most: less is better, in the figure and in the ratio.
        floor: what the table allows, to be shown beside it.
    """

    title: str
    key: Key
    bound: float
    others: Sequence[Key] = ()
    at_most: bool = False
    floor: Key | None = None

    def result(self, results: Results) -> Spread | None:
        """Return the number; None if a part of it was not measured."""
        if not self.others:
            return results.spread(*self.key)
        best: Callable[..., float] = min if self.at_most else max
        return results.ratio(self.key, self.others, best)

    def is_met(self, number: Spread) -> bool:
        """Whether the median reaches the bound."""
        return number.middle <= self.bound if self.at_most else number.middle >= self.bound


def _rates(measurement: str, systems: Sequence[System]) -> list[Key]:
    return [(measurement, system.name, "jobs/s") for system in systems]


def _ours(measurement: str, figure: str = "jobs/s") -> Key:
    return measurement, s.OURS.name, figure


_DRAIN = _ours("drain")
_FLOOR = ("drain", s.FLOOR_SAME.name, "jobs/s")
_ADD_JOB = ("enqueue-one", s.FLOOR_TABLE.name, "jobs/s")
_ADD_JOBS = ("enqueue-bulk", s.FLOOR_TABLE.name, "jobs/s")

TARGETS = [
    Target(
        "drain ÷ Node 0.17.3 at its fastest",
        _DRAIN, 1.4, _rates("drain", [s.NODE_FAST]), floor=_FLOOR,
    ),
    Target(
        "drain ÷ best Python peer", _DRAIN, 2.0, _rates("drain", s.PEERS), floor=_FLOOR
    ),
    Target(
        "drain ÷ floor, two connections, same batch", _DRAIN, 0.9, [_FLOOR], floor=_FLOOR
    ),
    Target("drain, 2 processes ÷ 1", _ours("drain-2"), 1.0, [_DRAIN], floor=_FLOOR),
    Target("drain, 4 processes ÷ 1", _ours("drain-4"), 0.8, [_DRAIN], floor=_FLOOR),
    Target(
        "drain, defaults ÷ tuned",
        ("drain", s.OURS_DEFAULT.name, "jobs/s"), 0.7, [_DRAIN], floor=_FLOOR,
    ),
    Target(
        "enqueue one by one ÷ Node's add_job",
        _ours("enqueue-one"), 1.6, _rates("enqueue-one", [s.NODE_16, s.NODE_17]), floor=_ADD_JOB,
    ),
    Target(
        "enqueue one by one ÷ best Python peer",
        _ours("enqueue-one"), 1.0, _rates("enqueue-one", s.PEERS), floor=_ADD_JOB,
    ),
    Target(
        "enqueue in bulk ÷ Node's add_jobs",
        _ours("enqueue-bulk"), 1.5, _rates("enqueue-bulk", [s.NODE_17]), floor=_ADD_JOBS,
    ),
    *(
        Target(
            f"latency {figure}, idle ÷ Node's",
            _ours("latency", f"call {figure} ms"), 0.7,
            [("latency", node.name, f"call {figure} ms") for node in s.NODE], at_most=True,
            floor=("latency", s.FLOOR_LATENCY.name, f"call {figure} ms"),
        )
        for figure in ("p50", "p95")
    ),
    Target("backlog of 1 M ÷ 10 k", _ours("backlog-1m"), 0.9, [_ours("backlog-10k")]),
    Target(
        "drain beside 100 k stuck jobs ÷ without", _ours("drain-stuck"), 0.5, [_DRAIN], floor=_FLOOR
    ),
    Target("drain, 10 k serial queues ÷ none", _ours("drain-queues"), 0.3, [_DRAIN], floor=_FLOOR),
    Target("idle worker, CPU %", _ours("idle", "CPU %"), 0.4, at_most=True),
    Target("idle worker, RSS MB", _ours("idle", "RSS MB"), 50, at_most=True),
    Target(
        "worker CPU per job, µs (more than our Python: see profile)",
        _ours("drain", "worker µs/job"), 25, at_most=True,
        floor=("drain", s.FLOOR_SAME.name, "worker µs/job"),
    ),
    Target(
        "start-up to the first job ÷ Node's",
        _ours("start-up", "ms"), 1.0,
        [("start-up", node.name, "ms") for node in (s.NODE_16, s.NODE_17)], at_most=True,
    ),
]  # fmt: skip
