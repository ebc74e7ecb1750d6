"""What a run ran on: hardware, versions, settings; nothing that names a machine."""

import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks import install
from benchmarks.stage import SETTINGS
from zodworker_compat.embedded import EmbeddedPostgres

OURS = ["psycopg", "psycopg-binary", "jsonschema-rs", "attrs", "uvloop"]
NODE = ["0.16", "0.17"]


def header(server: EmbeddedPostgres, *, rounds: int, quick: bool) -> dict[str, str]:
    """Return lines for the head of the results."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    found = {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "machine": f"{len(os.sched_getaffinity(0))} cores ({_cpu()}), {memory:.0f} GB of memory",
        "load before (1, 5, 15 min)": load,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "PostgreSQL": f"{server.version}, over loopback",
        "settings": ", ".join(f"{name} = {value}" for name, value in SETTINGS.items()),
        "Python": f"{platform.python_version()} with {_versions()}",
        "rounds": f"{rounds}, interleaved",
    }
    if modules := install.node_modules():
        node = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True)
        found["Node"] = f"{node.stdout.strip()} with graphile-worker {_graphile_workers(modules)}"
    if install.python():
        found["peers"] = ", ".join(
            line
            for line in install.PYTHON_LOCK.read_text().splitlines()
            if line.split("==")[0] in {"procrastinate", "pgqueuer", "asyncpg", "psycopg", "uvloop"}
        )
    if quick:
        found["quick"] = "sizes are too small for figures: this run only proves that it runs"
    return found


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _graphile_workers(modules: Path) -> str:
    manifests = [modules / f"graphile-worker-{version}" / "package.json" for version in NODE]
    return ", ".join(json.loads(manifest.read_text())["version"] for manifest in manifests)


def _versions() -> str:
    found = []
    for package in OURS:
        try:
            found.append(f"{package} {version(package)}")
        except ModuleNotFoundError:
            found.append(f"no {package}")
    return ", ".join(found)
