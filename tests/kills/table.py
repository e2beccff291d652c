"""The kill table: `python tests/kills/table.py --markdown docs/kills.md` runs the kills of this folder and writes it.

It writes nothing when one of them fails. A test compares the rows that are committed with those of the tests.
"""

import json
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "kills.md"
sys.path.insert(0, str(ROOT / "tests"))

from kills.kinds import LABELS  # noqa: E402 - found by the line above when this runs by itself

WORKERS = "2"
TESTS = ("test_boundaries.py", "test_hub_kills.py")
INTRO = """# A run of a workflow is killed

Written by `python tests/kills/table.py --markdown docs/kills.md` from the tests of that folder, which every test run
repeats. A demo workflow with every kind of step (reading, changing and destroying calls, steps beside each other,
`when`, `forEach`, `retry`, `timeout`, `onError`, approval, waits for time, a moment and a signal, `verify`, a
sub-workflow), and one that fails at its end and undoes its steps, run in an engine that is killed with SIGKILL: at
every boundary that a run passes, and in its next life at the next one, until it has ended.

After each kill the run went on by itself, or a person was asked, because a change had been begun and nobody knew
whether it had taken effect; the test answers with `resumeWorkflow` after a look. Every run ended with the results of
one that nobody killed, its approvals and deadlines the same in all lives. No change was made twice.

| what was happening when it was killed | kills | went on by itself | a person was asked | made twice |
|---|---|---|---|---|
"""


def line(label: str, kills: int, asked: int) -> str:
    """One row of the table."""
    return f"| {label} | {kills} | {kills - asked} | {asked} | 0 |\n"


class Recorder:
    """A pytest plugin that counts the kills that tests report."""

    def __init__(self) -> None:
        self.kills: Counter[str] = Counter()
        self.asked: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count what a test that passed reported."""
        if report.when != "call" or not report.passed:
            return
        for name, value in report.user_properties:
            for label, asked in json.loads(str(value)) if name == "kills" else ():
                self.kills[label] += 1
                self.asked[label] += asked


def main(page: Path = PAGE) -> int:
    """Run the tests, write the page; the exit code is pytest's."""
    recorder = Recorder()
    tests = [str(Path(__file__).with_name(name)) for name in TESTS]
    code = pytest.main(["-q", "-p", "no:cacheprovider", "-n", WORKERS, *tests], plugins=[recorder])
    if code == 0:
        rows = "".join(
            line(label, recorder.kills[label], recorder.asked[label]) for label in LABELS if label in recorder.kills
        )
        page.write_text(INTRO + rows + line("all", recorder.kills.total(), recorder.asked.total()), encoding="utf-8")
    return int(code)


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[2]) if sys.argv[1:2] == ["--markdown"] else PAGE))
