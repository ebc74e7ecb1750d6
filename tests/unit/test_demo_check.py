"""The check of the demo fails if a single number is off."""

import pytest
from attrs import evolve, fields

from zodworker_compat.demo.check import check
from zodworker_compat.demo.events import read_events
from zodworker_compat.demo.expected import expect
from zodworker_compat.demo.outcome import WORKER_OF, Counts, Outcome

EXPECTED = expect(read_events())
ROWS = ["events", "runs", "tasks", "outbox", "failed_jobs"]
NUMBERS = ["read", "debounced", "serial", "overlaps", "delayed", "early", "unfinished", "locks"]


def failed(**changes):
    return [one.text for one in check(EXPECTED, evolve(EXPECTED, **changes)) if not one.ok]


def test_it_passes_if_all_is_as_expected():
    assert failed() == []


def test_every_part_of_the_outcome_is_doctored_below():
    parts = {attribute.name for attribute in fields(Outcome)}
    assert parts == {*ROWS, *NUMBERS, "counts", "refused"}


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_that_is_one_off_fails(name):
    assert len(failed(**{name: getattr(EXPECTED, name) + 1})) == 1


@pytest.mark.parametrize("identifier", WORKER_OF)
@pytest.mark.parametrize("name", [attribute.name for attribute in fields(Counts)])
def test_a_count_that_is_one_off_fails(identifier, name):
    counts = EXPECTED.counts[identifier]
    wrong = evolve(counts, **{name: getattr(counts, name) + 1})

    (text,) = failed(counts={**EXPECTED.counts, identifier: wrong})
    assert text == f"{identifier}: {wrong}; expected {counts}"


@pytest.mark.parametrize("name", ROWS)
def test_a_row_that_is_missing_fails(name):
    rows = dict(getattr(EXPECTED, name))
    key, value = rows.popitem()

    (text,) = failed(**{name: rows})
    assert f"1 differ: {key} is 'missing', expected {value!r}" in text


@pytest.mark.parametrize("name", ROWS)
def test_a_row_too_many_fails(name):
    assert len(failed(**{name: {**getattr(EXPECTED, name), "stray": "row"}})) == 1


@pytest.mark.parametrize("name", ROWS)
def test_a_row_that_is_wrong_fails(name):
    rows = getattr(EXPECTED, name)

    (text,) = failed(**{name: {**rows, next(iter(rows)): "WRONG"}})
    assert "is 'WRONG'" in text


def test_a_line_that_was_not_refused_fails():
    line = min(EXPECTED.refused)

    (text,) = failed(refused=EXPECTED.refused - {line})
    assert f"see line {line}" in text
