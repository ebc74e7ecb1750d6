"""The benchmarks run: small sizes, no figures. What is not installed is left out, and they say so."""

import json
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(240)
ROOT = Path(__file__).parents[2]
MEASUREMENTS = ["drain", "latency", "start-up"]
"""Each role of each adapter, and the commands."""
OURS = {"ours", "floor-2x500"}
NODE = {"node-0.17"}
PEERS = {"procrastinate", "pgqueuer-asyncpg"}


@pytest.fixture
def run(process):
    def module(*arguments, **environ):
        ended = process([sys.executable, "-m", *arguments], env=environ, cwd=ROOT)
        assert ended.wait(timeout=200) == 0, ended.errors
        return ended

    return module


def compare(run, folder, *names, **environ):
    only = [argument for name in names for argument in ("--only", name)]
    ended = run("benchmarks", "--quick", "--results", folder, *only, **environ)
    return ended, json.loads((folder / "results.json").read_text())


def test_every_system_that_is_installed_is_measured(run, tmp_path):
    ended, results = compare(run, tmp_path, *MEASUREMENTS, *OURS, *NODE, *PEERS)
    missing = set()
    if "graphile-worker left out" in ended.errors:
        missing |= NODE
    if "the other Python queues left out" in ended.errors:
        missing |= PEERS
    figures = results["figures"]
    assert {figure["system"] for figure in figures} == (OURS | NODE | PEERS) - missing
    assert {figure["measurement"] for figure in figures} == set(MEASUREMENTS)
    assert all(figure["value"] > 0 for figure in figures if figure["name"] == "jobs/s")
    for name in ("PostgreSQL", "Python", "settings", "machine", "rounds"):
        assert results["header"][name]


def test_what_is_not_installed_is_left_out_and_said(run, tmp_path):
    names = ["drain", "ours", "floor-2x500", "floor-2x1000", *NODE, *PEERS]
    ended, results = compare(run, tmp_path, *names, XDG_CACHE_HOME=tmp_path / "empty")
    assert "graphile-worker left out" in ended.errors
    assert "the other Python queues left out" in ended.errors
    assert {figure["system"] for figure in results["figures"]} == set(names) - NODE - PEERS - {
        "drain"
    }
    lines = (tmp_path / "results.md").read_text().splitlines()
    [against_floor] = [line for line in lines if "drain ÷ floor" in line]
    assert "| met |" in against_floor or "| missed |" in against_floor
    [against_peers] = [line for line in lines if "drain ÷ best Python peer" in line]
    assert "| not measured |" in against_peers


def test_the_profiles_run(run):
    sampled = run("benchmarks.profiling", "worker", "--jobs", "5000").output
    assert "Our Python per job" in sampled
    plans = run("benchmarks.profiling", "plans", "--backlog", "2000").output
    assert "claim, backlog of 2000" in plans
    assert "settle, backlog of 2000" in plans
    assert "Execution Time" in plans
