"""Merging and checking options: pure rules, checked against recorded ZodWorker behaviour."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zodworker_compat.errors import OptionError
from zodworker_compat.options import (
    CLEAR,
    OPTION_NAMES,
    EnqueueOptions,
    TaskOptions,
    as_dict,
    merge,
    options_of,
    render,
)

NO_SURROGATES = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
TEXT = st.text(NO_SURROGATES, max_size=20)
NO_TEMPLATE = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0{}"), max_size=20
)
VALUES = {
    "run_at": st.datetimes(timezones=st.just(UTC)),
    "max_attempts": st.integers(1, 32767),
    "job_key": NO_TEMPLATE,
    "job_key_mode": st.sampled_from(["replace", "preserve_run_at", "unsafe_dedupe", ""]),
    "priority": st.integers(-32768, 32767),
    "flags": st.lists(TEXT, max_size=3),
    "queue_name": NO_TEMPLATE,
}
CALLS = st.fixed_dictionaries(
    {}, optional={name: st.none() | st.just(CLEAR) | value for name, value in VALUES.items()}
)
TASKS = st.fixed_dictionaries(
    {}, optional={name: st.none() | value for name, value in VALUES.items() if name != "run_at"}
)


@given(call=CALLS, task=TASKS)
def test_a_call_beats_the_catalog_key_by_key(call: dict, task: dict) -> None:
    merged = merge(TaskOptions(**task), EnqueueOptions(**call), {})

    for name in OPTION_NAMES:
        said = call.get(name)
        expected = task.get(name) if said is None else None if said is CLEAR else said
        if name in {"queue_name", "job_key", "job_key_mode"}:
            expected = expected or None  # "" is "not given"
        assert merged[name] == expected


@given(outer=TASKS, inner=TASKS)
def test_task_options_lie_over_global_defaults(outer: dict, inner: dict) -> None:
    merged = as_dict(TaskOptions(**inner).over(TaskOptions(**outer)))
    for name, value in merged.items():
        assert value == (inner.get(name) if inner.get(name) is not None else outer.get(name))


def test_a_queue_function_beats_the_call_even_with_nothing() -> None:
    options = TaskOptions(queue_name=lambda payload: payload["queue"])
    call = EnqueueOptions(queue_name="called")
    assert merge(options, call, {"queue": "computed"})["queue_name"] == "computed"
    assert merge(options, call, {"queue": ""})["queue_name"] is None
    assert merge(options, call, {"queue": None})["queue_name"] is None


def test_a_key_function_beats_the_call_unless_it_gives_nothing() -> None:
    call = EnqueueOptions(job_key="called")
    assert merge(TaskOptions(job_key=lambda _: "computed"), call, {})["job_key"] == "computed"
    assert merge(TaskOptions(job_key=lambda _: ""), call, {})["job_key"] == "called"
    assert merge(TaskOptions(job_key=lambda _: None), call, {})["job_key"] == "called"


def test_templates_are_filled_from_the_payload() -> None:
    assert render("runs:{payload.id}", {"id": "r1"}) == "runs:r1"
    assert render("{payload.a.b}/{payload.n}", {"a": {"b": "x"}, "n": 3}) == "x/3"
    assert (
        merge(TaskOptions(queue_name="q:{payload.id}"), EnqueueOptions(), {"id": "7"})["queue_name"]
        == "q:7"
    )


@pytest.mark.parametrize(
    "template",
    ["run:{id}", "run:{ payload.id }", "{payload[id]}", "{payload.user-id}", "{payload.id", "id}"],
)
def test_what_only_looks_like_a_template_is_refused(template: str) -> None:
    with pytest.raises(OptionError, match=r"is not a template; a placeholder is {payload\.id}"):
        TaskOptions(job_key=template)
    with pytest.raises(OptionError, match="is not a template"):
        TaskOptions(queue_name=template)


def test_javascripts_dollar_is_refused() -> None:
    with pytest.raises(OptionError, match="without the \\$ of JavaScript"):
        TaskOptions(job_key="run:${payload.id}")


@pytest.mark.parametrize("payload", [{}, {"id": None}, {"id": True}, {"id": {"x": 1}}, [], "text"])
def test_a_template_without_its_value_is_refused(payload: object) -> None:
    with pytest.raises(OptionError, match=r"runs:\{payload\.id\}.*no string or whole number"):
        render("runs:{payload.id}", payload)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("max_attempts", 0, "at least 1"),
        ("max_attempts", -1, "at least 1"),
        ("max_attempts", 32768, "smallint"),
        ("max_attempts", "3", "whole number"),
        ("max_attempts", True, "whole number"),
        ("priority", 100_000, "smallint"),
        ("priority", 1.5, "whole number"),
        ("run_at", datetime(2026, 1, 1), "no time zone"),  # noqa: DTZ001
        ("run_at", "2026-01-01", "datetime"),
        ("job_key", "k" * 513, "513 characters"),
        ("job_key", 7, "expected a string"),
        ("queue_name", "q" * 129, "129 characters"),
        ("queue_name", "a\0b", "NUL"),
        ("queue_name", "a\ud800", "surrogate"),
        ("job_key_mode", "keep", "replace, preserve_run_at, unsafe_dedupe"),
        ("flags", "rl:org", "list of strings"),
        ("flags", ["a", None], "expected a string"),
    ],
)
def test_what_the_table_cannot_hold_is_refused(option: str, value: object, message: str) -> None:
    with pytest.raises(OptionError, match=message) as caught:
        options_of({option: value})
    assert caught.value.option == option
    assert str(caught.value).startswith(f"{option}: ")


@pytest.mark.parametrize(
    ("mistyped", "meant"),
    [("runAt", "run_at"), ("jobkey", "job_key"), ("max_attempt", "max_attempts")],
)
def test_a_mistyped_option_names_the_right_one(mistyped: str, meant: str) -> None:
    with pytest.raises(OptionError, match=f"no such option. Did you mean '{meant}'"):
        options_of({mistyped: 1})


def test_functions_must_give_what_the_table_can_hold() -> None:
    with pytest.raises(OptionError, match="queue_name: is 200 characters"):
        merge(TaskOptions(queue_name=lambda _: "q" * 200), EnqueueOptions(), {})
    with pytest.raises(OptionError, match="job_key: expected a string"):
        merge(TaskOptions(job_key=lambda _: 5), EnqueueOptions(), {})
