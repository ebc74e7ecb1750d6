"""Every row of the parity list has a test that is named after it."""

import re
from pathlib import Path

ROWS = {
    "test_enqueue_rows.py": range(1, 31),
    "test_dequeue_rows.py": range(31, 37),
    "test_run_rows.py": range(37, 50),
    "test_service_rows.py": range(50, 61),
}
PENDING: set[int] = set()
"""Rows of parts that are not built yet."""


def test_every_row_has_a_test_in_its_file() -> None:
    tested = set()
    for name, rows in ROWS.items():
        source = (Path(__file__).parent / name).read_text("utf-8")
        names = re.findall(r"^(?:async )?def (test_\w+)\(", source, re.MULTILINE)
        numbers = [re.match(r"test_p(\d\d)_[a-z]", each) for each in names]
        assert None not in numbers, f"{name}: a test without the number of its row"
        found = {int(number[1]) for number in numbers if number}
        assert found <= set(rows), f"{name}: rows of another file"
        tested |= found
    assert tested.isdisjoint(PENDING), "remove the rows from PENDING that have a test now"
    assert tested | PENDING == set(range(1, 61))
