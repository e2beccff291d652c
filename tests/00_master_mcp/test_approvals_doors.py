"""Held calls through the hub's doors: its tools and REST."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
import spoken
from held import APPROVE, CONFIRM, ByRisk
from hubs import RunningHub, call, listening, rows, running_hub, settle

pytestmark = pytest.mark.asyncio(loop_scope="module")

WILD = {**spoken.TOOL, "_meta": {"fleet/id": "os.odd.look", "risk": "destroy"}}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hub(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[RunningHub]:
    """A hub over a spoke whose only tool destroys, which has to be approved."""
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(listening(spoken.spoke_app(spoken.good, [WILD])))
        folder = tmp_path_factory.mktemp("hub")
        found = await stack.enter_async_context(running_hub(folder, rows(odd=url), rules=ByRisk(destroy=APPROVE)))
        await settle(found, "odd")
        yield found


@pytest.fixture
def wanted(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Arguments that no other test uses."""
    return {"text": request.node.name}


async def rest(hub: RunningHub, method: str, path: str, key: str, body: bytes | None = None) -> tuple[int, Any]:
    """Status and JSON of one REST request."""
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, f"{hub.url}{path}", data=body, headers=headers) as answer,
    ):
        return answer.status, await answer.json(content_type=None)


async def held(hub: RunningHub, arguments: dict[str, Any], key: str | None = None) -> str:
    """The id under which a call is held."""
    found = (await call(hub, "os_odd_look", arguments, key=key))["structuredContent"]
    assert found["code"] == "needs_approval"
    return str(found["approval_id"])


async def tool(hub: RunningHub, name: str, key: str, **arguments: Any) -> Any:
    """The structured answer of one of the hub's own tools, an error's too."""
    return (await call(hub, f"master.{name}", arguments, key=key))["structuredContent"]


# --- the hub's tools --------------------------------------------------------------------------------


async def test_a_call_is_approved_and_redeemed_with_the_hubs_tools(hub: RunningHub, wanted: dict[str, Any]) -> None:
    approval_id = await held(hub, wanted)
    listed = await tool(hub, "listApprovals", hub.admin)
    assert (approval_id, wanted) in [(one["id"], one["arguments"]) for one in listed["result"]]
    approved = await tool(hub, "approve", hub.admin, id=approval_id, reason="looked at it")
    assert (approved["status"], approved["decisions"][0]["reason"]) == ("approved", "looked at it")
    redeemed = await tool(hub, "redeemApproval", hub.client, id=approval_id)
    assert redeemed["status"] == "executed"
    assert redeemed["answer"]["content"][0]["text"] == "seen"
    seen = await tool(hub, "getApproval", hub.client, id=approval_id)
    assert seen["result"]["content"][0]["text"] == "seen"
    assert (await tool(hub, "redeemApproval", hub.client, id=approval_id))["code"] == "conflict"


async def test_an_agent_decides_nothing_with_the_hubs_tools(hub: RunningHub, wanted: dict[str, Any]) -> None:
    approval_id = await held(hub, wanted)
    _, other = hub.hub.keys.create(f"other of {wanted['text']}")
    assert (await tool(hub, "approve", hub.client, id=approval_id))["code"] == "refused"
    assert (await tool(hub, "approve", other, id=approval_id))["code"] == "not_found"
    assert (await tool(hub, "deny", other, id=approval_id))["code"] == "not_found"
    assert (await tool(hub, "getApproval", other, id=approval_id))["code"] == "not_found"
    assert (await tool(hub, "getApproval", hub.admin, id=approval_id))["status"] == "pending"


async def test_who_asked_withdraws_with_the_hubs_tools(hub: RunningHub, wanted: dict[str, Any]) -> None:
    approval_id = await held(hub, wanted)
    assert (await tool(hub, "deny", hub.client, id=approval_id))["status"] == "cancelled"
    listed = await tool(hub, "listApprovals", hub.client, status="cancelled", limit=1)
    assert [one["id"] for one in listed["result"]] == [approval_id]


async def test_an_approved_call_runs_when_it_is_repeated(hub: RunningHub, wanted: dict[str, Any]) -> None:
    approval_id = await held(hub, wanted)
    await tool(hub, "approve", hub.admin, id=approval_id)
    assert (await call(hub, "os_odd_look", wanted))["content"][0]["text"] == "seen"
    assert await held(hub, wanted) != approval_id


async def test_nobody_holds_the_tools_that_decide(hub: RunningHub, wanted: dict[str, Any]) -> None:
    """A key that may only read is above its scope with them, and their own rules decide all the same."""
    _, narrow = hub.hub.keys.create(f"narrow of {wanted['text']}", scopes=["read:master.*", "read:os.odd.*"])
    approval_id = await held(hub, wanted, narrow)
    await tool(hub, "approve", hub.admin, id=approval_id)
    assert (await tool(hub, "redeemApproval", narrow, id=approval_id))["status"] == "executed"


# --- REST -------------------------------------------------------------------------------------------


