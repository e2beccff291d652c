"""`python3 run_tests.py`: exit codes, and what is said about skips."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import skipped_line
from processes import CHECKOUT, plain_environment

SKIPS = """from support import need

@need("nonesuch", "nonesuch-light")
def test_without(): ...

@need("sh", "dash")
def test_with(): ...
"""


@pytest.fixture(scope="module", autouse=True)
def _installed_by_run_tests() -> None:
    """Anything else would be replaced under the feet of the running tests."""
    assert (CHECKOUT / ".venv" / "fleet-stamp.json").exists(), "start the tests by `python3 run_tests.py`"


def _run(*words: str, **env: str) -> "subprocess.CompletedProcess[str]":
    environment = plain_environment() | {"PYTHONPATH": str(CHECKOUT / "tests")} | env
    command = [sys.executable, str(CHECKOUT / "run_tests.py"), "-p", "no:cacheprovider", *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def skips(tmp_path: Path) -> list[str]:
    """Arguments that run two tests, one of which lacks its program."""
    path = tmp_path / "test_skips.py"
    path.write_text(SKIPS, encoding="utf-8")
    return ["-n0", "-p", "conftest", "-c", str(CHECKOUT / "pyproject.toml"), str(path)]


def test_arguments_reach_pytest_and_its_closing_line_is_the_last() -> None:
    done = _run("tests/fleetkit/test_risk.py")
    assert done.returncode == 0
    assert "2 workers" in done.stdout
    assert " passed in " in done.stdout.splitlines()[-1]


def test_nothing_collected_is_a_failure() -> None:
    done = _run("tests/fleetkit/test_risk.py", "-k", "nonesuch", "-n0")
    assert done.returncode == 5
    assert "deselected" in done.stdout.splitlines()[-1]


def test_a_skip_is_said_last_with_the_command_that_ends_it(skips: list[str]) -> None:
    done = _run(*skips)
    assert done.returncode == 0
    *_, said, closing = done.stdout.splitlines()
    assert said == "Skipped (1): without nonesuch; to run them: apt install nonesuch-light"
    assert "1 passed, 1 skipped in" in closing


def test_where_no_skip_is_allowed_it_fails(skips: list[str]) -> None:
    done = _run(*skips, FLEET_TEST_NO_SKIP="1")
    assert done.returncode == 1
    assert "was skipped, and FLEET_TEST_NO_SKIP=1: needs nonesuch: install the package nonesuch-light" in done.stdout


def test_all_skips_are_one_line_each_package_once() -> None:
    line = skipped_line(
        [
            "needs sshd: install the package openssh-server",
            "needs sshd: install the package openssh-server",
            "needs conformance: install the npm packages node@22 suite@1",
            "too old a kernel",
        ]
    )
    assert line == (
        "Skipped (4): without sshd, conformance; to run them: apt install openssh-server; "
        "npm install --no-save node@22 suite@1; too old a kernel"
    )
