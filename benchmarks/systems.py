"""What is compared, each at its defaults and at its best documented settings."""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import field, frozen

from benchmarks import install
from zodworker_compat.runner.policy import LARGEST_BUFFER

ROOT = Path(__file__).parent.parent
ADAPTERS = ROOT / "benchmarks" / "adapters"


@frozen
class System:
    """A system with its settings.

    Args:
        name: as `--only` knows it.
        adapter: a module of `adapters`, or `graphile_worker.js`.
        tables: whose tables it uses: graphile, procrastinate or pgqueuer.
        database: systems with the same one share its tables.
        settings: what the adapter gets.
        speed: about how many jobs per second it drains here; it gets as many as take about
            a second, since a rate does not depend on it.
    """

    name: str
    adapter: str
    tables: str
    database: str
    settings: Mapping[str, Any] = field(factory=dict, hash=False)
    speed: int = 25_000

    @property
    def needs(self) -> str:
        """What must be installed: "ours", "peers" or "node"."""
        if self.adapter.endswith(".js"):
            return "node"
        return "ours" if self.adapter in {"ours", "floor"} else "peers"

    def is_installed(self) -> bool:
        """Whether it can run here."""
        places = {"ours": sys.executable, "peers": install.python(), "node": install.node_modules()}
        return places[self.needs] is not None

    def command(self, role: str, url: str) -> list[str]:
        """Return the command of an adapter in a role; to be run in ROOT with `environ()`."""
        arguments = [role, url, json.dumps(dict(self.settings))]
        if self.needs == "node":
            return ["node", str(ADAPTERS / self.adapter), *arguments]
        interpreter = sys.executable if self.needs == "ours" else str(install.python())
        return [interpreter, "-m", f"benchmarks.adapters.{self.adapter}", *arguments]


def environ(url: str = "") -> dict[str, str]:
    """Return the environment of every process that is started."""
    own = {"NODE_PATH": str(install.node_modules() or ""), "DATABASE_URL": url}
    # Many containers forbid bytecode files; an installed package has them, ours here would have none.
    return {**os.environ, **own, "PYTHONDONTWRITEBYTECODE": ""}


def _node(name: str, version: str, speed: int, **worker: Any) -> System:
    settings = {"version": version, "worker": {"concurrentJobs": 24, **worker}}
    return System(name, "graphile_worker.js", "graphile", f"node-{version}", settings, speed)


def _pgqueuer(driver: str, speed: int, batch: int | None = None) -> System:
    settings = {"driver": driver, "run": {"batch_size": batch} if batch else {}}
    name = f"pgqueuer-{driver}" + (f"-{batch}" if batch else "")
    return System(name, "pgqueuer", "pgqueuer", "pgqueuer", settings, speed)


def _floor(connections: int, batch: int) -> System:
    settings = {"connections": connections, "batch": batch}
    return System(f"floor-{connections}x{batch}", "floor", "graphile", "floor", settings)


OURS = System("ours", "ours", "graphile", "ours", {"runner_options": {"concurrency": 24}})
OURS_DEFAULT = System("ours-default", "ours", "graphile", "ours")
OURS_POOL = System("ours-pool", "ours", "graphile", "ours", {"pool": "application"})
NODE_16 = _node("node-0.16", "0.16", 2_500)
NODE_17 = _node("node-0.17", "0.17", 2_500)
NODE_FAST = _node(
    "node-0.17-fast",
    "0.17",
    25_000,
    localQueue={"size": 500},
    completeJobBatchDelay=0,
    failJobBatchDelay=0,
)
PROCRASTINATE = System(
    "procrastinate", "procrastinate", "procrastinate", "procrastinate", {"concurrency": 24}, 500
)
ASYNCPG = _pgqueuer("asyncpg", 7_000)
ASYNCPG_500 = _pgqueuer("asyncpg", 15_000, 500)
PSYCOPG = _pgqueuer("psycopg", 5_000)
PSYCOPG_500 = _pgqueuer("psycopg", 7_000, 500)
FLOOR_SAME = _floor(2, LARGEST_BUFFER // 2)
"""The floor that ours is compared with: the same batch size, half of our local queue."""
FLOORS = list(
    dict.fromkeys([_floor(1, 500), _floor(2, 500), _floor(1, 2000), _floor(2, 2000), FLOOR_SAME])
)
FLOOR_FUNCTIONS = System("floor-functions", "floor", "graphile", "floor", {"enqueue": "functions"})
FLOOR_TABLE = System("floor-table", "floor", "graphile", "floor", {"enqueue": "table"})
FLOOR_LATENCY = System(
    "floor-latency",
    "floor",
    "graphile",
    "floor",
    {"connections": 2, "batch": 1, "listens": True, "enqueue": "functions"},
)

NODE = [NODE_16, NODE_17, NODE_FAST]
PEERS = [PROCRASTINATE, ASYNCPG, ASYNCPG_500, PSYCOPG, PSYCOPG_500]
SYSTEMS = [
    OURS, OURS_DEFAULT, OURS_POOL, *NODE, *PEERS, *FLOORS, FLOOR_FUNCTIONS, FLOOR_TABLE,
    FLOOR_LATENCY,
]  # fmt: skip
