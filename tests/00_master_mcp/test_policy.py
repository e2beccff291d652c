"""What the rules say of a call: defaults, precedence, scopes, conditions, untrusted content."""

import asyncio
from collections.abc import Generator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st
from policies import AGENT, OPERATOR, ask, loaded, rule, tool, verdict_of, write

from fleetkit.risk import Risk
from master_mcp.auth.caller import Caller
from master_mcp.policy.engine import REMEMBERED, Policy
from master_mcp.policy.verdict import Effect, Question
from master_mcp.resilience.limits import Limit

NARROW = Caller("n1", "narrow", "agent", ("read:cmdb.*",), ("agents",))
CHANGER = Caller("c1", "changer", "operator", ("change:*",), ("operators", "dba"))
CLAIMING = Caller("t1", "ann", "agent", ("destroy:*",), ("agents",), {"team": ["dba", "web"], "level": 3})
ALLOW, CONFIRM, APPROVE, DENY = Effect.allow, Effect.confirm, Effect.approve, Effect.deny


# --- the shipped default ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("caller", "risk", "effect"),
    [
        (AGENT, "read", ALLOW),
        (AGENT, "change", CONFIRM),
        (AGENT, "destroy", APPROVE),
        (OPERATOR, "read", ALLOW),
        (OPERATOR, "change", ALLOW),
        (OPERATOR, "destroy", CONFIRM),
    ],
)
async def test_the_shipped_default(tmp_path: Path, caller: Caller, risk: str, effect: Effect) -> None:
    async with loaded(tmp_path) as policy:
        verdict = await policy.decide(ask(caller, risk))
    assert verdict.effect is effect
    assert (verdict.quorum, verdict.group) == (1, "operators")
    assert verdict.rule.startswith("default.yaml: ")
    assert (verdict.approval_expires_s, verdict.execution_expires_s) == (86400, 3600)
    assert not verdict.execute_on_approval


async def test_as_shipped_a_sole_operator_needs_nobody_else_and_an_agent_always_does(tmp_path: Path) -> None:
    async with loaded(tmp_path) as policy:
        effects = {
            caller.role: [(await policy.decide(ask(caller, r))).effect for r in Risk] for caller in (AGENT, OPERATOR)
        }
    assert APPROVE not in effects["operator"]  # confirm is answered by the operator at the client
    assert DENY not in effects["operator"]
    assert effects["agent"][2] is APPROVE


async def test_a_caller_in_no_role_is_denied_by_default(tmp_path: Path) -> None:
    stranger = Caller("s1", "stranger", "spoke", ("destroy:*",), ("spokes",))
    async with loaded(tmp_path) as policy:
        verdict = await policy.decide(ask(stranger))
    assert (verdict.effect, verdict.rule) == (DENY, "no rule")
    assert "nothing allows it" in verdict.reason


