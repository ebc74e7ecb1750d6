"""What others wrote cannot drive the terminal, and nothing of it is lost."""

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zodworker_compat.cli.safe import safe, safe_json


def is_dangerous(character: str) -> bool:
    return unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"} or character in (
        "\u061c\u200b\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff"
    )


@given(st.text(st.characters()))
def test_nothing_dangerous_is_printed(text: str) -> None:
    assert not any(map(is_dangerous, safe(text)))


@given(st.text(st.characters()))
def test_lines_may_be_kept_and_nothing_else(text: str) -> None:
    assert not any(is_dangerous(one) for one in safe(text, lines=True) if one != "\n")


@given(st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_json_stays_the_same_value(value: object) -> None:
    printed = safe_json(json.dumps(value, ensure_ascii=False, indent=2))

    assert json.loads(printed) == value
    assert not any(is_dangerous(one) for one in printed if one != "\n")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, ünïcode, 日本", "plain, ünïcode, 日本"),
        ("\x1b]0;owned\x07", r"\x1b]0;owned\x07"),
        ("\x9b31m", r"\x9b31m"),
        ("one\ntwo", r"one\ntwo"),
        ("abc\u202edef", r"abc\u202edef"),
    ],
)
def test_what_is_shown(text: str, shown: str) -> None:
    assert safe(text) == shown
