"""Which jobs are owed: in a tick, after a late timer, and at start."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zodworker_compat.cron import (
    CronItem,
    CronOptions,
    KnownCrontab,
    backfill,
    due,
    job_of,
    job_payload,
    missed,
    parse_crontab,
    plan_tick,
    schedule,
    time_until,
)

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
NOON = datetime(2024, 5, 6, 12, tzinfo=UTC)


def item(match="*/5 * * * *", **options):
    return CronItem(task="t", match=match, options=options)


def known(since, last=None):
    return KnownCrontab(identifier="t", known_since=since, last_execution=last)


@pytest.mark.parametrize(
    ("now", "state", "minutes"),
    [
        (NOON - timedelta(microseconds=1), "premature", []),
        (NOON - 9 * HOUR, "premature", []),
        (NOON, "on time", [NOON]),
        (NOON + timedelta(seconds=59.9), "on time", [NOON]),
        (NOON + MINUTE, "overdue", [NOON, NOON + MINUTE]),
        (NOON + 2.5 * MINUTE, "overdue", [NOON, NOON + MINUTE, NOON + 2 * MINUTE]),
    ],
)
def test_a_timer_compared_with_the_clock(now, state, minutes):
    tick = plan_tick(NOON, now)
    assert (tick.state, tick.minutes) == (state, minutes)
    assert tick.next_expected == (minutes[-1] + MINUTE if minutes else NOON)


def test_a_timer_is_set_a_millisecond_into_the_minute():
    assert time_until(NOON, NOON - 90 * timedelta(seconds=1)) == timedelta(seconds=90.001)
    assert time_until(NOON, NOON + HOUR) == timedelta(milliseconds=1)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0, 5, 10, 15]),
        ({"catch_up": "skip"}, [15]),
        ({"catch_up": "latest"}, [15]),
        ({"catch_up": "all", "backfill_period": timedelta(minutes=7)}, [10, 15]),
        ({"catch_up": "all", "backfill_period": timedelta.max}, [0, 5, 10, 15]),
        ({"backfill_period": timedelta(minutes=7)}, [0, 5, 10, 15]),
    ],
)
def test_a_late_timer_makes_up_for_what_the_policy_says(options, expected):
    times = due(item(**options), NOON, NOON + 15 * MINUTE)
    assert times == [NOON + minute * MINUTE for minute in expected]


def test_a_late_timer_makes_up_for_a_week_or_what_backfill_reaches_but_never_for_years():
    long_ago, daily = NOON - 3000 * DAY, "0 12 * * *"
    assert len(due(item(daily), long_ago, NOON)) == 7 + 1
    assert len(due(item(daily, backfill_period=30 * DAY), long_ago, NOON)) == 30 + 1
    assert len(due(item(daily, backfill_period=timedelta.max), long_ago, NOON)) == 366 + 1
    assert len(missed(item(daily, backfill_period=timedelta.max), known(long_ago), NOON)) == 366
    new_year = datetime(2024, 1, 1, tzinfo=UTC)
    assert due(item("0 0 1 1 *", catch_up="latest"), new_year, NOON) == [new_year]


def test_a_late_timer_outside_the_items_minutes():
    window = (NOON, NOON + 13 * MINUTE)
    assert due(item(), *window) == [NOON, NOON + 5 * MINUTE, NOON + 10 * MINUTE]
    assert due(item(catch_up="skip"), *window) == []
    assert due(item(catch_up="latest"), *window) == [NOON + 10 * MINUTE]
    assert due(item(catch_up="all", backfill_period=60), *window) == []


def test_a_tick_schedules_minute_by_minute_in_the_order_of_the_items():
    items = parse_crontab("*/2 * * * * even\n* * * * * every\n0 4 * * * never")
    even, every, _ = items
    tick = plan_tick(NOON, NOON + 2 * MINUTE)
    assert schedule(items, tick) == [
        (NOON, [even, every]),
        (NOON + MINUTE, [every]),
        (NOON + 2 * MINUTE, [even, every]),
    ]
    assert schedule(items, plan_tick(NOON, NOON - MINUTE)) == []


POLICIES = st.sampled_from(["graphile", "skip", "latest", "all"])


@given(POLICIES, st.integers(1, 100), st.integers(-5, 100))
def test_no_policy_schedules_anything_in_a_premature_tick_or_outside_the_window(policy, fill, late):
    cron = item("* * * * *", catch_up=policy, backfill_period=fill * 60)
    times = due(cron, NOON, NOON + late * MINUTE)
    assert all(NOON <= time <= NOON + late * MINUTE for time in times)
    assert (NOON + late * MINUTE in times) == (late >= 0)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["* * * * *", "*/7 * * * *", "3,50 */2 * * *"]),
            st.integers(0, 40_000),
            st.integers(-100, 90_000),
            st.none() | st.integers(-100, 800),
        ),
        max_size=3,
    ),
    st.integers(0, 119),
)
def test_backfilling_is_graphile_workers(given_items, seconds):
    """Step by step as graphile-worker goes: minute by minute from the largest period."""
    start = NOON + seconds * timedelta(seconds=1)
    items = []
    for match, fill, since, last in given_items:
        row = known(start - since * timedelta(seconds=1), last and NOON - last * MINUTE)
        items.append((item(match, backfill_period=fill), row))

    expected = []
    largest = max((cron.options.backfill_period for cron, _ in items), default=timedelta(0))
    minute = (start - largest).replace(second=0, microsecond=0)
    if minute < start - largest:
        minute += MINUTE
    while minute < start:
        shown = (minute.minute, minute.hour)
        fires = {
            "* * * * *": True,
            "*/7 * * * *": shown[0] % 7 == 0,
            "3,50 */2 * * *": shown[0] in {3, 50} and shown[1] % 2 == 0,
        }
        qualified = [
            cron
            for cron, row in items
            if cron.options.backfill_period >= start - minute
            and minute >= (row.last_execution or row.known_since)
            and fires[cron.match.text]
        ]
        if qualified:
            expected.append((minute, qualified))
        minute += MINUTE
    assert backfill(items, start) == expected


@pytest.mark.parametrize(
    ("hours_ago", "expected"), [(5, (1, 2)), (25, (6, 7))], ids=["5 hours", "25 hours"]
)
def test_upstreams_own_examples_of_backfilling(hours_ago, expected):
    [cron] = parse_crontab("0 */4 * * * do_it ?fill=1d")
    start = NOON + timedelta(minutes=17, seconds=1)
    times = missed(cron, known(start - 30 * DAY, start - hours_ago * HOUR), start)
    assert len(times) in expected
    assert times[-1] == NOON


def test_a_new_item_owes_nothing():
    start = NOON + timedelta(seconds=1)
    for policy in ("graphile", "skip", "latest", "all"):
        cron = item("* * * * *", backfill_period=DAY, catch_up=policy)
        assert missed(cron, known(start), start) == []


@pytest.mark.parametrize(
    ("options", "last", "expected"),
    [
        ({}, 12, []),
        ({"backfill_period": 600}, 12, [10, 5]),
        ({"backfill_period": 600}, 10, [10, 5]),  # the statement refuses the first
        ({"backfill_period": 3600, "catch_up": "skip"}, 12, []),
        ({"backfill_period": 600, "catch_up": "all"}, 12, [10, 5]),
        ({"catch_up": "latest"}, 12, [5]),
        ({"catch_up": "latest"}, 100_000, [5]),
        ({"catch_up": "latest"}, 5, []),
        ({"catch_up": "latest", "backfill_period": 60}, 12, []),
        ({"catch_up": "latest", "backfill_period": 300}, 12, [5]),
        ({"backfill_period": timedelta.max}, 12, [10, 5]),
    ],
)
def test_at_start_the_policy_says_what_is_made_up_for(options, last, expected):
    row = known(NOON - 365 * DAY, NOON - last * MINUTE)
    assert missed(item(**options), row, NOON) == [NOON - minute * MINUTE for minute in expected]


def test_a_clock_behind_the_table_owes_nothing():
    for policy in ("graphile", "skip", "latest", "all"):
        cron = item(backfill_period=DAY, catch_up=policy)
        assert missed(cron, known(NOON + DAY, NOON + 2 * DAY), NOON) == []


def test_missed_times_are_those_of_the_items_time_zone():
    cron = item("30 2 * * *", backfill_period=2 * DAY, time_zone="Europe/Berlin")
    start = datetime(2024, 3, 31, 12, tzinfo=UTC)
    assert missed(cron, known(start - 9 * DAY), start) == [
        datetime(2024, 3, 30, 1, 30, tzinfo=UTC),
        datetime(2024, 3, 31, 1, 0, tzinfo=UTC),
    ]


def test_the_payload_of_a_job_and_cron_wins():
    cron = {"ts": "2024-05-06T12:00:00.000Z", "backfilled": False}
    assert job_payload(None, NOON, backfilled=False) == {"_cron": cron}
    payload = {"_cron": "mine", "a": 1}
    assert list(job_payload(payload, NOON, backfilled=False).items()) == [("_cron", cron), ("a", 1)]
    assert payload == {"_cron": "mine", "a": 1}
    assert job_payload({}, NOON, backfilled=True)["_cron"]["backfilled"] is True
    elsewhere = NOON.astimezone(CronOptions(time_zone="Asia/Tokyo").zone)
    assert job_payload(None, elsewhere, backfilled=False) == {"_cron": cron}


def test_the_job_of_a_minute():
    [cron] = parse_crontab("0 4 * * * t ?max=3&queue=q&priority=2&jobKey=k {a: 1.0}")
    job = job_of(cron, NOON, backfilled=True)
    assert json.loads(job.payload) == {
        "a": 1,
        "_cron": {"ts": "2024-05-06T12:00:00.000Z", "backfilled": True},
    }
    assert (job.identifier, job.run_at, job.queue_name) == ("t", NOON, "q")
    assert (job.max_attempts, job.priority, job.flags) == (3, 2, None)
    assert (job.job_key, job.job_key_mode) == ("k", "replace")


def test_an_empty_job_key_is_none():
    [cron] = parse_crontab("0 4 * * * t ?jobKey=")
    assert job_of(cron, NOON, backfilled=False).job_key is None
