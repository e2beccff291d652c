"""The official conformance suite runs through the hub in both revisions, and against it as a client."""

from pathlib import Path

import pytest
import yaml
from conformance_suite import Report, expected_file, needs_suite, required, run, run_client
from processes import CHECKOUT
from wire import ModernClient

pytestmark = [needs_suite, pytest.mark.timeout(300)]

REVISIONS = ("2025-11-25", "2026-07-28")
# What the hub does as a client of its spokes. The others are about OAuth, or about the session protocol, which the
# hub does not speak to a spoke: docs/conformance.md gives each its reason.
AS_CLIENT = (
    "tools_call",
    "request-metadata",
    "sep-2322-client-request-state",
    "http-standard-headers",
    "http-custom-headers",
    "http-invalid-tool-headers",
    "json-schema-ref-no-deref",
    "json-schema-2020-12-preservation",
)


@pytest.fixture(scope="module", params=REVISIONS)
def revision(request: pytest.FixtureRequest) -> str:
    """One of the two revisions."""
    return str(request.param)


@pytest.fixture(scope="module")
def report(relayed_url: str, revision: str, tmp_path_factory: pytest.TempPathFactory) -> Report:
    """What the suite found for `revision`."""
    return run(relayed_url, revision, tmp_path_factory.mktemp("results"))


def told() -> str:
    """What the documentation says."""
    return (CHECKOUT / "docs" / "conformance.md").read_text(encoding="utf-8")


async def test_the_hub_itself_answers_behind_the_relay(relayed_url: str):
    async with ModernClient(relayed_url, None) as client:
        answer = await client.request("server/discover")
    assert answer.result["_meta"]["io.modelcontextprotocol/serverInfo"]["name"] == "mcp-fleet"


def test_every_required_scenario_was_run_and_passes(report: Report, revision: str):
    assert report.exit_code == 0, report.output[-4000:]
    assert required(revision) - set(report.checks) == set()
    assert required(revision) & report.failed() == set()


def test_nothing_that_passes_is_only_half_done(report: Report, revision: str):
    assert report.warned() & required(revision) == set()


def test_no_failure_is_excused(revision: str):
    assert yaml.safe_load(expected_file(revision).read_text(encoding="utf-8"))["server"] == []


def test_the_documented_table_is_what_the_suite_found(report: Report, revision: str):
    needed = required(revision)
    missing = len(needed & report.failed())
    assert f"| {revision} | {len(needed)} | {len(needed) - missing} | {missing} |" in told()


@pytest.mark.parametrize("scenario", AS_CLIENT)
def test_the_hub_as_a_client_passes(scenario: str, tmp_path: Path):
    report = run_client(scenario, "2026-07-28", tmp_path)
    assert report.exit_code == 0, report.output[-4000:]
    assert (set(report.checks), report.failed(), report.warned()) == ({scenario}, set(), set())


def test_each_client_scenario_is_run_or_has_its_reason_in_the_documentation(revision: str):
    assert {name for name in required(revision, "client") if f"`{name}`" not in told()} == set()


def test_the_suite_notices_a_server_that_is_not_there(tmp_path: Path, revision: str):
    found = run("http://127.0.0.1:9/mcp", revision, tmp_path)
    assert "server-initialize" in found.failed() or "server-stateless" in found.failed()
    assert found.exit_code == 1
