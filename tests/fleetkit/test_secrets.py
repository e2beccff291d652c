import dataclasses
import secrets
from pathlib import Path

import pytest
from answers import answering
from hypothesis import given
from hypothesis import strategies as st
from support import free_port

from fleetkit import correlation, trust
from fleetkit.correlation import Caller, Context
from fleetkit.errors import Invalid, Refused, Unavailable
from fleetkit.risk import Risk
from fleetkit.scrub import MASK, scrubber
from fleetkit.secrets import Resolver, SecretRef, Use, check_grant, grant_for, make_grant, serving
from fleetkit.spoke import Setting, SpokeOptions

AGENT = Caller("k1", "claude", "agent")
USE = Use(
    SecretRef("keepass", "ssh/web1", "password"),
    AGENT,
    "linux_cli",
    "os.linux.sshExecuteCommand",
    "credential",
    "web1",
    "c" * 32,
)
LINUX, SECRETS, CMDB = "fst_linux", "fst_secrets", "fst_cmdb"


class OneSecret:
    """A broker that hands out one value and remembers who wanted it."""

    def __init__(self, value: str) -> None:
        self.value = value
        self.uses: list[Use] = []

    async def resolve(self, use: Use) -> str:
        self.uses.append(use)
        return self.value


def setting(data_dir: Path, *, embedded: bool = True) -> Setting:
    return Setting(data_dir, SpokeOptions(), LINUX, f"http://127.0.0.1:{free_port()}", embedded)


def allowance(caller: Caller = AGENT, ttl_s: float = 60) -> str:
    made = trust.Allowance(caller, USE.tool, trust.canonical_hash({}), Risk.change, USE.correlation_id)
    return made.signed(LINUX, ttl_s)


def wish(**changed: object) -> dict[str, object]:
    asked = {"spoke": "linux_cli", "context": allowance(), "reference": str(USE.reference)}
    return asked | {"argument": "credential", "destination": "web1"} | changed


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("secret://keepass/ssh/web1#password", SecretRef("keepass", "ssh/web1", "password")),
        ("secret://files/token", SecretRef("files", "token")),
        ("secret://keepass/My Group/a b#Custom Field", SecretRef("keepass", "My Group/a b", "Custom Field")),
        ("secret://keepass/odd%2Ftitle%23#a#b", SecretRef("keepass", "odd%2Ftitle%23", "a#b")),
        ("secret://files/token#", SecretRef("files", "token")),
    ],
)
def test_a_reference_has_a_backend_a_path_and_maybe_a_field(text: str, parsed: SecretRef) -> None:
    assert SecretRef.parse(text) == parsed


@pytest.mark.parametrize(
    "text",
    [
        "secret://",
        "secret://keepass",
        "secret://keepass/",
        "secret:///x",
        "secret://KeePass/x",
        "secret://a-b/x",
        "secret://files/../etc/shadow",
        "secret://files/a/./b",
        "secret://files//a",
        "secret://files/a/",
        "secret://files/a\nb",
        "secret://files/a\x00",
        "secret://files/" + "a" * 600,
    ],
)
def test_a_malformed_reference_is_refused_with_the_shape_of_a_good_one(text: str) -> None:
    with pytest.raises(Invalid, match="secret://"):
        SecretRef.parse(text)


@given(st.text(max_size=80).filter(lambda text: not text.startswith("secret://") and len(text) > 8))
def test_a_value_given_for_a_reference_is_never_repeated_in_the_error(value: str) -> None:
    with pytest.raises(Invalid) as caught:
        SecretRef.parse(value)
    with pytest.raises(Invalid) as of_another:
        SecretRef.parse("another value")
    assert str(caught.value) == str(of_another.value)


@given(
    st.lists(st.text("abcXYZ019 ._-%@", min_size=1).filter(lambda part: part not in {".", ".."}), min_size=1),
    st.none() | st.text("abc #:", min_size=1),
)
def test_writing_and_parsing_a_reference_are_inverse(parts: list[str], field: str | None) -> None:
    reference = SecretRef("keepass", "/".join(parts)[:200].rstrip("/"), field)
    assert SecretRef.parse(str(reference)) == reference


async def test_an_embedded_spoke_gets_the_value_from_the_broker_of_its_own_fleet(tmp_path: Path) -> None:
    ours, theirs = OneSecret("ours-ours-ours"), OneSecret("theirs-theirs")
    context = Context(USE.correlation_id, AGENT, USE.tool)
    with serving(tmp_path / "a", ours), serving(tmp_path / "b", theirs), correlation.bound(context):
        value = await Resolver("linux_cli", setting(tmp_path / "a")).resolve(
            str(USE.reference), argument="credential", destination="web1"
        )
    assert value == "ours-ours-ours"
    assert ours.uses == [USE]
    assert theirs.uses == []


async def test_a_resolved_value_is_masked_from_then_on(tmp_path: Path) -> None:
    value = secrets.token_urlsafe(20)
    with serving(tmp_path, OneSecret(value)), correlation.bound(Context("c" * 32, AGENT, USE.tool)):
        await Resolver("linux_cli", setting(tmp_path)).resolve("secret://files/a", argument="a", destination="d")
    assert scrubber.text(f"got {value}!") == f"got {MASK}!"


