"""The official conformance suite, found and run.

Two npm packages: the suite itself and a Node new enough for it. They are looked for in
`FLEET_TEST_NODE_MODULES`, else in `node_modules/` of the checkout (`npm install --no-save ...`).
"""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from processes import CHECKOUT, plain_environment

PACKAGES = "node@22 @modelcontextprotocol/conformance@0.2.0-alpha.12"
HERE = Path(__file__).resolve().parent / "conformance"
_MODULES = Path(os.environ.get("FLEET_TEST_NODE_MODULES") or CHECKOUT / "node_modules")
NODE = _MODULES / "node" / "bin" / "node"
SUITE = _MODULES / "@modelcontextprotocol" / "conformance"
_RESULT = re.compile(r"(server-)?(?P<scenario>.+)-\d{4}-\d{2}-\d{2}T[\d-]+Z")

needs_suite = pytest.mark.skipif(
    not (NODE.exists() and (SUITE / "dist" / "index.js").exists()),
    reason=f"needs conformance: install the npm packages {PACKAGES}",
)


@dataclass(frozen=True)
class Report:
    """One run: the suite's verdict, what it printed, and each scenario's checks by status."""

    exit_code: int
    output: str
    checks: dict[str, list[dict[str, Any]]]

    def failed(self) -> set[str]:
        """Scenarios with a failed check."""
        return self._with("FAILURE")

    def warned(self) -> set[str]:
        """Scenarios where something recommended is missing."""
        return self._with("WARNING")

    def _with(self, status: str) -> set[str]:
        return {name for name, checks in self.checks.items() if any(check["status"] == status for check in checks)}


def run(url: str, revision: str, results: Path) -> Report:
    """Run what `revision` requires of a server at `url`, judged by the list of expected failures beside this file."""
    command = [str(NODE), str(SUITE / "dist" / "index.js"), "server", "--url", url]
    command += ["--requirements", revision, "--expected-failures", str(expected_file(revision))]
    command += ["--output-dir", str(results)]
    done = subprocess.run(command, capture_output=True, text=True, env=plain_environment(), timeout=240, check=False)
    return Report(done.returncode, done.stdout + done.stderr, _checks(results))


def run_client(scenario: str, revision: str, results: Path) -> Report:
    """Have the hub, as a client of the suite's own server, go through one scenario of `revision`."""
    program = f"{sys.executable} {HERE / 'client.py'}"
    command = [str(NODE), str(SUITE / "dist" / "index.js"), "client", "--command", program, "--scenario", scenario]
    command += ["--spec-version", revision, "--timeout", "150000", "--output-dir", str(results)]
    done = subprocess.run(command, capture_output=True, text=True, env=plain_environment(), timeout=240, check=False)
    return Report(done.returncode, done.stdout + done.stderr, _checks(results))


def expected_file(revision: str) -> Path:
    """The scenarios of `revision` that do not pass yet."""
    return HERE / f"expected-{revision}.yaml"


def required(revision: str, role: str = "server") -> set[str]:
    """The scenarios that a server, or a client, of `revision` must pass, as the suite itself lists them."""
    listed = yaml.safe_load((SUITE / "requirements" / f"{revision}.yaml").read_text(encoding="utf-8"))
    return set(listed[role])


def _checks(results: Path) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(results.rglob("checks.json")):
        match = _RESULT.fullmatch(path.parent.name)
        found[match["scenario"] if match else path.parent.name] = json.loads(path.read_text(encoding="utf-8"))
    return found