async def test_a_call_is_looked_at_approved_and_redeemed_over_rest(hub: RunningHub, wanted: dict[str, Any]) -> None:
    approval_id = await held(hub, wanted)
    status, listed = await rest(hub, "GET", "/approvals", hub.admin)
    assert (status, approval_id in [one["id"] for one in listed["approvals"]]) == (200, True)
    status, shown = await rest(hub, "GET", f"/approvals/{approval_id}", hub.client)
    assert (status, shown["status"], shown["requester_name"]) == (200, "pending", "client")
    path = f"/approvals/{approval_id}"
    status, approved = await rest(hub, "POST", f"{path}/approve", hub.admin, b'{"reason": "go"}')
    assert (status, approved["status"], approved["decisions"][0]["channel"]) == (200, "approved", "rest")
    status, redeemed = await rest(hub, "POST", f"{path}/redeem", hub.client)
    assert (status, redeemed["answer"]["content"][0]["text"]) == (200, "seen")
    status, _ = await rest(hub, "POST", f"{path}/redeem", hub.client)
    assert status == 409


async def test_a_call_is_denied_over_rest(hub: RunningHub, wanted: dict[str, Any]) -> None:
    approval_id = await held(hub, wanted)
    status, denied = await rest(hub, "POST", f"/approvals/{approval_id}/deny", hub.admin)
    assert (status, denied["status"]) == (200, "denied")
    listed = (await rest(hub, "GET", "/approvals?status=denied&limit=1", hub.admin))[1]["approvals"]
    assert [one["id"] for one in listed] == [approval_id]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", "/approvals/ap_none", None, 404, "not_found"),
        ("POST", "/approvals/ap_none/approve", b"{}", 404, "not_found"),
        ("POST", "/approvals/ap_none/redeem", None, 404, "not_found"),
        ("POST", "/approvals/ap_none/eat", None, 404, "not_found"),
        ("DELETE", "/approvals", None, 405, "invalid"),
        ("GET", "/approvals/a/b/c", None, 404, "not_found"),
        ("GET", "/approvals?status=open", None, 422, "invalid"),
        ("GET", "/approvals?limit=0", None, 422, "invalid"),
        ("GET", "/approvals?limit=x", None, 422, "invalid"),
        ("GET", "/approvals?limit=%C2%B2", None, 422, "invalid"),
        ("POST", "/approvals/ap_none/deny", b"{", 400, "invalid"),
        ("POST", "/approvals/ap_none/deny", b"[]", 422, "invalid"),
        ("POST", "/approvals/ap_none/deny", b'{"reason": 7}', 422, "invalid"),
    ],
)
async def test_what_rest_cannot_answer_is_a_problem_in_the_fleets_shape(
    hub: RunningHub, method: str, path: str, body: bytes | None, status: int, code: str
) -> None:
    found, problem = await rest(hub, method, path, hub.admin, body)
    assert (found, problem["code"]) == (status, code)


async def test_without_a_key_nothing_is_shown(hub: RunningHub) -> None:
    assert (await rest(hub, "GET", "/approvals", "nobody"))[0] == 401


# --- a sole operator --------------------------------------------------------------------------------


async def test_a_sole_operator_confirms_its_own_call_where_a_person_sits_and_never_through_a_tool(
    hub: RunningHub, wanted: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub.hub.rules, "destroy", CONFIRM)  # for this test alone
    approval_id = await held(hub, wanted, hub.admin)
    refused = await tool(hub, "approve", hub.admin, id=approval_id)
    assert (refused["code"], f"fleet approvals approve {approval_id}" in refused["message"]) == ("refused", True)
    status, confirmed = await rest(hub, "POST", f"/approvals/{approval_id}/approve", hub.admin)
    assert (status, confirmed["status"]) == (200, "approved")
    assert (await call(hub, "os_odd_look", wanted, key=hub.admin))["content"][0]["text"] == "seen"


async def test_an_operators_own_call_that_needs_approval_is_never_its_own_to_approve(
    hub: RunningHub, wanted: dict[str, Any]
) -> None:
    approval_id = await held(hub, wanted, hub.admin)
    status, problem = await rest(hub, "POST", f"/approvals/{approval_id}/approve", hub.admin)
    assert (status, "is your own call" in problem["message"]) == (403, True)
    name = f"second of {wanted['text']}"
    _, second = hub.hub.keys.create(name, role="operator")
    status, approved = await rest(hub, "POST", f"/approvals/{approval_id}/approve", second)
    assert (status, approved["decisions"][0]["decider_name"]) == (200, name)


async def test_a_rotated_key_of_the_requester_is_still_the_requester(hub: RunningHub, wanted: dict[str, Any]) -> None:
    name = f"twice {wanted['text']}"
    _, first = hub.hub.keys.create(name, role="operator")
    approval_id = await held(hub, wanted, first)
    _, second = hub.hub.keys.rotate(name, overlap_s=60)
    status, _ = await rest(hub, "POST", f"/approvals/{approval_id}/approve", second)
    assert status == 403


async def test_metrics_count_held_calls(hub: RunningHub, wanted: dict[str, Any]) -> None:
    await held(hub, wanted)
    text = hub.hub.metrics.render().decode()
    assert 'mcp_approvals_total{event="held"}' in text
    assert "mcp_approvals_pending" in text
