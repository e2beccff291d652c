"""Rows of `external:`: what they may say, where they come from, and that no credential stands in one."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from fleetkit import settings
from fleetkit.errors import Invalid
from fleetkit.external import ExternalRow
from fleetkit.risk import Risk
from master_mcp.external import rows

STDIO = {"transport": "stdio", "command": ["server"]}
HTTP = {"transport": "http", "url": "https://example.org/mcp"}
EXAMPLES = sorted((settings.CHECKOUT / "config" / "examples").glob("*.yaml"))

WRONG = [
    ({"transport": "stdio"}, "has a `command`"),
    ({**STDIO, "url": "https://x/"}, "has a `command`"),
    ({**HTTP, "url": None}, "has a `url`"),
    ({**HTTP, "command": ["x"]}, "has a `url`"),
    ({**HTTP, "url": "ftp://x/"}, "http(s)"),
    ({**HTTP, "url": "https://user:pw@example.org/"}, "without a user"),
    ({**HTTP, "headers": {"Authorization": "Bearer abc"}}, "Authorization holds a credential"),
    ({**HTTP, "headers": {"X-Api-Key": "abc"}}, "X-Api-Key holds a credential"),
    ({**STDIO, "env": {"GITHUB_TOKEN": "abc"}}, "GITHUB_TOKEN holds a credential"),
    ({**STDIO, "env": {"DB_PASSWORD": "abc"}}, "DB_PASSWORD holds a credential"),
    ({**STDIO, "sandbox": {"read": ["relative"]}}, "absolute"),
    ({**STDIO, "sandbox": "bwrap"}, "sandbox"),
    ({**STDIO, "surprise": 1}, "surprise"),
    ({**STDIO, "risk": {"*": "harmless"}}, "risk"),
]


@pytest.mark.parametrize(("row", "reason"), WRONG, ids=[reason for _, reason in WRONG])
def test_a_wrong_row_is_refused_with_its_reason(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(Invalid, match=r"external\.odd") as refused:
        rows.checked("odd", row)
    assert reason in refused.value.message


@pytest.mark.parametrize("name", ["hub", "master", "with-dash", "with_line", "Upper", "", "a" * 25, "9lives"])
def test_a_name_that_cannot_lead_a_tools_id_is_refused(name: str) -> None:
    with pytest.raises(Invalid):
        rows.checked(name, STDIO)


@pytest.mark.parametrize("name", ["cmdb", "os", "secrets"])
def test_a_name_of_a_spoke_or_of_its_namespace_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(Invalid, match="name of a spoke"):
        rows.add(tmp_path, name, STDIO)
    assert not rows.path_of(tmp_path, name).exists()
    assert settings.load(tmp_path).external == {}


def test_references_and_harmless_values_are_taken() -> None:
    row = rows.checked("odd", {**STDIO, "env": {"API_TOKEN": "secret://files/external/x", "KEYBOARD": "de"}})
    assert row.env["KEYBOARD"] == "de"
    assert rows.checked("odd", {**HTTP, "headers": {"Authorization": "Bearer secret://files/external/x"}}).headers


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_shipped_example_is_a_good_row(path: Path) -> None:
    (name, row), *others = yaml.safe_load(path.read_text(encoding="utf-8"))["external"].items()
    assert (name, others) == (path.stem, [])
    assert rows.checked(name, row) == rows.checked(name, rows.example(name))


def test_there_are_examples_of_six_servers() -> None:
    assert {path.stem for path in EXAMPLES} == {"bigquery", "fetch", "filesystem", "firebase", "github", "slack"}


def test_the_users_file_is_laid_over_an_added_row_and_the_environment_over_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows.add(tmp_path, "odd", {**STDIO, "idle_s": 5})
    (tmp_path / "fleet.yaml").write_text("# mine\nexternal:\n  odd: {deadline_s: 7}\n")
    monkeypatch.setenv("FLEET_EXTERNAL__ODD__ENABLED", "false")
    row = settings.load(tmp_path).external["odd"]
    assert (row.command, row.idle_s, row.deadline_s, row.enabled) == (["server"], 5, 7, False)
    assert (tmp_path / "fleet.yaml").read_text().startswith("# mine")


def test_the_longest_pattern_sets_the_risk_and_an_unknown_tool_destroys() -> None:
    row = ExternalRow.model_validate({**STDIO, "risk": {"*": "change", "get_*": "read", "get_all": "destroy"}})
    assert [row.risk_of(tool) for tool in ("get_one", "get_all", "put")] == [
        (Risk.read, False),
        (Risk.destroy, True),
        (Risk.change, False),
    ]
    assert ExternalRow.model_validate(STDIO).risk_of("get_one") == (Risk.destroy, False)


@pytest.mark.parametrize(
    ("row", "lanes"),
    [(STDIO, 1), (HTTP, 8), ({**HTTP, "identity": "per-caller"}, 1), ({**STDIO, "concurrency": 3}, 3)],
)
def test_a_process_takes_one_call_at_a_time_unless_the_row_says_more(row: dict[str, Any], lanes: int) -> None:
    assert ExternalRow.model_validate(row).lanes == lanes


def test_a_deny_glob_wins_over_an_allow_glob() -> None:
    tools = ExternalRow.model_validate({**STDIO, "tools": {"allow": ["get_*"], "deny": ["*_all"]}}).tools
    assert [tools.admits(name) for name in ("get_one", "get_all", "put")] == [True, False, False]
