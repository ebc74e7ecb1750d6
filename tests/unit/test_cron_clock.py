"""When patterns fire, in every time zone, also when its clock is put forward and back."""

import zoneinfo
from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zodworker_compat.cron import Digest, next_after, occurrences, parse_pattern
from zodworker_compat.cron.clock import newest

MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
ZONES = sorted(zoneinfo.available_timezones())


def utc(*parts):
    return datetime(*parts, tzinfo=UTC)


@cache
def changes(zone, year):
    """The minutes in which the zone's offset from UTC changes."""
    found = []
    for day in range(366):
        before, after = utc(year, 1, 1) + day * DAY, utc(year, 1, 1) + (day + 1) * DAY
        old = before.astimezone(ZoneInfo(zone)).utcoffset()
        if old == after.astimezone(ZoneInfo(zone)).utcoffset():
            continue
        while after - before > MINUTE:
            middle = before + (after - before) // MINUTE // 2 * MINUTE
            if middle.astimezone(ZoneInfo(zone)).utcoffset() == old:
                before = middle
            else:
                after = middle
        found.append(after)
    return found


def model(pattern, zone, since, until):
    """Goes through what the clock on the wall could show, and asks when it showed it."""
    minutes, hours = pattern.text.split()[:2]
    interval = "*" in minutes or "*" in hours
    moments = set()
    margin = timedelta(hours=5)  # more than any clock of these years was ever put back
    shown = (since - margin).astimezone(zone).replace(tzinfo=None, second=0, microsecond=0)
    last = (until + margin).astimezone(zone).replace(tzinfo=None)
    while shown < last:
        if pattern.matches(digest_of(shown)):
            passes = [shown.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1)]
            real = [
                moment for moment in passes if moment.astimezone(zone).replace(tzinfo=None) == shown
            ]
            if interval:
                moments.update(real)
            elif real:
                moments.add(min(real))
            else:
                after_gap = max(passes)
                offset = after_gap.astimezone(zone).utcoffset()
                while (after_gap - MINUTE).astimezone(zone).utcoffset() == offset:
                    after_gap -= MINUTE
                moments.add(after_gap)
        shown += MINUTE
    return sorted(moment for moment in moments if since <= moment < until)


def digest_of(shown):
    return Digest(shown.minute, shown.hour, shown.day, shown.month, (shown.weekday() + 1) % 7)


def fields(low, high, *, star):
    number = st.integers(low, high).map(str)
    spans = st.tuples(st.integers(low, high), st.integers(low, high)).filter(
        lambda ab: ab[0] < ab[1]
    )
    kinds = [number, number, spans.map("{0[0]}-{0[1]}".format)]
    if star:
        kinds += [st.just("*"), st.integers(2, 20).map("*/{}".format)]
    return st.lists(st.one_of(kinds), min_size=1, max_size=2).map(",".join)


@st.composite
def patterns(draw):
    star = draw(st.booleans())
    any_day = st.just("*")
    parts = [
        fields(0, 59, star=star),
        fields(0, 23, star=star),
        any_day | fields(1, 31, star=True),
        any_day,
        any_day | fields(0, 7, star=True),
    ]
    return parse_pattern(" ".join(draw(part) for part in parts), "a test")


@given(st.sampled_from(ZONES), st.integers(1975, 2037), patterns(), st.data())
@settings(max_examples=150)
def test_every_zone_fires_when_its_wall_clock_says(zone, year, pattern, data):
    around = data.draw(st.sampled_from([utc(year, 6, 1), *changes(zone, year)]))
    since = around - data.draw(st.integers(0, 2000)) * MINUTE
    until = since + data.draw(st.integers(0, 4000)) * MINUTE
    zone = ZoneInfo(zone)
    assert list(occurrences(pattern, zone, since, until)) == model(pattern, zone, since, until)


def test_every_change_of_every_clock():
    """Each distinct change of 2011 (Samoa lost a day), 2024 and 2025, with four kinds of pattern."""
    seen = set()
    for zone in map(ZoneInfo, ZONES):
        for change in [change for year in (2011, 2024, 2025) for change in changes(zone.key, year)]:
            old, new = (moment.astimezone(zone) for moment in (change - MINUTE, change))
            if (change, old.utcoffset(), new.utcoffset()) in seen:
                continue
            seen.add((change, old.utcoffset(), new.utcoffset()))
            hours = ",".join(str((old.hour + ahead) % 24) for ahead in range(-1, 4))
            for text in (
                "*/7 * * * *",
                f"0,30 {hours} * * *",
                f"0-59 {old.hour} * * *",
                f"*/20 {new.hour} * * *",
            ):
                pattern = parse_pattern(text, "a test")
                window = (change - timedelta(hours=4), change + timedelta(hours=4))
                assert list(occurrences(pattern, zone, *window)) == model(pattern, zone, *window)
    assert len(seen) > 50


BERLIN, LORD_HOWE = ZoneInfo("Europe/Berlin"), ZoneInfo("Australia/Lord_Howe")
APIA, ST_JOHNS = ZoneInfo("Pacific/Apia"), ZoneInfo("America/St_Johns")


