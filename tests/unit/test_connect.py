"""Finding the database: what is given, what the environment says, what is wrong with it."""

import pytest

from zodworker_compat.database.connect import address, resolve_conninfo
from zodworker_compat.errors import ConfigurationError


def test_what_is_given_comes_first() -> None:
    environ = {"DATABASE_URL": "postgresql://b/env", "PGHOST": "c"}
    assert resolve_conninfo("postgresql://a/given", environ) == "postgresql://a/given"
    assert resolve_conninfo(None, environ) == "postgresql://b/env"
    assert resolve_conninfo(None, {"PGHOST": "c"}) == ""


def test_nothing_given_names_the_three_ways_and_the_demo() -> None:
    with pytest.raises(ConfigurationError) as caught:
        resolve_conninfo(None, {"HOME": "/root"})
    for way in ("--database-url", "DATABASE_URL", "PGHOST", "zodworker demo"):
        assert way in str(caught.value)


@pytest.mark.parametrize(
    "given", ["mysql://u:secret@h/d", "postgresql://u:secret@h/d?bogus=1", "just words"]
)
def test_what_is_no_connection_string_is_refused_without_its_password(given: str) -> None:
    with pytest.raises(ConfigurationError, match="DATABASE_URL is not a PostgreSQL") as caught:
        resolve_conninfo(None, {"DATABASE_URL": given})
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "advice"),
    [
        ("postgresql://u:s3cret/x@h/d", "percent-encode"),
        ("postgresql+psycopg://u:s3cret@h/d", "leave out the driver's name"),
        ("postgresql://u:s3cret@h/d?sslmod=require", "there is no parameter 'sslmod'"),
        ("s3cret words", "expected postgresql://"),
    ],
)
def test_the_reason_is_named_without_the_password(given: str, advice: str) -> None:
    with pytest.raises(ConfigurationError, match=advice) as caught:
        resolve_conninfo(given, {})
    assert "s3" not in str(caught.value)


def test_prismas_parameters_are_dropped_and_others_kept() -> None:
    url = "postgresql://u@h:5432/d?schema=public&pgbouncer=true&connection_limit=5&sslmode=require"
    assert resolve_conninfo(url, {}) == "postgresql://u@h:5432/d?sslmode=require"
    assert resolve_conninfo("postgresql://u@h/d?sslaccept=strict", {}) == "postgresql://u@h/d"
    url = "postgresql://u@h/d?schema=public&options=-c%20statement_timeout%3D5s"
    assert resolve_conninfo(url, {}) == "postgresql://u@h/d?options=-c%20statement_timeout%3D5s"


def test_an_address_has_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    assert address("postgresql://u:secret@h:1/d") == "host h, port 1, database d"
    monkeypatch.setenv("PGHOST", "x")
    monkeypatch.setenv("PGDATABASE", "y")
    assert address("") == "host x, port 5432, database y"
