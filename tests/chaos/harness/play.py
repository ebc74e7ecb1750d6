"""One round: a queue under load, some faults, and the verdict."""

import asyncio
import random
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from harness.checker import Verdict, check
from harness.cluster import Template
from harness.faults import FAULTS, Fault, outlast
from harness.stage import Stage


def play(
    template: Template,
    names: Sequence[str],
    *,
    seed: int,
    folder: Path,
    dead_after: float,
    workers: int,
) -> Verdict:
    """Let the named faults happen, at the same time if there are several.

    Raises:
        Exception: a fault could not be made to happen.
    """
    faults = [FAULTS[name] for name in names]
    settings = {name: value for fault in faults for name, value in fault.settings.items()}
    folder.mkdir(exist_ok=True)
    megabytes = next((fault.megabytes for fault in faults if fault.megabytes), None)
    with ExitStack() as stack:
        cluster = stack.enter_context(template.server(settings, megabytes))
        standby = None
        if any(fault.has_standby for fault in faults):
            standby = stack.enter_context(cluster.standby())

        async def act() -> Verdict:
            async with Stage.open(
                folder,
                cluster,
                rng=random.Random(seed),  # noqa: S311 - not a secret
                dead_after=dead_after,
                is_proxied=any(fault.is_proxied for fault in faults),
                standby=standby,
            ) as stage:
                return await _act(stage, faults, workers)

        return asyncio.run(act())


async def _act(stage: Stage, faults: Sequence[Fault], workers: int) -> Verdict:
    if stage.standby is not None:
        await stage.ask("alter system set synchronous_standby_names = '*'")
        await stage.ask("select pg_reload_conf()")
    await stage.until_it_runs(*[stage.start_worker() for _ in range(workers)])
    async with asyncio.TaskGroup() as group:
        for number, fault in enumerate(faults):
            group.create_task(_after(stage.rng.uniform(0, 0.5) * number, stage, fault))
    await outlast(stage, 0.25)
    return check(await stage.finish())


async def _after(seconds: float, stage: Stage, fault: Fault) -> None:
    await asyncio.sleep(seconds)
    await fault.act(stage)
