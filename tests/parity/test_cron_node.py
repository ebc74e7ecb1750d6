"""The same crontabs, the same words of refusal, the same minutes as graphile-worker's."""

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from zodworker_compat.cron import (
    CronItem,
    CrontabError,
    Digest,
    parse_cron_items,
    parse_crontab,
    parse_pattern,
)
from zodworker_compat.payload import stringify

pytestmark = pytest.mark.parity

# One line of JSON in, one line of JSON out.
_SCRIPT = r"""
const { parseCrontab, parseCronItems } = require(`graphile-worker-${process.argv[1]}`);
const answers = {
  crontab: (text) => parseCrontab(text),
  items: (items) => parseCronItems(items),
  matches: ([match, digests]) => digests.map(parseCronItems([{ task: "t", match }])[0].match),
};
require("readline").createInterface({ input: process.stdin }).on("line", (line) => {
  const [question, value] = JSON.parse(line);
  let answer;
  try { answer = { ok: answers[question](value) } } catch (error) { answer = { error: error.message } }
  process.stdout.write(JSON.stringify(answer) + "\n");
});
"""

Ask = Callable[[str, Any], Any]
AnsweringNode = Callable[..., AbstractContextManager[Callable[[str, Any], str]]]


@pytest.fixture(scope="module", params=["0.16", "0.17"])
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def node(answering_node: AnsweringNode, node_modules: Path, version: str) -> Iterator[Ask]:
    with answering_node(_SCRIPT, version, NODE_PATH=str(node_modules)) as ask:
        yield lambda question, value: json.loads(ask(question, value), parse_int=float)


OPTIONS = {
    "maxAttempts": "max_attempts",
    "queueName": "queue_name",
    "priority": "priority",
    "jobKey": "job_key",
    "jobKeyMode": "job_key_mode",
}


def as_node_says(item: CronItem, no_payload: Any = None) -> dict[str, Any]:
    """An item as Node's JSON has it: `match` is a function there, undefined members are missing."""
    options = {
        name: getattr(item.options, ours)
        for name, ours in OPTIONS.items()
        if getattr(item.options, ours) is not None
    }
    options["backfillPeriod"] = item.options.backfill_period / timedelta(milliseconds=1)
    payload = no_payload if item.payload is None else item.payload
    return {
        "task": item.task,
        "options": options,
        "payload": json.loads(stringify(payload), parse_int=float),
        "identifier": item.identifier,
    }


def our_answer(crontab: str) -> dict[str, Any]:
    try:
        return {"ok": list(map(as_node_says, parse_crontab(crontab)))}
    except CrontabError as error:
        # What we refuse and Node does not: see test_cron_crontab.
        assume(not error.__cause__)
        return {"error": str(error)}


def our_items(items: list[dict[str, Any]]) -> dict[str, Any]:
    try:
        return {"ok": [as_node_says(item, no_payload={}) for item in parse_cron_items(items)]}
    except CrontabError as error:
        return {"error": str(error)}


def same(ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
    """Two JSON5 parsers have words of their own."""
    if "error" in ours and "JSON5" in ours["error"]:
        prefix = ours["error"].partition("JSON5: ")[0]
        return str(theirs.get("error")).startswith(f"{prefix}JSON5: ")
    return ours == theirs


def joined(parts: st.SearchStrategy[str], separator: str, most: int) -> st.SearchStrategy[str]:
    return st.lists(parts, min_size=1, max_size=most).map(separator.join)


def fields(low: int, high: int) -> st.SearchStrategy[str]:
    """A field's text: nearly always right."""
    inside = st.integers(low, high)
    part = (
        inside.map(str)
        | st.tuples(inside, inside)
        .map(sorted)
        .filter(lambda two: two[0] < two[1])
        .map("{0[0]}-{0[1]}".format)
        | st.just("*")
        | st.integers(1, 70).map("*/{}".format)
    )
    return joined(part, ",", 3)


TIMES = [fields(0, 59), fields(0, 23), fields(1, 31), fields(1, 12), fields(0, 7)]
GAPS = st.sampled_from([" ", " ", "  ", "\t", "\xa0", "\u3000 ", "\x0b"])
WRONG_FIELDS = st.text("0123456789*/,-", min_size=1, max_size=6)
IDENTIFIERS = st.from_regex("[A-Za-z_][A-Za-z0-9_:-]{0,8}", fullmatch=True)
VALUES = {
    "id": st.from_regex("[A-Za-z_][A-Za-z0-9_-]{0,5}", fullmatch=True),
    "fill": st.from_regex("([0-9]{1,3}[smhdw]){1,4}", fullmatch=True),
    "max": st.integers(1, 32767).map(str),
    "queue": st.from_regex("[A-Za-z0-9_:-]{1,9}", fullmatch=True),
    "jobKey": st.text("ab+%=20Cé9;:/.", max_size=8) | st.just("%C3%A9%2B") | st.just("%E0%A4"),
    "jobKeyMode": st.sampled_from(["replace", "preserve_run_at", "unsafe_dedupe"]),
    "priority": st.integers(-32768, 32767).map(str),
    "unknown": st.just("1"),
}
PAIRS = st.sampled_from(sorted(VALUES)).flatmap(lambda key: VALUES[key].map(f"{key}={{}}".format))
QUERIES = joined(PAIRS, "&", 4)
NAMES = st.from_regex("[A-Za-z_$][A-Za-z0-9_$]{0,4}", fullmatch=True)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.text("ab '\"\\/\té\u20ac{}", max_size=6)
)
VALUES_OF_PAYLOADS = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=6
)  # fmt: skip
PAYLOADS = st.one_of(
    st.dictionaries(NAMES, VALUES_OF_PAYLOADS, max_size=3).map(json.dumps),
    st.tuples(NAMES, SCALARS.map(json.dumps)).map("{{ {0[0]} : {0[1]} , }}".format),
    st.sampled_from(
        ["{a:.5,b:+1,c:0x1F,d:5.,e:-0}", "{a: 'it\\'s' /* c */, \"b\" :[,]}", "{a:'\\x41\\u00e9\\q'}",
         "{", "{}}", "{a}", "{a:1 b:2}", "{a:undefined}", "{__proto__:{}}", "{a:012}", "[1]", "{a://}"]
    ),
)  # fmt: skip


