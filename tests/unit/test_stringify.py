"""`stringify` writes what JSON.stringify writes, or says what it cannot write and where."""

import json
import math
from collections import OrderedDict, UserDict
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from types import MappingProxyType
from typing import Any
from uuid import UUID

import pytest
from attrs import define, field, frozen
from hypothesis import given
from hypothesis import strategies as st

from zodworker_compat.errors import PayloadSerialisationError
from zodworker_compat.payload import UNSET, Unset, stringify
from zodworker_compat.payload.stringify import MAX_DEPTH

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(-(2.0**53), 2.0**53)  # larger ones are written with JavaScript's rounded digits
    | st.text()
)
json_values = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20
)


class Colour(StrEnum):
    RED = "red"


class Size(IntEnum):
    BIG = 2


class Plain(Enum):
    ONE = "one"


@given(json_values)
def test_what_is_written_reads_back_as_the_same_value(value: Any) -> None:
    assert json.loads(stringify(value)) == value


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_reads_back_bit_for_bit_but_for_the_sign_of_zero(value: float) -> None:
    assert float(stringify(value)) == value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.0, "1"),
        (-0.0, "0"),
        (0.1, "0.1"),
        (1e16, "10000000000000000"),
        (123456789012345680000.0, "123456789012345680000"),
        (1e21, "1e+21"),
        (1.5e300, "1.5e+300"),
        (0.0001, "0.0001"),
        (0.00001234, "0.00001234"),
        (1e-6, "0.000001"),
        (1e-7, "1e-7"),
        (-1.5e-10, "-1.5e-10"),
        (5e-324, "5e-324"),
        (2**53 + 1, "9007199254740993"),
        (10**30, "1000000000000000000000000000000"),
        (True, "true"),
        (None, "null"),
    ],
)
def test_numbers_are_spelled_as_javascript_spells_them(value: Any, text: str) -> None:
    assert stringify(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("äé\u2028€😀", '"äé\u2028€😀"'),
        ('"\\/\b\f\n\r\t\x00\x1f\x7f', '"\\"\\\\/\\b\\f\\n\\r\\t\\u0000\\u001f\x7f"'),
        ("\ud83d\ude00", '"😀"'),
        ("a\ud83db\ude00", '"a\\ud83db\\ude00"'),
        ("\ude00\ud83d", '"\\ude00\\ud83d"'),
    ],
)
def test_strings_are_escaped_as_a_well_formed_json_stringify_does(value: str, text: str) -> None:
    assert stringify(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"b": 1, "a": [1, "x", None]}, '{"b":1,"a":[1,"x",null]}'),
        ((1, (2,)), "[1,[2]]"),
        (MappingProxyType({"a": 1}), '{"a":1}'),
        (UserDict({"a": UserDict()}), '{"a":{}}'),
        (OrderedDict(z=1, a=2), '{"z":1,"a":2}'),
        (Colour.RED, '"red"'),
        (Size.BIG, "2"),
        ({Colour.RED: 1}, '{"red":1}'),
        (
            UUID("12345678-1234-5678-1234-567812345678"),
            '"12345678-1234-5678-1234-567812345678"',
        ),
        (datetime(2024, 1, 2, 3, 4, 5, 678901, UTC), '"2024-01-02T03:04:05.678Z"'),
        (datetime(2024, 1, 2, tzinfo=timezone(timedelta(hours=2))), '"2024-01-01T22:00:00.000Z"'),
        (datetime(1, 1, 1, tzinfo=UTC), '"0001-01-01T00:00:00.000Z"'),
    ],
)
def test_python_values_that_have_an_obvious_json(value: Any, text: str) -> None:
    assert stringify(value) == text


@pytest.mark.parametrize(
    ("value", "pointer", "advice"),
    [
        ({"a": [1, math.nan]}, "/a/1", "send None"),
        (math.inf, "", "send None"),
        ({"when": datetime(2024, 1, 1)}, "/when", "datetime.now(UTC)"),  # noqa: DTZ001
        ({"when": date(2024, 1, 1)}, "/when", "isoformat"),
        ([timedelta(1)], "/0", "total_seconds"),
        ({"x": Decimal(1)}, "/x", "float(value)"),
        ({"x": b""}, "/x", "base64"),
        ({"x": {1}}, "/x", "sorted(value)"),
        ({"x": object()}, "/x", "a mapping"),
        ({"x": UNSET}, "/x", "send its value"),
        (Plain.ONE, "", "send its value"),
        ({"a/b~c": {1: 2}}, "/a~1b~0c/1", "str(key)"),
        ({None: 2}, "/None", "str(key)"),
        ([10**5000], "/0", "digits"),
        ([datetime.min.replace(tzinfo=timezone(timedelta(hours=1)))], "/0", "years 1 to 9999"),
    ],
)
def test_what_json_lacks_is_refused_with_the_place_and_advice(
    value: Any, pointer: str, advice: str
) -> None:
    with pytest.raises(PayloadSerialisationError) as caught:
        stringify(value)
    assert caught.value.pointer == pointer
    assert advice in str(caught.value)


def test_a_payload_that_contains_itself_is_refused() -> None:
    loop: dict[str, Any] = {}
    loop["again"] = [loop]
    with pytest.raises(PayloadSerialisationError, match="contains itself") as caught:
        stringify(loop)
    assert caught.value.pointer.startswith("/again/0/again")
    assert len(caught.value.pointer) < 200


def test_nesting_is_accepted_to_its_limit_and_no_further() -> None:
    value: list[Any] = []
    for _ in range(MAX_DEPTH - 1):
        value = [value]
    assert stringify(value) == "[" * MAX_DEPTH + "]" * MAX_DEPTH
    with pytest.raises(PayloadSerialisationError, match="nested more than"):
        stringify([value])


@frozen(kw_only=True)
class Address:
    streetName: str  # noqa: N815 - payloads keep their keys
    zip: str | None = None


@define
class Person:
    name: str
    address: Address | None = None
    tags: list[str] = field(factory=list)
    extra: Any = UNSET
    born: datetime | Unset | None = UNSET
    from_: str | None = field(default=None, metadata={"json": "from"})
    spouse: str | None = field(default="none")


def test_attrs_instances_are_objects_of_their_fields_without_unset_ones() -> None:
    assert stringify(Person("Ada")) == '{"name":"Ada","tags":[],"spouse":"none"}'


def test_null_is_kept_where_it_was_said() -> None:
    person = Person("Ada", Address(streetName="x"), extra=None, born=None, spouse=None, from_="y")
    assert json.loads(stringify(person)) == {
        "name": "Ada",
        "address": {"streetName": "x"},
        "tags": [],
        "extra": None,
        "born": None,
        "from": "y",
        "spouse": None,
    }


def test_the_place_of_an_error_inside_an_instance_is_named() -> None:
    with pytest.raises(PayloadSerialisationError) as caught:
        stringify([Person("Ada", extra={"at": math.nan})])
    assert caught.value.pointer == "/0/extra/at"