# --- who, tools, risk, service, door, condition -----------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "question", "fits"),
    [
        ({"who": {"key": "client"}}, ask(AGENT), True),
        ({"who": {"key": "cl*"}}, ask(AGENT), True),
        ({"who": {"key": "a1"}}, ask(AGENT), True),
        ({"who": {"key": "admin"}}, ask(AGENT), False),
        ({"who": {"key": ["admin", "client"]}}, ask(AGENT), True),
        ({"who": {"group": "dba"}}, ask(CHANGER), True),
        ({"who": {"group": "dba"}}, ask(AGENT), False),
        ({"who": {"group": "agents"}}, ask(AGENT), True),
        ({"who": {"role": "operator"}}, ask(OPERATOR), True),
        ({"who": {"role": "operator"}}, ask(AGENT), False),
        ({"who": {"role": "operator", "group": "dba"}}, ask(OPERATOR), False),
        ({"who": {"claims": {"team": "dba"}}}, ask(CLAIMING), True),
        ({"who": {"claims": {"team": "d*", "level": "3"}}}, ask(CLAIMING), True),
        ({"who": {"claims": {"team": "dba", "level": "4"}}}, ask(CLAIMING), False),
        ({"who": {"claims": {"team": "dba"}}}, ask(AGENT), False),
        ({"tools": "cmdb.deleteCi"}, ask(), True),
        ({"tools": "cmdb.*"}, ask(), True),
        ({"tools": ["os.*", "cmdb.delete*"]}, ask(), True),
        ({"tools": "os.*"}, ask(), False),
        ({"tools": "CMDB.*"}, ask(), False),
        ({"service": "cmdb"}, ask(), True),
        ({"service": "linux_*"}, ask(), False),
        ({"risk": "read"}, ask(risk="read"), True),
        ({"risk": ["change", "destroy"]}, ask(risk="read"), False),
        ({"door": "mcp"}, ask(), True),
        ({"door": "rest"}, ask(), False),
        ({"door": "spoke:*"}, ask(door="spoke:linux_cli"), True),
        ({"when": ".arguments.id == 7"}, ask(arguments={"id": 7}), True),
        ({"when": ".arguments.id == 7"}, ask(arguments={"id": 8}), False),
        ({"when": '.caller.name == "client" and .caller.role == "agent"'}, ask(AGENT), True),
        ({"when": '.caller.groups | index("dba") != null'}, ask(CHANGER), True),
        ({"when": ".caller.claims.level >= 3"}, ask(CLAIMING), True),
        ({"when": '.tool == "cmdb.deleteCi" and .risk == "read"'}, ask(), True),
        ({}, ask(), True),
    ],
)
async def test_a_rule_is_about_a_call_when_all_its_keys_fit(
    tmp_path: Path, keys: dict[str, Any], question: Question, fits: bool
) -> None:
    for answer, effect in (("allow", ALLOW), ("confirm", CONFIRM), ("approve", APPROVE)):
        verdict = await verdict_of(tmp_path, [rule(answer, **keys)], question)
        assert (verdict.effect, verdict.rule) == ((effect, "mine.yaml: one") if fits else (DENY, "no rule"))
    denied = await verdict_of(tmp_path, [rule("deny", **keys), rule("allow", "rest")], question)
    assert denied.effect is (DENY if fits else ALLOW)


CORNER = {"who": {"key": "client"}, "tools": "cmdb.*", "risk": "change", "when": '.arguments.zone == "test"'}
FOUR = [rule("allow", "changes of the test zone", **CORNER), rule("approve(2, dba)", "the rest")]


@pytest.mark.parametrize("who", [AGENT, OPERATOR], ids=["its-caller", "another"])
@pytest.mark.parametrize("name", ["cmdb.upsertCi", "os.linux.runCommand"])
@pytest.mark.parametrize("risk", ["change", "destroy"])
@pytest.mark.parametrize("zone", ["test", "live"])
async def test_only_the_corner_in_which_everything_fits_is_allowed(
    tmp_path: Path, who: Caller, name: str, risk: str, zone: str
) -> None:
    verdict = await verdict_of(tmp_path, FOUR, ask(who, risk, {"zone": zone}, tool=tool(name)))
    inside = (who, name, risk, zone) == (AGENT, "cmdb.upsertCi", "change", "test")
    assert verdict.effect is (ALLOW if inside else APPROVE)
    assert (verdict.quorum, verdict.group) == ((1, "operators") if inside else (2, "dba"))


# --- precedence -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answers", "effect", "decides"),
    [
        (["allow", "confirm"], ALLOW, 0),
        (["confirm", "allow"], CONFIRM, 0),
        (["approve", "confirm", "allow"], APPROVE, 0),
        (["allow", "deny"], DENY, 1),
        (["confirm", "allow", "approve", "deny"], DENY, 3),
        (["deny", "deny"], DENY, 0),
    ],
)
async def test_the_first_rule_that_fits_decides_and_deny_wins_wherever_it_stands(
    tmp_path: Path, answers: list[str], effect: Effect, decides: int
) -> None:
    verdict = await verdict_of(tmp_path, [rule(answer, f"r{i}") for i, answer in enumerate(answers)], ask())
    assert (verdict.effect, verdict.rule) == (effect, f"mine.yaml: r{decides}")


@pytest.mark.parametrize(
    ("question", "answer", "effect"),
    [
        (ask(AGENT, "destroy"), "allow", ALLOW),  # loosened
        (ask(AGENT, "change"), "allow", ALLOW),
        (ask(OPERATOR, "destroy"), "allow", ALLOW),
        (ask(AGENT, "read"), "confirm", CONFIRM),  # tightened
        (ask(OPERATOR, "change"), "approve(2, operators)", APPROVE),
        (ask(OPERATOR, "read"), "deny", DENY),
    ],
)
async def test_a_users_rule_loosens_and_tightens_what_is_shipped(
    tmp_path: Path, question: Question, answer: str, effect: Effect
) -> None:
    async with loaded(write(tmp_path, zzz=[rule(answer)])) as policy:
        verdict = await policy.decide(question)
    assert (verdict.effect, verdict.rule) == (effect, "zzz.yaml: one")


