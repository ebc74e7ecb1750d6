"""The generated classes of trigger.dev's payloads, one task after the other."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zodworker_compat import codegen, triggerdev
from zodworker_compat.catalog import WorkerCatalog, shipped
from zodworker_compat.payload import UNSET, PayloadCodec, stringify
from zodworker_compat.payload.codec import fast_validator, reference_validator

TASKS = [(name, identifier) for name in shipped() for identifier in WorkerCatalog.load(name)]
quick = settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))

FORMATS = {
    "uri": st.sampled_from(["https://example.com/a?b=c", "mailto:a@b", "x:y", "http://[::1]:80"]),
    "date-time": st.sampled_from(
        ["2024-01-02", "2024-01-02T03:04:05.678Z", "2024-02-29T23:59+01:00"]
    ),
}
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(-(2.0**53), 2.0**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def codec_of(catalog: str, identifier: str) -> PayloadCodec:
    return WorkerCatalog.load(catalog).get(identifier).codec


def payload_type(identifier: str) -> Any:
    return getattr(triggerdev, codegen.class_name(identifier))


@cache
def payloads(catalog: str, identifier: str) -> st.SearchStrategy[Any]:
    schema = codec_of(catalog, identifier).schema
    return values_of(schema, schema.get("$defs", {}))


def values_of(  # noqa: PLR0911 - one line per word of the vocabulary
    schema: Any, definitions: Any
) -> st.SearchStrategy[Any]:
    """Return what fits a schema, for the words that the catalog's schemas use."""
    if not schema:
        return anything
    if "$ref" in schema:
        definition = definitions[schema["$ref"].removeprefix("#/$defs/")]
        return st.deferred(lambda: values_of(definition, definitions))
    if "const" in schema or "enum" in schema:
        return st.sampled_from(schema.get("enum", [schema.get("const")]))
    if branches := schema.get("oneOf") or schema.get("anyOf"):
        fitting = st.one_of([values_of(branch, definitions) for branch in branches])
        if "properties" not in schema:
            return fitting
        base = objects_of(schema, definitions)
        return st.builds(lambda branch, common: {**branch, **common}, fitting, base)
    if schema["type"] == "object":
        return objects_of(schema, definitions)
    if schema["type"] == "array":
        return st.lists(values_of(schema["items"], definitions), max_size=3)
    return scalars_of(schema)


def objects_of(schema: Any, definitions: Any) -> st.SearchStrategy[Any]:
    if "properties" not in schema:
        values = values_of(schema["additionalProperties"], definitions)
        return st.dictionaries(st.text(), values, max_size=2)
    members = {name: values_of(each, definitions) for name, each in schema["properties"].items()}
    required = {name: members[name] for name in schema["required"]}
    optional = {name: each for name, each in members.items() if name not in required}
    unknown = st.dictionaries(st.text().map("unknown {}".format), anything, max_size=1)
    known = st.fixed_dictionaries(required, optional=optional)
    return st.builds(lambda more, own: {**more, **own}, unknown, known)


def scalars_of(schema: Any) -> st.SearchStrategy[Any]:
    low = schema.get("minimum", -(2**40))
    high = schema.get("maximum", 2**40)
    if schema["type"] == "string":
        return FORMATS.get(schema.get("format", ""), st.text())
    if schema["type"] == "boolean":
        return st.booleans()
    whole = st.integers(low, high)
    return whole if schema["type"] == "integer" else whole | st.floats(low, high)


@pytest.mark.parametrize(("catalog", "identifier"), TASKS)
def test_what_the_schema_allows_is_accepted_and_survives_the_class(
    catalog: str, identifier: str
) -> None:
    plain = codec_of(catalog, identifier)
    typed = plain.typed(payload_type(identifier))

    @quick
    @given(payloads(catalog, identifier))
    def check(value: Any) -> None:
        stored = json.loads(plain.encode(value))
        stripped = plain.decode(stored)
        instance = typed.decode(stored)
        assert json.loads(typed.encode(instance)) == json.loads(stringify(stripped))
        assert typed.decode(json.loads(typed.encode(instance))) == instance

    check()


odd = anything | st.sampled_from(
    ["\ud800", "1", "x:", "2024-13-01", 1.0, -0.0, 1e300, 2**70, 10**400, "MANUAL", [], {}]
)


@st.composite
def damaged(draw: Any, values: st.SearchStrategy[Any]) -> Any:
    """Replace or remove something in a valid payload."""
    value = json.loads(json.dumps(draw(values)))
    place, spot = None, value
    while isinstance(spot, dict | list) and spot and (place is None or draw(st.booleans())):
        key = draw(st.sampled_from(sorted(spot) if isinstance(spot, dict) else range(len(spot))))
        place, spot = (spot, key), spot[key]
    if place is None or draw(st.integers(0, 9)) == 0:
        return draw(odd)
    container, key = place
    if draw(st.booleans()):
        container[key] = draw(odd)
    else:
        del container[key]
    return value


@pytest.mark.parametrize(("catalog", "identifier"), TASKS)
def test_the_fast_validator_agrees_with_the_reference(catalog: str, identifier: str) -> None:
    schema = codec_of(catalog, identifier).schema
    fast, reference = fast_validator(schema), reference_validator(schema)

    @quick
    @given(damaged(payloads(catalog, identifier)))
    def check(value: Any) -> None:
        assert fast(value) is reference.is_valid(value)

    check()


@pytest.mark.parametrize("catalog", shipped())
def test_the_classes_are_current(catalog: str) -> None:
    directory = Path(triggerdev.__file__).parent
    assert codegen.is_current(WorkerCatalog.load(catalog), directory)


def test_a_branch_is_built_without_saying_which_it_is() -> None:
    email = triggerdev.ScheduleEmailInvite(
        to="a@b", orgName="o", inviterEmail="c@d", inviteLink="https://example.com"
    )
    assert email.email == "invite"
    codec = codec_of("workerQueue", "scheduleEmail").typed(triggerdev.ScheduleEmail)
    assert codec.decode(json.loads(codec.encode(email))) == email


def test_a_source_without_a_version_is_of_version_one() -> None:
    codec = codec_of("workerQueue", "activateSource").typed(triggerdev.ActivateSource)
    assert codec.decode({"id": "s"}) == triggerdev.ActivateSource1(id="s")
    assert codec.decode({"id": "s", "version": "2"}) == triggerdev.ActivateSource2(id="s")


def test_null_differs_from_nothing_where_anything_goes() -> None:
    codec = codec_of("workerQueue", "indexEndpoint").typed(triggerdev.IndexEndpoint)
    assert codec.decode({"id": "e"}).sourceData is UNSET
    assert codec.decode({"id": "e", "sourceData": None}).sourceData is None
    assert codec.encode(triggerdev.IndexEndpoint(id="e")) == '{"id":"e"}'
    assert codec.encode(triggerdev.IndexEndpoint(id="e", sourceData=None)) == (
        '{"id":"e","sourceData":null}'
    )


def test_a_class_says_what_its_task_is() -> None:
    assert triggerdev.StartRun.__doc__ == "`startRun` of workerQueue: 4 attempts, priority 0."
