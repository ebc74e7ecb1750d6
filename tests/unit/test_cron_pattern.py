"""The five time fields: graphile-worker's syntax, texts and day logic."""

import string
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zodworker_compat.cron import CrontabError, Digest, parse_pattern

RANGES = {"min": (0, 59), "hour": (0, 23), "date": (1, 31), "month": (1, 12), "dow": (0, 6)}


@st.composite
def fields(draw, name):
    """A field's text, and the values that it allows: found by asking each value, one by one."""
    low, high = RANGES[name]
    top = 7 if name == "dow" else high
    texts, allowed = [], set()
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(["number", "range", "every", "step"]))
        if kind == "number":
            number = draw(st.integers(low, top))
            texts.append(f"{number}")
            allowed |= {
                value
                for value in range(low, high + 1)
                if value in {number, number % 7 if top == 7 else number}
            }
        elif kind == "range":
            first = draw(st.integers(low, top - 1))
            last = draw(st.integers(first + 1, top))
            texts.append(f"{first}-{last}")
            allowed |= {value for value in range(low, high + 1) if first <= value <= last}
            if last == 7 and top == 7:
                allowed.add(0)
        elif kind == "every":
            texts.append("*")
            allowed |= set(range(low, high + 1))
        else:
            step = draw(st.integers(1, 70))
            texts.append(f"*/{step}")
            allowed |= {value for value in range(low, high + 1) if (value - low) % step == 0}
    return ",".join(texts), allowed


patterns = st.tuples(*map(fields, RANGES))
digests = st.builds(Digest, **{name: st.integers(*ends) for name, ends in RANGES.items()})


@given(patterns, digests)
def test_a_pattern_matches_what_each_field_allows(pattern, digest):
    compiled = parse_pattern(" ".join(text for text, _ in pattern), "a test")
    minutes, hours, dates, months, dows = (allowed for _, allowed in pattern)
    date, dow = digest.date in dates, digest.dow in dows
    restricts = [len(dates) < 31, len(dows) < 7]
    day = (date or dow) if all(restricts) else date and dow
    expected = digest.min in minutes and digest.hour in hours and digest.month in months and day
    assert compiled.matches(digest) == expected


@pytest.mark.parametrize(
    ("text", "field", "values"),
    [
        ("*/10,7,56-59 * * * *", "minutes", {0, 7, 10, 20, 30, 40, 50, 56, 57, 58, 59}),
        ("* * */2 * *", "dates", set(range(1, 32, 2))),
        ("* * * */3 *", "months", {1, 4, 7, 10}),
        ("*/61 * * * *", "minutes", {0}),
        (f"*/{'9' * 5000} * * * *", "minutes", {0}),
        ("* * * * 7", "dows", {0}),
        ("* * * * 5-7", "dows", {0, 5, 6}),
        ("* * * * 0-7", "dows", set(range(7))),
        ("007,1-02 * * * *", "minutes", {1, 2, 7}),
        ("1,1,1-3\t 2 * \xa0* *", "minutes", {1, 2, 3}),
    ],
)
def test_the_values_of_a_field(text, field, values):
    assert getattr(parse_pattern(text, "a test"), field) == values


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "5-3 * * * *",
            "Invalid range '5-3' in minutes range in line 1 of crontab: destination is not larger than source",
        ),
        (
            "* 4-4 * * *",
            "Invalid range '4-4' in hours range in line 1 of crontab: destination is not larger than source",
        ),
        (
            "* * * * 7-7",
            "Invalid range '7-7' in days of week range in line 1 of crontab: destination is not larger than source",
        ),
        (
            "*/0 * * * *",
            "Invalid wildcard expression '*/0' in minutes range in line 1 of crontab: divisor '0' expected to be greater than zero",
        ),
        (
            "*/00 * * * *",
            "Invalid wildcard expression '*/00' in minutes range in line 1 of crontab: divisor '00' expected to be greater than zero",
        ),
        (
            "1-2/3 * * * *",
            "Unsupported syntax '1-2/3' in minutes range in line 1 of crontab: this doesn't appear to be a number, range or wildcard",
        ),
        (
            "1,,2 * * * *",
            "Unsupported syntax '' in minutes range in line 1 of crontab: this doesn't appear to be a number, range or wildcard",
        ),
        (
            "* -1 * * *",
            "Unsupported syntax '-1' in hours range in line 1 of crontab: this doesn't appear to be a number, range or wildcard",
        ),
        (
            "60 * * * *",
            "Too large value '60' in minutes range in line 1 of crontab: expected values in the range 0-59.",
        ),
        (
            "5-99 * * * *",
            "Too large value '60' in minutes range in line 1 of crontab: expected values in the range 0-59.",
        ),
        (
            "70,5-3 * * * *",
            "Too large value '70' in minutes range in line 1 of crontab: expected values in the range 0-59.",
        ),
        (
            "* 24 * * *",
            "Too large value '24' in hours range in line 1 of crontab: expected values in the range 0-23.",
        ),
        (
            "* * 0 * *",
            "Too small value '0' in dates range in line 1 of crontab: expected values in the range 1-31.",
        ),
        (
            "* * 32 * *",
            "Too large value '32' in dates range in line 1 of crontab: expected values in the range 1-31.",
        ),
        (
            "* * * 0-3 *",
            "Too small value '0' in months range in line 1 of crontab: expected values in the range 1-12.",
        ),
        (
            "* * * * 8",
            "Too large value '8' in days of week range in line 1 of crontab: expected values in the range 0-6.",
        ),
        (
            "* * * * 7-9",
            "Too large value '8' in days of week range in line 1 of crontab: expected values in the range 0-6.",
        ),
        ("foo", "Invalid cron pattern 'foo' in line 1 of crontab"),
        ("* * * *", "Invalid cron pattern '* * * *' in line 1 of crontab"),
        ("* * * * * *", "Invalid cron pattern '* * * * * *' in line 1 of crontab"),
        (" * * * * *", "Invalid cron pattern ' * * * * *' in line 1 of crontab"),
        ("* * * * MON", "Invalid cron pattern '* * * * MON' in line 1 of crontab"),
        ("\u0663 * * * *", "Invalid cron pattern '\u0663 * * * *' in line 1 of crontab"),
    ],
)
def test_a_wrong_pattern_is_refused_in_graphile_workers_words(text, message):
    with pytest.raises(CrontabError) as refused:
        parse_pattern(text, "line 1 of crontab")
    assert str(refused.value) == message


@given(st.text(string.digits + "*/,- \t", max_size=20))
def test_any_text_is_a_pattern_or_refused(text):
    with suppress(CrontabError):
        assert parse_pattern(text, "a test").minutes


def test_dates_or_days_of_week_when_both_restrict():
    pattern = parse_pattern("0-5 15 3-4 7 0-2", "a test")
    days = {(3, 5): True, (20, 1): True, (4, 2): True, (20, 5): False}
    for (date, dow), expected in days.items():
        assert pattern.matches(Digest(5, 15, date, 7, dow)) is expected
        assert not pattern.matches(Digest(6, 15, date, 7, dow))
        assert not pattern.matches(Digest(5, 16, date, 7, dow))
        assert not pattern.matches(Digest(5, 15, date, 8, dow))
