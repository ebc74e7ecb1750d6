"""The others, in the versions of the lock files, in a cache of their own: never in ours.

``python -m benchmarks.install``
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent
PYTHON_LOCK = HERE / "requirements.txt"
NODE_LOCK = HERE.parent / "tests" / "parity" / "package-lock.json"
"""Shared with the parity tests, and so is their cache."""


def _folder(kind: str, lock: Path, key: str = "") -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    version = hashlib.sha256(lock.read_bytes() + key.encode()).hexdigest()[:16]
    return cache / f"zodworker-compat-{kind}" / version


def _python_folder() -> Path:
    return _folder("benchmarks", PYTHON_LOCK, sys.version)


def _node_folder() -> Path:
    return _folder("parity", NODE_LOCK)


def python() -> Path | None:
    """Return the interpreter that has the Python peers and matplotlib; None if not installed."""
    folder = _python_folder()
    return folder / "venv" / "bin" / "python" if (folder / "installed").exists() else None


def node_modules() -> Path | None:
    """Return the folder with graphile-worker 0.16.6 and 0.17.3; None if not installed."""
    folder = _node_folder()
    found = (folder / "installed").exists() and shutil.which("node")
    return folder / "node_modules" if found else None


def _once(folder: Path, install: Callable[[Path], None]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "installed").exists():
            install(folder)
            (folder / "installed").touch()


def _install_python(folder: Path) -> None:
    venv = str(folder / "venv")
    interpreter = f"{venv}/bin/python"
    if uv := shutil.which("uv"):
        subprocess.run([uv, "venv", "-q", "--clear", "--python", sys.executable, venv], check=True)
        install = [uv, "pip", "install", "-q", "--python", interpreter]
    else:
        subprocess.run([sys.executable, "-m", "venv", "--clear", venv], check=True)
        install = [interpreter, "-m", "pip", "install", "-q"]
    subprocess.run([*install, "-r", str(PYTHON_LOCK)], check=True)


def _install_node(folder: Path) -> None:
    for file in (NODE_LOCK.with_name("package.json"), NODE_LOCK):
        shutil.copy(file, folder)
    subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=folder, check=True)


def main() -> None:
    """Install what is missing; without npm, the Python peers alone."""
    _once(_python_folder(), _install_python)
    if shutil.which("node") and shutil.which("npm"):
        _once(_node_folder(), _install_node)
    else:
        sys.exit("Without node and npm there is no graphile-worker to compare with.")


if __name__ == "__main__":
    main()
