"""What a pool's beats allow it to do: pure, with clocks of the test's own."""

from hypothesis import given
from hypothesis import strategies as st

from zodworker_compat.runner.vigil import SHARE_AT_START, Vigil

SECONDS = st.floats(0, 1000)


def test_a_killed_workers_jobs_are_free_in_less_than_20_seconds_by_default():
    vigil = Vigil(15)

    assert vigil.dead_after + vigil.interval < 20


def test_nobody_to_judge_nothing_to_fear():
    assert not Vigil(15).is_fenced(1e9)


def test_it_claims_nothing_before_its_first_beat():
    vigil = Vigil(15)
    vigil.begin()

    assert vigil.is_fenced(0)
    vigil.beaten(0, 5e8)
    assert not vigil.is_fenced(0)
    vigil.end()
    assert not vigil.is_fenced(1e9)


@given(beats=st.lists(st.tuples(SECONDS, SECONDS, st.booleans()), min_size=1), late=SECONDS)
def test_it_stops_to_claim_before_anybody_may_take_it_for_dead(beats, late):
    """Whatever beats were lost, and however late the answers: the database heard the last one no
    earlier than it was sent."""
    vigil, now = Vigil(15), 0.0
    vigil.begin()
    heard = None
    for pause, delay, is_answered in beats:
        now += pause
        sent = now
        now += delay
        if is_answered:
            heard = sent
            vigil.beaten(sent, 7e8 + sent)
        else:
            vigil.missed()
    now += late

    if heard is None or now - heard > 10.001:
        assert vigil.is_fenced(now)
    elif now - heard < 9.999:
        assert not vigil.is_fenced(now)


def test_a_start_needs_a_short_watch():
    vigil = Vigil(15)
    assert vigil.watch() == (0, SHARE_AT_START)
    for clock in (100, 103, 106):
        vigil.beaten(clock, clock)

    assert vigil.watch() == (6, SHARE_AT_START)


def test_after_an_outage_the_others_get_all_their_time():
    vigil = Vigil(15)
    for clock in (100, 103, 106):
        vigil.beaten(clock, clock)
    vigil.missed()
    assert vigil.watch() == (0, 1)
    for clock in (140, 143):
        vigil.beaten(clock, clock)

    assert vigil.watch() == (3, 1)


def test_a_sleep_or_a_clock_that_was_set_is_an_outage():
    for jump in (-3600, -0.1, 11, 3600):
        vigil = Vigil(15)
        for clock in (100, 103, 106):
            vigil.beaten(clock, clock)
        vigil.beaten(109, 106 + jump)
        assert vigil.watch() == (0, 1)
        vigil.beaten(112, 109 + jump)
        assert vigil.watch() == (3, 1)


@given(skew=st.floats(-1e9, 1e9), clocks=st.lists(st.floats(0, 5), min_size=1, max_size=20))
def test_the_clocks_of_two_hosts_are_never_compared(skew, clocks):
    """The same beats on a host whose clock is years off give the same answers."""
    here, there, now = Vigil(15), Vigil(15), 1000.0
    for pause in clocks:
        now += pause
        here.beaten(now, now)
        there.beaten(now + skew, now)

    assert here.watch() == there.watch()
    for later in (0, 9, 11):
        assert here.is_fenced(now + later) == there.is_fenced(now + skew + later)
