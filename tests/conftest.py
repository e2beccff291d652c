"""What every test run does: own settings only, and skips that say how to get rid of them."""

import os
import re
from collections.abc import Generator

import pytest
from databases import database_url as database_url  # fixtures for every folder
from databases import postgres as postgres

NO_SKIP = "FLEET_TEST_NO_SKIP"  # set to 1 where every program is installed: a skip is then a failure
_NEED = re.compile(r"needs (?P<program>[^:]+): install (?P<kind>the npm packages|the package) (?P<package>.+)")


def pytest_configure() -> None:
    """The settings of whoever runs the tests are not the tests' settings."""
    for name in [name for name in os.environ if name.startswith("FLEET_") and not name.startswith("FLEET_TEST_")]:
        del os.environ[name]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Make a skip a failure where none is allowed."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get(NO_SKIP) == "1":
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, and {NO_SKIP}=1: {_reason(report)}"
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Generator[None]:
    """Say in one line, after everything else, what was not tested and what to install."""
    yield
    reasons = [_reason(report) for report in terminalreporter.stats.get("skipped", [])]
    if reasons:
        terminalreporter.write_line(skipped_line(reasons))


def skipped_line(reasons: list[str]) -> str:
    """One line for all skips: their number, the programs that are missing, the commands that install them."""
    found = [match for match in map(_NEED.search, reasons) if match]
    programs = ", ".join(dict.fromkeys(match["program"] for match in found))
    other = ", ".join(dict.fromkeys(reason for reason in reasons if not _NEED.search(reason)))
    wanted = {"apt install": "the package", "npm install --no-save": "the npm packages"}
    packages = {
        command: " ".join(dict.fromkeys(match["package"] for match in found if match["kind"] == kind))
        for command, kind in wanted.items()
    }
    install = "; ".join(f"{command} {names}" for command, names in packages.items() if names)
    parts = [f"without {programs}; to run them: {install}"] if found else []
    parts += [other] if other else []
    return f"Skipped ({len(reasons)}): {'; '.join(parts)}"


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    longrepr = report.longrepr
    text = longrepr[2] if isinstance(longrepr, tuple) else str(longrepr)
    return str(text).removeprefix("Skipped: ")
