"""The hub on each kind of database: by URL only, everything else the same."""

import asyncio
import shutil
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa
from gateways import ODD_TOOLS, Gateway, odd
from hubs import RunningHub, ask, call, listening, rows, running_hub, settle
from postgres import PASSWORD, Postgres, need_postgres, running_postgres
from spoken import spoke_app

from fleetkit import settings
from fleetkit.errors import Conflict, Unavailable
from fleetkit.settings import FleetSettings, Hub
from fleetkit.store import Store, upsert
from fleetkit.trust import KeyRing
from master_mcp.audit import Row, open_audit
from master_mcp.audit.verify import verify
from master_mcp.auth.keys import Keys
from master_mcp.cli import findings
from master_mcp.store import catalog, open_hub_store

WAIT_S = 45.0


@pytest.fixture
def store(tmp_path: Path, database_url: str) -> Generator[Store]:
    """The hub's tables on each kind of database."""
    opened = open_hub_store(FleetSettings(data_dir=tmp_path / "data", hub=Hub(database_url=database_url)))
    yield opened
    opened.close()


@pytest.fixture
def ring(tmp_path: Path) -> KeyRing:
    (tmp_path / "data").mkdir(mode=0o700)
    return KeyRing(tmp_path / "data")


def _row(number: int) -> Row:
    return Row(f"{number:032x}", "anna", "mcp", "odd", "os.odd.look", "read", "ok", "00", duration_ms=1.5)


# --- the hub's own tables on all of them ------------------------------------------------------------


def test_a_key_is_made_found_rotated_and_revoked(store: Store, ring: KeyRing):
    keys = Keys(store, ring)
    made, secret = keys.create("anna", scopes=["read:os.*"], expires_s=600)
    assert keys.authenticate(secret) == made
    with pytest.raises(Conflict, match="already named"):
        keys.create("anna")
    _, newer = keys.rotate("anna")
    assert keys.authenticate(secret) is None
    assert [key.name for key in keys.listed()] == ["anna", "anna"]
    keys.revoke("anna")
    assert keys.authenticate(newer) is None


def test_another_process_s_keys_are_seen_at_the_next_look(store: Store, ring: KeyRing):
    ours, theirs = Keys(store, ring), Keys(store, ring)
    _, secret = theirs.create("anna")
    ours.refresh()
    assert ours.authenticate(secret) is not None
    theirs.revoke("anna")
    ours.refresh()
    assert ours.authenticate(secret) is None


async def test_audit_rows_are_numbered_in_order_and_keep_what_was_said(store: Store, tmp_path: Path):
    record = open_audit(store, settings.load(tmp_path))
    await asyncio.gather(*(record.commit(_row(number)) for number in range(50)))
    found = store.read_now(lambda db: db.execute(sa.text("SELECT seq, caller, duration_ms FROM audit")).all())
    assert sorted(row.seq for row in found) == list(range(1, 51))
    assert {(row.caller, row.duration_ms) for row in found} == {("anna", 1.5)}
    assert verify(store, settings.load(tmp_path)).ok


def test_the_last_good_list_of_tools_is_replaced_as_a_whole(store: Store):
    for number in (1, 2):
        row = {"service": "odd", "listed_at": float(number), "tools": [{"name": f"t{number}"}]}
        store.write_now(lambda db, row=row: upsert(db, catalog, row))
    kept = store.read_now(lambda db: db.execute(sa.select(catalog)).all())
    assert kept == [("odd", 2.0, [{"name": "t2"}])]


def test_times_in_nanoseconds_are_exact(store: Store, ring: KeyRing):
    keys = Keys(store, ring)
    before = time.time_ns()
    keys.create("anna")
    changed = store.read_now(lambda db: db.execute(sa.text("SELECT changed FROM api_keys")).scalar_one())
    assert before <= changed <= time.time_ns()


