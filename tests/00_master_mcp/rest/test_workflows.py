"""Workflows over REST: run, found, steered, watched, drawn, kept; approvals with a form."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from itertools import pairwise
from typing import Any

import aiohttp
import orjson
import pytest
import pytest_asyncio
from flows import Flows, flow, running_flows, statuses, step
from gateways import Gateway
from hubs import call

from master_mcp.rest import workflow_watching
from master_mcp.store.workflows import steps

pytestmark = pytest.mark.asyncio(loop_scope="module")

RUNS, DEFINITIONS = "/workflows/runs", "/workflows/definitions"
GO = {"name": "go", "wait": {"signal": "go"}}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def flows(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Flows]:
    """A hub with workflows, under the rules that it is shipped with."""
    async with running_flows(tmp_path_factory.mktemp("hub"), policies={}) as running:
        yield running


@pytest.fixture
def hub(flows: Flows) -> Gateway:
    """Its REST gateway."""
    return Gateway(flows.hub)


async def started(hub: Gateway, *steps: dict[str, Any], key: str | None = None, **keys: Any) -> str:
    """The id of a run that nobody waits for."""
    begun = await hub.post(RUNS, {"definition": flow(*steps, **keys), "wait_s": 0}, key=key)
    assert begun.status == 200, begun.body
    return str(begun.body["id"])


async def failed(hub: Gateway, name: str) -> str:
    """The id of a run whose step `b` has failed once, and would not again."""
    steps = (step("a"), step("b", "trip", params={"text": name}), step("c"))
    ended = (await hub.post(RUNS, {"definition": flow(*steps)})).body
    assert (ended["status"], ended["step_failed_at"]) == ("failed", "b")
    return str(ended["id"])


# --- starting ---------------------------------------------------------------------------------------


async def test_a_run_is_answered_at_its_end_with_every_step(hub: Gateway):
    definition = flow(
        step("a", params={"text": "${ .input.who }"}),
        step("b"),
        input={"who": {"type": "string"}},
        outputs={"said": "${ .steps.a.text }"},
    )
    done = await hub.post(RUNS, {"definition": definition, "inputs": {"who": "ada"}, "priority": 2})
    assert (done.status, done.kind) == (200, "application/json")
    assert (done.body["status"], done.body["outputs"], done.body["priority"]) == ("completed", {"said": "ada"}, 2)
    assert statuses(done.body) == {"a": "completed", "b": "completed"}
    assert done.body["workflow_name"] == "demo"
    assert (await hub.get(f"{RUNS}/{done.body['id']}")).body == done.body


async def test_the_same_key_gives_the_same_run_and_takes_no_other_order(flows: Flows, hub: Gateway):
    order = {"definition": flow(step("once")), "key": "k1"}
    first, again = await hub.post(RUNS, order), await hub.post(RUNS, order)
    assert first.body["id"] == again.body["id"]
    assert flows.works.did("look once") == ["look once"]
    other = await hub.post(RUNS, {"definition": flow(step("twice")), "key": "k1"})
    assert (other.status, other.body["code"]) == (409, "conflict")


async def test_who_does_not_wait_gets_a_run_to_look_at(flows: Flows, hub: Gateway):
    run_id = await started(hub, step("slow", "hold"))
    live = await flows.until(run_id, lambda run: "slow" in statuses(run))
    assert live["status"] == "running"
    flows.works.gate("slow").set()
    await flows.standing(run_id, "completed")
    assert (await hub.get(f"{RUNS}/{run_id}")).body["status"] == "completed"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "name of a workflow or its definition"),
        ({"name": "x", "definition": flow(step("a"))}, "name of a workflow or its definition"),
        ({"definition": flow(step("a", "nothing"))}, "step 'a': service 'works' has no tool 'nothing'"),
        ({"definition": flow(step("a")), "inputs": {"who": 1}}, "input (all)"),
        ({"definition": flow(step("a")), "priority": 10}, "priority: Input should be less than or equal to 9"),
        ({"definition": flow(step("a")), "wait_s": -1}, "wait_s: Input should be greater than or equal to 0"),
        ({"definition": flow(step("a")), "key": ""}, "key: String should have at least 1 character"),
        ({"definition": flow(step("a")), "input": {}}, "input: Extra inputs are not permitted"),
        ({"name": "no name"}, "name: String should match pattern"),
    ],
)
async def test_an_order_that_cannot_be_run_says_what_is_wrong(hub: Gateway, body: dict[str, Any], words: str):
    wrong = await hub.post(RUNS, body)
    assert (wrong.status, wrong.kind, wrong.body["code"]) == (422, "application/problem+json", "invalid")
    assert words in wrong.body["message"]


async def test_an_agents_run_that_changes_something_is_held_as_a_whole_and_runs_once_approved(
    flows: Flows, hub: Gateway
):
    order = {"definition": flow(step("held", "write"))}
    held = await hub.post(RUNS, order, key=hub.agent)
    assert (held.status, held.kind, held.body["code"]) == (202, "application/problem+json", "needs_approval")
    assert "lab.works.write" in held.body["plan"]
    assert flows.works.did("write held") == []
    await hub.post(f"/approvals/{held.body['approval_id']}/approve")
    ran = await hub.post(RUNS, order, key=hub.agent)
    assert (ran.status, ran.body["status"], ran.body["started_by"]) == (200, "completed", "client")
    assert flows.works.did("write held") == ["write held"]


async def test_a_request_is_one_call_on_the_record_with_its_door_and_trace(flows: Flows, hub: Gateway):
    trace = "0af7651916cd43dd8448eb211c80319c"
    header = {"traceparent": f"00-{trace}-b7ad6b7169203331-01"}
    done = await hub.post(RUNS, {"definition": flow(step("traced"))}, headers=header)
    assert done.body["correlation_id"] == trace
    rows = [row for row in flows.hub.audit_rows() if row["correlation_id"] == trace and row["door"] == "rest"]
    assert {(row["tool"], row["caller"]) for row in rows} == {
        ("orchestrator.executeWorkflow", hub.hub.admin.split("_")[1])
    }


# --- finding ----------------------------------------------------------------------------------------


async def test_runs_are_listed_by_status_and_name_newest_first(hub: Gateway):
    for _ in range(3):
        await hub.post(RUNS, {"definition": flow(step("a"), name="listed")})
    found = (await hub.get(f"{RUNS}?name=listed&status=completed&limit=2")).body
    assert (found["total"], {run["workflow_name"] for run in found["runs"]}) == (2, {"listed"})
    assert found["runs"][0]["created_at"] > found["runs"][1]["created_at"]
    assert (await hub.get(f"{RUNS}?name=listed&status=failed")).body == {"total": 0, "runs": []}


@pytest.mark.parametrize("query", ["?status=odd", "?limit=0", "?limit=501", "?limit=many", "?state=all", "?name="])
async def test_a_list_that_cannot_be_is_refused(hub: Gateway, query: str):
    assert (await hub.get(f"{RUNS}{query}")).status == 422


async def test_an_agent_sees_its_own_runs_and_no_other(hub: Gateway):
    other = await started(hub, step("a"))
    mine = await started(hub, step("a"), key=hub.agent, name="mine")
    seen = (await hub.get(RUNS, key=hub.agent)).body["runs"]
    assert mine in [run["id"] for run in seen]
    assert {run["started_by"] for run in seen} == {"client"}
    for place in ("", "/events", "/graph", "/view", "/artifacts/a"):
        assert (await hub.get(f"{RUNS}/{other}{place}", key=hub.agent)).status == 404, place


@pytest.mark.parametrize("place", ["", "/events", "/graph", "/view", "/artifacts/a"])
async def test_a_run_that_is_not_there_is_not_found(hub: Gateway, place: str):
    missing = await hub.get(f"{RUNS}/wf_0{place}")
    assert (missing.status, missing.kind, missing.body["code"]) == (404, "application/problem+json", "not_found")


@pytest.mark.parametrize("text", ["weighed", "again"])
async def test_a_large_result_is_fetched_by_the_name_in_its_step(hub: Gateway, text: str):
    done = (await hub.post(RUNS, {"definition": flow(step(text, "weigh", params={"kib": 300}))})).body
    reference = done["results"][0]["result"]
    found = await hub.get(f"{RUNS}/{done['id']}/artifacts/{reference['artifact']}")
    assert (found.status, found.body) == (200, {"text": "x" * 300 * 1024})
    assert (await hub.get(f"{RUNS}/{done['id']}/artifacts/nothing")).status == 404


# --- steering ---------------------------------------------------------------------------------------


async def test_a_run_is_cancelled_with_the_reason_and_once(flows: Flows, hub: Gateway):
    run_id = await started(hub, GO)
    await flows.waiting(run_id, "go")
    ended = await hub.post(f"{RUNS}/{run_id}/cancel", {"reason": "not today"})
    assert (ended.body["status"], ended.body["reason"]) == ("cancelled", "cancelled by admin: not today")
    again = await hub.post(f"{RUNS}/{run_id}/cancel")
    assert (again.status, again.body["code"]) == (409, "conflict")


async def test_a_signal_reaches_the_step_that_waits_for_it_once(flows: Flows, hub: Gateway):
    run_id = await started(hub, GO, outputs={"heard": "${ .steps.go }"})
    sent = await hub.post(f"{RUNS}/{run_id}/signal", {"name": "go", "payload": {"by": "ada"}})
    assert (sent.status, sent.body["id"]) == (200, run_id)
    assert (await flows.standing(run_id, "completed"))["outputs"] == {"heard": {"by": "ada"}}
    late = await hub.post(f"{RUNS}/{run_id}/signal", {"name": "go"})
    assert (late.status, late.body["code"]) == (409, "conflict")
    assert (await hub.post(f"{RUNS}/{run_id}/signal", {"name": "doubt:a"})).status == 422


async def test_a_failed_run_goes_on_where_it_failed(flows: Flows, hub: Gateway):
    run_id = await failed(hub, "resumed")
    again = await hub.post(f"{RUNS}/{run_id}/resume")
    assert (again.status, again.body["id"], again.body["attempt"]) == (200, run_id, 1)
    await flows.standing(run_id, "completed")
    assert flows.works.tries["resumed"] == 2


async def test_a_step_is_done_again_in_the_same_run_or_in_one_of_its_own(flows: Flows, hub: Gateway):
    run_id = await failed(hub, "retried")
    fork = (await hub.post(f"{RUNS}/{run_id}/retry", {"step": "b", "fork": True})).body["id"]
    assert fork != run_id
    assert statuses(await flows.standing(fork, "completed")) == dict.fromkeys("abc", "completed")
    assert (await flows.get(run_id))["status"] == "failed"
    assert (await hub.post(f"{RUNS}/{run_id}/retry", {"step": "b"})).body["id"] == run_id
    await flows.standing(run_id, "completed")


async def test_a_person_says_over_rest_what_became_of_a_step_in_doubt(flows: Flows, hub: Gateway):
    run_id = await failed(hub, "doubted")
    mine = (steps.c.run_id == run_id, steps.c.step == "b")
    # a crash in the middle of a call leaves such a row; tests of the engine make real ones
    flows.hub.hub.store.write_now(lambda db: db.execute(steps.update().where(*mine).values(status="in_doubt")))
    held_up = await hub.post(f"{RUNS}/{run_id}/retry", {"step": "b"})
    assert (held_up.status, "is in doubt" in held_up.body["message"]) == (409, True)
    said = {"step": "b", "outcome": "done", "result": {"tries": 7}}
    told = (await hub.post(f"{RUNS}/{run_id}/resume", said)).body
    assert [one["result"] for one in told["results"] if one["name"] == "b"] == [{"tries": 7}]
    await hub.post(f"{RUNS}/{run_id}/resume")
    await flows.standing(run_id, "completed")
    assert flows.works.tries["doubted"] == 1


async def test_a_mended_definition_goes_with_a_retry(flows: Flows, hub: Gateway):
    ended = (await hub.post(RUNS, {"definition": flow(step("a", "trip", params={"text": "m", "times": 9}))})).body
    mended = flow(step("a", params={"text": "mended"}))
    await hub.post(f"{RUNS}/{ended['id']}/retry", {"step": "a", "definition": mended})
    assert (await flows.standing(ended["id"], "completed"))["results"][0]["result"]["text"] == "mended"


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("resume", {"step": "a", "outcome": "done"}, 409),
        ("resume", {"step": "a"}, 422),
        ("resume", {"outcome": "odd"}, 422),
        ("retry", {}, 422),
        ("retry", {"step": "z"}, 404),
        ("cancel", {"why": "x"}, 422),
        ("signal", {"payload": 1}, 422),
    ],
)
async def test_a_word_that_does_not_fit_the_run_is_refused(hub: Gateway, path: str, body: dict[str, Any], status: int):
    done = (await hub.post(RUNS, {"definition": flow(step("a"))})).body["id"]
    assert (await hub.post(f"{RUNS}/{done}/{path}", body)).status == status


# --- watching ---------------------------------------------------------------------------------------


@asynccontextmanager
async def watching(hub: Gateway, run_id: str, key: str | None = None) -> AsyncGenerator[AsyncIterator[bytes]]:
    """The stream of a run's events, piece by piece."""
    headers = {"Authorization": f"Bearer {key or hub.hub.admin}"}
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{hub.hub.url}{RUNS}/{run_id}/events", headers=headers) as answer,
    ):
        assert (answer.status, answer.content_type) == (200, "text/event-stream")
        assert answer.headers["X-Accel-Buffering"] == "no"

        async def pieces() -> AsyncGenerator[bytes]:
            while piece := await answer.content.readuntil(b"\n\n"):
                yield piece.strip()

        async with aclosing(pieces()) as found:
            yield found