async def test_a_user_name_is_no_secret_and_stays_readable(tmp_path: Path) -> None:
    name = f"user{secrets.token_hex(6)}"
    with serving(tmp_path, OneSecret(name)), correlation.bound(Context("c" * 32, AGENT, USE.tool)):
        await Resolver("linux_cli", setting(tmp_path)).resolve(
            "secret://keepass/a#username", argument="a", destination="d"
        )
    assert scrubber.text(name) == name


@pytest.mark.parametrize("context", [None, Context("c" * 32), Context("c" * 32, AGENT), Context("c" * 32, None, "t")])
async def test_outside_a_signed_call_nothing_is_resolved(tmp_path: Path, context: Context | None) -> None:
    broker = OneSecret("never")
    resolver = Resolver("linux_cli", setting(tmp_path))
    token = correlation._current.set(context)  # pyright: ignore[reportPrivateUsage] - also the state of no context
    try:
        with serving(tmp_path, broker), pytest.raises(Refused, match="through the hub"):
            await resolver.resolve("secret://files/a", argument="a", destination="d")
    finally:
        correlation._current.reset(token)  # pyright: ignore[reportPrivateUsage]
    assert broker.uses == []


async def test_a_spoke_of_its_own_process_does_not_use_a_broker_in_this_one(tmp_path: Path) -> None:
    broker = OneSecret("never")
    apart = setting(tmp_path, embedded=False)
    in_call = correlation.bound(Context("c" * 32, AGENT, USE.tool, "token"))
    with serving(tmp_path, broker), in_call, pytest.raises(Unavailable, match=apart.hub_url):
        await Resolver("linux_cli", apart).resolve("secret://files/a", argument="a", destination="d")
    assert broker.uses == []


def test_a_grant_carries_the_whole_use_to_who_holds_the_spokes_token() -> None:
    granted = check_grant(make_grant(USE, LINUX, SECRETS), LINUX, SECRETS)
    assert granted.use == USE


def test_every_grant_has_an_id_of_its_own() -> None:
    first, second = (check_grant(make_grant(USE, LINUX, SECRETS), LINUX, SECRETS) for _ in range(2))
    assert first.jti != second.jti


def test_a_stolen_grant_is_useless_with_another_spokes_token() -> None:
    with pytest.raises(Refused, match="another spoke"):
        check_grant(make_grant(USE, LINUX, SECRETS), CMDB, SECRETS)


def test_a_grant_that_the_hub_did_not_sign_is_refused() -> None:
    with pytest.raises(Refused, match="not signed"):
        check_grant(make_grant(USE, LINUX, LINUX), LINUX, SECRETS)


def test_an_old_grant_is_refused() -> None:
    with pytest.raises(Refused, match="expired"):
        check_grant(make_grant(USE, LINUX, SECRETS, ttl_s=-1), LINUX, SECRETS)


@given(st.text(max_size=40))
def test_a_grant_of_noise_is_refused(text: str) -> None:
    with pytest.raises(Refused):
        check_grant(text, LINUX, SECRETS)


def test_an_allowance_is_no_grant() -> None:
    with pytest.raises(Refused):
        check_grant(allowance(), LINUX, LINUX)


def test_the_hub_grants_what_the_signed_call_says_not_what_the_spoke_says() -> None:
    made = grant_for(wish(tool="os.linux.other", caller=["x", "root", "operator"]), "linux_cli", LINUX, SECRETS)
    assert check_grant(made, LINUX, SECRETS).use == USE


def test_a_spoke_cannot_ask_in_anothers_name() -> None:
    with pytest.raises(Refused, match="another spoke"):
        grant_for(wish(spoke="cmdb"), "linux_cli", LINUX, SECRETS)


def test_a_context_of_another_spokes_call_gives_no_grant() -> None:
    with pytest.raises(Refused):
        grant_for(wish(spoke="cmdb"), "cmdb", CMDB, SECRETS)


def test_an_ended_call_gives_no_grant() -> None:
    with pytest.raises(Refused, match="expired"):
        grant_for(wish(context=allowance(ttl_s=-1)), "linux_cli", LINUX, SECRETS)


@pytest.mark.parametrize("field", ["spoke", "context", "reference", "argument", "destination"])
@pytest.mark.parametrize("value", [None, 7, ["x"]])
def test_a_malformed_wish_names_the_field(field: str, value: object) -> None:
    with pytest.raises(Invalid, match=field):
        grant_for(wish(**{field: value}), "linux_cli", LINUX, SECRETS)


@pytest.mark.parametrize("answer", [b'{"grant": "g", "url": null}', b'{"grant": "g"}'])
async def test_a_secrets_service_that_no_process_can_reach_is_named(tmp_path: Path, answer: bytes) -> None:
    async with answering(200, answer) as (url, _):
        apart = dataclasses.replace(setting(tmp_path, embedded=False), hub_url=url)
        with (
            correlation.bound(Context("c" * 32, AGENT, USE.tool, "t")),
            pytest.raises(Unavailable, match="--processes"),
        ):
            await Resolver("linux_cli", apart).resolve("secret://files/a", argument="a", destination="d")
