"""Measures how soon a job runs again after `kill -9` of its worker, with the default settings."""

import argparse
import asyncio
import random
import statistics
import tempfile
from pathlib import Path

import click
from harness.cluster import Cluster, template
from harness.ledger import Ledger, Run, now
from harness.stage import Stage, Worker

from zodworker_compat import RunnerOptions

BEAT = 3.0
"""Seconds between two signs of life; the kill comes at any time between them."""


def main() -> None:
    """Print the least, the median and the greatest time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=10)
    kills = parser.parse_args().kills
    with template() as made, made.server() as cluster:
        times = asyncio.run(measure(cluster, Path(tempfile.mkdtemp(prefix="chaos-")), kills))
    for name, column in zip(("claimable", "running again"), zip(*times, strict=True), strict=True):
        low, middle, high = min(column), statistics.median(column), max(column)
        click.echo(f"{name}: {low:.2f} s at least, {middle:.2f} s median, {high:.2f} s at most")


async def measure(cluster: Cluster, folder: Path, kills: int) -> list[tuple[float, float]]:
    """Return (seconds to the job being unlocked, to its next run) for each kill."""
    dead_after = RunnerOptions().dead_after.total_seconds()
    rng = random.Random()  # noqa: S311
    times = []
    async with Stage.open(
        folder, cluster, rng=rng, dead_after=dead_after, is_proxied=False, standby=None
    ) as stage:
        await stage.until_it_runs(*[stage.start_worker() for _ in range(3)])
        for _ in range(kills):
            (token,) = await stage.load.add("hold", {}, priority=-1)

            async def runs(token: str = token) -> list[Run]:
                return attempts(folder, token)

            first, *_ = await stage.eventually(runs, "the job runs")
            await asyncio.sleep(rng.uniform(0, BEAT))
            victim = next(worker for worker in stage.workers if worker.name == first.process)
            killed = now()
            stage.kill(victim, fault="kill")
            times.append(await until_it_runs_again(stage, victim, token, killed))
            click.echo("claimable after {:.2f} s, running again after {:.2f} s".format(*times[-1]))
            await stage.until_it_runs(stage.start_worker())
    return times


def attempts(folder: Path, token: str) -> list[Run]:
    """Return the runs of a job so far."""
    ledger = Ledger()
    ledger.read(folder)
    return ledger.attempts().get(token, [])


async def until_it_runs_again(
    stage: Stage, victim: Worker, token: str, killed: int
) -> tuple[float, float]:
    """Return the seconds to the job being unlocked, and to its next run."""
    locked = (
        "select 1 from graphile_worker._private_jobs as job"
        " join graphile_worker.zodworker_workers as worker on worker.pool_id = job.locked_by"
        " where worker.name = %s and job.payload ->> 'token' = %s"
    )

    async def is_unlocked() -> bool:
        return not await stage.ask(locked, victim.name, token)

    async def second() -> list[Run]:
        return attempts(stage.folder, token)[1:]

    await stage.eventually(is_unlocked, "the job is unlocked")
    unlocked = now()
    again = (await stage.eventually(second, "the job runs again"))[0].start
    # Who polls may see later that it is unlocked than its next worker, never earlier than it is.
    return (min(unlocked, again) - killed) / 1e9, (again - killed) / 1e9


if __name__ == "__main__":
    main()
