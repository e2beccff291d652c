"""The survival table: `python tests/chaos/survival.py` runs the tests of this folder and writes docs/survival.md.

It writes nothing when one of them fails. A test compares what is committed with what the tests say, all but the
times, which belong to the machine that wrote them.
"""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "survival.md"
sys.path.insert(0, str(ROOT / "tests"))

from survival_rows import GOOD_S, Row  # noqa: E402 - found by the line above when this runs by itself

INTRO = """# What the fleet survives

Written by `python tests/chaos/survival.py` from the tests of that folder, which every test run repeats against real
processes: a hub, the spoke that is ill-treated, and a neighbour. In every row the neighbour answers every call
meanwhile, no change runs twice, and every change that ran was on record before it did.

The last column is the time from the moment the failed part is whole again until its first good call, in seconds,
on the 2-core machine that wrote this page, with other work going on; starting a process is part of it where one is
started. [Resilience](arch/11-resilience.md) says how it works.

| what fails | what its callers see | afterwards | first good call after |
|---|---|---|---|
"""


def line(row: Row, seconds: str) -> str:
    """One row of the table."""
    return f"| {row.fault} | {row.callers} | {row.afterwards} | {seconds} |\n"


class Recorder:
    """A pytest plugin that keeps, in the order they ran, each row and its time."""

    def __init__(self) -> None:
        self.rows: list[tuple[Row, str]] = []
        self._marked: dict[str, Row] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Find the rows."""
        for item in items:
            row = getattr(getattr(item, "function", None), "survival", None)
            if row is not None:
                self._marked[item.nodeid] = row

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep what a test that passed reported."""
        if report.when == "call" and report.passed and report.nodeid in self._marked:
            seconds = dict(report.user_properties).get(GOOD_S)
            self.rows.append((self._marked[report.nodeid], f"{seconds} s"))


def main() -> int:
    """Run the tests, write the page; the exit code is pytest's."""
    recorder = Recorder()
    tests = str(Path(__file__).with_name("test_survival.py"))
    code = pytest.main(["-q", "-p", "no:cacheprovider", tests], plugins=[recorder])
    if code == 0:
        PAGE.write_text(INTRO + "".join(line(row, seconds) for row, seconds in recorder.rows), encoding="utf-8")
    return int(code)


if __name__ == "__main__":
    raise SystemExit(main())
