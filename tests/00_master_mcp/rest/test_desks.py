"""Keys, the record of calls, and held calls over REST."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from gateways import Gateway
from hubs import running_hub
from sqlalchemy import event

from master_mcp.store import audit

pytestmark = pytest.mark.asyncio(loop_scope="module")


# --- keys -------------------------------------------------------------------------------------------


async def test_a_new_key_shows_its_secret_once_and_works_at_once(hub: Gateway):
    made = await hub.post("/keys", {"name": "builder", "scopes": ["read:os.odd.*"], "expires_s": 60})
    assert (made.status, made.headers["Cache-Control"]) == (201, "no-store")
    assert (made.body["key"]["role"], made.body["key"]["state"]) == ("agent", "live")
    assert made.body["key"]["expires_at"] == pytest.approx(made.body["key"]["created_at"] + 60)
    assert (await hub.execute("os.odd.look", key=made.body["secret"])).status == 200
    listed = await hub.get("/keys")
    assert "builder" in [key["name"] for key in listed.body["keys"]]
    assert made.body["secret"].rpartition("_")[2] not in str(listed.body)


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({}, 422, "name: Field required"),
        ({"name": ""}, 422, "name: "),
        ({"name": "two words"}, 422, "name: String should match pattern"),
        ({"name": "x", "role": "king"}, 422, "role: Input should be 'agent' or 'operator'"),
        ({"name": "x", "scopes": ["everything"]}, 422, "scopes.0: String should match pattern"),
        ({"name": "x", "scopes": ["manage"]}, 422, "an agent key never manages"),
        ({"name": "x", "groups": ["operators"]}, 422, "is what --role gives"),
        ({"name": "x", "groups": ["D B A"]}, 422, "groups.0: String should match pattern"),
        ({"name": "x", "expires_s": -1}, 422, "expires_s: Input should be greater than 0"),
        ({"name": "client"}, 409, "already named 'client'"),
    ],
)
async def test_a_key_that_cannot_be_is_refused_with_the_reason(
    hub: Gateway, body: dict[str, Any], status: int, words: str
):
    refused = await hub.post("/keys", body)
    assert refused.status == status
    assert words in refused.body["message"]


async def test_a_rotated_key_leaves_the_old_one_its_overlap(hub: Gateway):
    old = (await hub.post("/keys", {"name": "turning"})).body["secret"]
    new = (await hub.post("/keys/turning/rotate", {"overlap_s": 600})).body["secret"]
    assert [(await hub.execute("os.odd.look", key=one)).status for one in (old, new)] == [200, 200]
    newest = (await hub.post("/keys/turning/rotate")).body
    assert [(await hub.execute("os.odd.look", key=one)).status for one in (new, newest["secret"])] == [401, 200]
    assert newest["key"]["name"] == "turning"


@pytest.mark.parametrize("by", ["id", "name"])
async def test_a_revoked_key_is_refused_from_then_on(hub: Gateway, by: str):
    made = (await hub.post("/keys", {"name": f"ending-{by}"})).body
    revoked = await hub.post(f"/keys/{made['key'][by]}/revoke")
    assert (revoked.status, revoked.body["state"]) == (200, "revoked")
    assert revoked.body["revoked_at"] is not None
    assert (await hub.get("/mcp/status", key=made["secret"])).status == 401
    assert (await hub.post(f"/keys/{made['key'][by]}/revoke")).status == 404


async def test_a_revocation_can_be_for_later(hub: Gateway):
    made = (await hub.post("/keys", {"name": "later"})).body
    told = await hub.post("/keys/later/revoke", {"after_s": 600})
    assert (told.body["state"], told.body["revoked_at"] > told.body["created_at"] + 500) == ("live", True)
    assert (await hub.get("/mcp/status", key=made["secret"])).status == 200


async def test_an_operator_cannot_revoke_the_key_it_calls_with(hub: Gateway):
    for path in ("/keys/admin/revoke", f"/keys/{hub.hub.admin.split('_')[1]}/revoke"):
        refused = await hub.post(path)
        assert (refused.status, refused.body["code"]) == (409, "conflict")
    assert (await hub.get("/keys")).status == 200


async def test_a_key_that_expired_is_listed_as_that(hub: Gateway):
    hub.hub.hub.keys.create("short", expires_s=-1)
    listed = (await hub.get("/keys")).body["keys"]
    assert next(key["state"] for key in listed if key["name"] == "short") == "expired"


# --- the record of calls ----------------------------------------------------------------------------


def _row(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "at": 1000.0 + number,
        "correlation_id": f"{number:032x}",
        "caller": "anna",
        "door": "mcp",
        "service": "odd",
        "tool": "os.odd.look",
        "risk": "read",
        "outcome": "ok",
        "duration_ms": 1.5,
        "args_hash": "00",
        **changes,
    }


RECORD = [
    _row(1),
    _row(2, caller="ben"),
    _row(3, tool="os.odd.wipe", outcome="needs_approval", risk="destroy"),
    _row(4, tool="os.other.look_up"),
    _row(5, tool="os.other.lookXup", duration_ms=None, outcome="intent"),
]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", [5, 4, 3, 2, 1]),
        ("?caller=ben", [2]),
        ("?tool=os.odd.look", [2, 1]),
        ("?tool=os.odd.*", [3, 2, 1]),
        ("?tool=*look_up", [4]),
        ("?tool=%25", []),
        ("?outcome=needs_approval", [3]),
        ("?since=1003", [5, 4, 3]),
        ("?until=1003", [2, 1]),
        ("?since=1002&until=1004", [3, 2]),
        (f"?correlation_id={4:032x}", [4]),
        ("?caller=anna&tool=os.odd.*&outcome=ok", [1]),
        ("?limit=2", [5, 4]),
        ("?limit=2&cursor=4", [3, 2]),
        ("?caller=nobody", []),
    ],
)
async def test_the_record_is_searched_by_every_field(tmp_path: Path, query: str, found: list[int]):
    async with running_hub(tmp_path) as running:
        running.hub.store.write_now(lambda db: db.execute(audit.insert(), RECORD))
        rows = (await Gateway(running).get(f"/audit{query}")).body["rows"]
        assert [int(row["correlation_id"], 16) for row in rows] == found


async def test_the_whole_record_is_read_page_by_page_without_gap_or_repeat(tmp_path: Path):
    async with running_hub(tmp_path) as running:
        running.hub.store.write_now(lambda db: db.execute(audit.insert(), [_row(n) for n in range(1, 8)]))
        hub = Gateway(running)
        seen: list[int] = []
        cursor = "100"
        while cursor:
            page = (await hub.get(f"/audit?limit=3&cursor={cursor}")).body
            seen += [row["seq"] for row in page["rows"]]
            cursor = page["next_cursor"]
        assert seen == [7, 6, 5, 4, 3, 2, 1]


async def test_a_call_just_made_is_found_with_its_key_and_door(tmp_path: Path):
    async with running_hub(tmp_path) as running:
        hub = Gateway(running)
        done = (await hub.execute("master.listServices", key=hub.agent)).body
        running.hub.audit.flush().result()
        found = (await hub.get(f"/audit?correlation_id={done['command_id']}")).body["rows"]
        assert [(row["caller"], row["door"], row["tool"], row["outcome"]) for row in found] == [
            (hub.agent.split("_")[1], "rest", "master.listServices", "ok")
        ]


async def test_a_change_of_keys_is_on_the_record_with_who_made_it(tmp_path: Path):
    async with running_hub(tmp_path) as running:
        hub = Gateway(running)
        made = (await hub.post("/keys", {"name": "dora", "groups": ["dba"]})).body["key"]
        await hub.post(f"/keys/{made['id']}/revoke", {})
        assert made["groups"] == ["dba"]
        rows = [row for row in running.audit_rows() if row["tool"].startswith("keys.")]
        admin = running.admin.split("_")[1]
        assert [(row["tool"], row["outcome"], row["caller"], row["door"]) for row in rows] == [
            (action, outcome, admin, "rest")
            for action in ("keys.create", "keys.revoke")
            for outcome in ("intent", "ok")
        ]
        assert made["id"] in rows[1]["detail"]


async def test_a_record_that_was_changed_is_said_to_be(tmp_path: Path):
    async with running_hub(tmp_path) as running:
        hub = Gateway(running)
        await hub.execute("master.listServices")
        running.hub.audit.flush().result()
        whole = (await hub.get("/audit/verify")).body
        assert (whole["ok"], whole["problem"], whole["rows"] > 0) == (True, None, True)
        running.hub.store.write_now(lambda db: db.execute(audit.update().values(caller="somebody else")))
        changed = (await hub.get("/audit/verify")).body
        assert (changed["ok"], changed["first_bad_seq"]) == (False, 1)


async def test_the_record_is_exported_as_lines_or_as_a_table(tmp_path: Path):
    async with running_hub(tmp_path) as running:
        running.hub.store.write_now(lambda db: db.execute(audit.insert(), RECORD))
        hub = Gateway(running)
        lines = await hub.get("/audit/export")
        assert (lines.kind, [json.loads(line)["caller"] for line in lines.body.splitlines()]) == (
            "application/x-ndjson",
            ["anna", "ben", "anna", "anna", "anna"],
        )
        table = await hub.get("/audit/export?format=csv&since=1002&until=1004")
        assert (table.kind, table.headers["Content-Disposition"]) == ("text/csv", 'attachment; filename="audit.csv"')
        assert [row["at"] for row in csv.DictReader(io.StringIO(table.body))] == ["1002.0", "1003.0"]
        empty = await hub.get("/audit/export?format=csv&since=5000")
        assert [row[0] for row in csv.reader(io.StringIO(empty.body))] == ["seq"]
        assert (await hub.get("/audit/export?format=pdf")).status == 422


async def test_a_long_record_is_exported_whole(tmp_path: Path):
    async with running_hub(tmp_path) as running:
        running.hub.store.write_now(lambda db: db.execute(audit.insert(), [_row(n) for n in range(1, 1202)]))
        lines = (await Gateway(running).get("/audit/export")).body.splitlines()
        assert [json.loads(line)["seq"] for line in lines] == list(range(1, 1202))


# --- held calls -------------------------------------------------------------------------------------


async def _held(hub: Gateway) -> str:
    """A call of the agent's that an operator has to approve; its approval's id."""
    held = await hub.execute("os.odd.wipe", key=hub.agent)
    assert (held.status, held.body["code"]) == (202, "needs_approval")
    return str(held.body["approval_id"])


async def test_a_held_call_is_listed_decided_and_run_once(hub: Gateway):
    held = await _held(hub)
    assert held in [one["id"] for one in (await hub.get("/approvals", key=hub.agent)).body["approvals"]]
    assert held not in [one["id"] for one in (await hub.get("/approvals?status=denied")).body["approvals"]]
    assert (await hub.get(f"/approvals/{held}")).body["tool"] == "os.odd.wipe"
    assert (await hub.post(f"/approvals/{held}/redeem", key=hub.agent)).status == 409
    assert (await hub.post(f"/approvals/{held}/approve", {"reason": "mine"}, key=hub.agent)).status == 403
    approved = await hub.post(f"/approvals/{held}/approve", {"reason": "planned"})
    said = approved.body["decisions"][0]
    assert (approved.body["status"], said["decider_name"], said["reason"], said["channel"]) == (
        ("approved", "admin", "planned", "rest")
    )
    ran = await hub.post(f"/approvals/{held}/redeem", key=hub.agent)
    assert (ran.body["status"], "content" in ran.body["answer"]) == ("executed", True)
    assert (await hub.post(f"/approvals/{held}/redeem", {}, key=hub.agent)).status == 409


async def test_a_denial_needs_no_words(hub: Gateway):
    assert (await hub.post(f"/approvals/{await _held(hub)}/deny")).body["status"] == "denied"


@pytest.mark.parametrize(("path", "status"), [("/approvals/a2", 404), ("/approvals?status=odd", 422)])
async def test_what_is_no_held_call_is_said_to_be_none(hub: Gateway, path: str, status: int):
    assert (await hub.get(path)).status == status


async def test_a_search_asks_the_database_for_no_more_than_a_page(hub: Gateway):
    statements: list[str] = []
    engine = hub.hub.hub.store.engine

    def note(*found: Any) -> None:
        statements.append(found[2])

    event.listen(engine, "before_cursor_execute", note)
    await hub.get("/audit?limit=5")
    assert any("LIMIT" in statement for statement in statements)
