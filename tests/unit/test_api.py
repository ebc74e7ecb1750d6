"""The public names: all there, documented, and loaded only when they are used."""

import subprocess
import sys

import pytest

import zodworker_compat
from zodworker_compat import api


@pytest.mark.parametrize("name", api.__all__)
def test_every_public_name_can_be_imported_and_is_documented(name: str) -> None:
    value = getattr(zodworker_compat, name)
    assert value is getattr(api, name)
    assert name in dir(zodworker_compat)
    if isinstance(value, type):
        assert value.__doc__


def test_a_star_imports_them() -> None:
    names: dict[str, object] = {}
    exec("from zodworker_compat import *", names)  # noqa: S102 - the statement under test
    assert {*api.__all__} <= {*names}


def test_other_names_are_an_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'ZodWroker'"):
        _ = zodworker_compat.ZodWroker


def test_importing_the_package_alone_loads_nothing_heavy() -> None:
    code = "import sys, zodworker_compat; print(sorted({'psycopg', 'jsonschema', 'attrs'} & {*sys.modules}))"
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert printed.stdout == "[]\n"
