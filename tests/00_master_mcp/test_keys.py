"""API keys: shown once, kept as a MAC, scoped, expiring, revocable from another process."""

import asyncio
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from hubs import ask, running_hub

from fleetkit import settings, trust
from fleetkit.errors import Conflict, Invalid, NotFound
from fleetkit.risk import Risk
from fleetkit.store import Store, open_store
from master_mcp import store as store_module
from master_mcp.auth.keys import Keys, ensure_files
from master_mcp.store import open_hub_store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_hub_store(settings.load(tmp_path))
    yield opened
    opened.close()


@pytest.fixture
def keys(store: Store, tmp_path: Path) -> Keys:
    return Keys(store, trust.KeyRing(tmp_path))


def test_a_new_key_opens_the_door_and_its_secret_is_nowhere_on_disk(keys: Keys, store: Store, tmp_path: Path) -> None:
    key, secret = keys.create("ci")
    assert keys.authenticate(secret) == key
    store.close()
    everything = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert key.id.encode() in everything
    assert secret.encode() not in everything
    assert secret.split("_", 2)[2].encode() not in everything


def test_a_secret_has_256_random_bits(keys: Keys) -> None:
    secrets = [keys.create(f"k{n}")[1].split("_", 2)[2] for n in range(20)]
    assert len(set(secrets)) == 20
    assert {len(secret) for secret in secrets} == {43}


@pytest.mark.parametrize("wrong", ["", "flt", "flt_12345678", "flt_12345678_short", "Bearer x", "flt__", "x_y_z" * 20])
def test_what_is_not_a_key_is_refused(keys: Keys, wrong: str) -> None:
    assert keys.authenticate(wrong) is None


def test_a_key_with_one_changed_character_is_refused(keys: Keys) -> None:
    _, secret = keys.create("ci")
    other = "A" if secret[-1] != "A" else "B"
    assert keys.authenticate(secret[:-1] + other) is None


def test_a_key_of_another_fleet_is_refused(keys: Keys, store: Store, tmp_path: Path) -> None:
    _, secret = keys.create("ci")
    assert Keys(store, trust.KeyRing(tmp_path / "other")).authenticate(secret) is None


def test_a_revoked_key_is_dead_and_another_of_that_name_may_follow(keys: Keys) -> None:
    first, secret = keys.create("ci")
    keys.revoke("ci")
    assert keys.authenticate(secret) is None
    assert keys.by_id(first.id) is None
    second, _ = keys.create("ci")
    assert keys.by_id(second.id) == second


def test_two_live_keys_never_share_a_name(keys: Keys) -> None:
    keys.create("ci")
    with pytest.raises(Conflict, match="already named 'ci'"):
        keys.create("ci")


def test_an_expired_key_is_dead(keys: Keys) -> None:
    _, secret = keys.create("ci", expires_s=-1)
    assert keys.authenticate(secret) is None
    with pytest.raises(NotFound, match="no live key is called 'ci'"):
        keys.revoke("ci")


def test_rotation_keeps_name_scopes_and_expiry_and_lets_the_old_key_overlap(keys: Keys) -> None:
    old, old_secret = keys.create("ci", scopes=["read:cmdb.*"], expires_s=3600)
    new, new_secret = keys.rotate("ci", overlap_s=60)
    assert keys.authenticate(old_secret) is not None
    assert keys.authenticate(new_secret) is not None
    assert (new.name, new.scopes) == (old.name, old.scopes)
    assert new.expires_at == pytest.approx(old.expires_at, abs=5)
    keys.rotate(new.id)
    assert keys.authenticate(new_secret) is None


@pytest.mark.parametrize(
    ("role", "scopes", "words"),
    [
        ("king", None, "use agent or operator"),
        ("agent", ["os.linux.*"], "<read|change|destroy>:<tool glob>"),
        ("agent", ["change:"], "<read|change|destroy>:<tool glob>"),
        ("agent", ["all:*"], "<read|change|destroy>:<tool glob>"),
        ("agent", ["manage"], "an agent key never manages"),
    ],
)
def test_a_bad_role_or_scope_is_named(keys: Keys, role: str, scopes: list[str] | None, words: str) -> None:
    with pytest.raises(Invalid, match=words.replace("|", r"\|")):
        keys.create("ci", role, scopes)


def test_a_key_is_in_its_roles_group_and_those_it_was_given(keys: Keys) -> None:
    plain, _ = keys.create("plain")
    boss, secret = keys.create("boss", "operator", groups=["web", "dba", "web"])
    assert plain.caller.groups == ("agents",)
    assert boss.caller.groups == ("operators", "dba", "web")
    found = keys.authenticate(secret)
    assert found is not None
    assert found.caller.groups == boss.caller.groups


def test_rotation_keeps_the_groups_of_both_keys_while_they_overlap(keys: Keys) -> None:
    old, old_secret = keys.create("boss", "operator", groups=["dba"])
    new, new_secret = keys.rotate("boss", overlap_s=60)
    live = [keys.authenticate(secret) for secret in (old_secret, new_secret)]
    assert [key.caller.groups for key in live if key] == [("operators", "dba")] * 2
    assert new.id != old.id