async def test_files_are_asked_by_name_and_a_users_file_replaces_the_shipped_one_of_its_name(tmp_path: Path) -> None:
    shipped = write(tmp_path / "shipped", default=[rule("deny", "hard")], extra=[rule("confirm", "soft")])
    user = write(tmp_path / "user", default=[rule("approve", "mine")], b=[rule("allow", "b")], a=[rule("confirm", "a")])
    async with loaded(user, shipped) as policy:
        assert [placed.id for placed in policy.rules] == [
            *("a.yaml: a", "b.yaml: b", "default.yaml: mine", "extra.yaml: soft"),
        ]
        assert [placed.shipped for placed in policy.rules] == [False, False, False, True]
        assert (await policy.decide(ask())).rule == "a.yaml: a"


async def test_a_shipped_deny_wins_over_a_users_allow(tmp_path: Path) -> None:
    shipped = write(tmp_path / "shipped", floor=[rule("deny", "never")])
    async with loaded(write(tmp_path / "user", mine=[rule("allow")]), shipped) as policy:
        assert (await policy.decide(ask())).rule == "floor.yaml: never"


async def test_without_any_file_nothing_is_allowed(tmp_path: Path) -> None:
    async with loaded(tmp_path / "none", tmp_path / "neither") as policy:
        assert (await policy.decide(ask(OPERATOR))).effect is DENY
        assert not policy.visible(OPERATOR, tool())


async def test_an_answer_carries_its_options(tmp_path: Path) -> None:
    keys: dict[str, Any] = {
        "reason": "ask the people of the database",
        "execute_on_approval": True,
        "approval_expires": "2h",
        "execution_expires": "90s",
        "escalate_after": "30m",
        "escalate_to": "managers",
    }
    verdict = await verdict_of(tmp_path, [rule("approve( 3 , dba )", **keys)], ask())
    assert (verdict.effect, verdict.quorum, verdict.group) == (APPROVE, 3, "dba")
    assert (verdict.reason, verdict.execute_on_approval) == (keys["reason"], True)
    assert (verdict.approval_expires_s, verdict.execution_expires_s) == (7200, 90)
    assert (verdict.escalate_after_s, verdict.escalate_to) == (1800, "managers")


# --- scopes and untrusted content -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("caller", "risk", "answer", "effect", "rule_id"),
    [
        (NARROW, "read", "allow", ALLOW, "mine.yaml: one"),
        (NARROW, "change", "allow", APPROVE, "key scopes"),
        (NARROW, "change", "confirm", APPROVE, "key scopes"),
        (NARROW, "destroy", "approve(2, dba)", APPROVE, "mine.yaml: one"),
        (NARROW, "destroy", "approve(1, dba)", APPROVE, "mine.yaml: one"),
        (NARROW, "change", "deny", DENY, "mine.yaml: one"),
        (CHANGER, "change", "allow", ALLOW, "mine.yaml: one"),
        (CHANGER, "destroy", "allow", APPROVE, "key scopes"),
    ],
)
async def test_no_rule_lets_a_key_run_alone_what_its_scopes_do_not_cover(
    tmp_path: Path, caller: Caller, risk: str, answer: str, effect: Effect, rule_id: str
) -> None:
    verdict = await verdict_of(tmp_path, [rule(answer)], ask(caller, risk))
    assert (verdict.effect, verdict.rule) == (effect, rule_id)
    with_condition = await verdict_of(tmp_path, [rule(answer, when="true")], ask(caller, risk))
    assert with_condition == verdict


async def test_a_key_without_a_matching_scope_is_refused_with_the_reason(tmp_path: Path) -> None:
    verdict = await verdict_of(tmp_path, [rule("allow")], ask(NARROW, tool=tool("os.linux.readFile")))
    assert (verdict.effect, verdict.rule) == (DENY, "key scopes")
    assert "key 'narrow' may not call os.linux.readFile" in verdict.reason


