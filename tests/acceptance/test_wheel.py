"""What is shipped: the package with its data, nothing else, and it works without the checkout."""

import json
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = "zodworker_compat"
DATA = ("catalog", "schemas", "migrations")

JOBS = """\
from pathlib import Path

from zodworker_compat import ZodWorker

worker = ZodWorker(name="wheel", catalog="workerQueue")


@worker.task("startRun")
def start_run(payload: dict) -> None:
    Path("ran.txt").write_text(payload["id"])
"""


def run(*command: str | Path, **settings: Any) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True, **settings)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def not_committed(folder: str, names: list[str]) -> set[str]:
    hidden = {name for name in names if name.startswith(".") and name != ".gitignore"}
    return hidden | {"build", "dist", "node_modules", "__pycache__"} & set(names)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout in which files lie around that git ignores."""
    copy = tmp_path_factory.mktemp("tree") / "a checkout"
    shutil.copytree(ROOT, copy, ignore=not_committed)
    for name in (
        "catalog/.coverage.json",
        "schemas/build/junk.json",
        "zodworker_compat/dist/junk.py",
    ):
        (copy / name).parent.mkdir(exist_ok=True)
        (copy / name).write_text("junk")
    return copy


@pytest.fixture(scope="module")
def built(tree: Path) -> Path:
    """The folder with the wheel and the sdist of `tree`."""
    out = tree.parent / "built"
    run(sys.executable, "-m", "hatchling", "build", "-d", out, cwd=tree)
    return out


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    [wheel] = built.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def shipped(wheel: Path) -> set[str]:
    """The names of the files in the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_wheel_installs_the_package_and_nothing_beside_it(shipped: set[str]) -> None:
    tops = {name.split("/")[0] for name in shipped}
    [dist_info] = [top for top in tops if top.endswith(".dist-info")]
    assert tops == {PACKAGE, dist_info}
    assert not [name for name in shipped if Path(name).name.startswith(("test_", "conftest"))]


def test_wheel_carries_every_module_and_statement(tree: Path, shipped: set[str]) -> None:
    sources = {
        path.relative_to(tree).as_posix()
        for path in (tree / PACKAGE).rglob("*")
        if path.is_file() and not {"dist", "__pycache__"} & set(path.relative_to(tree).parts)
    }
    assert {f"{PACKAGE}/py.typed", f"{PACKAGE}/database/sql/add_job.sql"} <= sources
    assert {name for name in shipped if name.startswith(f"{PACKAGE}/")} >= sources


@pytest.mark.parametrize("folder", DATA)
def test_wheel_carries_the_data_inside_the_package(shipped: set[str], folder: str) -> None:
    committed = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / folder).rglob("*")
        if path.suffix in {".json", ".sql"}
    }
    prefix = f"{PACKAGE}/data/"
    found = {name.removeprefix(prefix) for name in shipped if name.startswith(f"{prefix}{folder}/")}
    assert committed
    assert found == committed


def test_wheel_carries_the_input_of_the_demo(shipped: set[str]) -> None:
    assert f"{PACKAGE}/data/examples/events.jsonl" in shipped


def test_files_that_git_ignores_are_not_shipped(built: Path, shipped: set[str]) -> None:
    [sdist] = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = shipped | set(archive.getnames())
    assert not [name for name in names if "junk" in name or ".coverage" in name]


def test_wheel_of_the_sdist_is_the_wheel_of_the_checkout(
    built: Path, shipped: set[str], tmp_path: Path
) -> None:
    [sdist] = built.glob("*.tar.gz")
    run("tar", "-xzf", sdist, "-C", tmp_path)
    [unpacked] = tmp_path.iterdir()
    run(
        sys.executable,
        "-m",
        "hatchling",
        "build",
        "-t",
        "wheel",
        "-d",
        tmp_path / "again",
        cwd=unpacked,
    )
    [again] = (tmp_path / "again").glob("*.whl")
    with zipfile.ZipFile(again) as archive:
        assert set(archive.namelist()) == shipped


def install(wheel: Path, folder: Path) -> Path:
    """Install a wheel in an empty virtualenv; returns the folder of its commands."""
    if uv := shutil.which("uv"):
        run(uv, "venv", "--quiet", "--python", sys.executable, folder)
        run(uv, "pip", "install", "--quiet", "--python", folder / "bin" / "python", wheel)
    else:
        run(sys.executable, "-m", "venv", folder)
        run(folder / "bin" / "python", "-m", "pip", "install", "--quiet", wheel)
    return folder / "bin"


@pytest.mark.timeout(300)  # the dependencies may have to be downloaded
def test_installed_wheel_runs_a_job_without_the_checkout(
    wheel: Path, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", database)
    command = install(wheel, tmp_path / "an environment") / "zodworker"
    Path("jobs.py").write_text(JOBS)

    assert wheel.name.split("-")[1] in run(command, "--version")
    run(command, "catalog", "check")
    run(command, "enqueue", "startRun", json.dumps({"id": "run_1"}))
    run(command, "run", "--app", "jobs:worker", "--once")

    assert Path("ran.txt").read_text() == "run_1"


def test_package_works_from_a_bare_checkout(tree: Path) -> None:
    program = "from zodworker_compat import resources; print(resources.folder('catalog'))"
    isolated = f"import sys; sys.path.insert(0, {str(tree)!r}); {program}"
    assert run(sys.executable, "-P", "-c", isolated, cwd=tree.parent).strip() == str(
        tree / "catalog"
    )
