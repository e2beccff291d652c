"""Parts of a running fleet are killed, frozen, cut off, lied to and starved; the rest goes on.

In every one of these tests the neighbour of what fails answers every call, no change runs twice, and every
change that ran was on record before it did (`running_fleet` looks at that at its end). They wait for
states, never for times.
"""

import asyncio
import resource
import signal
import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import jumping_clock
import pytest
from chaos_fleet import Fleet, Stopwatch, code, running_fleet, stopwatch, survives

pytestmark = pytest.mark.timeout(180)  # a loaded machine starts four processes a test
_ = stopwatch  # a fixture


async def begun(fleet: Fleet, mark: str) -> "asyncio.Task[object]":
    """A change at the victim that has run and does not come back; wait for it with `fleet.victim.holding()`."""
    task = asyncio.create_task(fleet.write(fleet.victim, mark))
    while mark not in fleet.victim.wrote():
        await asyncio.sleep(0)
    return task


async def ended(task: "asyncio.Task[object]") -> str:
    """What came of a call."""
    return code(await task)  # type: ignore[arg-type] - a Reply


@survives(
    "a spoke is killed (SIGKILL) in the middle of a change",
    callers="the call under way: `unavailable`, its outcome unknown, not repeated; further ones: `unavailable` at once",
    afterwards="started again it answers without anybody reconnecting",
)
async def test_a_killed_spoke(tmp_path: Path, stopwatch: Stopwatch) -> None:
    async with running_fleet(tmp_path) as fleet:
        printed = fleet.hub.process.printed
        with fleet.victim.holding():
            change = await begun(fleet, "m1")
            fleet.victim.process.kill()
            assert await ended(change) == "unavailable"
        fleet.unavailable(printed)
        assert code(await fleet.look(fleet.victim)) == "unavailable"
        assert code(await fleet.write(fleet.victim, "m2")) == "unavailable"
        await fleet.bystander_answers()
        printed = fleet.hub.process.printed
        fleet.victim.start()
        stopwatch.recovery()
        fleet.healthy(printed)
        assert code(await fleet.write(fleet.victim, "m3")) == "ok"
        stopwatch.good()
        assert fleet.victim.wrote() == ["m1", "m3"]


@survives(
    "a spoke is frozen (SIGSTOP)",
    callers="`timed_out` at the deadline, then `unavailable` at once",
    afterwards="thawed (SIGCONT) it answers; what it had been sent before runs once or not at all",
)
async def test_a_frozen_spoke(tmp_path: Path, stopwatch: Stopwatch) -> None:
    async with running_fleet(tmp_path) as fleet:
        printed = fleet.hub.process.printed
        fleet.victim.freeze()
        frozen = [asyncio.create_task(fleet.write(fleet.victim, f"m{n}")) for n in range(3)]
        await fleet.bystander_answers()
        assert {code(await task) for task in frozen} <= {"timed_out", "unavailable"}
        fleet.unavailable(printed)
        assert code(await fleet.look(fleet.victim)) == "unavailable"
        printed = fleet.hub.process.printed
        fleet.victim.thaw()
        stopwatch.recovery()
        fleet.healthy(printed)
        assert code(await fleet.write(fleet.victim, "m9")) == "ok"
        stopwatch.good()
        assert fleet.victim.wrote().count("m9") == 1


@survives(
    "a spoke is slow and gets more calls than it takes",
    callers="as many as its `concurrency` are under way, as many wait up to `queue_s`; the rest: `over_budget`",
    afterwards="what was under way ends well",
)
async def test_a_slow_spoke(tmp_path: Path, stopwatch: Stopwatch) -> None:
    async with running_fleet(tmp_path, hub={"resilience": {"queue_s": 0}}, concurrency=2) as fleet:
        with fleet.victim.holding():
            under_way = [await begun(fleet, f"m{n}") for n in range(2)]
            refused = [code(await fleet.write(fleet.victim, f"r{n}")) for n in range(5)]
            await fleet.bystander_answers()
        assert refused == ["over_budget"] * 5
        stopwatch.recovery()
        assert [await ended(task) for task in under_way] == ["ok", "ok"]
        stopwatch.good()
        assert fleet.victim.wrote() == ["m0", "m1"]