@pytest.mark.parametrize(
    ("risk", "answer", "effect"),
    [
        ("read", "allow", ALLOW),
        ("change", "allow", CONFIRM),
        ("destroy", "allow", CONFIRM),
        ("change", "approve", APPROVE),
        ("read", "confirm", CONFIRM),
        ("destroy", "deny", DENY),
    ],
)
@pytest.mark.parametrize("condition", [{}, {"when": "true"}], ids=["always", "on-a-condition"])
async def test_what_untrusted_content_asks_for_is_never_done_alone(
    tmp_path: Path, risk: str, answer: str, effect: Effect, condition: dict[str, str]
) -> None:
    verdict = await verdict_of(tmp_path, [rule(answer, **condition)], ask(OPERATOR, risk, tainted=True))
    assert verdict.effect is effect


@pytest.mark.parametrize(
    ("change", "effect"),
    [
        ({}, ALLOW),
        ({"door": "mcp"}, CONFIRM),
        ({"when": ".arguments.id == 8"}, CONFIRM),
        ({"when": "input"}, CONFIRM),
        ({"tools": "os.x"}, CONFIRM),
    ],
    ids=["it-decides", "another-door", "other-arguments", "a-condition-that-cannot-be-judged", "another-tool"],
)
async def test_a_rule_may_let_untrusted_content_through_for_exactly_what_it_is_about(
    tmp_path: Path, change: dict[str, Any], effect: Effect
) -> None:
    narrow: dict[str, Any] = {
        "tools": "cmdb.deleteCi",
        "door": "workflow",
        "when": ".arguments.id == 7",
        "untrusted": True,
    }
    rules = [rule("allow", **narrow | change), rule("allow", "rest")]
    question = ask(OPERATOR, "change", {"id": 7}, door="workflow", tainted=True)
    assert (await verdict_of(tmp_path, rules, question)).effect is effect


async def test_a_rule_for_untrusted_content_gives_no_key_more_than_its_scopes(tmp_path: Path) -> None:
    rules = [rule("allow", tools="cmdb.deleteCi", untrusted=True)]
    assert (await verdict_of(tmp_path, rules, ask(CHANGER, "destroy", tainted=True))).effect is APPROVE


async def test_a_taint_says_so_and_does_not_stick_to_the_next_call(tmp_path: Path) -> None:
    async with loaded(write(tmp_path, mine=[rule("allow")])) as policy:
        tainted = await policy.decide(ask(AGENT, "change", tainted=True))
        clean = await policy.decide(ask(AGENT, "change"))
    assert (tainted.rule, clean.effect) == ("untrusted content", ALLOW)
    assert "a person has to confirm" in tainted.reason


# --- conditions that cannot be judged ---------------------------------------------------------------

BROKEN = {
    "fails": 'error("boo")',
    "is no boolean": ".arguments.id",
    "is null": ".nothing",
    "gives nothing": "empty",
    "gives two": "true, true",
    "reads input": "input",
    "never ends": "last(range(1e12))",
    "eats memory": "def f: [f, .arguments]; f",
}


@pytest.mark.parametrize("how", BROKEN)
async def test_a_condition_that_cannot_be_judged_counts_as_the_stricter_outcome(tmp_path: Path, how: str) -> None:
    when, question = BROKEN[how], ask(arguments={"id": 7})
    expected = {
        ("allow", "confirm"): CONFIRM,  # does not allow
        ("confirm", "allow"): CONFIRM,  # holds
        ("approve", "allow"): APPROVE,
        ("confirm", "approve"): APPROVE,  # nor does it hide what is stricter below it
        ("deny", "allow"): DENY,
    }
    found = {}
    for first, second in expected:
        rules = [rule(first, "doubtful", when=when), rule(second, "certain")]
        found[first, second] = (await verdict_of(tmp_path, rules, question)).effect
    assert found == expected


async def test_a_condition_that_holds_does_not_hide_a_stricter_one_above_it_that_cannot_be_judged(
    tmp_path: Path,
) -> None:
    rules = [rule("confirm", "doubtful", when="input"), rule("allow", "certain", when="true")]
    assert (await verdict_of(tmp_path, rules, ask())).rule == "mine.yaml: doubtful"
    rules.insert(1, rule("approve", "certain before", when="true"))
    assert (await verdict_of(tmp_path, rules, ask())).rule == "mine.yaml: certain before"