@pytest.mark.parametrize(
    ("group", "words"),
    [
        ("agents", "is what --role gives"),
        ("operators", "is what --role gives"),
        ("DBA", "write small letters"),
        ("", "write small letters"),
        ("d*", "write small letters"),
    ],
)
def test_a_group_that_is_a_roles_or_no_word_is_refused(keys: Keys, group: str, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        keys.create("ci", groups=["web", group])
    assert keys.listed() == []


def test_a_caller_made_from_another_has_the_rights_of_its_own_scopes(keys: Keys) -> None:
    wide = keys.create("ci")[0].caller
    assert wide.risk_on("cmdb.getCi") is Risk.change
    assert replace(wide, scopes=("read:os.*",)).risk_on("cmdb.getCi") is None


def test_the_keys_of_a_fleet_from_before_groups_are_in_their_roles(tmp_path: Path) -> None:
    migrations = Path(store_module.__file__).parent / "migrations"
    before = tmp_path / "before"
    before.mkdir()
    shutil.copy(migrations / "0001_keys_audit_catalog.py", before)
    old = open_store(tmp_path, "hub", before)
    row = {"id": "k1", "name": "ci", "mac": "m", "role": "agent", "scopes": ["read:*"], "created_at": 1.0, "changed": 1}
    table = sa.table("api_keys", *map(sa.column, row))
    old.write_now(lambda db: db.execute(table.insert().values({**row, "scopes": '["read:*"]'})))
    old.close()
    now = open_hub_store(settings.load(tmp_path))
    assert [key.caller.groups for key in Keys(now, trust.KeyRing(tmp_path)).listed()] == [("agents",)]
    now.close()


def test_the_highest_matching_scope_counts(keys: Keys) -> None:
    key, _ = keys.create("ci", scopes=["read:*", "change:cmdb.*", "read:cmdb.getCi"])
    assert key.caller.risk_on("os.linux.readFile") is Risk.read
    assert key.caller.risk_on("cmdb.upsertCi") is Risk.change
    assert key.caller.risk_on("cmdb.getCi") is Risk.change
    narrow, _ = keys.create("narrow", scopes=["read:cmdb.*"])
    assert narrow.caller.risk_on("os.linux.readFile") is None
    assert not narrow.caller.manages


def test_default_keys_are_an_agent_that_never_manages_and_an_operator(keys: Keys) -> None:
    agent, _ = keys.create("agent")
    operator, _ = keys.create("operator", role="operator")
    assert agent.caller.risk_on("os.linux.runCommand") is Risk.change
    assert operator.caller.risk_on("os.linux.runCommand") is Risk.destroy
    assert (agent.caller.manages, operator.caller.manages) == (False, True)


def test_a_key_shows_no_mac_when_printed(keys: Keys) -> None:
    key, _ = keys.create("ci")
    assert key.mac not in repr(key)


def test_key_files_are_made_once_and_stay(keys: Keys, tmp_path: Path) -> None:
    ensure_files(keys, tmp_path)
    before = [(tmp_path / f"{name}.key").read_text(encoding="utf-8") for name in ("admin", "client")]
    ensure_files(keys, tmp_path)
    assert before == [(tmp_path / f"{name}.key").read_text(encoding="utf-8") for name in ("admin", "client")]
    assert (tmp_path / "admin.key").stat().st_mode & 0o777 == 0o600
    assert keys.authenticate(before[0].strip()).role == "operator"  # type: ignore[union-attr]
    assert keys.authenticate(before[1].strip()).role == "agent"  # type: ignore[union-attr]


def test_a_lost_key_file_is_replaced_and_its_key_revoked(keys: Keys, tmp_path: Path) -> None:
    ensure_files(keys, tmp_path)
    lost = (tmp_path / "client.key").read_text(encoding="utf-8").strip()
    (tmp_path / "client.key").unlink()
    ensure_files(keys, tmp_path)
    assert keys.authenticate(lost) is None
    assert keys.authenticate((tmp_path / "client.key").read_text(encoding="utf-8").strip()) is not None


def test_a_key_file_whose_row_was_lost_with_the_database_is_valid_again(keys: Keys, tmp_path: Path) -> None:
    ensure_files(keys, tmp_path)
    secret = (tmp_path / "client.key").read_text(encoding="utf-8").strip()
    fresh_dir = tmp_path / "fresh"
    fresh = open_hub_store(settings.load(fresh_dir))
    other = Keys(fresh, trust.KeyRing(fresh_dir))
    (fresh_dir / "client.key").write_text(secret, encoding="utf-8")
    ensure_files(other, fresh_dir)
    assert other.authenticate(secret) is not None
    fresh.close()


async def test_a_revocation_by_another_process_holds_within_a_second(tmp_path: Path) -> None:
    async with running_hub(tmp_path) as hub:
        assert (await ask(hub, "tools/list"))[0] == 200
        elsewhere = open_hub_store(settings.load(tmp_path))
        await asyncio.to_thread(Keys(elsewhere, trust.KeyRing(tmp_path)).revoke, "client")
        elsewhere.close()
        async with asyncio.timeout(5):
            refused_after = time.monotonic()
            while (await ask(hub, "tools/list"))[0] != 401:
                refused_after = time.monotonic()
        assert refused_after > 0


async def test_keys_known_last_hold_while_the_database_cannot_be_read(tmp_path: Path) -> None:
    async with running_hub(tmp_path) as hub:
        hub.hub.store.engine.dispose()
        (tmp_path / "hub.db").rename(tmp_path / "away.db")
        (tmp_path / "hub.db").write_bytes(b"not a database at all, but long enough to be looked at" * 10)
        for leftover in tmp_path.glob("hub.db-*"):
            leftover.unlink()
        watching = asyncio.create_task(hub.hub.keys.watch())
        async with asyncio.timeout(5):
            while not watching.done() and hub.hub.keys.unreadable == 0:
                await asyncio.sleep(0.01)
        assert (await ask(hub, "tools/list"))[0] == 200
        watching.cancel()
        (tmp_path / "hub.db").unlink()
        (tmp_path / "away.db").rename(tmp_path / "hub.db")
