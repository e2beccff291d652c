"""What is valid in a policy and cannot be meant."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from policies import AGENT, OPERATOR, loaded, rule, tool, write

from master_mcp.auth.caller import Caller
from master_mcp.policy.findings import Known, findings

DBA = replace(OPERATOR, id="o2", name="ann", groups=("operators", "dba"))
ALL = Known([tool(), tool("os.linux.runCommand", service="linux_cli")], [AGENT, OPERATOR, DBA])


async def found(folder: Path, known: Known, *rules: dict[str, Any]) -> list[str]:
    """The findings about these rules of a user's."""
    named = [{**one, "name": f"r{place}"} for place, one in enumerate(rules)]
    async with loaded(write(folder, mine=named), folder / "none") as policy:
        return findings(policy.rules, known)


async def test_nothing_is_found_in_what_is_shipped(tmp_path: Path) -> None:
    async with loaded(tmp_path) as policy:
        assert findings(policy.rules, ALL) == []
        assert findings(policy.rules, Known()) == []


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (rule("allow"), rule("confirm")),
        (rule("allow", tools="cmdb.*"), rule("confirm", tools="cmdb.delete*")),
        (rule("allow", tools=["os.*", "cmdb.*"]), rule("confirm", tools=["cmdb.getCi", "os.linux.*"])),
        (rule("allow", who={"group": "agents"}), rule("confirm", who={"role": "agent"})),
        (rule("allow", who={"role": "agent"}), rule("confirm", who={"group": "agents"})),
        (rule("allow", who={"group": "d*"}), rule("confirm", who={"group": "dba"})),
        (rule("allow", who={"key": "c*"}), rule("confirm", who={"key": ["client", "ci"]})),
        (rule("allow", risk=["read", "change"]), rule("confirm", risk="read")),
        (rule("allow", risk="read"), rule("confirm", risk="read", when="true")),
        (rule("allow", who={"claims": {"team": "*"}}), rule("confirm", who={"claims": {"team": "dba", "x": "y"}})),
        (rule("allow", service="cmdb", door="mcp"), rule("confirm", service="cmdb", door="mcp")),
    ],
)
async def test_a_rule_below_one_that_answers_all_of_its_calls_never_decides(
    tmp_path: Path, first: dict[str, Any], second: dict[str, Any]
) -> None:
    assert await found(tmp_path, Known(), first, second) == [
        "mine.yaml, rule 'r1': it never decides, because mine.yaml: r0 answers all of its calls"
    ]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (rule("allow", when="true"), rule("confirm")),
        (rule("allow", tools="cmdb.*"), rule("confirm")),
        (rule("allow", tools="cmdb.get?"), rule("confirm", tools="cmdb.get*")),
        (rule("allow", tools="cmdb.*"), rule("confirm", tools=["cmdb.getCi", "os.*"])),
        (rule("allow", risk="read"), rule("confirm", risk=["read", "change"])),
        (rule("allow", risk="read"), rule("confirm")),
        (rule("allow", who={"group": "dba"}), rule("confirm", who={"group": "operators"})),
        (rule("allow", who={"group": ["dba", "web"]}), rule("confirm", who={"role": "operator"})),
        (rule("allow", who={"role": "agent"}), rule("confirm", who={"role": "operator"})),
        (rule("allow", who={"claims": {"team": "dba"}}), rule("confirm")),
        (rule("allow", door="rest"), rule("confirm")),
        (rule("allow", service="cmdb"), rule("confirm", service="linux_cli")),
        (rule(None, limits=[{"amount": 1, "per": "day"}]), rule("confirm")),
        (rule("allow"), rule(None, limits=[{"amount": 1, "per": "day"}])),
        (rule("allow"), rule("deny", tools="os.*")),  # a deny wins from anywhere
    ],
)
async def test_a_rule_that_may_decide_is_not_found(
    tmp_path: Path, first: dict[str, Any], second: dict[str, Any]
) -> None:
    assert await found(tmp_path, Known(), first, second) == []


async def test_a_rule_is_told_of_the_deny_below_it(tmp_path: Path) -> None:
    said = await found(tmp_path, Known(), rule("allow", tools="cmdb.*"), rule("deny", tools="cmdb.*"))
    assert said == ["mine.yaml, rule 'r0': it never decides, because mine.yaml: r1 answers all of its calls"]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"tools": ["cmdb.*", "os.lunix.*"]}, "no tool of this fleet is called 'os.lunix.*'"),
        ({"service": "cmbd"}, "no service of this fleet is called 'cmbd'"),
        ({"who": {"key": ["client", "clint"]}}, "no live key is called 'clint'"),
        ({"who": {"group": "web"}}, "no live key is in a group 'web': `fleet keys create NAME --group web`"),
        ({"answer": "approve(2, dba)"}, "it needs 2 of 'dba' to approve, and 1 live operator keys are in it"),
        ({"answer": "approve(1, web)"}, "it needs 1 of 'web' to approve, and 0 live operator keys are in it"),
    ],
)
async def test_what_this_fleet_does_not_have_is_found(tmp_path: Path, keys: dict[str, Any], words: str) -> None:
    one = rule(**keys)
    assert await found(tmp_path, ALL, one) == [f"mine.yaml, rule 'r0': {words}"]
    assert await found(tmp_path, Known(), one) == []  # nothing is known, so nothing is said


@pytest.mark.parametrize(
    "keys",
    [
        {"tools": "cmdb.delete*", "service": "linux_*", "who": {"key": "c*", "group": "agents"}},
        {"who": {"key": "o2", "group": ["dba", "operators"]}},
        {"answer": "approve(2, operators)"},
        {"answer": "approve(1, dba)"},
    ],
)
async def test_what_this_fleet_has_is_not_found(tmp_path: Path, keys: dict[str, Any]) -> None:
    assert await found(tmp_path, ALL, rule(**keys)) == []


async def test_two_keys_of_one_name_are_one_approver(tmp_path: Path) -> None:
    twice = Known([], [DBA, Caller("o3", "ann", "operator", ("destroy:*",), ("operators", "dba"))])
    assert "1 live operator keys" in (await found(tmp_path, twice, rule("approve(2, dba)")))[0]
