"""Policy files: what is wrong is named, what changes is taken while calls run, what is bad is not."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import structlog
from hubs import ask as ask_hub
from hubs import call as call_hub
from hubs import running_hub, write_policy
from policies import AGENT, OPERATOR, ask, loaded, rule, tool, write

from fleetkit import settings
from fleetkit.errors import FleetError, Invalid
from master_mcp.app import Hub
from master_mcp.policy.files import MAX_FILE, Folders
from master_mcp.policy.verdict import Effect

WRONG: list[tuple[str, list[Any] | str, str]] = [
    ("an unknown key", [rule(risks="read")], "policy bad.yaml, rule 'one', key risks: there is no such key"),
    ("an unknown answer", [rule("permit")], "rule 'one': answer 'permit': write allow, confirm, deny or approve"),
    ("approval by nobody", [rule("approve(0, dba)")], r"answer 'approve\(0, dba\)'"),
    ("an answer in other letters", [rule("Deny")], "answer 'Deny'"),
    ("approval by agents", [rule("approve(1, agents)")], "an agent never approves"),
    ("escalation to agents", [rule("approve", escalate_after="1h", escalate_to="agents")], "an agent never approves"),
    ("half an escalation", [rule("approve", escalate_after="1h")], "escalate_after and escalate_to belong together"),
    ("options of another answer", [rule("allow", execute_on_approval=True)], "execute_on_approval means something"),
    ("options of no answer", [rule(None, limits=[{"amount": 1, "per": "day"}], approval_expires="1h")], "approval_exp"),
    ("untrusted for any tool", [rule("allow", untrusted=True)], "untrusted goes with answer allow and tools"),
    ("untrusted for many tools", [rule("allow", tools="cmdb.*", untrusted=True)], "tools that are named in full"),
    ("untrusted, and held", [rule("confirm", tools="cmdb.x", untrusted=True)], "untrusted goes with answer allow"),
    ("no answer", [rule(None)], "rule 'one': give it an answer"),
    ("no name", [{"answer": "allow"}], "rule number 1, key name: it is missing"),
    ("a risk that is none", [rule(risk=["read", "write"])], "rule 'one', key risk: Input should be 'read'"),
    ("a role that is none", [rule(who={"role": "agents"})], "rule 'one', key who.role: Input should be 'agent'"),
    ("an unknown key of who", [rule(who={"user": "ann"})], "rule 'one', key who.user: there is no such key"),
    ("an empty list", [rule(tools=[])], "rule 'one', key tools"),
    ("an empty word", [rule(tools="")], "rule 'one', key tools"),
    ("a time that is none", [rule("approve", approval_expires="soon")], "key approval_expires: 'soon' is no length"),
    ("a number as a time", [rule("approve", approval_expires=5)], "key approval_expires: write a length of time"),
    ("a condition that is no jq", [rule(when=".arguments.[")], "policy bad.yaml, rule 'one', key when: jq: error"),
    ("a condition with a module", [rule(when='import "a" as a; true')], "key when: jq: error: module not found"),
    ("a condition with a variable", [rule(when="$caller")], "key when: .*not defined"),
    ("a condition too big to compile", [rule(when='"x" * 1000000000 == ""')], "rule 'one', key when: .* memory"),
    ("an empty condition", [rule(when="")], "rule 'one', key when"),
    ("limits of some arguments", [rule(when="true", limits=[{"amount": 1, "per": "day"}])], "a rule without `when`"),
    ("an unknown unit", [rule(limits=[{"amount": 1, "per": "week"}])], "rule 'one', key limits.per: Input should be"),
    ("a limit of nothing", [rule(limits=[{"amount": 0, "per": "day"}])], "rule 'one', key limits.amount"),
    ("a quota with a burst", [rule(quotas=[{"amount": 9, "per": "day", "burst": 2}])], "a quota has no burst"),
    ("two rules of one name", [rule(), rule("deny")], "policy bad.yaml: two rules are named 'one'"),
    ("a rule that is none", ["allow"], "rule number 1: Input should be"),
    ("rules that are no list", "rules: {a: 1}", "policy bad.yaml, key rules: Input should be"),
    ("another top key", "rule: []", "policy bad.yaml, key rule: there is no such key"),
    ("a list at the top", "- a", "policy bad.yaml: write `rules:`"),
    ("no YAML", "rules: [", "policy bad.yaml: no YAML: expected the node content, .* in line 1, column 9$"),
    ("no text", "rules: \x07", "policy bad.yaml: no YAML"),
    ("a key twice", "rules: []\nrules: []", "key 'rules' stands twice .*line 2"),
    ("a key of a rule twice", "rules:\n- name: a\n  answer: deny\n  answer: allow", "key 'answer' stands twice"),
    (
        "an object made by YAML",
        "rules: !!python/object/apply:os.getcwd []",
        "no YAML: could not determine a constructor",
    ),
    ("a file too large", "#" * (MAX_FILE + 1), "policy bad.yaml: larger than"),
]


@pytest.mark.parametrize(("content", "words"), [w[1:] for w in WRONG], ids=[w[0] for w in WRONG])
async def test_a_wrong_file_is_refused_naming_file_rule_and_key(
    tmp_path: Path, content: list[Any] | str, words: str
) -> None:
    with pytest.raises(Invalid, match=words) as refused:
        async with loaded(write(tmp_path, bad=content)):
            pass
    assert "bad.yaml" in refused.value.message
    assert "\n" not in refused.value.message


async def test_every_wrong_file_and_key_is_named_at_once(tmp_path: Path) -> None:
    write(tmp_path, one=[rule("permit"), rule(risk="none", tools=[])], two="rules: [")
    with pytest.raises(Invalid) as refused:
        async with loaded(tmp_path):
            pass
    for words in ("one.yaml, rule 'one': answer", "key risk", "key tools", "two.yaml: no YAML"):
        assert words in refused.value.message


@pytest.mark.parametrize("name", ["mine.yml", "mine.json"])
async def test_a_file_whose_ending_would_leave_it_unread_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("rules: []", encoding="utf-8")
    with pytest.raises(Invalid, match=f"policy {name}: policy files end in .yaml: rename it"):
        async with loaded(tmp_path):
            pass


async def test_what_editors_leave_behind_is_passed_over(tmp_path: Path) -> None:
    for name in (".mine.yaml.swp", "mine.yaml~", "README.md", ".hidden.yaml", "#mine.yaml#"):
        (tmp_path / name).write_text("not: [a policy", encoding="utf-8")
    async with loaded(tmp_path) as policy:
        assert {placed.file for placed in policy.rules} == {"default.yaml"}


@pytest.mark.parametrize("content", ["", "rules: []", "# nothing yet", "rules: ~"])
async def test_a_file_without_rules_is_good(tmp_path: Path, content: str) -> None:
    async with loaded(write(tmp_path, mine=content)) as policy:
        assert {placed.file for placed in policy.rules} == {"default.yaml"}


@pytest.mark.parametrize("what", ["folder", "file"])
async def test_what_cannot_be_read_is_said(tmp_path: Path, what: str) -> None:
    place = tmp_path / "policies"
    if what == "folder":
        place.write_text("a file where the folder should be", encoding="utf-8")
    else:
        (place / "mine.yaml").mkdir(parents=True)
    with pytest.raises(Invalid, match=r"policy.*cannot"):
        async with loaded(place):
            pass


async def test_a_user_without_a_folder_has_the_shipped_rules(tmp_path: Path) -> None:
    async with loaded(tmp_path / "none") as policy:
        assert len(policy.rules) == 5


def test_the_folders_of_a_fleet_are_beside_its_configuration_and_in_its_data(tmp_path: Path) -> None:
    folders = Folders.of(settings.load(tmp_path))
    assert folders == Folders(settings.CHECKOUT / "config" / "policies", tmp_path / "policies")


# --- reload -----------------------------------------------------------------------------------------


async def test_a_changed_file_is_in_force_after_the_next_look(tmp_path: Path) -> None:
    async with loaded(write(tmp_path, mine=[rule("allow", "first")])) as policy:
        heard: list[int] = []
        policy.on_change(lambda: heard.append(policy.version))
        assert (await policy.decide(ask(AGENT, "destroy"))).rule == "mine.yaml: first"
        assert policy.visible(AGENT, tool())
        write(tmp_path, mine=[rule("deny", "second", limits=[{"amount": 1, "per": "day"}])])
        assert (await policy.decide(ask(AGENT, "destroy"))).rule == "mine.yaml: first"
        await policy.refresh()
        assert (await policy.decide(ask(AGENT, "destroy"))).rule == "mine.yaml: second"
        assert not policy.visible(AGENT, tool())
        assert len(policy.limits(ask(AGENT, "destroy"))) == 1
        await policy.refresh()
        assert heard == [2]


async def test_a_change_that_keeps_size_and_time_is_seen(tmp_path: Path) -> None:
    async with loaded(write(tmp_path, mine=[rule("deny", "one1")])) as policy:
        before = (tmp_path / "mine.yaml").stat()
        write(tmp_path, mine=[rule("deny", "two2")])
        os.utime(tmp_path / "mine.yaml", ns=(before.st_atime_ns, before.st_mtime_ns))
        await policy.refresh()
        assert policy.rules[0].rule.name == "two2"


@pytest.mark.parametrize(("content", "words"), [w[1:] for w in WRONG[::6]], ids=[w[0] for w in WRONG[::6]])
async def test_a_bad_file_keeps_the_old_rules_and_says_so_until_it_is_mended(
    tmp_path: Path, content: list[Any] | str, words: str
) -> None:
    async with loaded(write(tmp_path, mine=[rule("deny")])) as policy:
        with structlog.testing.capture_logs() as lines:
            write(tmp_path, bad=content)
            await policy.refresh()
            await policy.refresh()
        assert [line["event"] for line in lines] == ["policy.rejected"]
        assert policy.problem == lines[0]["reason"]
        assert (await policy.decide(ask())).rule == "mine.yaml: one"
        with structlog.testing.capture_logs() as lines:
            write(tmp_path, bad=[rule("allow", "mended")])
            await policy.refresh()
        assert lines == [{"event": "policy.loaded", "files": 3, "rules": 7, "log_level": "info"}]
        assert policy.problem == ""


async def test_taking_a_bad_change_back_clears_the_problem(tmp_path: Path) -> None:
    async with loaded(write(tmp_path, mine=[rule("deny")])) as policy:
        write(tmp_path, mine="rules: [")
        await policy.refresh()
        assert policy.problem
        write(tmp_path, mine=[rule("deny")])
        await policy.refresh()
        assert (policy.problem, policy.version) == ("", 1)


async def test_a_file_that_goes_takes_its_rules_with_it_and_uncovers_the_shipped_one(tmp_path: Path) -> None:
    async with loaded(write(tmp_path, default=[rule("deny")])) as policy:
        assert (await policy.decide(ask())).effect is Effect.deny
        (tmp_path / "default.yaml").unlink()
        await policy.refresh()
        assert (await policy.decide(ask())).rule == "default.yaml: agents look"


async def test_a_call_is_judged_by_one_set_of_rules_however_often_they_change(tmp_path: Path) -> None:
    """Each set denies or allows by a condition; a mixture would find no rule, or an answer of neither."""

    def rules(name: str) -> list[dict[str, Any]]:
        return [rule("confirm", f"{name}-{i}", when=f'.arguments.want == "{i}"') for i in range(3)] + [
            rule("approve", f"{name}-rest", when='.arguments.want == "rest"')
        ]

    async with loaded(write(tmp_path, mine=rules("a")), tmp_path / "none") as policy:

        async def keep_changing() -> None:
            for turn in range(8):
                write(tmp_path, mine=rules("ab"[turn % 2]))
                await policy.refresh()

        changing = asyncio.create_task(keep_changing())
        seen: set[tuple[str, Effect]] = set()
        while not changing.done():
            asked = (policy.decide(ask(arguments={"want": want})) for want in ("0", "2", "rest"))
            seen |= {(verdict.rule.split("-")[1], verdict.effect) for verdict in await asyncio.gather(*asked)}
        await changing
    assert seen == {("0", Effect.confirm), ("2", Effect.confirm), ("rest", Effect.approve)}


async def test_looks_at_once_take_a_change_once(tmp_path: Path) -> None:
    async with loaded(write(tmp_path, mine=[rule("deny")])) as policy:
        write(tmp_path, mine=[rule("allow", when="true")])  # a condition takes time to check
        await asyncio.gather(*(policy.refresh() for _ in range(5)))
        assert policy.version == 2


# --- in a hub ---------------------------------------------------------------------------------------


async def get_json(url: str) -> tuple[int, Any]:
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return answer.status, json.loads(await answer.text())


async def until(condition: Any) -> None:
    """Ask a coroutine function again and again until it says true."""
    async with asyncio.timeout(40):
        while not await condition():
            await asyncio.sleep(0.02)


async def test_a_running_hub_takes_a_new_rule_and_shows_what_it_hides(tmp_path: Path) -> None:
    async with running_hub(tmp_path) as hub:

        async def names() -> list[str]:
            _, answer = await ask_hub(hub, "tools/list")
            return [found["name"] for found in answer["result"]["tools"]]

        assert "master_listTools" in await names()
        write_policy(tmp_path, {"rules": [rule("deny", tools="master.listTools")]})
        await until(lambda: _gone("master_listTools", names))
        assert "master_getServerInfo" in await names()


async def test_other_rules_are_on_the_record(tmp_path: Path) -> None:
    async with running_hub(tmp_path) as hub:
        write_policy(tmp_path, {"rules": [rule("deny", tools="master.listTools")]})
        await hub.hub.policy.refresh()
        row = next(row for row in hub.audit_rows() if row["tool"] == "policy.load")
        assert (row["caller"], row["door"], hub.hub.policy.digest in row["detail"]) == ("hub", "hub", True)


async def test_the_hub_lists_no_tool_that_the_caller_may_not_call(tmp_path: Path) -> None:
    async with running_hub(tmp_path) as hub:
        write_policy(tmp_path, {"rules": [rule("deny", tools="master.approve"), rule(name="rest")]})
        await hub.hub.policy.refresh()
        listed = (await call_hub(hub, "master.listTools"))["structuredContent"]["result"]
        assert "master.listTools" in [line["id"] for line in listed]
        assert "master.approve" not in [line["id"] for line in listed]


async def test_who_may_not_call_a_tool_uses_up_nothing_of_a_shared_limit(tmp_path: Path) -> None:
    few = rule(None, "few", tools="master.listServices", limits=[{"amount": 1, "per": "day", "by": ["tool"]}])
    async with running_hub(tmp_path, policies={"rules": [few, rule()]}) as hub:
        _, stranger = hub.hub.keys.create("stranger", scopes=["read:nothing.*"])
        refused = await call_hub(hub, "master.listServices", key=stranger)
        first, second = [await call_hub(hub, "master.listServices") for _ in range(2)]
        assert refused["structuredContent"]["code"] == "refused"
        assert ("code" in first["structuredContent"], second["structuredContent"]["code"]) == (False, "over_budget")


async def _gone(name: str, names: Any) -> bool:
    return name not in await names()


async def test_a_hub_with_a_bad_file_works_on_and_says_so(tmp_path: Path) -> None:
    async with running_hub(tmp_path) as hub:
        write_policy(tmp_path, {"rules": [rule("permit")]})

        async def said() -> bool:
            return "policy" in (await get_json(f"{hub.url}/ready"))[1].get("warnings", {})

        await until(said)
        status, ready = await get_json(f"{hub.url}/ready")
        assert (status, ready["status"]) == (200, "ready")
        assert "policy tests.yaml, rule 'one': answer 'permit'" in ready["warnings"]["policy"]
        assert hub.hub.fleet.status()["warnings"] == ready["warnings"]
        assert (await ask_hub(hub, "tools/list"))[0] == 200


async def test_a_hub_does_not_start_with_a_bad_file_and_has_changed_nothing(tmp_path: Path) -> None:
    write(tmp_path / "policies", mine=[rule("permit")])
    with pytest.raises(FleetError, match=r"policy mine\.yaml, rule 'one': answer 'permit'"):
        async with Hub(settings.load(tmp_path)).running():
            pass
    assert not (tmp_path / "hub.db").exists()


async def test_a_hub_leaves_no_worker_behind(tmp_path: Path) -> None:
    policies = {"rules": [rule("allow", when="true")]}
    async with running_hub(tmp_path, policies=policies) as hub:
        await hub.hub.policy.decide(ask(OPERATOR))
        pid = hub.hub.policy._jq.pid  # pyright: ignore[reportPrivateUsage] - nothing else knows it
        assert Path(f"/proc/{pid}").exists()
    assert not Path(f"/proc/{pid}").exists()
