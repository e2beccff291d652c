from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetkit.correlation import Caller
from fleetkit.errors import Invalid
from fleetkit.secrets import SecretRef, Use
from secrets_mcp import spoke
from secrets_mcp.options import INBOX, SSH_LOGIN, Rule, SecretsOptions
from secrets_mcp.policy import Policy, matches_any

AGENT = Caller("k1", "claude", "agent")
LOGIN = Use(
    SecretRef("keepass", "ssh/web1"),
    AGENT,
    "linux_cli",
    "os.linux.sshExecuteCommand",
    "credential",
    "web1",
    "c" * 32,
)


def rule(**given: Any) -> Rule:
    return Rule.model_validate({"name": "r", "paths": ["**"]} | given)


def allowed(use: Use, *rules: Rule, field: str = "password", leased: bool = False) -> bool:
    return Policy(rules).decide(use, field, leased=leased).allowed


def test_without_a_rule_everything_is_denied_and_says_where_to_add_one() -> None:
    decision = Policy([]).decide(LOGIN, "password")
    assert (decision.allowed, decision.rule) == (False, None)
    assert "spokes.secrets.rules" in decision.reason


def test_the_shipped_rules_let_ssh_secrets_log_in_from_the_linux_spoke() -> None:
    assert allowed(LOGIN, SSH_LOGIN, INBOX)


@pytest.mark.parametrize(
    "use",
    [
        replace(LOGIN, reference=SecretRef("keepass", "db/prod")),
        replace(LOGIN, reference=SecretRef("keepass", "sshx/web1")),
        replace(LOGIN, reference=SecretRef("keepass", "db/ssh/web1")),
        replace(LOGIN, reference=SecretRef("environment", "ssh/web1")),
        replace(LOGIN, spoke="cmdb"),
        replace(LOGIN, spoke="linux_cli2"),
        replace(LOGIN, tool="cmdb.importCsv"),
        replace(LOGIN, argument="command"),
        replace(LOGIN, argument="content"),
    ],
)
def test_the_shipped_rules_allow_nothing_else(use: Use) -> None:
    assert not allowed(use, SSH_LOGIN, INBOX)


@pytest.mark.parametrize(
    ("given", "fits"),
    [
        ({}, True),
        ({"paths": ["keepass/ssh/web1"]}, True),
        ({"paths": ["keepass/ssh/*"]}, True),
        ({"paths": ["keepass/*"]}, False),
        ({"paths": ["keepass/ssh/web?"]}, True),
        ({"paths": ["KEEPASS/**"]}, False),
        ({"paths": ["files/**", "keepass/**"]}, True),
        ({"fields": ["password", "totp"]}, True),
        ({"fields": ["username"]}, False),
        ({"spokes": ["linux_cli"]}, True),
        ({"spokes": ["linux"]}, False),
        ({"tools": ["os.linux.ssh*"]}, True),
        ({"tools": ["os.linux"]}, False),
        ({"arguments": ["credential"]}, True),
        ({"arguments": ["cred"]}, False),
        ({"destinations": ["web?", "db"]}, True),
        ({"destinations": ["db"]}, False),
        ({"callers": ["claude"]}, True),
        ({"callers": ["k1"]}, True),
        ({"callers": ["role:agent"]}, True),
        ({"callers": ["role:operator"]}, False),
        ({"callers": ["cursor"]}, False),
    ],
)
def test_every_part_of_a_rule_must_match(given: dict[str, Any], fits: bool) -> None:
    assert allowed(LOGIN, rule(**given)) is fits


def test_a_deny_wins_wherever_it_stands() -> None:
    deny = rule(name="no", effect="deny", callers=["role:agent"])
    for rules in ([deny, rule()], [rule(), deny]):
        decision = Policy(rules).decide(LOGIN, "password")
        assert (decision.allowed, decision.rule) == (False, "no")


def test_a_rule_that_wants_a_lease_allows_only_with_one() -> None:
    wanting = rule(lease=True)
    assert not allowed(LOGIN, wanting)
    assert "leaseSecret" in Policy([wanting]).decide(LOGIN, "password").reason
    assert allowed(LOGIN, wanting, leased=True)