async def test_a_hub_serves_and_audits(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FLEET_HUB__DATABASE_URL", database_url)
    async with _a_hub(tmp_path / "hub") as running:
        done = (await Gateway(running).execute("os.odd.look")).body
        await call(running, "os_odd_wipe", key=running.admin)
        assert [(row["door"], row["tool"], row["outcome"]) for row in running.audit_rows()] == [
            ("rest", "os.odd.look", "ok"),
            ("mcp", "os.odd.wipe", "intent"),
            ("mcp", "os.odd.wipe", "ok"),
        ]
        found = (await Gateway(running).get("/audit?tool=os.odd.l*")).body["rows"]
        assert [row["correlation_id"] for row in found] == [done["command_id"]]
    assert not (tmp_path / "hub" / "hub.db").exists()
    async with _a_hub(tmp_path / "hub") as again:
        assert len(again.audit_rows()) == 3
        assert (await ask(again, "tools/list"))[0] == 200


@asynccontextmanager
async def _a_hub(data_dir: Path) -> AsyncGenerator[RunningHub]:
    """A hub with the spoke `odd`."""
    async with listening(spoke_app(odd, ODD_TOOLS)) as url, running_hub(data_dir, rows(odd=url)) as running:
        await settle(running, "odd")
        yield running


# --- several hubs, one PostgreSQL -------------------------------------------------------------------


@need_postgres
async def test_two_hubs_on_one_database_know_each_other_s_keys(
    tmp_path: Path, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("FLEET_HUB__DATABASE_URL", postgres.new_database())
    async with _a_hub(tmp_path / "one") as one:
        for name in ("admin.key", "client.key", "keys"):
            _copy(tmp_path / "one" / name, tmp_path / "two" / name)
        async with _a_hub(tmp_path / "two") as two:
            assert (one.admin, one.client) == (two.admin, two.client)
            made = (await Gateway(one).post("/keys", {"name": "anna"})).body
            await _until(Gateway(two), made["secret"], 200)
            await Gateway(two).post("/keys/anna/revoke")
            await _until(Gateway(one), made["secret"], 401)
            for hub in (one, two):
                await Gateway(hub).execute("os.odd.look")
                hub.hub.audit.flush().result()
            calls = [[row["door"] for row in hub.audit_rows() if row["service"] == "odd"] for hub in (one, two)]
            assert calls == [["rest"] * 2] * 2


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copy(source, target)


async def _until(hub: Gateway, secret: str, status: int) -> None:
    """Ask until the answer is `status`: a hub looks at its keys twice a second."""
    async with asyncio.timeout(WAIT_S):
        while (await hub.get("/mcp/status", key=secret)).status != status:
            await asyncio.sleep(0)


@need_postgres
async def test_a_hub_of_another_fleet_does_not_take_over_the_database_and_its_keys(
    tmp_path: Path, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("FLEET_HUB__DATABASE_URL", postgres.new_database())
    async with running_hub(tmp_path / "one") as one:
        with pytest.raises(Unavailable, match="another root key: copy keys/"):
            await running_hub(tmp_path / "two").__aenter__()
        assert (await Gateway(one).get("/keys")).body["total"] == 2
        assert (await Gateway(one).get("/mcp/status", key=one.client)).status == 200


@need_postgres
async def test_a_hub_outlives_its_database_and_goes_on_when_it_is_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with running_postgres() as server:
        monkeypatch.setenv("FLEET_HUB__DATABASE_URL", server.new_database())
        async with _a_hub(tmp_path / "hub") as running:
            hub = Gateway(running)
            assert (await hub.execute("os.odd.wipe")).body["status"] == "success"
            server.stop()
            refused = await hub.execute("os.odd.wipe")
            assert (refused.status, refused.body["code"]) == (503, "unavailable")
            assert PASSWORD not in str(refused.body)
            assert (await hub.get("/diagnostics/connection")).body["database"]["reachable"] is False
            assert (await hub.get("/mcp/status")).status == 200  # keys are known from memory
            server.start()
            assert (await hub.execute("os.odd.wipe")).body["status"] == "success"
            outcomes = [row["outcome"] for row in running.audit_rows() if row["tool"] == "os.odd.wipe"]
            assert outcomes.count("ok") == 2
            assert outcomes.count("intent") >= 2


@need_postgres
def test_a_hub_whose_database_is_down_says_so_at_start_without_the_password(tmp_path: Path):
    url = f"postgresql+psycopg://fleet:{PASSWORD}@127.0.0.1:9/fleet"
    with pytest.raises(Unavailable) as refused:
        open_hub_store(FleetSettings(data_dir=tmp_path, hub=Hub(database_url=url)))
    assert "What to do: start the PostgreSQL server" in refused.value.message
    assert PASSWORD not in refused.value.message


# --- what `fleet doctor` says of it -----------------------------------------------------------------


def _found(tmp_path: Path, url: str | None) -> list[tuple[str, str]]:
    settings = FleetSettings(data_dir=tmp_path, hub=Hub(database_url=url))
    return [(finding.state, finding.detail) for finding in findings.hub_database(settings)]


def test_the_doctor_connects_to_a_database_that_a_url_names(tmp_path: Path, database_url: str):
    open_hub_store(FleetSettings(data_dir=tmp_path, hub=Hub(database_url=database_url))).close()
    [(state, detail)] = _found(tmp_path, database_url)
    assert (state, detail.endswith(" answers"), PASSWORD in detail) == ("ok", True, False)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (f"postgresql+psycopg://fleet:{PASSWORD}@127.0.0.1:9/fleet", "start the PostgreSQL server"),
        ("mysql://db/fleet", "names no database known here"),
    ],
)
def test_the_doctor_says_why_a_database_cannot_be_reached(tmp_path: Path, url: str, words: str):
    [(state, detail)] = _found(tmp_path, url)
    assert (state, words in detail, PASSWORD in detail) == ("error", True, False)


def test_the_doctor_makes_no_database(tmp_path: Path):
    [(state, detail)] = _found(tmp_path, f"sqlite:///{tmp_path}/hub.db")
    assert (state, "`fleet up` makes it" in detail) == ("error", True)
    assert list(tmp_path.iterdir()) == []


def test_without_a_url_the_doctor_has_nothing_to_connect_to(tmp_path: Path):
    assert _found(tmp_path, None) == []
