"""docs/survival.md says what the tests of this folder show."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
from survival_rows import Row

HERE = Path(__file__).parent


def load(name: str) -> ModuleType:
    """A file of this folder as a module."""
    found = importlib.util.spec_from_file_location(f"chaos_{name}", HERE / f"{name}.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[found.name] = module
    found.loader.exec_module(module)
    return module


def rows() -> list[Row]:
    """The rows of every test, in order."""
    tests = vars(load("test_survival")).values()
    return [test.survival for test in tests if hasattr(test, "survival")]


def committed() -> list[list[str]]:
    """The cells of every row of the page."""
    lines = (HERE.parents[1] / "docs" / "survival.md").read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return cells[2:]


def test_the_page_has_the_rows_of_the_tests_in_their_order() -> None:
    assert [row[:3] for row in committed()] == [[row.fault, row.callers, row.afterwards] for row in rows()]


def test_every_row_has_a_time_that_was_measured() -> None:
    assert [row[3] for row in committed() if float(row[3].removesuffix(" s")) < 0] == []


def test_every_test_of_a_fault_has_its_row() -> None:
    tests = {name: test for name, test in vars(load("test_survival")).items() if name.startswith("test_")}
    assert [name for name, test in tests.items() if not hasattr(test, "survival")] == []


def test_nothing_is_written_when_a_test_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    survival = load("survival")
    monkeypatch.setattr(survival, "PAGE", tmp_path / "survival.md")
    monkeypatch.setattr(survival.pytest, "main", failing)  # running the whole folder inside itself would never end
    assert survival.main() == 1
    assert not (tmp_path / "survival.md").exists()


def failing(*_: object, **__: object) -> int:
    """A run in which a test failed."""
    return 1
