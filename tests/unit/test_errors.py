"""The messages of the errors, as a person sees them."""

from datetime import timedelta

import pytest

from zodworker_compat import WorkerCatalog
from zodworker_compat.client.prepare import Preparer
from zodworker_compat.errors import (
    BatchError,
    CatalogError,
    ConfigurationError,
    EnqueueError,
    OptionError,
    PayloadSerialisationError,
    PayloadValidationError,
    PermanentFailure,
    Problem,
    RetryAfter,
    UnknownTaskError,
    ZodworkerError,
    suggestion,
)


@pytest.mark.parametrize(
    ("word", "known", "ending"),
    [
        ("startRum", ["startRun", "resumeRun"], " Did you mean 'startRun'?"),
        ("jobkey", ["job_key", "job_key_mode"], " Did you mean 'job_key' or 'job_key_mode'?"),
        ("STARTRUN", ["startRun"], " Did you mean 'startRun'?"),
        ("xyz", ["b", "a"], " Known: a, b."),
        ("xyz", [], ""),
        ("xyz", [f"task{number}" for number in range(13)], ""),
    ],
)
def test_a_suggestion_names_the_nearest_or_all_if_they_are_few(word, known, ending) -> None:
    assert suggestion(word, known) == ending


def test_no_more_than_three_names_are_suggested() -> None:
    known = [f"startRun{number}" for number in range(9)]
    assert suggestion("startRun", known).count("'startRun") == 3


def test_an_unknown_task_names_its_catalog_and_the_nearest() -> None:
    error = UnknownTaskError("startRum", ["startRun"], "workerQueue")
    assert str(error) == (
        "Unknown task identifier 'startRum' in catalog 'workerQueue'. Did you mean 'startRun'?"
    )
    assert error.identifier == "startRum"


def test_an_option_says_what_is_wrong_with_it() -> None:
    error = OptionError("priority", "expected a whole number, got 'high'")
    assert str(error) == "priority: expected a whole number, got 'high'"
    assert error.option == "priority"


def test_a_wrong_payload_lists_every_problem_with_its_place() -> None:
    problems = [Problem("/id", "1 is not of type 'string'"), Problem("", "'at' is required")]
    error = PayloadValidationError("startRun", problems)
    assert str(error) == (
        "The payload of 'startRun' does not match its schema:\n"
        "  /id: 1 is not of type 'string'\n"
        "  (the payload itself): 'at' is required"
    )
    assert error.problems == tuple(problems)


@pytest.mark.parametrize(("pointer", "place"), [("/a/0", "/a/0"), ("", "its root")])
def test_a_payload_without_json_says_where(pointer, place) -> None:
    error = PayloadSerialisationError(pointer, "NaN is not JSON")
    assert str(error) == f"The payload cannot be written as JSON at {place}: NaN is not JSON"


def test_a_batch_names_each_bad_item_and_says_that_none_was_enqueued() -> None:
    catalog = WorkerCatalog.of(name="own", schema={"startRun": True}, tasks={"startRun": {}})
    with pytest.raises(BatchError) as caught:
        Preparer(catalog).specs(
            [
                ("startRum", {}),
                ("startRun", {}),
                ("startRun", b"x"),
                ("startRun", {}, {"priority": 40_000}),
                ("startRun", {}, {"jobKey": "k"}),
            ]
        )
    assert str(caught.value).splitlines() == [
        "4 of 5 jobs cannot be enqueued; none was:",
        "  item 0: Unknown task identifier 'startRum' in catalog 'own'. Did you mean 'startRun'?",
        "  item 2: The payload cannot be written as JSON at its root: is a bytes; send base64 or a string",
        "  item 3: priority: 40000 does not fit PostgreSQL's smallint (-32768 to 32767)",
        "  item 4: jobKey: there is no such option. Did you mean 'job_key' or 'job_key_mode'?",
    ]
    assert [index for index, _ in caught.value.failures] == [0, 2, 3, 4]


@pytest.mark.parametrize(
    ("place", "before"),
    [
        ({}, ""),
        ({"identifier": "t"}, "task 't': "),
        ({"file": "c.json", "identifier": "t", "pointer": "/a"}, "c.json, task 't', /a: "),
    ],
)
def test_a_catalog_error_begins_with_its_place(place, before) -> None:
    assert str(CatalogError("is wrong", **place)) == f"{before}is wrong"


def test_a_retry_says_when_and_why() -> None:
    assert str(RetryAfter(timedelta(minutes=2))) == "in 120 s"
    error = RetryAfter(1.5, "rate limited")
    assert str(error) == "rate limited (in 1.5 s)"
    assert (error.delay, error.reason) == (timedelta(seconds=1.5), "rate limited")


@pytest.mark.parametrize(
    "delay", [-1, timedelta(days=-1), float("nan"), float("inf"), timedelta(days=40_000)]
)
def test_a_retry_is_not_delayed_by_nonsense(delay) -> None:
    with pytest.raises(ValueError, match="0 s to 100 years"):
        RetryAfter(delay)


def test_a_permanent_failure_gives_its_reason() -> None:
    assert str(PermanentFailure("no such customer")) == "no such customer"


@pytest.mark.parametrize(
    ("error", "also"),
    [
        (UnknownTaskError("t", [], "c"), LookupError),
        (OptionError("priority", "is wrong"), ValueError),
        (PayloadValidationError("t", []), ValueError),
        (PayloadSerialisationError("", "is wrong"), ValueError),
        (BatchError([], 0), ValueError),
    ],
)
def test_what_keeps_a_job_from_being_enqueued_is_an_enqueue_error(error, also) -> None:
    assert isinstance(error, EnqueueError)
    assert isinstance(error, ZodworkerError)
    assert isinstance(error, also)


def test_a_wrong_catalog_is_a_wrong_configuration() -> None:
    assert issubclass(CatalogError, ConfigurationError)
