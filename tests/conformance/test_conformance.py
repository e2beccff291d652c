"""The official conformance suite runs through the hub in both revisions."""

from pathlib import Path

import pytest
import yaml
from conformance_suite import Report, expected_file, needs_suite, required, run
from processes import CHECKOUT
from wire import ModernClient

pytestmark = [needs_suite, pytest.mark.timeout(300)]

REVISIONS = ("2025-11-25", "2026-07-28")
# What must pass before resources, prompts, completion and subscriptions are served.
REQUIRED = {
    "2025-11-25": {
        "dns-rebinding-protection",
        "elicitation-sep1034-defaults",
        "elicitation-sep1330-enums",
        "logging-set-level",
        "ping",
        "server-initialize",
        "server-sse-multiple-streams",
        "tools-call-audio",
        "tools-call-elicitation",
        "tools-call-embedded-resource",
        "tools-call-error",
        "tools-call-image",
        "tools-call-mixed-content",
        "tools-call-sampling",
        "tools-call-simple-text",
        "tools-call-with-logging",
        "tools-call-with-progress",
        "tools-list",
    },
    "2026-07-28": {
        "dns-rebinding-protection",
        "input-required-result-basic-elicitation",
        "input-required-result-basic-list-roots",
        "input-required-result-basic-sampling",
        "input-required-result-capability-check",
        "input-required-result-ignore-extra-params",
        "input-required-result-missing-input-response",
        "input-required-result-multi-round",
        "input-required-result-multiple-input-requests",
        "input-required-result-request-state",
        "input-required-result-result-type",
        "input-required-result-tampered-state",
        "input-required-result-unsupported-methods",
        "input-required-result-validate-input",
        "server-sse-multiple-streams",
        "server-stateless",
        "tools-call-audio",
        "tools-call-embedded-resource",
        "tools-call-error",
        "tools-call-image",
        "tools-call-mixed-content",
        "tools-call-simple-text",
        "tools-call-with-progress",
        "tools-list",
    },
}


@pytest.fixture(scope="module", params=REVISIONS)
def revision(request: pytest.FixtureRequest) -> str:
    """One of the two revisions."""
    return str(request.param)


@pytest.fixture(scope="module")
def report(relayed_url: str, revision: str, tmp_path_factory: pytest.TempPathFactory) -> Report:
    """What the suite found for `revision`."""
    return run(relayed_url, revision, tmp_path_factory.mktemp("results"))


async def test_the_hub_itself_answers_behind_the_relay(relayed_url: str):
    async with ModernClient(relayed_url, None) as client:
        answer = await client.request("server/discover")
    assert answer.result["_meta"]["io.modelcontextprotocol/serverInfo"]["name"] == "mcp-fleet"


def test_the_suite_finds_exactly_the_failures_that_are_written_down(report: Report):
    assert report.exit_code == 0, report.output[-4000:]


def test_every_scenario_of_tools_lifecycle_elicitation_and_host_checks_passes(report: Report, revision: str):
    assert REQUIRED[revision] - set(report.checks) == set()
    assert REQUIRED[revision] & report.failed() == set()


def test_nothing_that_passes_is_only_half_done(report: Report):
    assert report.warned() - report.failed() == set()


def test_the_documented_table_is_what_the_suite_found(report: Report, revision: str):
    needed = required(revision)
    missing = len(needed & report.failed())
    told = (CHECKOUT / "docs" / "conformance.md").read_text(encoding="utf-8")
    assert f"| {revision} | {len(needed)} | {len(needed) - missing} | {missing} |" in told


def test_each_failure_has_its_reason_in_the_documentation(revision: str):
    told = (CHECKOUT / "docs" / "conformance.md").read_text(encoding="utf-8")
    listed: list[str] = yaml.safe_load(expected_file(revision).read_text(encoding="utf-8"))["server"]
    assert [entry for entry in listed if f"`{entry.partition(':')[0]}`" not in told] == []


def test_no_failure_is_excused_that_the_project_says_passes(revision: str):
    listed: list[str] = yaml.safe_load(expected_file(revision).read_text(encoding="utf-8"))["server"]
    assert REQUIRED[revision] & {entry.partition(":")[0] for entry in listed} == set()


def test_the_suite_notices_a_server_that_is_not_there(tmp_path: Path, revision: str):
    found = run("http://127.0.0.1:9/mcp", revision, tmp_path)
    assert "server-initialize" in found.failed() or "server-stateless" in found.failed()
    assert found.exit_code == 1
