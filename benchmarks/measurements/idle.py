"""A worker that has nothing to do: what it costs, and how long it takes to start.

Ours and Node's are started by their commands, ours with the catalog `workerQueue`; the others by
their adapters.
"""

import sys
import time
from statistics import median

from benchmarks import install
from benchmarks.measurements.sizes import Sizes
from benchmarks.process import Process
from benchmarks.stage import Stage
from benchmarks.systems import ADAPTERS, ROOT, System, environ

NODE_FOLDER = ADAPTERS / "graphile_worker_cli"


def command(stage: Stage, system: System) -> Process:
    """Start the worker command, on the system's database."""
    if system.needs == "node":
        package = f"graphile-worker-{system.settings['version']}"
        cli = (install.node_modules() or ROOT) / package / "dist" / "cli.js"
        return Process(["node", str(cli)], environ(stage.url(system)), NODE_FOLDER)
    app = "benchmarks.adapters.ours_cli:worker"
    zodworker = [sys.executable, "-m", "zodworker_compat.cli", "run", "--app", app]
    return Process(zodworker, environ(stage.url(system)), ROOT)


def idle(stage: Stage, system: System, sizes: Sizes) -> dict[str, float]:
    """Return CPU in % of one core, and memory in MB, of a worker on an empty queue."""
    stage.empty(system)
    if system.adapter in {"ours", "graphile_worker.js"}:
        process = command(stage, system)
        stage.fill(system, 1, task="startRun", payload="""'{"id": "run_1"}'""")
    else:
        process = Process(system.command("work", stage.url(system)), environ(), ROOT)
    with process:
        if system.adapter in {"ours", "graphile_worker.js"}:
            process.wait_for(lambda: any(map(str.isdigit, process.lines)), "it ran no job")
        else:
            process.answer("it did not start")
        time.sleep(sizes.settle_seconds)
        before = process.usage()
        time.sleep(sizes.idle_seconds)
        after = process.usage()
    return {
        "CPU %": (after.cpu - before.cpu) / sizes.idle_seconds * 100,
        "RSS MB": after.rss,
        "PSS MB": after.pss,
    }


def start_up(stage: Stage, system: System, sizes: Sizes) -> dict[str, float]:
    """Return ms from the start of the command to the first handler; the job is there before."""
    taken = []
    for _ in range(sizes.starts):
        stage.empty(system)
        stage.fill(system, 1, task="startRun", payload="""'{"id": "run_1"}'""")
        with command(stage, system) as process:
            process.wait_for(lambda: any(map(str.isdigit, process.lines)), "it ran no job")
            first = next(int(line) for line in process.lines if line.isdigit())
            taken.append((first - process.begin) / 1e6)
    return {"ms": median(taken)}
