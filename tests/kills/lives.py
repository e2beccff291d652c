"""What a forked process does with its life; each is given a data directory and the rest of the order."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import boundaries
import demo
import uvloop
from attendant import Attendant
from demo_mcp import book
from hubs import write_rows

from fleetkit import settings
from master_mcp.app import Hub

SETTINGS = {"workflows": {"poll_s": 0.02}, "log_level": "warning"}


def prepare(data: Path) -> None:
    """A data directory as the first start of a hub leaves it, with the part saved."""
    write_rows(data, {demo.SERVICE: demo.ROW}, SETTINGS)
    book.path = data / "prepared"

    async def once() -> None:
        async with Hub(settings.load(data)).running() as hub:
            attendant = Attendant(hub, data / "seen.jsonl")
            await attendant.save(demo.PART)
            await attendant.attend("undone", "prepared")  # so that whatever loads late has been loaded

    uvloop.run(once())
    (data / "modules.json").write_text(json.dumps(sorted(sys.modules)), encoding="utf-8")


def live(data: Path, workflow: str, kill_at: list[str]) -> None:
    """The run of that workflow to its end, unless it is killed; the boundaries that were passed in `passed.txt`."""
    passed = os.open(data / "passed.txt", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    counts, ends, armed = dict[str, int](), frozenset(kill_at), False

    def reached(name: str) -> None:
        if not armed:
            return
        counts[name] = counts.get(name, 0) + 1
        name = f"{name} #{counts[name]}"
        os.write(passed, f"{name}\n".encode())
        if name in ends:
            os.kill(os.getpid(), signal.SIGKILL)

    async def whole() -> None:
        nonlocal armed
        async with Hub(settings.load(data)).running() as hub:
            armed = True
            _end(data, await Attendant(hub, data / "seen.jsonl").attend(workflow))
            armed = False

    book.path, book.edge = data / "book", reached
    boundaries.install(reached)
    uvloop.run(whole())


def replay(data: Path) -> None:
    """Every run that the directory holds, to its end."""
    book.path = data / "book"

    async def whole() -> None:
        async with Hub(settings.load(data)).running() as hub:
            _end(data, await Attendant(hub, data / "seen.jsonl").attend_all())

    uvloop.run(whole())


def crowd(data: Path, running: int, total: int) -> None:
    """So many runs at once; held until all places are taken, then let go."""
    write_rows(data, {demo.SERVICE: demo.ROW}, {**SETTINGS, "workflows": {"poll_s": 0.02, "running": running}})
    book.path = data / "book"

    async def whole() -> None:
        async with Hub(settings.load(data)).running() as hub:
            attendant = Attendant(hub, data / "seen.jsonl")
            hold = book.beside("hold crowd")
            hold.touch()
            for number in range(total):
                await attendant.begin(demo.CROWD, {"number": number})
            while (under_way := await attendant.statuses("crowd")).get("running", 0) < min(running, total):
                await asyncio.sleep(0.05)
            hold.unlink()
            while set(ended := await attendant.statuses("crowd")) != {"completed"}:
                assert "failed" not in ended, await attendant.reasons("crowd")
                await asyncio.sleep(0.1)
            _end(data, {"held": under_way, "ended": ended})

    uvloop.run(whole())


def _end(data: Path, found: Any) -> None:
    (data / "end.json").write_text(json.dumps(found), encoding="utf-8")


ALL = {one.__name__: one for one in (prepare, live, replay, crowd)}
