"""Any file as a catalog or schema, any crontab: it is loaded, or refused by name and place."""

import copy
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from zodworker_compat import resources
from zodworker_compat.catalog import WorkerCatalog, shipped
from zodworker_compat.cron import (
    CronItem,
    CrontabError,
    KnownCrontab,
    backfill,
    next_after,
    parse_cron_item,
    parse_cron_items,
    parse_crontab,
)
from zodworker_compat.database.connect import address, resolve_conninfo, with_defaults
from zodworker_compat.errors import CatalogError, ConfigurationError, EnqueueError

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats()
    | st.text()
    | st.sampled_from(
        ["", "#", "#/$defs/a", "\0", "\ud800", "object", "x.json", "x" * 200, 10**400]
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
WORDS = [
    "$ref",
    "$defs",
    "$id",
    "$anchor",
    "$dynamicRef",
    "$schema",
    "type",
    "properties",
    "items",
    "additionalProperties",
    "required",
    "allOf",
    "anyOf",
    "oneOf",
    "not",
    "if",
    "then",
    "else",
    "enum",
    "const",
    "pattern",
    "patternProperties",
    "format",
    "default",
    "minimum",
    "maximum",
    "multipleOf",
    "minLength",
    "maxItems",
    "uniqueItems",
    "contains",
    "prefixItems",
    "dependentSchemas",
    "propertyNames",
    "unevaluatedProperties",
    "x-zod",
    "x-zod-discriminator",
    "x-zod-preprocess",
]
VALUES = st.sampled_from(
    [
        "#",
        "#/$defs/a",
        "#/$defs/b",
        "#a",
        "other.json",
        "../x.json",
        "http://x/",
        "object",
        "string",
        "date-time",
        "uri",
        "coerce.date",
        "(",
        "(a+)+$",
        "[�]",
        "^\\p{L}",
        "a",
        "",
        0,
        -1,
        2.5,
        True,
        False,
        None,
        10**400,
        "urn:uuid:x",
        "file:///etc/passwd",
        "//host/x",
    ]
)
SCHEMAS = st.recursive(
    st.booleans() | VALUES,
    lambda inner: (
        st.dictionaries(st.sampled_from([*WORDS, "a", "b", "#"]), inner, max_size=4)
        | st.lists(inner, max_size=3)
    ),
    max_leaves=15,
)
slow = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


def load(folder: Path, content: bytes) -> None:
    """Load and check a file as a catalog."""
    file = folder / "catalog.json"
    file.write_bytes(content)
    refusal = "catalog.json"
    try:
        catalog = WorkerCatalog.load(file)
        catalog.check()
        for identifier in catalog:
            use(catalog, identifier)
    except CatalogError as error:
        refusal = str(error)
    assert "catalog.json" in refusal or "task" in refusal


def use(catalog: WorkerCatalog, identifier: str) -> None:
    codec = catalog.get(identifier).codec
    for payload in ({}, [], None, 1, "a", {"a": {"a": [1, {}]}}):
        try:
            codec.decode(json.loads(codec.encode(payload)))
        except EnqueueError as error:
            str(error)


HOSTILE = {
    "empty": b"",
    "not JSON": b"{",
    "not UTF-8": b'{"tasks": {"\xff": {}}}',
    "UTF-16": '{"tasks": {}}'.encode("utf-16"),
    "byte order mark": b"\xef\xbb\xbf{}",
    "NUL": b"\0" * 100,
    "deep": b"[" * 100_000 + b"]" * 100_000,
    "deep schema": b'{"tasks": {"a": {"schema": ' + b'{"not": ' * 900 + b"{}" + b"}" * 903,
    "digits": b'{"tasks": ' + b"9" * 5000 + b"}",
    "NaN": b'{"tasks": {"a": {"schema": {"minimum": NaN}, "priority": Infinity}}}',
    "surrogates": b'{"name": "\\ud800", "tasks": {"\\ud800": {"schema": true, "jobKey": "\\udfff"}}}',
    "NUL in a name": b'{"tasks": {"a\\u0000": {"schema": true, "queueName": "\\u0000"}}}',
    "NUL in a path": b'{"tasks": {"a": {"schema": "a\\u0000.json"}}}',
    "surrogate in a path": b'{"tasks": {"a": {"schema": "\\ud800.json"}}}',
    "path too long": b'{"tasks": {"a": {"schema": "' + b"x" * 100_000 + b'"}}}',
    "itself": b'{"tasks": {"a": {"schema": "catalog.json"}}}',
    "its folder": b'{"tasks": {"a": {"schema": "."}}}',
    "outside": b'{"tasks": {"a": {"schema": "../../../../../../etc/passwd"}}}',
    "a device": b'{"tasks": {"a": {"schema": "/dev/zero"}}}',
    "ref to itself": b'{"tasks": {"a": {"schema": {"$ref": "#"}}}}',
    "refs in a ring": b'{"tasks": {"a": {"schema": {"$ref": "#/$defs/a", "$defs":'
    b' {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}}}}',
    "allOf of itself": b'{"tasks": {"a": {"schema": {"allOf": [{"$ref": "#"}, {"$ref": "#"}]}}}}',
    "not itself": b'{"tasks": {"a": {"schema": {"not": {"$ref": "#"}}}}}',
    "ref into /etc": b'{"tasks": {"a": {"schema": {"$ref": "file:///etc/passwd"}}}}',
    "ref to a site": b'{"tasks": {"a": {"schema": {"$ref": "https://example.com/x.json"}}}}',
    "wrong regex": b'{"tasks": {"a": {"schema": {"type": "string", "pattern": "("}}}}',
    "regex of JavaScript alone": b'{"tasks": {"a": {"schema": {"pattern": "^\\\\p{Lu}(?<a>x)$"}}}}',
    "regex of Python alone": b'{"tasks": {"a": {"schema": {"pattern": "(?P<a>x)(?(a)y|z)"}}}}',
    "wrong pattern of keys": b'{"tasks": {"a": {"schema": {"patternProperties": {"(": true}}}}}',
    "many names": json.dumps({"tasks": {f"t{i}": {"schema": True} for i in range(3000)}}).encode(),
    "long name": json.dumps({"tasks": {"x" * 129: {"schema": True}}}).encode(),
    "wrong cron": b'{"tasks": {}, "recurring": {"a": {"match": "* * * * 99"}}}',
    "$id": b'{"tasks": {"a": {"schema": {"$id": "http://[", "$ref": "x"}}}}',
    "$ids": b'{"tasks": {"a": {"schema": {"properties": {"b": {"$id": 5, "$ref": "#/a"}}}}}}',
    "anchors": b'{"tasks": {"a": {"schema": {"$anchor": 1, "$dynamicRef": "#x"}}}}',
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_catalog_is_loaded_or_refused(tmp_path, name) -> None:
    load(tmp_path, HOSTILE[name])


@pytest.mark.parametrize(
    "name", ["\0", "a\0.json", "/dev/null", ".", "/", "x" * 5000 + "/", "\ud800/"]
)
def test_an_odd_path_is_refused(name) -> None:
    with pytest.raises(CatalogError):
        WorkerCatalog.load(name)


@slow
@given(st.binary() | st.text().map(lambda text: text.encode(errors="surrogatepass")))
def test_any_bytes_are_refused(tmp_path, content) -> None:
    with pytest.raises(CatalogError):
        WorkerCatalog.load(write(tmp_path, content))


def write(folder: Path, content: bytes) -> Path:
    (folder / "catalog.json").write_bytes(content)
    return folder / "catalog.json"


SHIPPED = [
    json.loads((resources.folder("catalog") / f"{name}.json").read_text("utf-8"))
    for name in shipped()
]


@slow
@given(st.data())
def test_any_mutation_of_a_shipped_catalog_is_loaded_or_refused(tmp_path, data) -> None:
    content = copy.deepcopy(data.draw(st.sampled_from(SHIPPED)))
    for identifier in [*content["tasks"]][2:]:
        del content["tasks"][identifier]
    for _ in range(data.draw(st.integers(1, 3))):
        mutate(data, content)
    load(tmp_path, json.dumps(content).encode())


def mutate(data: Any, content: Any) -> None:
    """Replace, add or remove something somewhere."""
    place = content
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        inner = [key for key in keys if isinstance(place[key], dict | list) and place[key]]
        if not inner or not data.draw(st.booleans()):
            break
        place = place[data.draw(st.sampled_from(inner))]
    value = data.draw(JSON | SCHEMAS)
    if isinstance(place, list):
        place.append(value)
    elif keys and data.draw(st.booleans()):
        del place[data.draw(st.sampled_from(keys))]
    else:
        place[data.draw(st.text() | st.sampled_from([*keys, "schema", "jobKey", "flags"]))] = value


@given(SCHEMAS, SCHEMAS)
@example({"$ref": "#"}, True)
@example({"$ref": "#/$defs/a"}, {"anyOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}]})
def test_any_schema_is_compiled_or_refused(schema, definition) -> None:
    if isinstance(schema, dict):
        schema = {**schema, "$defs": {"a": definition, "b": schema}}
    refusal = "'a'"
    try:
        catalog = WorkerCatalog.of(schema={"a": schema}, tasks={"a": {}})
        use(catalog, "a")
    except CatalogError as error:
        refusal = str(error)
    assert "'a'" in refusal


@given(JSON, JSON, st.dictionaries(st.text() | st.sampled_from(["a", "\0", "\ud800"]), JSON))
def test_any_catalog_in_code_is_made_or_refused(schema, tasks, options) -> None:
    for given_schema, given_tasks in (
        (schema, tasks),
        ({"a": True}, {"a": options}),
        (dict.fromkeys(options, True), {name: {} for name in options}),
    ):
        try:
            catalog = WorkerCatalog.of(schema=given_schema, tasks=given_tasks)
        except CatalogError as error:
            str(error)
        else:
            for identifier in catalog:
                identifier.encode()
                assert "\0" not in identifier


# --- crontabs

PARTS = st.sampled_from(
    [
        "*",
        "0",
        "*/5",
        "1-5",
        "7",
        "60",
        "*/0",
        "5-1",
        "1,2",
        "9" * 5000,
        "-",
        "a",
        "",
        "\x00",
        "�",
        "?id=x",
        "?fill=1d",
        "?fill=" + "9" * 500 + "w",
        "?max=0",
        "?max=" + "9" * 5000,
        "?jobKey=%00",
        "?queue=a&queue=b",
        "?jobKeyMode=x",
        "?priority=-99999",
        "?jobKey=%ff%fe",
        "{a: 1}",
        "{a: NaN}",
        "{" * 5000,
        "{a: " * 500 + "1" + "}" * 500,
        "{'\\ud800': '\\u0000'}",
        "{a: 9e999}",
        "task",
        "#",
        "\u2028",
        "\ufeff",
        "\r",
        "x" * 200,
        "{a: 0x" + "f" * 5000 + "}",
        "{a: " + "9" * 5000 + "}",
    ]
)
LINES = st.lists(PARTS, max_size=9).map(" ".join)


@given(st.lists(LINES | st.text(), max_size=3).map("\n".join))
@example("* * * * * task {a: 0x" + "f" * 5000 + "}")
@example("0 4 * * * task ?fill=" + "9" * 500 + "w")
def test_any_crontab_is_read_or_refused(text) -> None:
    refusal, items = "", []
    try:
        items = parse_crontab(text)
    except CrontabError as error:
        refusal = str(error)
    assert len(refusal) < 50_000
    for item in items:
        scheduled(item)


@given(st.lists(PARTS, min_size=6, max_size=9).map(" ".join))
def test_any_line_of_likely_parts_is_read_or_refused(line) -> None:
    test_any_crontab_is_read_or_refused.hypothesis.inner_test(f"* * * * * {line}")


NAMES = ["task", "match", "identifier", "payload", "options"]
OPTIONS = [
    "backfill_period",
    "max_attempts",
    "queue_name",
    "priority",
    "job_key",
    "job_key_mode",
    "time_zone",
    "catch_up",
]
ODD = JSON | st.sampled_from(
    [
        10**5000,
        timedelta.max,
        timedelta.min,
        1e308,
        float("nan"),
        "../UTC",
        "/etc/passwd",
        "\x00",
        object(),
        b"x",
        "Europe/Berlin",
        "latest",
        "x" * 600,
        lambda digest: 1 / 0,
        {1: 2},
        {"a": object()},
    ]
)


@given(st.dictionaries(st.sampled_from(NAMES), ODD), st.dictionaries(st.sampled_from(OPTIONS), ODD))
@example({}, {"backfill_period": 10**5000})
@example({}, {"time_zone": "\0"})
@example({}, {"time_zone": "x" * 5000})
@example({"task": "\0"}, {})
def test_any_item_in_code_is_made_or_refused(item, options) -> None:
    for definition in (
        item,
        {"task": "a", "match": "* * * * *", **item},
        {"task": "a", "match": "* * * * *", "options": options},
    ):
        try:
            made = parse_cron_item(definition)
        except CrontabError as error:
            str(error)
        else:
            scheduled(made)


@given(ODD)
def test_any_list_of_items_is_made_or_refused(definitions) -> None:
    for given_ in (definitions, [definitions]):
        try:
            parse_cron_items(given_)
        except CrontabError as error:
            str(error)


def scheduled(item: CronItem) -> None:
    """Use an item as the runner does: what it owes is computed, and can be stored."""
    item.task.encode()
    item.identifier.encode()
    assert "\0" not in item.task + item.identifier
    now = datetime(2024, 2, 29, 12, 30, 15, tzinfo=UTC)
    if not callable(item.match):
        next_after(item.match, item.options.zone, now)
        for since in (datetime.min, now.replace(tzinfo=None), datetime.max):  # noqa: DTZ901
            moment = since.replace(tzinfo=UTC)
            backfill(
                [(item, KnownCrontab(identifier="a", known_since=moment, last_execution=None))], now
            )
            backfill(
                [(item, KnownCrontab(identifier="a", known_since=now, last_execution=moment))], now
            )


# --- connection strings

DSN_PARTS = st.sampled_from(
    [
        "postgresql://",
        "postgres://",
        "host=",
        "password=",
        "user",
        "@",
        ":",
        "/",
        "?",
        "&",
        "=",
        "%",
        "%00",
        "sslmode=require",
        "schema=public",
        "'",
        "\\",
        " ",
        "\n",
        "\x00",
        "�",
        "[::1]",
        "5432",
        ",",
        "service=x",
        "passfile=/dev/null",
        "port=abc",
        "application_name=x",
        "#",
        "\u2028",
        "99999",
    ]
)


@given(st.lists(DSN_PARTS, max_size=12).map("".join) | st.text())
@example("postgresql://u:p@h/d%00")
@example("host=\0")
@example("host=\ud800")
def test_any_connection_string_is_taken_or_refused(text) -> None:
    for environ, explicit in (({}, text), ({"DATABASE_URL": text}, None)):
        try:
            conninfo = resolve_conninfo(explicit, environ)
        except ConfigurationError as error:
            str(error)
        else:
            address(conninfo)
            with_defaults(conninfo, application_name="x")
