"""Trust: what one process may believe of another, and the files that hold its keys."""

import base64
import stat
from pathlib import Path

import orjson
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fleetkit import trust
from fleetkit.correlation import Caller
from fleetkit.errors import Invalid, Refused, Unavailable
from fleetkit.risk import Risk
from fleetkit.trust import Allowance, KeyRing

ARGUMENTS = {"path": "/etc/hosts", "lines": 3}
CALLER = Caller("key_7", "laptop", "agent")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcd"), inner, max_size=3),
    max_leaves=6,
)


def allowance(tool: str = "os.linux.readFile", risk: Risk = Risk.change) -> Allowance:
    return Allowance(CALLER, tool, trust.canonical_hash(ARGUMENTS), risk, "c" * 32)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# --- signatures -------------------------------------------------------------------------------------


def test_an_allowance_arrives_as_it_was_signed():
    text = allowance().signed("fst_a", 60)
    assert trust.read_allowance(text, "fst_a", "os.linux.readFile", ARGUMENTS) == allowance()


def test_the_order_of_the_arguments_does_not_matter():
    text = allowance().signed("fst_a", 60)
    assert trust.read_allowance(text, "fst_a", "os.linux.readFile", dict(reversed(ARGUMENTS.items())))


def test_another_spokes_token_neither_makes_nor_checks_it():
    text = allowance().signed("fst_a", 60)
    with pytest.raises(Refused, match="not signed by this fleet's hub for this service"):
        trust.read_allowance(text, "fst_b", "os.linux.readFile", ARGUMENTS)


def test_it_is_bound_to_its_tool():
    text = allowance().signed("fst_a", 60)
    with pytest.raises(Refused, match="belongs to another call"):
        trust.read_allowance(text, "fst_a", "os.linux.writeFile", ARGUMENTS)


@pytest.mark.parametrize("changed", [{**ARGUMENTS, "lines": 4}, {"path": "/etc/hosts"}, {**ARGUMENTS, "x": None}, {}])
def test_it_is_bound_to_its_arguments(changed: dict[str, object]):
    text = allowance().signed("fst_a", 60)
    with pytest.raises(Refused, match="belongs to another call"):
        trust.read_allowance(text, "fst_a", "os.linux.readFile", changed)


def test_it_expires():
    text = allowance().signed("fst_a", -1)
    with pytest.raises(Refused, match="expired: repeat the call"):
        trust.read_allowance(text, "fst_a", "os.linux.readFile", ARGUMENTS)


def test_a_text_without_an_expiry_counts_as_expired():
    with pytest.raises(Refused, match="expired"):
        trust.verify(trust.sign({"caller": 1}, "fst_a", "allow"), "fst_a", "allow")


def test_a_signature_for_one_purpose_is_none_for_another():
    text = trust.sign({"exp": 9e9}, "fst_a", "resolve")
    with pytest.raises(Refused, match="not signed"):
        trust.verify(text, "fst_a", "allow")


def test_a_payload_raised_by_hand_is_refused():
    body, _, mac = allowance(risk=Risk.read).signed("fst_a", 60).partition(".")
    payload = orjson.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    forged = base64.urlsafe_b64encode(orjson.dumps({**payload, "risk": "destroy"})).rstrip(b"=").decode()
    with pytest.raises(Refused, match="not signed"):
        trust.read_allowance(f"{forged}.{mac}", "fst_a", "os.linux.readFile", ARGUMENTS)


@given(st.integers(0, 10_000), st.characters(codec="utf-8"))
def test_no_changed_character_anywhere_is_overlooked(place: int, character: str):
    text = trust.sign({"exp": 9e9, "who": "agent"}, "fst_a", "allow")
    at = place % len(text)
    changed = text[:at] + character + text[at + 1 :]
    assume(changed != text)
    with pytest.raises(Refused, match="not signed"):
        trust.verify(changed, "fst_a", "allow")


