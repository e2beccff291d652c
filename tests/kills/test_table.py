"""docs/kills.md says what the tests of this folder show."""

from pathlib import Path

import pytest
from kills import table
from kills.kinds import LABELS, kind_of

ASKED = 3  # the column
SELDOM = 3  # rows that only kills at random moments can bring


def committed() -> list[list[str]]:
    """The cells of every row of the page."""
    lines = table.PAGE.read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return cells[2:]


def test_the_page_has_the_rows_of_the_tests_in_their_order() -> None:
    labels = [row[0] for row in committed()]
    assert labels == [*(label for label in LABELS if label in labels), "all"]
    assert len(labels) > len(LABELS) - SELDOM


def test_the_page_tells_of_enough_kills_and_of_nothing_done_twice() -> None:
    *rows, total = committed()
    assert int(total[1]) == sum(int(row[1]) for row in rows) >= 230
    assert {row[-1] for row in rows} == {"0"}
    assert all(int(row[1]) == int(row[2]) + int(row[ASKED]) for row in rows)


def test_a_boundary_has_one_row() -> None:
    assert kind_of("ledger before first running #1") == "the intent to change something is about to be written"
    assert kind_of("ledger after each[2] completed #1") == "the result of a change was written, its journal not"


def test_nothing_is_written_when_a_test_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(pytest, "main", failing)  # running the whole folder inside itself would never end
    assert table.main(tmp_path / "kills.md") == 1
    assert not (tmp_path / "kills.md").exists()


def failing(*_: object, **__: object) -> int:
    """A run in which a test failed."""
    return 1
