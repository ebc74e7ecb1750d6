"""Write the sync twins of what callers use: `x_async.py` -> `x.py`. `--check` only compares.

As psycopg does it, but by substitution of words: the async sources keep to constructs for which
that is enough.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "zodworker_compat"
SOURCES = (
    PACKAGE / "database" / "migrate_async.py",
    PACKAGE / "database" / "rows_async.py",
    PACKAGE / "database" / "jobs_async.py",
    PACKAGE / "database" / "admin_async.py",
    PACKAGE / "database" / "look_async.py",
    PACKAGE / "database" / "own_tables_async.py",
    PACKAGE / "database" / "pool_async.py",
    PACKAGE / "client" / "transactions_async.py",
    PACKAGE / "client" / "admin_async.py",
    PACKAGE / "client" / "client_async.py",
)
WORDS = (
    (r"\basync (def|with|for)\b", r"\1"),
    (r"\bawait ", ""),
    (r"\basynccontextmanager\b", "contextmanager"),
    (r"\basyncio\.get_running_loop\(\)", "os.getpid()"),
    (r"\basyncio\.sleep\b", "time.sleep"),
    (r"\bimport asyncio\b", "import os"),
    (r"\bAsync(?=[A-Z])", ""),
    (r"\benter_async_context\b", "enter_context"),
    (r"(?<=\w)_async\b", ""),
    (r"\b(\w+) as \1\b", r"\1"),
)
HEADER = (
    "# Generated from {source} by tools/async_to_sync.py: edit that file and run `make sync`.\n"
)


def twin(source: Path) -> str:
    """Return the text of the sync twin."""
    text = source.read_text("utf-8")
    for pattern, replacement in WORDS:
        text = re.sub(pattern, replacement, text)
    text = HEADER.format(source=source.name) + text
    for command in (("check", "--select", "I,F401", "--fix-only"), ("format",)):
        text = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--quiet", "--stdin-filename", source, "-"],
            input=text,
            text=True,
            capture_output=True,
            check=True,
            cwd=ROOT,
        ).stdout
    return text


def main() -> int:
    """Write or check every twin; 1 if one was out of date."""
    stale = 0
    for source in SOURCES:
        target = source.with_name(source.name.replace("_async", ""))
        text = twin(source)
        if target.exists() and target.read_text("utf-8") == text:
            continue
        stale += 1
        if "--check" in sys.argv:
            print(f"{target.relative_to(ROOT)} is out of date: run `make sync`")
        else:
            target.write_text(text, "utf-8")
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    raise SystemExit(main())