@pytest.mark.parametrize(
    ("text", "zone", "day", "expected"),
    [
        # 31 March 2024: 02:00 to 03:00 is skipped, at 01:00 UTC
        ("30 2 * * *", BERLIN, (2024, 3, 30, 23), [(3, 31, 1, 0)]),
        ("0,30 2 * * *", BERLIN, (2024, 3, 30, 23), [(3, 31, 1, 0)]),
        ("0 2,3 * * *", BERLIN, (2024, 3, 30, 23), [(3, 31, 1, 0)]),
        ("30 2,3 * * *", BERLIN, (2024, 3, 30, 23), [(3, 31, 1, 0), (3, 31, 1, 30)]),
        ("*/30 2 * * *", BERLIN, (2024, 3, 30, 23), []),
        ("0 */12 * * *", BERLIN, (2024, 3, 30, 23), [(3, 30, 23, 0), (3, 31, 10, 0), (3, 31, 22, 0)]),
        # 27 October 2024: 02:00 to 03:00 is repeated, until 02:00 UTC
        ("30 2 * * *", BERLIN, (2024, 10, 26, 22), [(10, 27, 0, 30)]),
        ("*/30 2 * * *", BERLIN, (2024, 10, 26, 22), [(10, 27, 0, 0), (10, 27, 0, 30), (10, 27, 1, 0), (10, 27, 1, 30)]),
        ("0 3 * * *", BERLIN, (2024, 10, 26, 22), [(10, 27, 2, 0)]),
        # half an hour: 02:00 to 02:30 is skipped, 01:30 to 02:00 repeated
        ("15 2 * * *", LORD_HOWE, (2024, 10, 5, 13), [(10, 5, 15, 30)]),
        ("45 1 * * *", LORD_HOWE, (2024, 4, 6, 13), [(4, 6, 14, 45)]),
        # a whole day: 30 December 2011 never was, from 10:00 UTC
        ("0 4,16 * * *", APIA, (2011, 12, 30, 9), [(12, 30, 10, 0), (12, 30, 14, 0), (12, 31, 2, 0)]),
        # a minute after midnight back to the day before
        ("0 0 * * *", ST_JOHNS, (2010, 11, 7, 2), [(11, 7, 2, 30)]),
        ("30 23 * * *", ST_JOHNS, (2010, 11, 7, 2), [(11, 7, 2, 0)]),
    ],
)  # fmt: skip
def test_what_the_table_says(text, zone, day, expected):
    since = utc(*day)
    fired = occurrences(parse_pattern(text, "a test"), zone, since, since + DAY)
    assert [(at.month, at.day, at.hour, at.minute) for at in fired] == expected


def test_a_function_goes_through_real_time():
    def half_past_two(digest):
        return digest.hour == 2 and digest.min == 30

    gap = occurrences(half_past_two, BERLIN, utc(2024, 3, 31), utc(2024, 4, 1))
    assert list(gap) == []
    repeated = occurrences(half_past_two, BERLIN, utc(2024, 10, 27), utc(2024, 10, 28))
    assert list(repeated) == [utc(2024, 10, 27, 0, 30), utc(2024, 10, 27, 1, 30)]


moments = st.datetimes(datetime(2000, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


@given(patterns(), moments, st.integers(0, 3000))
def test_in_utc_it_fires_in_every_minute_that_matches(pattern, since, minutes):
    until = since + minutes * MINUTE
    minute = since.replace(second=0, microsecond=0) - MINUTE
    expected = []
    while minute < until:
        if minute >= since and pattern.matches(digest_of(minute)):
            expected.append(minute)
        minute += MINUTE
    assert list(occurrences(pattern, UTC, since, until)) == expected
    assert newest(pattern, UTC, since, until) == (expected[-1] if expected else None)
    if expected and expected[0] > since:
        assert next_after(pattern, UTC, since) == expected[0]


@pytest.mark.parametrize("zone", [UTC, BERLIN, LORD_HOWE])
@pytest.mark.parametrize("text", ["* * 30 2 *", "0 4 31 2,4,6,9,11 *"])
def test_a_pattern_that_never_matches_comes_to_an_end(text, zone):
    pattern = parse_pattern(text, "a test")
    assert next_after(pattern, zone, utc(2024, 1, 1)) is None
    assert newest(pattern, zone, utc(2000, 1, 1), utc(2024, 1, 1)) is None


def test_a_leap_day_is_found_over_the_year_2100():
    pattern = parse_pattern("0 0 29 2 *", "a test")
    assert next_after(pattern, UTC, utc(2096, 2, 29)) == utc(2104, 2, 29)
    assert newest(pattern, UTC, utc(2096, 2, 29), utc(2104, 2, 29)) == utc(2096, 2, 29)


def test_a_function_that_never_matches_comes_to_an_end():
    assert next_after(lambda digest: digest.month == 13, UTC, utc(2024, 1, 1)) is None


def test_next_is_after_the_moment_not_in_its_minute():
    pattern = parse_pattern("0 4 * * *", "a test")
    assert next_after(pattern, UTC, utc(2024, 1, 1, 3, 59, 59)) == utc(2024, 1, 1, 4)
    assert next_after(pattern, UTC, utc(2024, 1, 1, 4, 0, 0)) == utc(2024, 1, 2, 4)
    assert next_after(pattern, BERLIN, utc(2024, 1, 1, 4)) == utc(2024, 1, 2, 3)
