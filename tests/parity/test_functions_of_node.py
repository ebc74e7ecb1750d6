"""The tests of the schema's functions, on a schema that graphile-worker made: they are right."""

import importlib.util
from pathlib import Path
from secrets import token_hex

import psycopg
import pytest

_path = Path(__file__).parent.parent / "integration" / "test_functions.py"
_spec = importlib.util.spec_from_file_location("functions_of_node", _path)
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
globals().update({name: value for name, value in vars(_module).items() if not name.startswith("_")})


@pytest.fixture(scope="module", params=["0.16", "0.17"])
def node_template(request, server, node):
    """The name of a database with the schema of Node, to make others from."""
    name = f"node_{token_hex(6)}"
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute(f"create database {name}")
        node("migrate", request.param, server.dsn(name), "graphile_worker")
        yield name
        connection.execute(f"drop database {name} with (force)")


@pytest.fixture
def url(server, node_template):
    name = f"test_{token_hex(6)}"
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute(f"create database {name} template {node_template}")
        yield server.dsn(name)
        connection.execute(f"drop database {name} with (force)")