async def test_an_allow_that_cannot_be_judged_with_nothing_below_is_a_denial(tmp_path: Path) -> None:
    assert (await verdict_of(tmp_path, [rule("allow", when="input")], ask())).effect is DENY


@pytest.mark.parametrize(
    ("when", "words"),
    [
        ("error(.arguments)", "its condition fails on this call"),
        (".arguments", "neither true nor false"),
        ("last(range(1e12))", "0.5 s of processor time"),
    ],
)
async def test_the_verdict_says_why_a_condition_was_not_judged_and_shows_no_argument(
    tmp_path: Path, when: str, words: str
) -> None:
    rules = [rule("confirm", when=when, reason="careful")]
    for answer in ("confirm", "deny"):
        rules[0]["answer"] = answer
        verdict = await verdict_of(tmp_path, [*rules, rule("allow", "rest")], ask(arguments={"pin": "very-private"}))
        assert verdict.reason.startswith("careful: its condition")
        assert words in verdict.reason
        assert "very-private" not in verdict.reason


async def test_arguments_too_large_to_judge_count_as_the_stricter_outcome(tmp_path: Path) -> None:
    rules = [rule("allow", when='.arguments.text | contains("x")'), rule("confirm", "rest")]
    assert (await verdict_of(tmp_path, rules, ask(arguments={"text": "x" * 1000}))).effect is ALLOW
    assert (await verdict_of(tmp_path, rules, ask(arguments={"text": "x" * 300_000}))).effect is CONFIRM
    assert (await verdict_of(tmp_path, rules, ask(arguments={"number": 2**70}))).effect is CONFIRM


# --- properties -------------------------------------------------------------------------------------

SOME = {
    "who": st.sampled_from([{}, {"group": "agents"}, {"key": "client"}, {"role": "operator"}, {"key": "admin"}]),
    "tools": st.sampled_from(["*", "cmdb.*", "cmdb.deleteCi", "os.*"]),
    "risk": st.sampled_from(["read", "change", ["change", "destroy"], ["read", "change", "destroy"]]),
    "when": st.sampled_from(["true", "false", ".arguments.id == 7", "input", ".arguments", "empty"]),
}
ANSWERS = st.sampled_from(["allow", "confirm", "approve", "approve(2, dba)", "deny"])
RULES = st.lists(st.fixed_dictionaries({"answer": ANSWERS}, optional=SOME), max_size=5)
QUESTIONS = st.builds(
    ask,
    st.sampled_from([AGENT, OPERATOR, NARROW, CHANGER]),
    st.sampled_from(["read", "change", "destroy"]),
    st.sampled_from([{}, {"id": 7}, {"id": 8}]),
    tainted=st.booleans(),
)


class Lab:
    """Verdicts of many policies on one event loop."""

    def __init__(self, folder: Path, runner: asyncio.Runner) -> None:
        self._folder, self._runner, self._numbers = folder, runner, count()

    def verdict(self, rules: list[dict[str, Any]], question: Question) -> Any:
        """What these rules, named by their places, say of a call."""
        named = [{**one, "name": f"r{place}"} for place, one in enumerate(rules)]
        return self._runner.run(verdict_of(self._folder / str(next(self._numbers)), named, question))


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Generator[Lab]:
    with asyncio.Runner() as runner:
        yield Lab(tmp_path_factory.mktemp("lab"), runner)


@effort(max_examples=40, deadline=None)
@given(rules=RULES, at=st.integers(0, 5), question=QUESTIONS)
def test_a_deny_that_fits_always_wins(lab: Lab, rules: list[dict[str, Any]], at: int, question: Question) -> None:
    assert lab.verdict([*rules[:at], {"answer": "deny"}, *rules[at:]], question).effect is DENY


@effort(max_examples=40, deadline=None)
@given(rules=RULES, keys=st.fixed_dictionaries({}, optional=SOME), at=st.integers(0, 5), question=QUESTIONS)
def test_adding_a_deny_never_loosens(
    lab: Lab, rules: list[dict[str, Any]], keys: dict[str, Any], at: int, question: Question
) -> None:
    before = lab.verdict(rules, question)
    after = lab.verdict([*rules[:at], {"answer": "deny", **keys}, *rules[at:]], question)
    assert after.effect.rank >= before.effect.rank


