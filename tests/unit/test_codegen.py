"""The classes that are written from a catalog: names, types, defaults, and a module that works."""

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from zodworker_compat import codegen
from zodworker_compat.catalog import WorkerCatalog
from zodworker_compat.payload import UNSET

STRING = {"type": "string"}
SCHEMAS: dict[str, Any] = {
    "my-task.done": {
        "type": "object",
        "description": 'Says "done".',
        "properties": {
            "class": STRING,
            "list": {"type": "array", "items": STRING, "default": ["a"]},
            "size": {"enum": ["s", 1, None]},
            "half": {"enum": [0.5]},
            "note": {"type": ["string", "null"]},
            "maybe": {"anyOf": [{"type": "number"}, STRING]},
            "tree": {"$ref": "#/$defs/tree"},
            "2nd": {"type": "boolean"},
            "a-b": STRING,
            "a_b": STRING,
            "_1": STRING,
            "nested": {"type": "object", "properties": {"at": {"x-zod": "coerce.date"}}},
            "options": {"type": "object", "default": {"k": 'it\'s "x"'}},
        },
        "required": ["class", "nested"],
        "$defs": {
            "tree": {
                "type": "object",
                "properties": {
                    "name": STRING,
                    "children": {"type": "array", "items": {"$ref": "#/$defs/tree"}},
                },
                "required": ["name"],
            }
        },
    },
    "numbers": {"type": "array", "items": {"type": "integer"}},
    "anything": True,
    "2fa": {
        "anyOf": [
            {"type": "object", "properties": {"a": STRING}, "required": ["a"]},
            {"type": "object", "properties": {"b": STRING}, "required": ["b"]},
        ]
    },
}


@pytest.fixture
def catalog() -> WorkerCatalog:
    return WorkerCatalog.of(schema=SCHEMAS, tasks={name: {} for name in SCHEMAS}, name="myWorker")


@pytest.fixture
def module(catalog: WorkerCatalog, tmp_path: Path) -> Iterator[ModuleType]:
    path, _ = codegen.write(catalog, tmp_path)
    spec = importlib.util.spec_from_file_location("generated_payloads", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["generated_payloads"] = module  # attrs looks up names in a class's module
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        del sys.modules["generated_payloads"]


@pytest.mark.parametrize(
    ("identifier", "name"),
    [
        ("startRun", "StartRun"),
        ("events.invokeDispatcher", "EventsInvokeDispatcher"),
        ("v3.resumeBatchRun", "V3ResumeBatchRun"),
        ("stopVM", "StopVM"),
        ("send_e-mail", "SendEMail"),
        ("2fa", "Payload2fa"),
    ],
)
def test_classes_are_named_after_their_identifiers(identifier: str, name: str) -> None:
    assert codegen.class_name(identifier) == name


def test_a_generated_class_is_filled_and_written_back(
    catalog: WorkerCatalog, module: ModuleType
) -> None:
    codec = catalog.get("my-task.done").codec.typed(module.MyTaskDone)
    value = {
        "class": "x",
        "list": ["b"],
        "size": None,
        "half": 0.5,
        "note": None,
        "maybe": 1.5,
        "tree": {"name": "a", "children": [{"name": "b"}]},
        "2nd": True,
        "a-b": "first",
        "a_b": "second",
        "_1": "third",
        "nested": {"at": "2024-01-02T00:00:00.000Z"},
        "options": {"k": [1]},
    }
    payload = codec.decode(value)
    assert payload.class_ == "x"
    assert payload.size is None
    assert (payload.a_b, payload.a_b_) == ("first", "second")
    assert payload.tree.children == [module.Tree(name="b")]
    assert codec.decode(json.loads(codec.encode(payload))) == payload


def test_defaults_are_the_schemas_and_optional_fields_stay_unset(
    catalog: WorkerCatalog, module: ModuleType
) -> None:
    payload = module.MyTaskDone(class_="x", nested=module.MyTaskDoneNested())
    assert payload.list_ == ["a"]
    assert payload.options == {"k": 'it\'s "x"'}
    assert payload.note is UNSET
    assert payload.size is UNSET
    codec = catalog.get("my-task.done").codec
    assert codec.encode(payload) == (
        '{"class":"x","list":["a"],"nested":{},"options":{"k":"it\'s \\"x\\""}}'
    )


def test_what_is_not_an_object_gets_an_alias(catalog: WorkerCatalog, module: ModuleType) -> None:
    assert module.Numbers == list[int]
    assert "Anything" not in module.__all__
    codec = catalog.get("2fa").codec.typed(module.Payload2fa)
    assert codec.decode({"b": "x", "z": 1}) == module.Payload2fa2(b="x")


def test_a_stale_module_is_noticed(catalog: WorkerCatalog, tmp_path: Path) -> None:
    assert not codegen.is_current(catalog, tmp_path)
    module, index = codegen.write(catalog, tmp_path)
    assert module.name == "my_worker.py"
    assert codegen.is_current(catalog, tmp_path)
    index.write_text("")
    assert not codegen.is_current(catalog, tmp_path)
    codegen.write(catalog, tmp_path)
    module.write_text(module.read_text() + "\n")
    assert not codegen.is_current(catalog, tmp_path)


def test_a_package_of_several_catalogs_exports_them_all_and_leaves_other_files_alone(
    catalog: WorkerCatalog, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text('__all__ = ["Other"]\n')
    codegen.write(catalog, tmp_path)
    codegen.write(WorkerCatalog.load("executionWorker"), tmp_path)
    index = (tmp_path / "__init__.py").read_text()
    assert '"MyTaskDone"' in index
    assert '"PerformRunExecutionV2"' in index
    assert "Other" not in index
