#!/usr/bin/env python3
"""Run the tests: `python3 run_tests.py`; every argument goes to pytest.

`python3 run_tests.py tests/01_linux_cli_mcp` runs one service. Sets `.venv` up first, as run_fleet.py does.
The exit code is pytest's: not 0 as well when nothing was collected.
"""

import os
import sys

import run_fleet

LOCKS = ("requirements.lock", "requirements-dev.lock")
WORKERS = "2"


def main() -> None:
    """Set up, then become pytest."""
    run_fleet.set_up(*LOCKS)
    os.chdir(run_fleet.ROOT)
    python = str(run_fleet.PYTHON)
    os.execv(python, [python, "-m", "pytest", *workers(sys.argv[1:]), *sys.argv[1:]])


def workers(given: list[str]) -> list[str]:
    """Two processes unless the caller decides."""
    decided = any(word == "--numprocesses" or word.startswith(("-n", "--numprocesses=", "--pdb")) for word in given)
    return [] if decided else ["-n", WORKERS]


if __name__ == "__main__":
    main()
