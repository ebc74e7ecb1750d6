"""Latency: from the call that enqueues, in one process, to the handler's start in another.

Probes are added one after another, about 10 ms apart. "call" counts from before the call, so it has
the commit of the enqueue in it; "commit" from its return, and may be negative: a worker can be
faster than the answer to the caller.
"""

import threading
from statistics import quantiles

from benchmarks.measurements.sizes import Sizes
from benchmarks.process import Process
from benchmarks.stage import Stage, Workers, now
from benchmarks.systems import System

LOAD_EVERY = 0.02
"""Seconds between two loads of jobs."""
WARM_UP = 5
"""Probes."""


def idle(stage: Stage, system: System, sizes: Sizes) -> dict[str, float]:
    """On an empty queue."""
    enqueuer = stage.enqueuer(system)
    with stage.workers(system) as workers:
        return _probe(workers, enqueuer, sizes)


def half_load(stage: Stage, system: System, sizes: Sizes) -> dict[str, float]:
    """While half of what the worker can drain comes in besides, in loads of 20 ms."""
    enqueuer = stage.enqueuer(system)
    with stage.workers(system) as workers:
        jobs = max(100, int(system.speed * sizes.drain_seconds / 2))
        begin, before = now(), workers.count
        stage.fill(system, jobs)
        workers.wait(before + jobs)
        rate = jobs / (now() - begin) / 2
        stop = threading.Event()
        loader = threading.Thread(target=_load, args=(stage, system, rate, stop))
        loader.start()
        try:
            figures = _probe(workers, enqueuer, sizes)
        finally:
            stop.set()
            loader.join()
    return {**figures, "load jobs/s": rate}


def _load(stage: Stage, system: System, rate: float, stop: threading.Event) -> None:
    begin, added = now(), 0
    while not stop.wait(LOAD_EVERY):
        due = int((now() - begin) * rate) - added
        if due > 0:
            stage.fill(system, due)
            added += due


def _probe(workers: Workers, enqueuer: Process, sizes: Sizes) -> dict[str, float]:
    [worker] = workers.processes
    enqueuer.ask(do="probe", jobs=WARM_UP)
    worker.wait_for(lambda: len(worker.started) >= WARM_UP, "the first probes did not run")
    worker.started.clear()
    sent = enqueuer.ask(do="probe", jobs=sizes.probes)["sent"]
    worker.wait_for(lambda: len(worker.started) >= sizes.probes, "not every probe ran")
    started = dict(worker.started)
    figures: dict[str, float] = {}
    for name, place in (("call", 1), ("commit", 2)):
        taken = [(started[probe[0]] - probe[place]) / 1e6 for probe in sent]
        percentiles = quantiles(taken, n=100, method="inclusive")
        figures |= {f"{name} p50 ms": percentiles[49], f"{name} p95 ms": percentiles[94]}
    return figures