@effort(max_examples=40, deadline=None)
@given(rules=RULES, answer=ANSWERS, at=st.integers(0, 5), question=QUESTIONS)
def test_a_condition_that_fails_is_as_strict_as_the_stricter_of_true_and_false(
    lab: Lab, rules: list[dict[str, Any]], answer: str, at: int, question: Question
) -> None:
    def effect(when: str) -> int:
        return lab.verdict([*rules[:at], {"answer": answer, "when": when}, *rules[at:]], question).effect.rank

    assert effect("input") == max(effect("true"), effect("false"))


@effort(max_examples=40, deadline=None)
@given(rules=RULES, question=QUESTIONS)
def test_nothing_runs_alone_above_its_scope_or_out_of_untrusted_content(
    lab: Lab, rules: list[dict[str, Any]], question: Question
) -> None:
    verdict = lab.verdict(rules, question)
    covered = question.caller.risk_on(question.tool.id).covers(question.risk)  # type: ignore[union-attr]
    risky = question.tainted and question.risk is not Risk.read
    least = APPROVE if not covered else CONFIRM if risky else ALLOW
    assert verdict.effect.rank >= least.rank


# --- what may run alone, what is shown, what is limited ---------------------------------------------

RUN = tool("os.linux.runCommand", "destroy", service="linux_cli", assesses=True)


@pytest.mark.parametrize(
    ("caller", "arguments", "tainted", "highest"),
    [
        (AGENT, {}, False, Risk.read),
        (AGENT, {"sandboxed": True}, False, Risk.destroy),
        (AGENT, {"sandboxed": True}, True, Risk.read),
        (OPERATOR, {}, False, Risk.change),
        (NARROW, {}, False, None),
        (AGENT, {"command": "curl"}, False, None),
    ],
)
async def test_a_tool_that_assesses_is_told_the_highest_risk_for_these_arguments(
    tmp_path: Path, caller: Caller, arguments: dict[str, Any], tainted: bool, highest: Risk | None
) -> None:
    mine = [
        rule("allow", "sandboxed", tools="os.*", when=".arguments.sandboxed == true"),
        rule("confirm", "net", risk="read", when='.arguments.command == "curl"'),
    ]
    async with loaded(write(tmp_path, mine=mine)) as policy:
        question = ask(caller, "destroy", arguments, tool=RUN, tainted=tainted)
        assert await policy.highest_allowed(question) is highest


async def test_the_highest_risk_is_never_above_the_tools_own(tmp_path: Path) -> None:
    async with loaded(write(tmp_path, mine=[rule("allow")])) as policy:
        assert await policy.highest_allowed(ask(OPERATOR, tool=tool(risk="change"))) is Risk.change


async def test_a_higher_risk_is_not_allowed_over_a_lower_one_that_is_not(tmp_path: Path) -> None:
    odd = [rule("allow", risk="destroy"), rule("confirm", "rest")]
    async with loaded(write(tmp_path, mine=odd)) as policy:
        assert await policy.highest_allowed(ask(OPERATOR, tool=RUN)) is None


@pytest.mark.parametrize(
    ("rules", "shown"),
    [
        ([], True),
        ([rule("deny", tools="os.*")], False),
        ([rule("deny", tools="os.*", when=".arguments.host == null")], True),
        ([rule("deny", tools="os.*", risk="destroy")], True),  # it may turn out to read
        ([rule("deny", tools="os.*", risk=["read", "change", "destroy"])], False),
        ([rule("deny", who={"group": "operators"})], True),
        ([rule("deny", door="rest")], True),
    ],
)
async def test_a_tool_is_shown_unless_every_call_of_it_is_denied(
    tmp_path: Path, rules: list[dict[str, Any]], shown: bool
) -> None:
    async with loaded(write(tmp_path, mine=rules)) as policy:
        assert policy.visible(AGENT, RUN) is shown
        assert policy.visible(AGENT, RUN) is shown  # from memory
        assert policy.visible(AGENT, tool()) is True
        assert policy.visible(NARROW, RUN) is False  # no scope