def run_in(piece: bytes) -> Any:
    """The run of an event."""
    name, _, data = piece.partition(b"\n")
    assert name == b"event: run"
    return orjson.loads(data.removeprefix(b"data: "))


async def test_a_run_is_told_at_once_and_whenever_it_changes_until_its_end(flows: Flows, hub: Gateway):
    run_id = await started(hub, step("watched", "hold"), step("after"))
    await flows.until(run_id, lambda run: "watched" in statuses(run))
    seen: list[Any] = []
    async with watching(hub, run_id) as pieces:
        async for piece in pieces:
            seen.append(run_in(piece))
            flows.works.gate("watched").set()
    assert (seen[0]["status"], statuses(seen[0])) == ("running", {"watched": "running"})
    assert (seen[-1]["status"], statuses(seen[-1])) == ("completed", {"watched": "completed", "after": "completed"})
    assert all(one != other for one, other in pairwise(seen))


async def test_a_run_that_has_ended_is_told_once(hub: Gateway):
    done = (await hub.post(RUNS, {"definition": flow(step("a"))})).body["id"]
    async with watching(hub, done) as pieces:
        assert [run_in(piece)["status"] async for piece in pieces] == ["completed"]


async def test_a_quiet_stream_gives_a_sign_of_life(hub: Gateway, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(workflow_watching, "KEEPALIVE_S", 0.01)  # the real one is 15 seconds
    run_id = await started(hub, GO)
    async with watching(hub, run_id) as pieces:
        async for piece in pieces:
            if piece == b": ping":
                await hub.post(f"{RUNS}/{run_id}/cancel")
                break
        assert [run_in(piece)["status"] async for piece in pieces if piece != b": ping"][-1] == "cancelled"


async def test_a_revoked_key_sees_no_more(flows: Flows, hub: Gateway):
    key = flows.key("gone")
    run_id = await started(hub, GO, key=key)
    await flows.waiting(run_id, "go")
    async with watching(hub, run_id, key) as pieces:
        assert run_in(await anext(pieces))["status"] in ("running", "waiting")
        await hub.post("/keys/gone/revoke")
        await hub.post(f"{RUNS}/{run_id}/cancel")
        assert [run_in(piece)["status"] async for piece in pieces if b"cancelled" in piece] == []


async def test_a_client_that_goes_away_is_told_nothing_more(flows: Flows, hub: Gateway):
    run_id = await started(hub, GO)
    before = asyncio.all_tasks()
    async with watching(hub, run_id) as pieces:
        await anext(pieces)
        serving = {task for task in asyncio.all_tasks() - before if "run_asgi" in str(task.get_coro())}
        assert serving
    await flows.settled(lambda: all(task.done() for task in serving))
    assert (await hub.get(f"{RUNS}/{run_id}")).body["status"] in ("queued", "running", "waiting")
    await hub.post(f"{RUNS}/{run_id}/cancel")


# --- drawing ----------------------------------------------------------------------------------------


async def test_a_run_is_drawn_in_the_colours_of_its_steps(flows: Flows, hub: Gateway):
    run_id = await started(hub, step("a"), GO)
    await flows.waiting(run_id, "go")
    drawn = await hub.get(f"{RUNS}/{run_id}/graph")
    assert (drawn.status, drawn.kind) == (200, "text/plain")
    assert drawn.body.startswith("flowchart TD\n")
    assert "a --> go" in drawn.body
    assert [line.split()[1] for line in drawn.body.splitlines() if "style" in line] == ["a", "go"]
    await hub.post(f"{RUNS}/{run_id}/cancel")


async def test_a_console_is_shown_nodes_with_their_states_and_what_leads_where(flows: Flows, hub: Gateway):
    run_id = await started(
        hub,
        step("a", compensate={"service": "works", "tool": "look"}, onError={"goto": "last"}),
        step("each", forEach="${ [1, 2, 3] }", params={"text": "${ .item | tostring }"}),
        GO,
        {"name": "ask", "approval": {"message": "well?"}},
        step("last"),
    )
    await flows.waiting(run_id, "go")
    seen = (await hub.get(f"{RUNS}/{run_id}/view")).body
    nodes = {node["name"]: node for node in seen["nodes"]}
    assert [(node["name"], node["kind"], node["status"]) for node in seen["nodes"]] == [
        ("a", "tool", "completed"),
        ("each", "tool", "completed"),
        ("go", "signal", "waiting"),
        ("ask", "approval", "pending"),
        ("last", "tool", "pending"),
    ]
    assert nodes["a"]["undo"] == {"tool": "lab.works.look", "status": "pending"}
    assert nodes["each"]["items"] == {"completed": 3}
    assert (nodes["each"]["needs"], nodes["each"]["does"], nodes["each"]["attempts"]) == (["a"], "lab.works.look", 3)
    assert (nodes["go"]["waits_for"], nodes["go"]["ended_at"]) == ("signal go", None)
    assert {"source": "a", "target": "each", "kind": "then"} in seen["edges"]
    assert {"source": "a", "target": "last", "kind": "error"} in seen["edges"]
    assert seen["run"]["id"] == run_id
    await hub.post(f"{RUNS}/{run_id}/cancel")


async def test_a_step_of_many_items_stands_as_its_items_do(flows: Flows, hub: Gateway):
    items = {"items": ["i1", "i2"], "concurrency": 2}
    run_id = await started(hub, step("many", "hold", forEach=items, params={"text": "${ .item }"}))
    await flows.settled(lambda: {"i1", "i2"} <= set(flows.works.begun))
    flows.works.gate("i1").set()
    await flows.until(run_id, lambda run: "completed" in [one["status"] for one in run["results"]])
    node = (await hub.get(f"{RUNS}/{run_id}/view")).body["nodes"][0]
    assert (node["status"], node["items"]) == ("running", {"completed": 1, "running": 1})
    flows.works.gate("i2").set()
    await flows.standing(run_id, "completed")


# --- definitions ------------------------------------------------------------------------------------


async def test_a_workflow_is_saved_found_shown_run_and_removed(hub: Gateway):
    written = flow(step("a"), step("b"), name="kept", description="Look twice at the yellow boat.")
    saved = await hub.post(DEFINITIONS, {"definition": written})
    assert (saved.status, saved.body["name"], saved.body["origin"], saved.body["owner"]) == (
        (200, "kept", "saved", "admin")
    )
    found = (await hub.get(f"{DEFINITIONS}?q=boat+twice")).body
    assert (found["total"], found["definitions"]) == (1, [saved.body])
    assert (await hub.get(f"{DEFINITIONS}/kept")).body == written
    drawn = await hub.get(f"{DEFINITIONS}/kept/graph")
    assert (drawn.kind, "a --> b" in drawn.body) == ("text/plain", True)
    ran = (await hub.post(RUNS, {"name": "kept"})).body
    assert (ran["status"], ran["hash"]) == ("completed", saved.body["hash"])
    removed = await hub.send("DELETE", f"{DEFINITIONS}/kept")
    assert (removed.status, removed.body) == (200, {"total": 0, "definitions": []})
    for method, place in (("GET", "/kept"), ("GET", "/kept/graph"), ("DELETE", "/kept")):
        assert (await hub.send(method, f"{DEFINITIONS}{place}")).status == 404
    assert (await hub.post(RUNS, {"name": "kept"})).status == 404


async def test_every_workflow_is_listed_without_a_query(hub: Gateway):
    every = (await hub.get(DEFINITIONS)).body
    assert every["total"] == len(every["definitions"])
    assert {"shipped"} <= {one["origin"] for one in every["definitions"]}


async def test_a_definition_is_validated_without_being_run_or_kept(flows: Flows, hub: Gateway):
    good = await hub.post(f"{DEFINITIONS}/validate", {"definition": flow(step("unseen"), name="unseen")})
    assert (good.status, good.body["name"], "unseen" in good.body["graph"]) == (200, "unseen", True)
    assert flows.works.did("unseen") == []
    assert (await hub.get(f"{DEFINITIONS}/unseen")).status == 404
    for place in (DEFINITIONS, f"{DEFINITIONS}/validate"):
        wrong = await hub.post(place, {"definition": flow(step("a", params={"txt": "x"}))})
        assert (wrong.status, "step 'a': lab.works.look: no argument 'txt'" in wrong.body["message"]) == (422, True)


async def test_saving_is_a_change_that_an_agent_has_to_have_confirmed(hub: Gateway):
    held = await hub.post(DEFINITIONS, {"definition": flow(step("a"), name="agents")}, key=hub.agent)
    assert (held.status, held.body["code"]) == (202, "needs_approval")
    assert (await hub.get(f"{DEFINITIONS}/agents")).status == 404


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", RUNS), ("POST", RUNS), ("GET", f"{RUNS}/x/events"), ("GET", DEFINITIONS), ("DELETE", f"{DEFINITIONS}/x")],
)
async def test_workflows_need_a_key(hub: Gateway, method: str, path: str):
    assert (await hub.send(method, path, key="")).status == 401


