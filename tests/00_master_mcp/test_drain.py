"""A hub that is told to stop takes no new calls, lets those under way end, and records what it cancels."""

import asyncio
import signal
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import faulty
import processes
import pytest
import spoken
from faulty import Faulty
from hubs import listening, rows
from support import free_port
from wire import ModernClient, Reply

from fleetkit.errors import OverBudget, Unavailable
from master_mcp.resilience.drain import Drain
from master_mcp.resilience.gate import Gate


class Held:
    """A tool that waits for the test."""

    def __init__(self) -> None:
        self.here = asyncio.Event()
        self.go = asyncio.Event()

    async def __call__(self, request: dict[str, Any], send: Any) -> None:
        self.here.set()
        await self.go.wait()
        await spoken.good(request, send)


def stopped(reply: Reply) -> bool:
    """Whether a call was told that the hub ended it."""
    found = reply.result["structuredContent"]
    return found["code"] == "unavailable" and "was stopped before this call ended" in found["message"]


class Stopping:
    """A hub in a process of its own whose spoke, in this one, holds a call."""

    def __init__(self, hub: processes.Hub, held: Held) -> None:
        self.hub, self.held = hub, held
        self.printed = hub.process.printed

    def client(self) -> ModernClient:
        return ModernClient(f"{self.hub.url}/mcp", self.hub.key("admin"))

    async def said(self, event: str) -> None:
        """Wait until the hub logs it."""
        await asyncio.to_thread(self.hub.process.until, lambda line: line["event"] == event, self.printed)

    async def ended(self) -> int:
        """Wait for its end; its exit code."""
        return await asyncio.to_thread(self.hub.process.ended)

    def outcomes(self) -> list[str]:
        """What the audit says, after the end."""
        db = sqlite3.connect(self.hub.data_dir / "hub.db")
        try:
            return [row[0] for row in db.execute("SELECT outcome FROM audit ORDER BY seq")]
        finally:
            db.close()


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Callable[[float], Any]]:
    held = Held()
    made: list[processes.Hub] = []
    async with listening(Faulty(always=held).app(faulty.tool(risk="change")), free_port()) as url:

        async def started(drain_s: float) -> Stopping:
            hub = await asyncio.to_thread(processes.Hub, tmp_path, rows(odd=url), {"drain_s": drain_s})
            made.append(hub)
            return Stopping(hub, held)

        yield started
        held.go.set()
        for hub in made:
            await asyncio.to_thread(hub.process.kill)


async def test_calls_under_way_end_well_and_new_ones_are_told_to_come_back(start: Callable[[float], Any]) -> None:
    stopping = await start(100)
    async with stopping.client() as client, aiohttp.ClientSession() as http:
        under_way = asyncio.create_task(client.call("os_odd_look"))
        await stopping.held.here.wait()
        stopping.hub.process.signal(signal.SIGTERM)
        await stopping.said("hub.draining")
        async with http.get(f"{stopping.hub.url}/ready") as answer:
            assert (answer.status, (await answer.json())["status"]) == (503, "draining")
        refused = (await client.call("os_odd_look")).result["structuredContent"]
        assert (refused["code"], refused["retryable"], refused["retry_after"]) == ("unavailable", True, 2.0)
        stopping.held.go.set()
        assert (await under_way).said == "seen"
    assert await stopping.ended() == 0
    assert stopping.outcomes() == ["intent", "ok"]


async def test_a_call_that_outlasts_the_drain_is_cancelled_and_on_record(start: Callable[[float], Any]) -> None:
    stopping = await start(0.2)
    async with stopping.client() as client:
        under_way = asyncio.create_task(client.call("os_odd_look"))
        await stopping.held.here.wait()
        stopping.hub.process.signal(signal.SIGINT)
        assert stopped(await under_way)
    assert await stopping.ended() == 0
    assert stopping.outcomes() == ["intent", "cancelled"]


async def test_a_second_signal_ends_it_at_once_and_still_records(start: Callable[[float], Any]) -> None:
    stopping = await start(3600)
    async with stopping.client() as client:
        under_way = asyncio.create_task(client.call("os_odd_look"))
        await stopping.held.here.wait()
        stopping.hub.process.signal(signal.SIGTERM)
        await stopping.said("hub.draining")
        stopping.hub.process.signal(signal.SIGTERM)
        assert stopped(await under_way)
    assert await stopping.ended() == 0
    assert stopping.outcomes() == ["intent", "cancelled"]


async def test_a_hub_without_calls_ends_at_once(start: Callable[[float], Any]) -> None:
    stopping = await start(3600)
    stopping.hub.process.signal(signal.SIGTERM)
    assert await stopping.ended() == 0
    assert stopping.outcomes() == []


class Doors:
    """A web server that would end."""

    should_exit = False


async def test_a_call_inside_a_call_of_the_same_task_counts_twice_and_ends_once() -> None:
    gate = Gate(2)
    with gate:
        with gate:
            assert gate.inside == 2
            with pytest.raises(OverBudget):
                gate.__enter__()
        gate.close()
        with pytest.raises(Unavailable, match="is stopping"):
            gate.__enter__()
        emptied = asyncio.create_task(gate.empty())
        await asyncio.sleep(0)
        assert not emptied.done()
    await emptied
    assert gate.inside == 0


async def test_a_call_that_will_not_be_cancelled_does_not_keep_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("master_mcp.resilience.drain.CANCELLED_WITHIN_S", 0.01)
    gate, doors, release = Gate(5), Doors(), asyncio.Event()

    async def stubborn() -> None:
        with gate:
            while not release.is_set():
                try:
                    await release.wait()
                except asyncio.CancelledError:
                    continue

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    drain = Drain(gate, doors, 0.01)
    drain.stop()
    while not doors.should_exit:
        await asyncio.sleep(0)
    assert gate.inside == 1
    release.set()
    await task
