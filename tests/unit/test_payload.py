"""What a codec accepts, what it makes of it, and what it tells people about the rest."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

import pytest
from attrs import define, frozen
from hypothesis import given
from hypothesis import strategies as st

from zodworker_compat.errors import CatalogError, PayloadSerialisationError, PayloadValidationError
from zodworker_compat.payload import UNSET, PayloadCodec, Unset
from zodworker_compat.payload.formats import EPOCH, is_url, parse_date
from zodworker_compat.payload.keywords import misspelt

ID = {"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]}
DATE = {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "number"}]}
COERCED = {**DATE, "x-zod": "coerce.date"}
BRANCHES = [
    {
        "type": "object",
        "properties": {"kind": {"const": "mail"}, "to": {"type": "string"}},
        "required": ["kind", "to"],
    },
    {
        "type": "object",
        "properties": {"kind": {"const": "page"}, "url": {"type": "string", "format": "uri"}},
        "required": ["kind", "url"],
    },
]
UNION = {"oneOf": BRANCHES, "x-zod-discriminator": "kind"}

NODE = json.loads((Path(__file__).parent / "data" / "node_formats.json").read_text())
# What V8 guesses at and we refuse: other spellings, and years that Python does not have.
GUESSED_BY_V8 = """0|1|2024-01-02 03:04:05.678+00|2024-1-2|2024-1-02|2024/01/02|01/02/2024|Jan 2, 2024
|Tue, 02 Jan 2024 03:04:05 GMT| 2024-01-02|2024-01-02 |2024-01-02Z|2024-002|2024-01Z|+002024-01-02
|+012024-01-02T00:00:00Z|-000001-01-01|-000000-01-01|0000-01-01|0001-01-01T00:00:00+01:00
|9999-12-31T23:59:59-01:00|２０２４-01-02""".replace("\n", "").split("|")  # noqa: RUF001


def codec(schema: Any, payload_type: Any = None) -> PayloadCodec:
    return PayloadCodec.compile("task", schema, payload_type=payload_type)


def problems(schema: Any, value: Any) -> dict[str, str]:
    """Return the problems that both ways report, by pointer."""
    with pytest.raises(PayloadValidationError) as at_enqueue:
        codec(schema).encode(value)
    with pytest.raises(PayloadValidationError) as at_run:
        codec(schema).decode(value)
    assert at_enqueue.value.problems == at_run.value.problems
    assert at_run.value.identifier == "task"
    return {problem.pointer: problem.message for problem in at_run.value.problems}


@pytest.mark.parametrize(("url", "accepted"), NODE["urls"].items())
def test_urls_are_judged_as_node_judges_them(url: str, accepted: bool) -> None:
    assert is_url(url) is accepted


@pytest.mark.parametrize(("text", "milliseconds"), NODE["dates"].items())
def test_dates_are_read_as_node_reads_them(text: str, milliseconds: int | None) -> None:
    moment = parse_date(text)
    if text in GUESSED_BY_V8 or milliseconds is None:
        assert moment is None
    else:
        assert moment == EPOCH + timedelta(milliseconds=milliseconds)


@given(st.text())
def test_no_text_breaks_the_formats(text: str) -> None:
    is_url(f"http://{text}")
    is_url(text)
    parse_date(text)


class TestEncode:
    def test_gives_the_text_that_is_stored_with_unknown_keys(self) -> None:
        assert codec(ID).encode({"id": "x", "more": 1.0}) == '{"id":"x","more":1}'

    def test_checks_what_is_stored_not_what_was_given(self) -> None:
        schema = {"type": "array", "items": DATE}
        assert codec(schema).encode((datetime(2024, 1, 1, tzinfo=UTC),)) == (
            '["2024-01-01T00:00:00.000Z"]'
        )

    def test_can_be_told_not_to_validate(self) -> None:
        assert codec(ID).encode({"id": 1}, validate=False) == '{"id":1}'

    def test_refuses_what_has_no_json_even_then(self) -> None:
        with pytest.raises(PayloadSerialisationError):
            codec(ID).encode({"id": float("nan")}, validate=False)

    @pytest.mark.parametrize("schema", [None, True, {}])
    def test_a_task_without_a_schema_takes_anything(self, schema: Any) -> None:
        assert codec(schema).encode([1, {"a": None}]) == '[1,{"a":null}]'
        assert codec(schema).decode({"x": 1}) == {"x": 1}


class TestDecode:
    def test_strips_unknown_keys_at_every_level_and_leaves_the_row_alone(self) -> None:
        stored = {"id": "x", "z": 1}
        schema = {"type": "object", "properties": {"a": ID, "l": {"type": "array", "items": ID}}}
        value = {"a": stored, "l": [stored], "b": 2}
        assert codec(schema).decode(value) == {"a": {"id": "x"}, "l": [{"id": "x"}]}
        assert value == {"a": {"id": "x", "z": 1}, "l": [{"id": "x", "z": 1}], "b": 2}

    @pytest.mark.parametrize(
        "schema",
        [
            {},
            {"type": "object"},
            {"type": "object", "additionalProperties": {}},
            {"type": "object", "properties": {"id": {}}, "additionalProperties": True},
            {"type": "object", "properties": {"id": {}}, "patternProperties": {"^z": {}}},
            {"allOf": [ID, {"type": "object", "additionalProperties": {}}]},
        ],
    )
    def test_keeps_keys_that_a_schema_allows_on_purpose(self, schema: Any) -> None:
        assert codec(schema).decode({"id": "x", "z": {"any": [1]}}) == {
            "id": "x",
            "z": {"any": [1]},
        }

    def test_strips_inside_the_values_of_a_record(self) -> None:
        schema = {"type": "object", "additionalProperties": ID}
        assert codec(schema).decode({"k": {"id": "x", "z": 1}}) == {"k": {"id": "x"}}

    def test_joins_the_parts_of_an_intersection(self) -> None:
        other = {"type": "object", "properties": {"to": {"type": "string"}}}
        value = {"id": "x", "to": "y", "z": 1}
        assert codec({"allOf": [ID, other]}).decode(value) == {"id": "x", "to": "y"}
        assert codec({**other, "$ref": "#/$defs/id", "$defs": {"id": ID}}).decode(value) == {
            "id": "x",
            "to": "y",
        }

    def test_an_assertion_beside_an_object_keeps_nothing_alive(self) -> None:
        assert codec({**ID, "allOf": [{"required": ["id"]}]}).decode({"id": "x", "z": 1}) == {
            "id": "x"
        }

    def test_fills_in_defaults_that_a_handler_may_change(self) -> None:
        schema = {"type": "object", "properties": {"tags": {"type": "array", "default": []}}}
        task = codec(schema)
        task.decode({})["tags"].append("mine")
        assert task.decode({}) == {"tags": []}
        assert task.decode({"tags": [1]}) == {"tags": [1]}

    def test_applies_the_branch_that_the_discriminator_names(self) -> None:
        assert codec(UNION).decode({"kind": "mail", "to": "x", "url": "left over"}) == {
            "kind": "mail",
            "to": "x",
        }

    def test_applies_the_first_branch_that_fits(self) -> None:
        a = {"type": "object", "properties": {"a": {"type": "number"}}, "required": ["a"]}
        schema = {"anyOf": [a, ID, {"type": "string"}]}
        assert codec(schema).decode({"a": 1, "id": "x"}) == {"a": 1}
        assert codec(schema).decode({"a": "1", "id": "x"}) == {"id": "x"}
        assert codec(schema).decode("s") == "s"

    def test_follows_recursive_references(self) -> None:
        schema = {
            "$ref": "#/$defs/tree",
            "$defs": {
                "tree": {
                    "type": "object",
                    "properties": {
                        "id": {"type": "string"},
                        "children": {"type": "array", "items": {"$ref": "#/$defs/tree"}},
                    },
                }
            },
        }
        value = {"id": "a", "z": 1, "children": [{"id": "b", "z": 2}]}
        assert codec(schema).decode(value) == {"id": "a", "children": [{"id": "b"}]}

    def test_adds_the_missing_version_before_it_chooses(self) -> None:
        branch = {"type": "object", "properties": {"version": {"const": "1"}, "id": {}}}
        schema = {
            "oneOf": [
                branch,
                {**branch, "properties": {"version": {"const": "2"}}, "required": ["version"]},
            ],
            "x-zod-discriminator": "version",
            "x-zod-preprocess": "addMissingVersionField",
        }
        assert codec(schema).decode({"id": "x"}) == {"version": "1", "id": "x"}
        assert codec(schema).decode({"id": "x", "version": "2"}) == {"version": "2"}

    @pytest.mark.parametrize(
        ("value", "moment"),
        [
            ("2024-01-02T03:04:05.678Z", datetime(2024, 1, 2, 3, 4, 5, 678000, UTC)),
            ("2024-01-02", datetime(2024, 1, 2, tzinfo=UTC)),
            ("2024-01-02T01:00:00+01:00", datetime(2024, 1, 2, tzinfo=UTC)),
            (0, datetime(1970, 1, 1, tzinfo=UTC)),
            (-1.5, datetime(1969, 12, 31, 23, 59, 59, 999000, UTC)),
        ],
    )
    def test_coerces_dates(self, value: Any, moment: datetime) -> None:
        assert codec({"properties": {"at": COERCED}}).decode({"at": value}) == {"at": moment}

    def test_a_plain_date_is_read_as_a_kindness(self) -> None:
        schema = {"type": "string", "format": "date-time", "x-zod": "date"}
        assert codec(schema).decode("2024-01-02") == datetime(2024, 1, 2, tzinfo=UTC)

    def test_milliseconds_beyond_the_years_are_a_problem_with_a_place(self) -> None:
        schema = {"properties": {"l": {"type": "array", "items": COERCED}}}
        assert problems(schema, {"l": [0, 1e15]}) == {
            "/l/1": "must be at most 253402300799999, got the number 1000000000000000"
        }

    def test_a_date_needs_no_more_than_its_zod_name(self) -> None:
        assert codec({"x-zod": "coerce.date"}).decode(0) == EPOCH
        assert "expected a date" in problems({"x-zod": "coerce.date"}, "tomorrow")[""]
        assert "expected a date" in problems({"x-zod": "date"}, "tomorrow")[""]

    def test_lone_surrogates_are_no_obstacle(self) -> None:
        assert codec({"anyOf": [ID, {"type": "string"}]}).decode({"id": "\ud800", "z": 1}) == {
            "id": "\ud800"
        }

    def test_a_payload_too_deep_to_parse_is_a_problem_not_a_crash(self) -> None:
        schema = {"additionalProperties": {"$ref": "#"}, "type": "object"}
        value: dict[str, Any] = {}
        for _ in range(5000):
            value = {"k": value}
        with pytest.raises(PayloadValidationError, match="nested too deeply"):
            codec(schema).decode(value)


class TestProblems:
    def test_are_all_reported_with_their_pointers(self) -> None:
        schema = {
            "type": "object",
            "properties": {
                "id": {"type": "string"},
                "n": {"type": "integer", "minimum": 60},
                "s": {"enum": ["MANUAL", "API"]},
                "u": {"type": "string", "format": "uri"},
                "d": COERCED,
                "a/b": {"type": ["string", "null"]},
                "l": {"type": "array", "items": {"type": "boolean"}, "maxItems": 1},
                "no": False,
            },
            "required": ["id", "n"],
        }
        value = {
            "n": 3,
            "s": "API_",
            "u": "example.com",
            "d": None,
            "a/b": 1,
            "l": [True, "x"],
            "no": 0,
        }
        assert problems(schema, value) == {
            "/id": "is required, but missing",
            "/n": "must be at least 60, got the number 3",
            "/s": 'expected one of "MANUAL", "API", got the string "API_" (did you mean \'API\'?)',
            "/u": 'expected a URL with its scheme, such as https://example.com/, got the string "example.com"',
            "/d": "expected a date, such as 2024-01-02T03:04:05.678Z, or milliseconds, got null",
            "/a~1b": "expected a string or null, got the number 1",
            "/l": "must have at most 1 items, got an array of 2 items",
            "/l/1": 'expected true or false, got the string "x"',
            "/no": "must not be there, got the number 0",
        }

    @pytest.mark.parametrize(
        ("value", "pointer", "message"),
        [
            ({"kind": "page"}, "/url", "is required, but missing"),
            (
                {"kind": "pages"},
                "/kind",
                'expected one of "mail", "page", got the string "pages" (did you mean \'page\'?)',
            ),
            ({}, "/kind", 'is required, but missing; one of "mail", "page"'),
            ({"kind": ["mail"]}, "/kind", 'expected one of "mail", "page", got an array of 1 item'),
            ([], "", "expected an object, got an array of 0 items"),
        ],
    )
    def test_of_a_discriminated_union_are_those_of_the_branch_that_was_meant(
        self, value: Any, pointer: str, message: str
    ) -> None:
        assert problems(UNION, value) == {pointer: message}

    def test_of_a_plain_union_are_those_of_the_nearest_branch(self) -> None:
        schema = {"anyOf": [ID, {"type": "string"}, {"type": ["array", "null"]}]}
        assert problems(schema, {}) == {"/id": "is required, but missing"}
        assert problems(schema, 1) == {
            "": "expected an object or a string or an array or null, got the number 1"
        }

    def test_of_keys_that_a_strict_schema_forbids_suggest_the_right_one(self) -> None:
        message = problems({**ID, "additionalProperties": False}, {"id": "x", "idd": 1})[""]
        assert message == "has keys the schema does not know: 'idd' (did you mean 'id'?)"

    def test_of_other_keywords_name_the_keyword(self) -> None:
        assert problems({"not": {"type": "string"}}, "x")[""].startswith("does not satisfy 'not'")
        assert "more than one" in problems({"oneOf": [{}, {}]}, 1)[""]

    @pytest.mark.parametrize(
        "value",
        [
            "s" * 10_000,
            10**4000,
            {"k" * 5000: 1},
            [[1] * 5000],
            {str(n): n for n in range(5000)},
        ],
    )
    def test_never_show_a_whole_value(self, value: Any) -> None:
        (message,) = problems({"type": "boolean"}, value).values()
        assert len(message) < 150

    def test_are_bounded_in_number(self) -> None:
        schema = {"type": "array", "items": {"type": "string"}}
        with pytest.raises(PayloadValidationError) as caught:
            codec(schema).encode([1] * 1000)
        assert len(caught.value.problems) == 51
        assert "950 more" in str(caught.value)


@frozen
class Part:
    id: str
    at: datetime | None = None


@define
class Whole:
    part: Part
    parts: list[Part]
    size: Literal["s", "l"] = "s"
    count: int = 0
    weight: float | None = None
    key: UUID | None = None
    free: dict[str, Any] | list[str] | None = None
    extra: str | Unset | None = UNSET
    class_: str = "x"


WHOLE = {
    "type": "object",
    "properties": {
        "part": {**ID, "properties": {"id": {"type": "string"}, "at": COERCED}},
        "parts": {"type": "array", "items": ID},
        "size": {"type": "string"},
        "count": {"type": "number"},
        **{name: {} for name in ("weight", "key", "free", "extra")},
    },
    "required": ["part", "parts"],
}


class TestPayloadTypes:
    def test_an_attrs_class_of_the_user_is_filled(self) -> None:
        value = {
            "part": {"id": "a", "at": "2024-01-02"},
            "parts": [{"id": "b"}],
            "count": 2.0,
            "weight": 3,
            "key": "12345678-1234-5678-1234-567812345678",
            "free": ["x"],
            "extra": None,
        }
        assert codec(WHOLE, Whole).decode(value) == Whole(
            part=Part("a", datetime(2024, 1, 2, tzinfo=UTC)),
            parts=[Part("b")],
            count=2,
            weight=3.0,
            key=UUID("12345678-1234-5678-1234-567812345678"),
            free=["x"],
            extra=None,
        )

    def test_missing_keys_leave_the_class_its_defaults(self) -> None:
        whole = codec(WHOLE, Whole).decode({"part": {"id": "a"}, "parts": []})
        assert whole == Whole(Part("a"), [])
        assert whole.extra is UNSET

    def test_typed_gives_another_codec_of_the_same_schema(self) -> None:
        plain = codec(ID)
        assert plain.typed(Part).decode({"id": "x"}) == Part("x")
        assert plain.decode({"id": "x"}) == {"id": "x"}
        assert plain.typed(dict).decode({"id": "x", "z": 1}) == {"id": "x"}
        assert plain.typed(Any).decode({"id": "x"}) == {"id": "x"}

    def test_what_the_schema_accepts_and_the_class_does_not_is_explained(self) -> None:
        value = {"part": {"id": "a"}, "parts": [{"id": "b"}], "size": "m", "count": 1.5}
        with pytest.raises(PayloadValidationError) as caught:
            codec(WHOLE, Whole).decode(value)
        assert {problem.pointer for problem in caught.value.problems} == {"/size", "/count"}
        assert "the payload class does not" in str(caught.value)

    def test_a_class_that_cannot_be_filled_is_refused_when_it_is_given(self) -> None:
        @define
        class Unfit:
            what: object | Part

        with pytest.raises(CatalogError, match="cannot be filled"):
            codec(ID, Unfit)


class TestReferences:
    def test_that_lead_nowhere_are_refused_with_their_place(self) -> None:
        with pytest.raises(CatalogError, match="leads nowhere") as caught:
            codec({"properties": {"a": {"$ref": "#/$defs/missing"}}})
        assert caught.value.pointer == "/properties/a/$ref"

    def test_to_the_network_are_refused(self) -> None:
        with pytest.raises(CatalogError, match="another file or site"):
            codec({"$ref": "https://json-schema.org/draft/2020-12/schema#/x"})

    def test_of_two_files_may_share_a_name(self) -> None:
        files = {"mem:a/part.json": ID, "mem:b/part.json": {"type": "string"}}
        schema = {
            "properties": {"a": {"$ref": "mem:a/part.json"}, "b": {"$ref": "mem:b/part.json"}}
        }
        task = PayloadCodec.compile("task", schema, resolve=files.__getitem__)
        assert task.decode({"a": {"id": "x", "z": 1}, "b": "y"}) == {"a": {"id": "x"}, "b": "y"}
        assert list(task.schema["$defs"]) == ["part", "part2"]

    def test_a_property_may_be_called_ref(self) -> None:
        schema = {"properties": {"$ref": {"type": "string"}, "$defs": {"type": "number"}}}
        assert codec(schema).decode({"$ref": "x", "$defs": 1}) == {"$ref": "x", "$defs": 1}


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        (
            {"type": "number", "minimun": 0},
            "/minimun: is no keyword of JSON Schema; did you mean 'minimum'?",
        ),
        ({"property": {}}, "/property: is no keyword of JSON Schema; did you mean 'properties'?"),
        (
            {"properties": {"minimun": {"x-zod": "coerce.dat"}}},
            "/properties/minimun/x-zod: 'coerce.dat' is not one of coerce.date, date",
        ),
        (
            {"anyOf": [{}, {"items": {"enums": []}}]},
            "/anyOf/1/items/enums: is no keyword of JSON Schema; did you mean 'enum'?",
        ),
    ],
)
def test_misspelt_keywords_are_found(schema: dict, problem: str) -> None:
    assert [str(each) for each in misspelt(schema)] == [problem]


def test_other_vocabularies_are_accepted() -> None:
    assert (
        list(
            misspelt({"x-owner": "billing", "markdownDescription": "*", "properties": {"typo": {}}})
        )
        == []
    )