@st.composite
def lines(draw: st.DrawFn) -> str:
    """A line: right for the most part, with a wrong field or a few changed characters now and then."""
    seldom = st.integers(0, 9).map((9).__eq__)
    times = [draw(WRONG_FIELDS if draw(seldom) else right) for right in TIMES]
    line = "".join(f"{time}{draw(GAPS)}" for time in times) + draw(IDENTIFIERS)
    if draw(st.booleans()):
        line += f"{draw(GAPS)}?{draw(QUERIES)}"
    if draw(st.booleans()):
        line += f"{draw(GAPS)}{draw(PAYLOADS)}"
    while draw(seldom):
        at = draw(st.integers(0, len(line)))
        line = (
            line[:at]
            + draw(st.text("0*,-? {}&=#:a\t\r\n'\"é\u2028\x85", max_size=2))
            + line[at + 1 :]
        )
    return line


crontabs = st.tuples(
    st.lists(
        lines() | st.sampled_from(["", " # c", "* * * * * a", "* * * * * b", "1 * * * * c ?id=a"]),
        max_size=5,
    ),
    st.sampled_from(["\n", "\r\n"]),
)
thorough = settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)  # fmt: skip


@given(lines())
@thorough
def test_every_line_is_read_or_refused_as_by_node(node: Ask, line: str) -> None:
    ours, theirs = our_answer(line), node("crontab", line)
    assert same(ours, theirs), (ours, theirs)


@given(crontabs)
@thorough
def test_every_crontab_is_read_or_refused_as_by_node(
    node: Ask, crontab: tuple[list[str], str]
) -> None:
    text = crontab[1].join(crontab[0])
    ours, theirs = our_answer(text), node("crontab", text)
    assert same(ours, theirs), (ours, theirs)


def test_slashes_in_task_identifiers_are_read_as_by_the_newest(node: Ask, version: str) -> None:
    theirs = node("crontab", "* * * * * folder/task")
    if version == "0.16":
        assert theirs == {"error": "Invalid command specification in line 1 of crontab."}
    else:
        assert our_answer("* * * * * folder/task") == theirs


@given(joined(WRONG_FIELDS, " ", 6) | st.tuples(*TIMES).map(" ".join), st.sampled_from([0, 2]))
@thorough
def test_every_pattern_in_code_is_read_or_refused_as_by_node(
    node: Ask, text: str, index: int
) -> None:
    items = [{"task": f"t{number}", "match": "* * * * *"} for number in range(3)]
    items[index]["match"] = text
    theirs = node("items", items)
    for item in theirs.get("ok", ()):
        item["options"].setdefault("backfillPeriod", 0)  # 0.16 leaves it out
    assert our_items(items) == theirs


def test_pattern_for_match_is_refused_as_by_node(node: Ask) -> None:
    items = [{"task": "t", "pattern": "* * * * *"}]
    with pytest.raises(CrontabError) as refused:
        parse_cron_items(items)
    assert node("items", items) == {"error": str(refused.value)}


DIGESTS = st.builds(
    Digest, st.integers(0, 59), st.integers(0, 23), st.integers(1, 31), st.integers(1, 12), st.integers(0, 6)
)  # fmt: skip


@given(st.tuples(*TIMES).map(" ".join), st.lists(DIGESTS, min_size=1, max_size=50))
@thorough
def test_every_minute_matches_as_by_node(node: Ask, text: str, digests: list[Digest]) -> None:
    pattern = parse_pattern(text, "a test")
    # Random digests seldom match: so each also with a value that its fields allow.
    near = [
        Digest(*(min(allowed, key=lambda value, to=to: abs(value - to)) for allowed, to in zip(sets, digest, strict=True)))
        for digest in digests
        for sets in [(pattern.minutes, pattern.hours, pattern.dates, pattern.months, pattern.dows)]
    ]  # fmt: skip
    for several in (
        digests,
        near,
        [far._replace(date=1) for far in near],
        [far._replace(dow=0) for far in near],
    ):
        theirs = node("matches", [text, [digest._asdict() for digest in several]])
        assert theirs == {"ok": [pattern.matches(digest) for digest in several]}
