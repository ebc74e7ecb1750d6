"""Every measurement, and the systems it is made with."""

from collections.abc import Callable, Sequence
from functools import partial

from attrs import frozen

from benchmarks import systems as s
from benchmarks.measurements import drain, enqueue, idle, latency
from benchmarks.measurements.sizes import Sizes
from benchmarks.stage import Stage
from benchmarks.systems import System

Measure = Callable[[Stage, System, Sizes], dict[str, float]]


@frozen
class Measurement:
    """A line of the results.

    Args:
        name: as `--only` knows it.
        title: for people.
        measure: returns figures by name; the first is the one that is plotted.
        systems: who can be compared.
    """

    name: str
    title: str
    measure: Measure
    systems: Sequence[System]


_ONE_PROCESS = [s.OURS, s.OURS_DEFAULT, *s.NODE, *s.PEERS, *s.FLOORS]
_FASTEST = [s.OURS, s.NODE_FAST]
_ENQUEUE = [
    s.OURS, s.OURS_POOL, s.NODE_16, s.NODE_17, s.PROCRASTINATE, s.ASYNCPG, s.PSYCOPG
]  # fmt: skip
_FLOORS = [s.FLOOR_FUNCTIONS, s.FLOOR_TABLE]
_LATENCY = [
    s.OURS, s.NODE_16, s.NODE_17, s.NODE_FAST, s.PROCRASTINATE, s.ASYNCPG, s.PSYCOPG,
    s.FLOOR_LATENCY,
]  # fmt: skip
_BULK = [system for system in _ENQUEUE if system not in {s.NODE_16, s.OURS_POOL}]

MEASUREMENTS = [
    Measurement("enqueue-one", "enqueue one by one", enqueue.one_by_one, [*_ENQUEUE, *_FLOORS]),
    Measurement("enqueue-10", "enqueue, ten callers", enqueue.concurrent, _ENQUEUE),
    Measurement("enqueue-bulk", "enqueue in bulk", enqueue.bulk, [*_BULK, *_FLOORS]),
    Measurement("drain", "drain, trivial jobs", drain.drain, _ONE_PROCESS),
    Measurement("drain-2", "drain, two processes", partial(drain.drain, processes=2), _FASTEST),
    Measurement("drain-4", "drain, four processes", partial(drain.drain, processes=4), _FASTEST),
    Measurement("drain-email", "drain, scheduleEmail", drain.drain_emails, _FASTEST),
    Measurement(
        "drain-wait", "drain, 1 ms awaited", drain.drain_waiting, [*_FASTEST, s.ASYNCPG_500]
    ),
    Measurement("drain-flaky", "drain, one job in ten fails", drain.drain_flaky, _FASTEST),
    Measurement("drain-queues", "drain, 10 k serial queues", drain.drain_queues, [s.OURS]),
    Measurement("drain-stuck", "drain beside 100 k stuck jobs", drain.drain_beside_stuck, [s.OURS]),
    *(
        Measurement(
            f"backlog-{label}",
            f"backlog of {label}, its first 10 k",
            partial(drain.backlog, jobs=jobs),
            [s.OURS],
        )
        for label, jobs in (("10k", 10_000), ("100k", 100_000), ("1m", 1_000_000))
    ),
    Measurement("latency", "latency, idle", latency.idle, _LATENCY),
    Measurement(
        "latency-load", "latency, half load", latency.half_load, [*_FASTEST, s.NODE_17, s.ASYNCPG]
    ),
    Measurement("idle", "idle worker", idle.idle, [s.OURS, s.NODE_17, s.PROCRASTINATE, s.ASYNCPG]),
    Measurement(
        "start-up", "start-up to the first job", idle.start_up, [s.OURS, s.NODE_16, s.NODE_17]
    ),
]

QUICK_PLAN = {(one.name, s.OURS.name) for one in MEASUREMENTS} | {
    (measurement, system.name)
    for measurement, systems in {
        "enqueue-bulk": [s.NODE_17, s.PROCRASTINATE, s.ASYNCPG, s.FLOOR_FUNCTIONS, s.FLOOR_TABLE],
        "drain": [s.NODE_16, s.NODE_FAST, s.PROCRASTINATE, s.ASYNCPG, s.FLOOR_SAME],
        "latency": [s.NODE_17, s.ASYNCPG],
        "start-up": [s.NODE_17],
    }.items()
    for system in systems
}
"""What a quick run measures, by name: all of ours, and each role of each adapter."""