def test_the_reason_names_what_differs_from_the_nearest_rule() -> None:
    elsewhere = replace(LOGIN, spoke="cmdb", argument="note")
    assert Policy([SSH_LOGIN]).decide(elsewhere, "password").reason.endswith("not with this spoke, argument")
    theirs = rule(callers=["cursor"])
    assert Policy([theirs]).decide(LOGIN, "password").reason.endswith("not with this caller")


def test_a_rule_for_revealing_allows_no_other_use() -> None:
    revealing = rule(reveal=True, paths=["keepass/ssh/web1"], callers=["claude"])
    policy = Policy([revealing])
    assert not policy.decide(LOGIN, "password").allowed
    assert policy.may_reveal(LOGIN.reference, "password", AGENT).allowed
    assert not policy.may_reveal(LOGIN.reference, "password", Caller("k2", "cursor", "agent")).allowed
    assert not policy.may_reveal(SecretRef("keepass", "ssh/web2"), "password", AGENT).allowed


def test_a_rule_for_uses_reveals_nothing_and_a_deny_stops_a_revealing() -> None:
    revealing = rule(reveal=True, paths=["keepass/ssh/web1"], callers=["claude"])
    assert not Policy([rule()]).may_reveal(LOGIN.reference, "password", AGENT).allowed
    denying = rule(name="no", effect="deny")
    assert Policy([revealing, denying]).may_reveal(LOGIN.reference, "password", AGENT).rule == "no"


@pytest.mark.parametrize(
    "broad",
    [
        {"callers": ["**"], "paths": ["keepass/a"]},
        {"callers": ["role:agent"], "paths": ["keepass/a"]},
        {"callers": ["claude"], "paths": ["**"]},
        {"paths": ["keepass/a"]},
    ],
)
def test_a_revealing_rule_for_everybody_or_everything_is_a_configuration_error(broad: dict[str, Any]) -> None:
    with pytest.raises(Invalid, match="must name its callers and paths"):
        spoke.read_options({"rules": [{"name": "r", "reveal": True} | broad]})


def test_a_lease_is_for_a_use_that_could_be_allowed() -> None:
    policy = Policy([rule(paths=["keepass/ssh/**"], callers=["claude"], lease=True)])
    assert policy.may_lease(LOGIN.reference, "password", AGENT).allowed
    assert not policy.may_lease(SecretRef("keepass", "db/prod"), "password", AGENT).allowed
    assert not policy.may_lease(LOGIN.reference, "password", Caller("k2", "cursor", "agent")).allowed


def test_a_deny_for_one_destination_leaves_a_lease_possible_and_one_for_all_does_not() -> None:
    one = rule(name="no", effect="deny", destinations=["db"])
    every = rule(name="no", effect="deny")
    assert Policy([rule(), one]).may_lease(LOGIN.reference, "password", AGENT).allowed
    assert not Policy([rule(), every]).may_lease(LOGIN.reference, "password", AGENT).allowed


def test_own_rules_stand_before_the_shipped_ones_which_can_be_left_out() -> None:
    own = rule(name="own")
    assert [r.name for r in SecretsOptions(rules=[own]).policy] == ["own", "ssh-login", "inbox", "external-server"]
    assert SecretsOptions(default_rules=False).policy == []


@pytest.mark.parametrize(
    "wrong", [{"name": "r"}, {"name": "r", "paths": []}, {"name": "r", "paths": ["a"], "callrs": ["b"]}]
)
def test_a_rule_with_a_wrong_key_or_without_paths_is_a_configuration_error(wrong: dict[str, Any]) -> None:
    with pytest.raises(Invalid, match=r"spokes\.secrets\.rules"):
        spoke.read_options({"rules": [wrong]})


@given(st.text(max_size=20))
def test_a_glob_without_stars_matches_only_itself(text: str) -> None:
    plain = text.replace("*", "").replace("?", "")
    assert matches_any([plain], plain)
    assert not matches_any([plain], f"{plain}x")
    assert not matches_any([plain], f"x{plain}")


@given(st.text(max_size=20))
def test_two_stars_match_anything_and_one_star_no_slash(text: str) -> None:
    assert matches_any(["**"], text)
    assert matches_any(["*"], text) is ("/" not in text)


def test_lists_from_the_environment_are_split() -> None:
    options = spoke.read_options({"files_paths": "/a:/b", "environment_names": "A,B"})
    assert isinstance(options, SecretsOptions)
    assert [str(path) for path in options.files_paths] == ["/a", "/b"]
    assert options.environment_names == ["A", "B"]
