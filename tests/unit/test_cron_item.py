"""Recurring tasks given in code."""

from datetime import UTC, datetime, timedelta

import pytest

from zodworker_compat.cron import (
    CronItem,
    CronOptions,
    CrontabError,
    Digest,
    occurrences,
    parse_cron_item,
    parse_cron_items,
)
from zodworker_compat.errors import OptionError


def test_an_item_with_all_its_parts():
    item = parse_cron_item(
        {
            "task": "report",
            "match": "0 4 * * *",
            "identifier": "daily report",
            "payload": {"weekly": False},
            "options": {
                "backfill_period": 3600,
                "max_attempts": 3,
                "queue_name": "reports",
                "priority": -1,
                "job_key": "report",
                "job_key_mode": "unsafe_dedupe",
                "time_zone": "Europe/Berlin",
                "catch_up": "latest",
            },
        }
    )
    assert item == CronItem(
        task="report",
        match="0 4 * * *",
        identifier="daily report",
        payload={"weekly": False},
        options=CronOptions(
            backfill_period=timedelta(hours=1),
            max_attempts=3,
            queue_name="reports",
            priority=-1,
            job_key="report",
            job_key_mode="unsafe_dedupe",
            time_zone="Europe/Berlin",
            catch_up="latest",
        ),
    )


def test_an_items_defaults():
    item = parse_cron_item({"task": "t", "match": "* * * * *"})
    assert (item.identifier, item.payload, item.options) == ("t", None, CronOptions())
    assert item.options.backfill_period == timedelta(0)
    assert item.options.zone is UTC
    assert item.options.catch_up == "graphile"
    assert parse_cron_item(item) is item


def test_a_function_sees_the_digest_of_each_minute():
    seen = []

    def every_second_minute(digest: Digest) -> bool:
        seen.append(digest)
        return digest.min % 2 == 0

    item = parse_cron_item({"task": "t", "match": every_second_minute})
    since = datetime(2024, 2, 25, 23, 57, 1, tzinfo=UTC)  # a Sunday
    until = since.replace(day=26, hour=0, minute=1)
    assert list(occurrences(item.match, UTC, since, until)) == [
        datetime(2024, 2, 25, 23, 58, tzinfo=UTC),
        datetime(2024, 2, 26, 0, 0, tzinfo=UTC),
    ]
    assert seen[0] == Digest(min=58, hour=23, date=25, month=2, dow=0)
    assert seen[2:] == [Digest(0, 0, 26, 2, 1), Digest(1, 0, 26, 2, 1)]


@pytest.mark.parametrize(
    ("definition", "message"),
    [
        ({"task": "t", "pattern": "* * * * *"}, "Please rename the 'pattern' property to 'match'"),
        ({"task": "t", "match": "foo"}, "Invalid cron pattern 'foo' in WHERE"),
        ({"task": "t", "match": "60 * * * *"}, "Too large value '60' in minutes range in WHERE: expected values in the range 0-59."),
        ({"task": "t", "match": "1-2/3 * * * *"}, "Unsupported syntax '1-2/3' in minutes range in WHERE: this doesn't appear to be a number, range or wildcard"),
        ({"task": "t"}, "Invalid 'match' configuration in WHERE: expected five cron fields or a function, got None"),
        ({"match": "* * * * *"}, "Invalid cron item in WHERE: task: is missing"),
        ({"task": "", "match": "* * * * *"}, "Invalid cron item in WHERE: task: expected 1 to 128 characters, got ''"),
        ({"task": "t", "match": "* * * * *", "identifier": 1}, "Invalid cron item in WHERE: identifier: expected 1 to 128 characters, got 1"),
        ({"task": "t", "match": "* * * * *", "ident": "x"}, "Invalid cron item in WHERE: ident: there is no such option. Did you mean 'identifier'?"),
        ({"task": "t", "match": "* * * * *", "payload": [1]}, "Invalid cron item in WHERE: payload: expected a mapping, to add _cron to, got [1]"),
        ({"task": "t", "match": "* * * * *", "payload": {"a": {1}}}, "Invalid cron item in WHERE: The payload cannot be written as JSON at /a: is a set; send sorted(value) or list(value)"),
    ],
)  # fmt: skip
def test_a_wrong_item_is_refused(definition, message):
    with pytest.raises(CrontabError) as refused:
        parse_cron_item(definition)
    assert str(refused.value) == message.replace("WHERE", "parseCronItem call")
    with pytest.raises(CrontabError) as refused:
        parse_cron_items([{"task": "fine", "match": "* * * * *"}, definition])
    assert str(refused.value) == message.replace("WHERE", "item 1 of parseCronItems call")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"maxAttempts": 3}, "maxAttempts: there is no such option. Did you mean 'max_attempts'?"),
        ({"max_attempts": 0}, "max_attempts: must be at least 1, got 0"),
        ({"priority": "1"}, "priority: expected a whole number, got '1'"),
        ({"queue_name": "q" * 129}, "queue_name: is 129 characters long; the table allows 128"),
        ({"job_key_mode": "other"}, "job_key_mode: 'other' is not one of replace, preserve_run_at, unsafe_dedupe"),
        ({"backfill_period": "1h"}, "backfill_period: expected a timedelta or seconds, got '1h'"),
        ({"backfill_period": True}, "backfill_period: expected a timedelta or seconds, got True"),
        ({"backfill_period": -1}, "backfill_period: must not be negative, got -1"),
        ({"backfill_period": float("nan")}, "backfill_period: nan seconds are too many"),
        ({"backfill_period": 1e300}, "backfill_period: 1e+300 seconds are too many"),
        ({"catch_up": "some"}, "catch_up: 'some' is not one of graphile, skip, latest, all"),
        ({"catch_up": "all"}, "catch_up: 'all' reaches back by backfill_period; set that too"),
        ({"time_zone": 1}, "time_zone: expected the name of a time zone, got 1"),
        ({"time_zone": "europe/berlinn"}, "time_zone: there is no time zone 'europe/berlinn'; use an IANA name such as 'Europe/Berlin'. Did you mean "),
        ({"time_zone": "../UTC"}, "time_zone: there is no time zone '../UTC'; "),
        ({"time_zone": "America"}, "time_zone: there is no time zone 'America'; "),
        ({"time_zone": ""}, "time_zone: there is no time zone ''; "),
        ({"time_zone": "\0"}, "time_zone: there is no time zone '\\x00'; "),
    ],
)  # fmt: skip
def test_a_wrong_option_is_refused(options, message):
    with pytest.raises(OptionError) as refused:
        CronOptions.of(options)
    assert str(refused.value).startswith(message)
    with pytest.raises(CrontabError) as refused_item:
        parse_cron_item({"task": "t", "match": "* * * * *", "options": options})
    assert f"Invalid cron item in parseCronItem call: {message}" in str(refused_item.value)


def test_two_items_of_one_identifier_are_refused():
    with pytest.raises(CrontabError, match="duplicate identifiers found: 't' - please use"):
        parse_cron_items([{"task": "t", "match": "* * * * *"}, {"task": "t", "match": "1 * * * *"}])