async def test_a_tool_that_only_a_condition_can_allow_is_shown(tmp_path: Path) -> None:
    mine = write(tmp_path, mine=[rule("confirm", tools="cmdb.*", when=".arguments.id == 7")])
    async with loaded(mine, tmp_path / "none") as policy:
        assert policy.visible(AGENT, tool()) is True
        assert policy.visible(AGENT, RUN) is False


async def test_a_tool_denied_at_one_door_is_shown_at_another(tmp_path: Path) -> None:
    async with loaded(write(tmp_path, mine=[rule("deny", door="rest")])) as policy:
        assert policy.visible(AGENT, RUN, "rest") is False
        assert policy.visible(AGENT, RUN) is True


async def test_every_rule_about_a_call_limits_it(tmp_path: Path) -> None:
    mine = [
        rule(None, "all", limits=[{"amount": 60, "per": "minute", "by": ["key", "tool"], "burst": 5}]),
        rule("allow", "agents", who={"group": "agents"}, quotas=[{"amount": 1000, "per": "day"}]),
        rule(None, "operators", who={"group": "operators"}, limits=[{"amount": 1, "per": "second", "by": "service"}]),
    ]
    async with loaded(write(tmp_path, mine=mine)) as policy:
        assert policy.limits(ask(AGENT)) == (
            Limit("mine.yaml: all (limit 60 per minute by key, tool)", 60, 60.0, 5, ("key", "tool")),
            Limit("mine.yaml: agents (quota 1000 per day by key)", 1000, 86400.0, None, ("key",), True),
        )
        assert [limit.amount for limit in policy.limits(ask(OPERATOR))] == [60, 1]
        assert (await policy.decide(ask(OPERATOR))).rule.startswith("default.yaml")  # what only limits decides nothing


async def test_a_limit_for_everybody_together_says_so(tmp_path: Path) -> None:
    mine = [rule(None, "all", limits=[{"amount": 5, "per": "hour", "by": []}])]
    async with loaded(write(tmp_path, mine=mine)) as policy:
        assert policy.limits(ask())[0].by == ()
        assert policy.limits(ask())[0].name.endswith("by nothing)")


# --- memory -----------------------------------------------------------------------------------------


async def test_a_decision_without_a_condition_waits_for_nothing_and_starts_no_process(tmp_path: Path) -> None:
    async with loaded(tmp_path) as policy:
        for question in (ask(AGENT), ask(AGENT), ask(OPERATOR, "destroy")):
            deciding = policy.decide(question)
            with pytest.raises(StopIteration):
                deciding.send(None)


async def test_equal_keys_with_other_groups_or_scopes_are_answered_apart(tmp_path: Path) -> None:
    mine = [rule("deny", who={"group": "dba"})]
    async with loaded(write(tmp_path, mine=mine)) as policy:
        assert (await policy.decide(ask(AGENT))).effect is ALLOW
        assert (await policy.decide(ask(replace(AGENT, groups=("agents", "dba"))))).effect is DENY
        assert (await policy.decide(ask(replace(AGENT, scopes=("read:os.*",))))).effect is DENY
        assert (await policy.decide(ask(AGENT))).effect is ALLOW


async def test_callers_who_differ_in_their_claims_alone_are_answered_apart(tmp_path: Path) -> None:
    mine = [rule("deny", who={"claims": {"team": "dba"}}, limits=[{"amount": 1, "per": "day"}])]
    async with loaded(write(tmp_path, mine=mine)) as policy:
        for _ in range(2):
            assert (await policy.decide(ask(CLAIMING))).effect is DENY
            assert not policy.visible(CLAIMING, tool())
            assert len(policy.limits(ask(CLAIMING))) == 1
            assert (await policy.decide(ask(replace(CLAIMING, claims={})))).effect is ALLOW
            assert policy.visible(replace(CLAIMING, claims={}), tool())
            assert policy.limits(ask(replace(CLAIMING, claims={}))) == ()


async def test_memory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert REMEMBERED <= 100_000
    monkeypatch.setattr("master_mcp.policy.engine.REMEMBERED", 10)  # the real bound takes long to reach
    async with loaded(tmp_path) as policy:
        for number in range(100):
            assert (await policy.decide(ask(replace(AGENT, id=f"k{number}")))).effect is ALLOW
        assert _remembered(policy) <= 10


def _remembered(policy: Policy) -> int:
    return len(policy._now.plans)  # pyright: ignore[reportPrivateUsage] - nothing else shows it
