"""The long run: round after round of random faults at once. `python tests/chaos/soak.py --help`."""

import argparse
import random
import shutil
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import click
from harness.cluster import template
from harness.faults import FAULTS
from harness.play import play

WORKERS = 6


def choose(rng: random.Random, names: Sequence[str], most: int) -> list[str]:
    """Return faults that can happen at the same time."""
    chosen = rng.sample(names, rng.randint(1, min(most, len(names))))
    hits = [name for name in chosen if FAULTS[name].hits_server]
    chosen = [name for name in chosen if name not in hits[1:]]
    if any(FAULTS[name].has_standby for name in chosen):  # the others' workers know one server
        chosen = [name for name in chosen if not FAULTS[name].has_one_server]
    return chosen


def main() -> None:
    """Run the rounds; the exit status is 1 if one of them found a problem."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=random.getrandbits(32))
    parser.add_argument("--dead-after", type=float, default=3.0, metavar="SECONDS")
    parser.add_argument("--at-once", type=int, default=4, help="faults of one round, at most")
    parser.add_argument("--faults", nargs="+", choices=FAULTS, default=[*FAULTS])
    given = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):  # end what was started
        signal.signal(number, lambda *_: sys.exit(1))
    names = [name for name in given.faults if not _is_missing(name)]
    repeated: Counter[str] = Counter()
    overlapped: Counter[str] = Counter()
    jobs = runs = failed = 0
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    with template() as made:
        for number in range(given.rounds):
            seed = given.seed + number
            chosen = choose(random.Random(seed), names, given.at_once)  # noqa: S311
            click.echo(f"--seed {seed}: {' '.join(chosen)}")
            try:
                verdict = play(
                    made,
                    chosen,
                    seed=seed,
                    folder=folder / str(seed),
                    dead_after=given.dead_after,
                    workers=WORKERS,
                )
            except Exception:  # noqa: BLE001 - the other rounds go on
                failed += 1
                click.echo(f"{traceback.format_exc()}\n  FAILED; logs: {folder / str(seed)}")
                continue
            jobs, runs = jobs + verdict.jobs, runs + verdict.runs
            repeated += verdict.repeated
            overlapped += verdict.overlapped
            failed += bool(verdict.problems)
            click.echo(f"  {verdict.jobs} jobs, {verdict.runs} runs")
            if not verdict.problems:
                shutil.rmtree(folder / str(seed))
            for problem in verdict.problems:
                click.echo(f"  {problem}\n  FAILED; logs: {folder / str(seed)}")
    click.echo(f"{given.rounds} rounds, {failed} failed; {jobs} jobs, {runs} runs")
    click.echo(f"repeated: {dict(repeated)}\noverlapped: {dict(overlapped)}")
    sys.exit(failed > 0)


def _is_missing(name: str) -> bool:
    missing = FAULTS[name].missing()
    if missing:
        click.echo(f"!!! LEFT OUT: {name}: {missing}", err=True)
    return bool(missing)


if __name__ == "__main__":
    main()