# --- approvals with a form --------------------------------------------------------------------------

ASK = {"name": "ask", "approval": {"message": "how many?", "form": {"count": {"type": "integer"}}}}


async def asked(flows: Flows, hub: Gateway) -> tuple[str, str]:
    """A run that waits for an approval with a form; the approval."""
    run_id = await started(hub, ASK, outputs={"count": "${ .steps.ask.count }"})
    return run_id, (await flows.waiting(run_id, "ask"))["approval_id"]


async def test_who_approves_fills_the_form_in(flows: Flows, hub: Gateway):
    run_id, approval = await asked(flows, hub)
    shown = await hub.get(f"/approvals/{approval}")
    assert shown.body["form"] == {"count": {"type": "integer"}}
    for values in (None, {}, {"count": "two"}, {"count": 2, "more": 1}):
        wrong = await hub.post(f"/approvals/{approval}/approve", {"values": values})
        assert (wrong.status, wrong.body["code"]) == (422, "invalid")
    done = await hub.post(f"/approvals/{approval}/approve", {"values": {"count": 2}, "reason": "enough"})
    assert (done.body["decisions"][0]["values"], done.body["decisions"][0]["reason"]) == ({"count": 2}, "enough")
    assert (await flows.standing(run_id, "completed"))["outputs"] == {"count": 2}


async def test_the_hubs_tool_takes_the_form_too_and_shows_it(flows: Flows, hub: Gateway):
    run_id, approval = await asked(flows, hub)
    shown = (await call(flows.hub, "master.getApproval", {"id": approval}, key=hub.hub.admin))["structuredContent"]
    assert shown["form"] == {"count": {"type": "integer"}}
    words = {"id": approval, "values": {"count": 3}}
    said = (await call(flows.hub, "master.approve", words, key=flows.key("second")))["structuredContent"]
    assert (said["status"], said["decisions"][0]["values"]) == ("approved", {"count": 3})
    assert (await flows.standing(run_id, "completed"))["outputs"] == {"count": 3}


async def test_what_asks_for_nothing_takes_no_values(hub: Gateway):
    held = (await hub.post(RUNS, {"definition": flow(step("bare", "write"))}, key=hub.agent)).body["approval_id"]
    assert (await hub.post(f"/approvals/{held}/approve", {"values": {"count": 2}})).status == 422
    assert (await hub.post(f"/approvals/{held}/deny", {"values": {}})).status == 422
    assert (await hub.post(f"/approvals/{held}/approve")).body["status"] == "approved"
