"""Enqueue: by a process of the system, while no worker runs; each job awaits its commit."""

from benchmarks.measurements.sizes import Sizes
from benchmarks.stage import Stage
from benchmarks.systems import System

CALLERS = 10


def one_by_one(stage: Stage, system: System, sizes: Sizes) -> dict[str, float]:
    """One caller, one job after the other."""
    answer = stage.enqueuer(system).ask(do="one", jobs=sizes.enqueue_one)
    return {"jobs/s": sizes.enqueue_one / answer["seconds"]}


def concurrent(stage: Stage, system: System, sizes: Sizes) -> dict[str, float]:
    """Ten callers in one process, each one job after the other."""
    enqueuer = stage.enqueuer(system)
    enqueuer.ask(do="one", jobs=CALLERS * 2, callers=CALLERS)  # opens the connections
    answer = enqueuer.ask(do="one", jobs=sizes.enqueue_concurrent, callers=CALLERS)
    return {"jobs/s": sizes.enqueue_concurrent / answer["seconds"]}


def bulk(stage: Stage, system: System, sizes: Sizes) -> dict[str, float]:
    """One call with all jobs; the payloads lie ready as Python or JavaScript objects."""
    enqueuer = stage.enqueuer(system)
    enqueuer.ask(do="bulk", jobs=sizes.enqueue_bulk // 20)
    stage.empty(system)
    answer = enqueuer.ask(do="bulk", jobs=sizes.enqueue_bulk)
    return {"jobs/s": sizes.enqueue_bulk / answer["seconds"]}
