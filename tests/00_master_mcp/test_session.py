"""The session id of older clients is a sealed token: unforgeable, and good on any hub with the same keys."""

from pathlib import Path

import pytest

from fleetkit import trust
from master_mcp.auth.session import Sealer


def test_a_sealed_session_opens_on_another_hub_with_the_same_keys(tmp_path: Path) -> None:
    token = Sealer(trust.KeyRing(tmp_path), 60).seal("k1", "2025-11-25", {"elicitation": {}}, {"name": "c"})
    session = Sealer(trust.KeyRing(tmp_path), 60).open(token)
    assert session is not None
    assert (session.key_id, session.version) == ("k1", "2025-11-25")
    assert (session.capabilities, session.client) == ({"elicitation": {}}, {"name": "c"})


def test_a_token_is_visible_ascii_and_hides_what_it_holds(tmp_path: Path) -> None:
    token = Sealer(trust.KeyRing(tmp_path), 60).seal("secret-key-id", "2025-11-25", {}, {})
    assert all(0x21 <= ord(character) <= 0x7E for character in token)
    assert "secret" not in token


def test_two_sessions_of_one_client_have_different_ids(tmp_path: Path) -> None:
    sealer = Sealer(trust.KeyRing(tmp_path), 60)
    assert sealer.seal("k", "2025-11-25", {}, {}) != sealer.seal("k", "2025-11-25", {}, {})


@pytest.mark.parametrize("token", ["", "x", "not base64 !!", "AAAA", "A" * 200, "ä"])
def test_a_made_up_token_is_no_session(tmp_path: Path, token: str) -> None:
    assert Sealer(trust.KeyRing(tmp_path), 60).open(token) is None


def test_a_token_with_any_character_changed_is_no_session(tmp_path: Path) -> None:
    sealer = Sealer(trust.KeyRing(tmp_path), 60)
    token = sealer.seal("k", "2025-11-25", {}, {})
    changed = [token[:i] + ("A" if token[i] != "A" else "B") + token[i + 1 :] for i in range(len(token) - 1)]
    assert [sealer.open(other) for other in changed] == [None] * len(changed)


def test_an_expired_token_is_no_session(tmp_path: Path) -> None:
    sealer = Sealer(trust.KeyRing(tmp_path), -1)
    assert sealer.open(sealer.seal("k", "2025-11-25", {}, {})) is None


def test_a_token_of_another_fleet_is_no_session(tmp_path: Path) -> None:
    token = Sealer(trust.KeyRing(tmp_path / "a"), 60).seal("k", "2025-11-25", {}, {})
    assert Sealer(trust.KeyRing(tmp_path / "b"), 60).open(token) is None