async def misled(fleet: Fleet, lies: list[str]) -> None:
    """One change for each lie: sent once, whatever came back."""
    for number, lie in enumerate(lies):
        says(fleet, lie)
        assert code(await fleet.write(fleet.victim, f"m{number}")) == "unavailable"
        await fleet.bystander_answers(1)
    assert fleet.victim.wrote() == [f"m{number}" for number in range(len(lies))]


def says(fleet: Fleet, how: str) -> None:
    """How the liar answers from now on."""
    (fleet.hub.data_dir / "victim.lie").write_text(how, encoding="utf-8")


async def first_good(fleet: Fleet, stopwatch: Stopwatch) -> None:
    """What failed is whole again: ask until the hub lets a change through, and see that it is good."""
    stopwatch.recovery()
    tries = 0
    while code(await fleet.write(fleet.victim, f"again{tries}")) != "ok":
        tries += 1
    stopwatch.good()
    assert fleet.victim.wrote()[-1] == f"again{tries}"
    assert [mark for mark in fleet.victim.wrote() if mark.startswith("again")] == [f"again{tries}"]


@survives(
    "a spoke cuts its sockets in the middle of its answers",
    callers="a read is asked again up to twice; a change is sent once: `unavailable`, its outcome unknown",
    afterwards="the tool's breaker, open after five, lets one call through to try, and closes",
)
async def test_a_spoke_that_cuts_its_sockets(tmp_path: Path, stopwatch: Stopwatch) -> None:
    async with running_fleet(tmp_path, "liar.py") as fleet:
        await misled(fleet, ["cut_off", "closes_mid_stream", "cut_off", "closes_mid_stream", "cut_off"])
        refused = await fleet.write(fleet.victim, "never")
        assert code(refused) == "unavailable"
        assert "never" not in fleet.victim.wrote()
        says(fleet, "good")
        await first_good(fleet, stopwatch)


@survives(
    "a spoke lies: no JSON, another id, neither result nor error, nothing",
    callers="`unavailable` with the reason; a change is sent once",
    afterwards="the tool's breaker, open after five, lets one call through to try, and closes",
)
async def test_a_lying_spoke(tmp_path: Path, stopwatch: Stopwatch) -> None:
    async with running_fleet(tmp_path, "liar.py") as fleet:
        await misled(fleet, ["invalid_json", "wrong_id", "neither", "not_an_object", "empty"])
        says(fleet, "good")
        await first_good(fleet, stopwatch)


@survives(
    "the hub is killed (SIGKILL) in the middle of a change",
    callers="the connection is lost; nobody repeats the change",
    afterwards="started again it knows its tools and keys, and the change is on record as begun",
)
async def test_a_killed_hub(tmp_path: Path, stopwatch: Stopwatch) -> None:
    async with running_fleet(tmp_path) as fleet:
        with fleet.victim.holding():
            change = await begun(fleet, "m1")
            fleet.hub.process.kill()
            with pytest.raises(aiohttp.ClientError):
                await change
        stopwatch.recovery()
        fleet.hub.restart()
        assert code(await fleet.write(fleet.victim, "m2")) == "ok"
        stopwatch.good()
        await fleet.bystander_answers(1)
        assert fleet.victim.wrote() == ["m1", "m2"]


