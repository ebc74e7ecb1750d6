"""The same text as Node's JSON.stringify, the same judgement as its URL and Date."""

import json
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zodworker_compat.payload import stringify

pytestmark = pytest.mark.parity

# One line of JSON in, one line of JSON out. JSON.parse keeps what Python meant: all floats are
# written with all their digits, and lone surrogates as escapes.
_SCRIPT = r"""
const accepts = (url) => { try { new URL(url); return true } catch { return false } };
const moment = (text) => { const ms = new Date(text).getTime(); return Number.isNaN(ms) ? null : ms };
const answers = {
  stringify: (value) => JSON.stringify(value),
  iso: (milliseconds) => JSON.stringify(new Date(milliseconds)),
  urls: (urls) => urls.map(accepts),
  dates: (texts) => texts.map(moment),
};
require("readline").createInterface({ input: process.stdin }).on("line", (line) => {
  const [question, value] = JSON.parse(line);
  process.stdout.write(JSON.stringify(answers[question](value)) + "\n");
});
"""

Ask = Callable[[str, Any], Any]
AnsweringNode = Callable[..., AbstractContextManager[Callable[[str, Any], str]]]


@pytest.fixture(scope="module")
def node(answering_node: AnsweringNode) -> Iterator[Ask]:
    with answering_node(_SCRIPT) as ask:
        yield lambda question, value: json.loads(ask(question, value))


# Keys such as "1" come first in a JavaScript object, so keys start with a letter here; whole
# numbers beyond 2**53 are not the same number in JavaScript.
text = st.text(st.characters())
surrogates = st.text(st.characters(min_codepoint=0xD700, max_codepoint=0xE010))
numbers = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53)
values = st.recursive(
    st.none() | st.booleans() | numbers | text | surrogates,
    lambda inner: st.lists(inner) | st.dictionaries(text.map("k{}".format), inner),
    max_leaves=30,
)


@given(values)
@settings(max_examples=300, deadline=None)
def test_every_value_has_nodes_text(node: Ask, value: Any) -> None:
    assert stringify(value) == node("stringify", value)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=50, max_size=100))
@settings(max_examples=100, deadline=None)
def test_every_number_has_nodes_digits(node: Ask, value: list[float]) -> None:
    assert stringify(value) == node("stringify", value)


@pytest.mark.parametrize("power", range(-12, 26))
def test_numbers_around_the_changes_of_notation_have_nodes_digits(node: Ask, power: int) -> None:
    near = [
        sign * number
        for digits in (1.0, 1.5, 9.999999999999999, 1.2345678901234567)
        for number in (digits * 10.0**power, math.nextafter(digits * 10.0**power, 0))
        for sign in (1, -1)
    ]
    assert stringify(near) == node("stringify", near)


@given(st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC)))  # noqa: DTZ001
@settings(max_examples=100, deadline=None)
def test_every_datetime_has_nodes_iso_string(node: Ask, moment: datetime) -> None:
    milliseconds = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    assert stringify(moment) == node("iso", milliseconds)


def test_the_recorded_formats_are_what_this_node_says(node: Ask) -> None:
    path = Path(__file__).parent.parent / "unit" / "data" / "node_formats.json"
    recorded = json.loads(path.read_text())
    for question in ("urls", "dates"):
        cases = recorded[question]
        assert dict(zip(cases, node(question, list(cases)), strict=True)) == cases
