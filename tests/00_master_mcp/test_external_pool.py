"""Sessions are leased to one call at a time, opened ever later when they break, and never left behind."""

import asyncio
from typing import Any

import pytest

from fleetkit.errors import OverBudget, Unavailable
from master_mcp.external.pool import MAX_SESSIONS, STABLE_S, Pool
from master_mcp.external.session import Session


class Wire:
    """A wire that carries nothing. Not a process, because these tests are about when one would be started."""

    def __init__(self) -> None:
        self.open = True
        self.closed = 0

    async def send(self, message: dict[str, Any]) -> None:
        """Nowhere."""

    def forget(self, request_id: object) -> None:
        """Nothing to forget."""

    def agreed(self, version: str) -> None:
        """Nothing is agreed."""

    def hear(self) -> None:
        """Nothing is heard."""

    async def close(self) -> None:
        """Count it."""
        self.open = False
        self.closed += 1


class Bench:
    """A pool over such wires, with a clock that the test moves."""

    def __init__(self, lanes: int = 1) -> None:
        self.now = 0.0
        self.wires: list[Wire] = []
        self.go = asyncio.Event()
        self.go.set()
        self.problem: Exception | None = None
        self.pool = Pool("odd", self._open, lanes, idle_s=10, clock=lambda: self.now)

    async def _open(self) -> Session:
        await self.go.wait()
        if self.problem is not None:
            raise self.problem
        session = Session("odd", lambda: None, lambda: None)
        wire = Wire()
        session.attach(wire)
        self.wires.append(wire)
        return session

    def kill(self, session: Session) -> None:
        """The process of a session ends by itself."""
        self.wires[-1].open = False
        self.pool.broke(session)


async def test_a_session_is_used_again_and_only_by_one_at_a_time() -> None:
    bench = Bench()
    first = await bench.pool.take("a")
    waiting = asyncio.create_task(bench.pool.take("a"))
    await asyncio.sleep(0)
    assert not waiting.done()
    bench.pool.give("a", first)
    assert await waiting is first
    assert len(bench.wires) == 1


async def test_identities_do_not_share() -> None:
    bench = Bench()
    assert await bench.pool.take("a") is not await bench.pool.take("b")


async def test_the_hubs_own_questions_borrow_a_session_that_is_in_use() -> None:
    bench = Bench()
    taken = await bench.pool.take("a")
    assert await bench.pool.any() is taken


async def test_opening_goes_on_without_its_caller_and_the_next_one_gets_it() -> None:
    bench = Bench()
    bench.go.clear()
    impatient = asyncio.create_task(bench.pool.take("a"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    impatient.cancel()
    await asyncio.gather(impatient, return_exceptions=True)
    patient = asyncio.create_task(bench.pool.take("a"))
    bench.go.set()
    assert (await patient).alive
    assert len(bench.wires) == 1


async def test_a_session_that_ends_again_and_again_is_opened_ever_later() -> None:
    bench = Bench()
    waits: list[float] = []
    for _ in range(12):
        session = await bench.pool.take("a")
        bench.kill(session)
        bench.pool.give("a", session)
        with pytest.raises(Unavailable, match="times in a row") as refused:
            await bench.pool.take("a")
        waits.append(refused.value.retry_after or 0)
        bench.now += waits[-1]
    assert waits[:4] == pytest.approx([0.2, 0.4, 0.8, 1.6])
    assert waits[-1] == 60


async def test_a_session_that_lived_long_is_opened_soon() -> None:
    bench = Bench()
    for _ in range(3):
        session = await bench.pool.take("a")
        bench.now += STABLE_S
        bench.kill(session)
        bench.pool.give("a", session)
        with pytest.raises(Unavailable) as refused:
            await bench.pool.take("a")
        assert refused.value.retry_after == pytest.approx(0.2)
        bench.now += 0.2


async def test_a_failed_start_counts_as_an_end() -> None:
    bench = Bench()
    bench.problem = Unavailable("no")
    with pytest.raises(Unavailable, match="no"):
        await bench.pool.take("a")
    with pytest.raises(Unavailable, match="ended 1 times"):
        await bench.pool.take("a")


async def test_idle_sessions_are_ended_and_busy_ones_are_not() -> None:
    bench = Bench()
    idle, busy = await bench.pool.take("a"), await bench.pool.take("b")
    bench.pool.give("a", idle)
    bench.now += 11
    bench.pool.sweep()
    await asyncio.sleep(0)
    assert (idle.alive, busy.alive) == (False, True)
    assert bench.pool.live == [busy]
    assert not bench.pool.lost


async def test_an_idle_session_makes_room_for_another_caller_and_all_busy_is_over_budget() -> None:
    bench = Bench()
    taken = [await bench.pool.take(str(i)) for i in range(MAX_SESSIONS)]
    with pytest.raises(OverBudget):
        await bench.pool.take("late")
    bench.pool.give("3", taken[3])
    assert (await bench.pool.take("late")).alive
    await asyncio.sleep(0)
    assert not taken[3].alive


async def test_a_broken_session_is_not_handed_out() -> None:
    bench = Bench(lanes=2)
    session = await bench.pool.take("a")
    bench.pool.give("a", session)
    bench.wires[0].open = False
    assert await bench.pool.take("a") is not session
    await asyncio.sleep(0)
    assert bench.wires[0].closed == 1


async def test_a_session_that_is_being_ended_is_not_handed_out() -> None:
    bench = Bench()
    session = await bench.pool.take("a")
    bench.pool.give("a", session)
    bench.pool.end(session)
    assert await bench.pool.take("a") is not session


async def test_closing_ends_every_session_once_and_what_is_still_being_opened() -> None:
    bench = Bench()
    used, idle = await bench.pool.take("a"), await bench.pool.take("b")
    bench.pool.give("b", idle)
    bench.go.clear()
    opening = asyncio.create_task(bench.pool.take("c"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    opening.cancel()
    await asyncio.gather(opening, return_exceptions=True)
    waiting = asyncio.create_task(bench.pool.take("d"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await bench.pool.close()
    bench.pool.give("a", used)
    assert [wire.closed for wire in bench.wires] == [1, 1]
    with pytest.raises(Unavailable, match="was stopped"):
        await waiting
    with pytest.raises(Unavailable, match="was stopped"):
        await bench.pool.take("a")
