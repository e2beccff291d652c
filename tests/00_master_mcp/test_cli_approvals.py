"""`fleet approvals` against a hub in a process of its own, which is killed while an approved call runs."""

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import processes
import pytest
import pytest_asyncio
import spoken
from commands import Done, Fleet
from hubs import listening, rows

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]

LOOK = {**spoken.TOOL, "_meta": {"fleet/id": "os.odd.look", "risk": "destroy"}}
HANG = {**LOOK, "name": "os_odd_hang", "_meta": {"fleet/id": "os.odd.hang", "risk": "destroy"}}


class Spoke:
    """A spoke with one tool that answers and one that never does."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.hanging = asyncio.Event()

    async def answer(self, request: dict[str, Any], send: Any) -> None:
        name = request["params"]["name"]
        self.calls.append(name)
        if name == "os_odd_hang":
            self.hanging.set()
            await spoken.silent(request, send)
        await spoken.good(request, send)


class World:
    """A hub process over that spoke."""

    def __init__(self, spoke: Spoke, hub: processes.Hub) -> None:
        self.spoke, self.hub = spoke, hub

    async def fleet(self, *words: str) -> Done:
        """One command, while the spoke goes on answering."""
        return await asyncio.to_thread(Fleet(self.hub.data_dir, self.hub.port).run, *words)

    async def held(self, text: str, tool: str = "os.odd.look") -> str:
        """The id under which an agent's call is held."""
        done = await self.fleet("call", tool, f"text={text}")
        found = re.search(r"fleet approvals approve (ap_\w+)", done.err)
        assert done.code == 1
        assert found is not None, done.err
        return found[1]


@asynccontextmanager
async def in_thread(data_dir: Path, spokes: dict[str, Any]) -> AsyncGenerator[processes.Hub]:
    """A hub process, started and ended while this loop runs on."""
    manager = processes.hub(data_dir, spokes)
    hub = await asyncio.to_thread(manager.__enter__)
    try:
        yield hub
    finally:
        await asyncio.to_thread(manager.__exit__, None, None, None)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[World]:
    """One hub process for all tests."""
    spoke = Spoke()
    async with (
        listening(spoken.spoke_app(spoke.answer, [LOOK, HANG])) as url,
        in_thread(tmp_path_factory.mktemp("fleet"), rows(odd=url)) as hub,
    ):
        yield World(spoke, hub)


async def test_a_held_call_is_listed_shown_approved_and_redeemed(world: World) -> None:
    approval_id = await world.held("barn")
    listed = await world.fleet("approvals", "list")
    row = next(line for line in listed.lines if approval_id in line)
    assert (listed.code, row.split()[:7]) == (
        0,
        [approval_id, "pending", "os.odd.look", "destroy", "client", "1", "of"],
    )
    shown = await world.fleet("approvals", "show", approval_id)
    assert "plan: run os.odd.look with exactly these arguments" in shown.out
    assert '{"text": "barn"}' in shown.out
    assert "_hash" not in shown.out
    approved = await world.fleet("approvals", "approve", approval_id, "--reason", "fine")
    said = f"{approval_id} (os.odd.look for client) is approved: client runs it, once, by repeating the identical call"
    assert approved.err.startswith(f"{said} until ")
    key = str(world.hub.data_dir / "client.key")
    redeemed = await world.fleet("approvals", "redeem", approval_id, "--key-file", key)
    assert (redeemed.code, "seen" in redeemed.out) == (0, True)
    found = (await world.fleet("approvals", "show", approval_id, "--json")).data
    assert (found["status"], found["decisions"][0]["reason"]) == ("executed", "fine")


async def test_a_held_call_is_denied(world: World) -> None:
    approval_id = await world.held("mill")
    denied = await world.fleet("approvals", "deny", approval_id, "--reason", "no", "--json")
    assert (denied.code, denied.data["status"], denied.data["note"]) == (0, "denied", "admin: no")
    listed = await world.fleet("approvals", "list", "--status", "denied", "--json")
    assert [one["id"] for one in listed.data] == [approval_id]
    again = await world.fleet("call", "os.odd.look", "text=mill")
    assert "was denied by admin: no" in again.err
    late = await world.fleet("approvals", "approve", approval_id)
    assert late.err.splitlines() == [
        f"fleet: approval {approval_id} is denied: the same call is refused for a while, then repeat it to ask anew",
        f"What became of it: fleet approvals show {approval_id}",
    ]


async def test_a_list_without_calls_says_so(world: World) -> None:
    done = await world.fleet("approvals", "list", "--status", "expired")
    assert (done.code, done.out, done.err) == (0, "", "No held call is expired.\n")
    assert (await world.fleet("approvals", "list", "--status", "expired", "--json")).data == []


async def test_an_agents_key_approves_nothing(world: World) -> None:
    approval_id = await world.held("shed")
    key = str(world.hub.data_dir / "client.key")
    done = await world.fleet("approvals", "approve", approval_id, "--key-file", key)
    assert (done.code, "is your own call" in done.err) == (1, True)


@pytest.mark.parametrize("word", ["show", "approve", "deny", "redeem"])
async def test_an_id_that_is_none_is_named(world: World, word: str) -> None:
    done = await world.fleet("approvals", word, "ap/../x")
    assert (done.code, done.out) == (1, "")
    assert "fleet: " in done.err


async def test_a_wrong_state_is_named_with_the_right_ones(world: World) -> None:
    done = await world.fleet("approvals", "list", "--status", "open")
    assert (done.code, "status: Input should be 'all', 'pending'" in done.err) == (2, True)


async def test_without_a_hub_the_command_says_how_to_start_it(tmp_path: Path) -> None:
    (tmp_path / "admin.key").write_text("key", encoding="utf-8")
    done = await asyncio.to_thread(Fleet(tmp_path).run, "approvals", "list")
    assert (done.code, "start it with `fleet up`" in done.err) == (1, True)


@pytest.mark.timeout(240)
async def test_a_hub_killed_while_an_approved_call_ran_never_runs_it_again(world: World) -> None:
    approval_id = await world.held("long", "os.odd.hang")
    kept = await world.held("kept")
    for one in (approval_id, kept):
        assert (await world.fleet("approvals", "approve", one)).code == 0
    calling = asyncio.create_task(world.fleet("call", "os.odd.hang", "text=long"))
    await world.spoke.hanging.wait()
    assert (await world.fleet("approvals", "show", approval_id, "--json")).data["status"] == "executing"
    await asyncio.to_thread(world.hub.restart)
    assert (await calling).code == 1
    found = (await world.fleet("approvals", "show", approval_id, "--json")).data
    assert (found["status"], found["arguments"]) == ("in_doubt", None)
    key = str(world.hub.data_dir / "client.key")
    redeemed = await world.fleet("approvals", "redeem", approval_id, "--key-file", key)
    assert (redeemed.code, "outcome is unknown" in redeemed.err) == (1, True)
    assert await world.held("long", "os.odd.hang") != approval_id
    assert world.spoke.calls.count("os_odd_hang") == 1
    assert (await world.fleet("call", "os.odd.look", "text=kept")).code == 0
