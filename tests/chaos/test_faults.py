"""Under each fault no committed job is lost or stuck, queues are serial, and nothing is repeated in vain."""

import logging
import os
import random

import pytest
from harness.cluster import template as make_template
from harness.faults import FAULTS
from harness.play import play

DEAD_AFTER = 2.0
ROUNDS = [
    # Those of single workers or connections happen at the same time, each to a worker of its own.
    ("kill_a_worker", "stop_a_worker", "freeze_a_worker"),
    ("terminate_backends", "freeze_backends", "lose_the_listeners", "deadlock", "exhaust_the_pool"),
    ("lose_requests", "lose_answers", "black_hole"),
    ("reset_connections", "lose_answers_briefly"),
    ("skew_clocks", "unplug_a_host"),
    *((name,) for name, fault in FAULTS.items() if fault.hits_server and not fault.megabytes),
]
ONLY_LONG = {"fill_the_disk"}
"""Left to the long run: not everybody may mount a disk, and `fail_commits` raises the same errors."""


@pytest.fixture(scope="session")
def template():
    with make_template() as made:
        yield made


def test_every_fault_has_a_round():
    assert sorted(name for names in ROUNDS for name in names) == sorted({*FAULTS} - ONLY_LONG)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("names", ROUNDS, ids="+".join)
def test_no_job_is_lost_under(names, template, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    for name in names:
        if missing := FAULTS[name].missing():
            message = f"CHAOS: the fault {name} is not tested, {missing}"
            if os.environ.get("CI"):
                pytest.fail(message)
            pytest.skip(message)
    seed = int(os.environ.get("CHAOS_SEED") or random.getrandbits(32))
    logging.getLogger(__name__).info("seed %d", seed)

    verdict = play(
        template,
        names,
        seed=seed,
        folder=tmp_path / "round",
        dead_after=DEAD_AFTER,
        workers=1 + min(3, len(names)),  # no fault hits more than three of them, and one judges
    )

    assert verdict.problems == []
    assert verdict.jobs > 0
