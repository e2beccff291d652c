"""`fleet policy`: whether the rules are good, and what they say of a call, with the hub running or stopped."""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import Done, Fleet
from hubs import running_hub, settle, write_policy
from policies import rule, write

from master_mcp.cli import main

SPOKES = {"cmdb": {"number": 12, "namespace": "cmdb"}, "linux_cli": {"number": 1, "namespace": "os.linux"}}

Run = Callable[..., Done]


async def _run_once(data_dir: Path) -> None:
    async with running_hub(data_dir, SPOKES) as hub:
        await settle(hub, "cmdb", "linux_cli", "master")
        hub.hub.keys.create("boss", "operator", groups=["dba"])
        hub.hub.keys.create("reader", scopes=["read:cmdb.*"])


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a hub leaves that ran once and is stopped: its database is all that there is to ask."""
    found = tmp_path_factory.mktemp("fleet")
    asyncio.run(_run_once(found))
    write_policy(found, {"rules": RULES})
    return found


@pytest.fixture
def fleet(data_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`fleet policy ...` in this process: a process each takes seconds on a busy machine."""
    monkeypatch.setenv("FLEET_DATA_DIR", str(data_dir))
    monkeypatch.setenv("NO_COLOR", "1")

    def run(*words: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["fleet", "policy", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return Done(int(ended.value.code or 0), out, err)

    return run


RULES: list[dict[str, Any]] = [
    rule("deny", "never the root", tools="cmdb.*", risk="change", when='.arguments.name == "root"', reason="ask first"),
    rule("allow", "test names", tools="cmdb.*", when='.arguments.name | startswith("test")'),
    rule("approve(2, dba)", "what is lost", risk="destroy", tools="cmdb.*"),
    rule(None, "slowly", limits=[{"amount": 60, "per": "minute"}]),
]


def outcomes(data: Any) -> dict[str, str]:
    """What each rule had to do with the call, by its name."""
    return {one["rule"].partition(": ")[2]: one["outcome"] for one in data["rules"]}


def test_a_call_is_explained_with_every_rule_and_the_one_that_decides(fleet: Run) -> None:
    done = fleet("explain", "cmdb.upsertCi", "name=test1", "--json")
    assert done.code == 0, done.err
    assert (done.data["answer"], done.data["verdict"]["rule"]) == ("allow", "tests.yaml: test names")
    assert (done.data["tool"], done.data["risk"], done.data["key"]) == ("cmdb.upsertCi", "change", "client")
    assert outcomes(done.data) == {
        "never the root": "its condition does not hold",
        "test names": "decides",
        "what is lost": "not about this call: risk",
        "slowly": "limits this call",
        "agents look": "not about this call: risk",
        "a person confirms what an agent changes": "fits, and another decides",
        "an operator approves what an agent destroys": "not about this call: risk",
        "operators look and change": "not about this call: who.group",
        "operators confirm what they destroy": "not about this call: who.group",
    }
    assert [limit["amount"] for limit in done.data["limits"]] == [60]


@pytest.mark.parametrize(
    ("words", "answer", "decided"),
    [
        (("cmdb.upsertCi", "name=web"), "confirm", "default.yaml: a person confirms what an agent changes"),
        (("cmdb_upsert_ci", "name=root"), "deny", "tests.yaml: never the root"),
        (("upsertCi", "name=web", "--key", "boss"), "allow", "default.yaml: operators look and change"),
        (("cmdb.upsertCi", "name=test1", "--key", "reader"), "approve(1, operators)", "key scopes"),
        (("cmdb.upsertCi", "name=test1", "--tainted"), "confirm", "untrusted content"),
        (("cmdb.upsertCi", "name=test1", "--risk", "destroy", "--key", "boss"), "allow", "tests.yaml: test names"),
        (("cmdb.upsertCi", "name=web", "--risk", "destroy"), "approve(2, dba)", "tests.yaml: what is lost"),
        (("master.listTools", "--key", "reader"), "deny", "key scopes"),
        (("master.listTools", "--door", "rest"), "allow", "default.yaml: agents look"),
    ],
)
def test_the_answer_and_what_decided_it(fleet: Run, words: tuple[str, ...], answer: str, decided: str) -> None:
    data = fleet("explain", *words, "--json").data
    assert (data["answer"], data["verdict"]["rule"]) == (answer, decided)


def test_people_read_the_answer_first_then_the_reason_then_the_rules(fleet: Run) -> None:
    done = fleet("explain", "cmdb.upsertCi", "name=root")
    assert done.lines[0] == "deny: cmdb.upsertCi (change) for key client [agents; change:*]"
    assert done.lines[1] == "Decided by tests.yaml: never the root: ask first"
    assert any("never the root" in line and line.endswith("decides") for line in done.lines[2:])
    assert done.lines[-1] == "Counted by tests.yaml: slowly (limit 60 per minute by key)"


def test_a_condition_that_fails_is_explained_in_jqs_own_words(fleet: Run) -> None:
    done = fleet("explain", "cmdb.upsertCi", "name=test", 'attributes={"a": 1}', "--json")
    assert outcomes(done.data)["test names"] == "decides"
    done = fleet("explain", "cmdb.upsertCi", "--json")
    assert outcomes(done.data)["test names"].startswith("its condition fails on this call (jq: startswith()")
    assert done.data["answer"] == "confirm"


@pytest.mark.parametrize(
    ("words", "code", "reason"),
    [
        (("cmdb.nothing",), 1, "no tool 'cmdb.nothing'"),
        (("cmdb.upsertCi", "--key", "nobody"), 1, "no live key is called 'nobody'"),
        (("cmdb.upsertCi", "--risk", "write"), 2, "write read, change or destroy"),
        (("cmdb.upsertCi", "name"), 2, "'name' is not KEY=VALUE"),
    ],
)
def test_what_cannot_be_explained_is_one_clear_line(fleet: Run, words: tuple[str, ...], code: int, reason: str) -> None:
    done = fleet("explain", *words)
    assert (done.code, done.out) == (code, "")
    assert done.err.startswith("fleet: ")
    assert reason in done.err


def test_a_tool_that_judges_its_arguments_shows_how_far_it_may_go_alone(fleet: Run) -> None:
    done = fleet("explain", "os.linux.runCommand", "command=ls")
    assert done.lines[0] == "approve(1, operators): os.linux.runCommand (destroy) for key client [agents; change:*]"
    said = "The tool judges its arguments: where it finds that they read at most, the call runs without being held"
    assert said in done.lines


def test_a_good_policy_is_shown_with_its_warnings(fleet: Run) -> None:
    done = fleet("check")
    assert done.code == 0
    assert done.lines[-1] == "The policy is good: 9 rules in tests.yaml, default.yaml."
    assert "warning: tests.yaml, rule 'what is lost': it needs 2 of 'dba' to approve" in done.err
    assert fleet("check", "--json").data["files"] == ["tests.yaml", "default.yaml"]


def test_a_fleet_that_never_ran_is_checked_too_and_is_left_without_a_database(
    fleet: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEET_DATA_DIR", str(tmp_path))
    write(tmp_path / "policies", mine=[rule("allow"), rule("confirm", "hidden", tools="os.lunix.*")])
    done = fleet("check", "--json")
    assert done.code == 0
    assert "mine.yaml, rule 'hidden': it never decides, because mine.yaml: one answers all" in done.data["warnings"][0]
    assert len(done.data["warnings"]) == 6  # the shipped ones below it too, and of tools nothing is known
    assert not (tmp_path / "hub.db").exists()


def test_a_wrong_policy_is_named_and_the_hub_does_not_start_with_it(tmp_path: Path) -> None:
    (tmp_path / "policies").mkdir()
    text = yaml.safe_dump({"rules": [rule("permit", "mine")]})
    (tmp_path / "policies" / "mine.yaml").write_text(text, encoding="utf-8")
    sentence = "fleet: policy mine.yaml, rule 'mine': answer 'permit': write allow, confirm, deny or approve(n, group)"
    for words in (("policy", "check"), ("up",)):
        done = Fleet(tmp_path).run(*words)
        assert done.code == 2
        assert done.err.splitlines()[-1].startswith(sentence)
