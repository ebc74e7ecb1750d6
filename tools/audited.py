"""Says what pip-audit has found; fails if a package has a known vulnerability.

Where the advisories cannot be reached, `pip-audit` alone says that there are none, and with `--strict` it
fails: here that is said loudly, and fails nothing.
"""

import json
import sys
from pathlib import Path
from typing import Any


def main(report: Path) -> int:
    """Print what a report of `pip-audit -f json` says; return the exit status."""
    packages: list[dict[str, Any]] = []
    if report.exists() and report.stat().st_size:
        packages = json.loads(report.read_text("utf-8"))["dependencies"]
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    found = [(package, each) for package in packages for each in package.get("vulns", ())]
    for package, vulnerability in found:
        fixed = ", ".join(vulnerability["fix_versions"]) or "no version yet"
        print(f"{package['name']} {package['version']}: {vulnerability['id']}, fixed in {fixed}")
    audited = len(packages) - len(skipped)
    print(f"{audited} packages looked up, {len(found)} known vulnerabilities")
    if skipped or not packages:
        names = ", ".join(skipped) or "all of them"
        print(f"!!! NOT AUDITED, no advisories could be read: {names}", file=sys.stderr)
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
