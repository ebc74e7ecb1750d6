"""Under each fault no committed job is lost or stuck, queues are serial, and nothing is repeated in vain."""

import logging
import os
import random

import pytest
from harness.cluster import template as make_template
from harness.faults import FAULTS
from harness.play import play

DEAD_AFTER = 2.0


@pytest.fixture(scope="session")
def template():
    with make_template() as made:
        yield made


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", FAULTS)
def test_no_job_is_lost_under(name, template, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    if missing := FAULTS[name].missing():
        message = f"CHAOS: the fault {name} is not tested, {missing}"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    seed = int(os.environ.get("CHAOS_SEED") or random.getrandbits(32))
    logging.getLogger(__name__).info("seed %d", seed)

    verdict = play(template, [name], seed=seed, folder=tmp_path / "round", dead_after=DEAD_AFTER)

    assert verdict.problems == []
    assert verdict.jobs > 0