@pytest.mark.parametrize("text", ["", ".", "a.b", "no dot at all", "ü.ü", "e30.ü", "\ud800.\ud800", "." * 1000])
def test_any_other_text_is_refused_and_never_crashes(text: str):
    with pytest.raises(Refused, match="not signed"):
        trust.verify(text, "fst_a", "allow")


def test_a_risk_word_this_version_does_not_know_counts_as_destroy():
    payload = {"caller": ["a", "b", "c"], "tool": "t.x", "args": trust.canonical_hash({}), "risk": "new", "cid": "c"}
    text = trust.sign({**payload, "exp": 9e9}, "fst_a", "allow")
    assert trust.read_allowance(text, "fst_a", "t.x", {}).risk is Risk.destroy


# --- hashes -----------------------------------------------------------------------------------------


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=4), JSON, max_size=4))
def test_arguments_hash_the_same_on_both_sides_of_the_wire(arguments: dict[str, object]):
    assert trust.canonical_hash(orjson.loads(orjson.dumps(arguments))) == trust.canonical_hash(arguments)


def test_one_and_the_word_one_are_different_arguments():
    assert len({trust.canonical_hash({"n": value}) for value in (1, "1", 1.5, True, None, [1])}) == 6


@pytest.mark.parametrize("value", [2**64, object(), {1, 2}])
def test_an_argument_that_json_cannot_carry_is_invalid(value: object):
    with pytest.raises(Invalid, match="cannot be sent as JSON"):
        trust.canonical_hash({"n": value})


def test_a_fingerprint_tells_tokens_apart_without_showing_them():
    one, two = trust.token_fingerprint("fst_a"), trust.token_fingerprint("fst_b")
    assert one != two
    assert "fst_a" not in one


# --- keys on disk -----------------------------------------------------------------------------------


def test_a_key_ring_makes_its_root_key_once_and_private(tmp_path: Path):
    data = tmp_path / "data"
    first = KeyRing(data).derive("pepper")
    root = data / "keys" / "root.key"
    assert (mode(root), mode(root.parent)) == (0o600, 0o700)
    assert KeyRing(data).derive("pepper") == first


def test_each_purpose_and_each_spoke_has_a_key_of_its_own(tmp_path: Path):
    ring = KeyRing(tmp_path)
    assert ring.derive("a") != ring.derive("b")
    assert ring.service_token("cmdb") != ring.service_token("secrets")
    assert ring.service_token("cmdb").startswith("fst_")


def test_two_fleets_share_nothing(tmp_path: Path):
    assert KeyRing(tmp_path / "a").service_token("cmdb") != KeyRing(tmp_path / "b").service_token("cmdb")


@pytest.mark.parametrize("content", ["", "\n", "00", "not hex", "ab" * 31, "ab" * 33, "ü"])
def test_a_damaged_root_key_is_refused_instead_of_becoming_a_weak_one(tmp_path: Path, content: str):
    KeyRing(tmp_path)
    (tmp_path / "keys" / "root.key").write_text(content, encoding="utf-8")
    with pytest.raises(Unavailable, match=r"root\.key is damaged: restore it"):
        KeyRing(tmp_path)


def test_a_root_key_with_a_final_newline_is_the_same_key(tmp_path: Path):
    first = KeyRing(tmp_path).derive("x")
    root = tmp_path / "keys" / "root.key"
    root.write_text(root.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    assert KeyRing(tmp_path).derive("x") == first


def test_a_private_file_replaces_the_old_one_and_leaves_nothing_beside_it(tmp_path: Path):
    path = tmp_path / "in" / "admin.key"
    trust.write_private(path, "old")
    path.chmod(0o644)
    trust.write_private(path, "new")
    assert (path.read_text(encoding="utf-8"), mode(path)) == ("new", 0o600)
    assert list(path.parent.iterdir()) == [path]


def test_a_private_directory_is_closed_to_others_even_when_it_existed(tmp_path: Path):
    path = tmp_path / "data"
    path.mkdir(mode=0o755)
    assert mode(trust.private_dir(path)) == 0o700