@contextmanager
def locked(database: Path) -> Generator[None]:
    """Another process (this one) holds the write lock."""
    other = sqlite3.connect(database, isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")
    finally:
        other.close()


async def reads_go_on(fleet: Fleet) -> None:
    """Reading needs no disk; a change that could not be recorded is refused, and does not happen."""
    for number in range(3):
        assert code(await fleet.look(fleet.victim)) == "ok"
        assert code(await fleet.write(fleet.victim, f"refused{number}")) == "unavailable"
        assert code(await fleet.look(fleet.bystander)) == "ok"
    assert fleet.victim.wrote() == []


@survives(
    "the hub's database is locked by another process",
    callers="reads go on; a change is refused (`unavailable`) before it is sent, because it cannot be recorded",
    afterwards="once the lock is gone changes go through",
)
async def test_a_locked_database(tmp_path: Path, stopwatch: Stopwatch) -> None:
    patient = f"sqlite:///{tmp_path / 'hub.db'}?timeout=0.1"
    async with running_fleet(tmp_path, hub={"database_url": patient}) as fleet:
        with locked(tmp_path / "hub.db"):
            await reads_go_on(fleet)
        await first_good(fleet, stopwatch)
        await fleet.bystander_answers(1)


@contextmanager
def no_room(pid: int) -> Generator[None]:
    """No write of this process to any file succeeds (EFBIG), as on a full disk."""
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


@survives(
    "the hub's disk is full",
    callers="reads go on; a change is refused (`unavailable`) before it is sent, because it cannot be recorded",
    afterwards="once there is room changes go through",
)
async def test_a_full_disk(tmp_path: Path, stopwatch: Stopwatch) -> None:
    async with running_fleet(tmp_path) as fleet:
        with no_room(fleet.hub.process.pid):
            await reads_go_on(fleet)
        await first_good(fleet, stopwatch)
        await fleet.bystander_answers(1)


@survives(
    "the clock of the machine jumps a day ahead, and back two",
    callers="nothing: what was signed before the jump and read after it is refused, the next call is good",
    afterwards="deadlines, limits and breakers follow a clock that does not jump",
)
async def test_a_jumping_clock(tmp_path: Path, stopwatch: Stopwatch) -> None:
    clock = tmp_path / "clock"
    clock.write_text("0", encoding="utf-8")
    async with running_fleet(tmp_path, env={jumping_clock.VARIABLE: str(clock)}) as fleet:
        for number, offset in enumerate((86_400, -86_400, 0)):
            clock.write_text(str(offset), encoding="utf-8")
            stopwatch.recovery()
            assert code(await fleet.write(fleet.victim, f"m{number}")) == "ok"
            stopwatch.good()
            assert code(await fleet.look(fleet.victim)) == "ok"
            await fleet.bystander_answers(1)
        at = sorted(moments(tmp_path / "hub.db"))
        assert at[-1] - at[0] > 2 * 86_000  # it did jump


def moments(database: Path) -> list[float]:
    """When the audit rows say that they were written."""
    with sqlite3.connect(database) as db:
        found = [float(at) for (at,) in db.execute("SELECT at FROM audit")]
    db.close()
    return found


@survives(
    "the hub is stopped (SIGTERM) in the middle of a change",
    callers="the call under way ends well; `/ready` says `draining`; new calls: `unavailable` with `retry_after`",
    afterwards="the hub ends by itself once its last call has, at `drain_s` at the latest",
)
async def test_a_stopping_hub(tmp_path: Path, stopwatch: Stopwatch) -> None:
    async with running_fleet(tmp_path, hub={"drain_s": 120}) as fleet:
        printed = fleet.hub.process.printed
        with fleet.victim.holding():
            change = await begun(fleet, "m1")
            fleet.hub.process.signal(signal.SIGTERM)
            fleet.hub.process.until(lambda line: line["event"] == "hub.draining", printed)
            refused = (await fleet.look(fleet.victim)).result["structuredContent"]
            assert (refused["code"], refused["retry_after"]) == ("unavailable", 2.0)
        stopwatch.recovery()
        assert await ended(change) == "ok"
        stopwatch.good()
        assert fleet.hub.process.ended() == 0
