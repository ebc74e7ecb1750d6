"""What the demo should come to follows from its input alone."""

import json

import pytest

from zodworker_compat.catalog import WorkerCatalog
from zodworker_compat.demo.events import parse_events, read_events
from zodworker_compat.demo.expected import MAX_ATTEMPTS, expect
from zodworker_compat.demo.outcome import WORKER_OF, Counts
from zodworker_compat.errors import ConfigurationError

LOGIN = {
    "name": "user.login",
    "source": "web",
    "payload": {"email": "ada@x.example", "magicLink": "https://x.example"},
}


def events(*given):
    return parse_events(json.dumps({"id": "e", **LOGIN, **event}) for event in given)


def one_each(*, until="scheduleEmail"):
    tasks = list(WORKER_OF)
    reached = tasks[: tasks.index(until) + 1]
    return {task: Counts(enqueued=1, done=1) if task in reached else Counts() for task in tasks}


def test_an_event_goes_all_the_way():
    expected = expect(events({}))

    assert expected.counts == one_each()
    assert expected.events == {"e": {"payload": LOGIN["payload"], "delivered": True}}
    assert expected.runs == {"run_e": "SUCCESS"}
    assert expected.tasks == {"task_e": "COMPLETED"}
    assert expected.outbox == {"task_e": "magic_link to ada@x.example, sent"}
    assert (expected.failed_jobs, expected.refused, expected.debounced) == ({}, frozenset(), 0)


def test_an_event_without_a_mail_ends_with_its_task():
    expected = expect(events({"name": "page.viewed"}))

    assert expected.counts == one_each(until="performTaskOperation")
    assert expected.outbox == {}


def test_later_versions_replace_earlier_ones():
    expected = expect(events(*({"name": "cart.updated", "payload": {"n": n}} for n in (1, 2, 3))))

    assert (expected.read, expected.debounced) == (3, 2)
    assert expected.events["e"]["payload"] == {"n": 3}
    assert expected.counts["deliverEvent"] == Counts(enqueued=1, done=1)


@pytest.mark.parametrize("identifier", [None, 7, ["e"], True])
def test_an_id_that_is_no_string_is_refused(identifier):
    expected = expect(events({}, {"id": identifier}))

    assert expected.refused == {2}
    assert (expected.read, expected.counts) == (2, one_each())


def test_failures_are_retried():
    expected = expect(events({"failures": {"performTaskOperation": 2}}))

    assert expected.counts["performTaskOperation"] == Counts(enqueued=1, done=1, retried=2)
    assert expected.runs == {"run_e": "SUCCESS"}


def test_a_run_in_development_has_one_attempt():
    expected = expect(
        events({"environment": "DEVELOPMENT", "failures": {"performRunExecutionV2": 1}})
    )

    assert expected.counts["performRunExecutionV2"] == Counts(enqueued=1, failed=1)
    assert expected.counts["performTaskOperation"] == Counts()
    assert expected.runs == {"run_e": "STARTED"}
    assert expected.tasks == {}
    assert expected.failed_jobs == {
        "performRunExecutionV2 run_e": "ServiceUnavailableError: no answer for e, attempt 1"
    }


def test_a_mail_that_fails_for_good_is_not_sent():
    expected = expect(events({"failures": {"scheduleEmail": 9}}))

    assert expected.counts["scheduleEmail"] == Counts(enqueued=1, retried=2, failed=1)
    assert expected.outbox == {"task_e": "magic_link to ada@x.example, not sent"}


def test_the_input_of_the_demo_holds_every_case():
    expected = expect(read_events())

    assert expected.read >= 1200
    assert len(expected.events) >= 1000
    assert expected.refused
    assert expected.debounced
    assert len(expected.failed_jobs) == 2
    assert expected.serial > 1
    assert expected.delayed == 1
    assert sum(counts.retried for counts in expected.counts.values()) > 10


@pytest.mark.parametrize(("identifier", "worker"), WORKER_OF.items())
def test_the_catalog_gives_the_attempts_that_are_expected(identifier, worker):
    task = WorkerCatalog.load(worker).get(identifier)

    assert task.options.max_attempts == MAX_ATTEMPTS[identifier]


@pytest.mark.parametrize("line", ["{", "[]", "7", '{"id": "e"}', '{"id": "e", "name": 1}'])
def test_a_line_that_is_no_event_is_named(line):
    with pytest.raises(ConfigurationError, match=r"mine\.jsonl:2: not an event"):
        parse_events([json.dumps({"id": "e", **LOGIN}), line], "mine.jsonl")


def test_a_file_that_is_missing_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match=r"none\.jsonl"):
        read_events(tmp_path / "none.jsonl")
