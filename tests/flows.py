"""A hub with a spoke of small tools for workflows, and the calls by which tests run them."""

import asyncio
import sys
import types
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hubs import RunningHub, call, in_own_task, running_hub, text_of
from pydantic import BaseModel

from fleetkit import Assessment, Risk, Spoke
from fleetkit.errors import BY_CODE, FleetError

NAME, SPACE = "works", "lab.works"
SETTINGS: dict[str, Any] = {"workflows": {"poll_s": 0.05}}
ENDED = ("completed", "failed", "cancelled")


class Seen(BaseModel):
    """What the tools of the test spoke answer."""

    text: str
    number: int
    tags: list[str]


@dataclass
class Works:
    """What the tools of the test spoke did, in order, and the gates that hold some of them."""

    done: list[str] = field(default_factory=list[str])
    begun: list[str] = field(default_factory=list[str])
    tries: Counter[str] = field(default_factory=Counter[str])
    gates: dict[str, asyncio.Event] = field(default_factory=dict[str, asyncio.Event])

    def gate(self, name: str) -> asyncio.Event:
        """What `hold` of that name waits for."""
        return self.gates.setdefault(name, asyncio.Event())

    def did(self, *words: str) -> list[str]:
        """What was done that names one of these words."""
        return [one for one in self.done if any(word in one for word in words)]


def works_spoke(works: Works) -> Spoke:
    """A spoke whose tools write down what they did."""
    spoke = Spoke(NAME)

    _add_quick(spoke, works)
    _add_slow(spoke, works)
    return spoke


def _add_quick(spoke: Spoke, works: Works) -> None:
    @spoke.tool(risk=Risk.read)
    async def look(text: str = "", number: int = 1) -> Seen:
        """Look at something."""
        works.done.append(f"look {text}")
        return Seen(text=text, number=number, tags=[text, "seen"])

    @spoke.tool(risk=Risk.change)
    async def write(text: str, number: int = 1) -> Seen:
        """Write something down."""
        works.done.append(f"write {text}")
        return Seen(text=text, number=number, tags=[])

    @spoke.tool(risk=Risk.destroy)
    async def burn(text: str) -> Seen:
        """Burn something."""
        works.done.append(f"burn {text}")
        return Seen(text=text, number=0, tags=[])

    @spoke.tool(risk=Risk.change)
    async def trip(text: str, code: str = "unavailable", times: int = 1) -> int:
        """Fail so many times, then give the number of attempts."""
        works.tries[text] += 1
        if works.tries[text] <= times:
            raise BY_CODE.get(code, FleetError)(f"{text} tripped")
        works.done.append(f"trip {text}")
        return works.tries[text]

    def assess(text: str) -> Assessment:
        return Assessment(Risk.read if text.startswith("show") else Risk.destroy, f"do: {text}")

    @spoke.tool(risk=Risk.destroy, assess=assess)
    async def run(text: str) -> str:
        """Do what the words say, `slowly` when told to."""
        if text.endswith("slowly"):
            works.begun.append(text)
            await works.gate(text).wait()
        works.done.append(f"run {text}")
        return text

    _ = (look, write, burn, trip, run)


def _add_slow(spoke: Spoke, works: Works) -> None:
    @spoke.tool(risk=Risk.read, deadline_s=30)
    async def hold(text: str) -> str:
        """Come back when told to."""
        works.begun.append(text)
        await works.gate(text).wait()
        works.done.append(f"hold {text}")
        return text

    @spoke.tool(risk=Risk.change, deadline_s=30)
    async def stall(text: str) -> str:
        """Change something, slowly."""
        works.begun.append(text)
        await works.gate(text).wait()
        return text

    @spoke.tool(risk=Risk.read)
    async def weigh(kib: int) -> dict[str, str]:
        """So much text."""
        return {"text": "x" * (kib * 1024)}

    _ = (hold, stall, weigh)


@dataclass
class Flows:
    """A hub that runs workflows over the test spoke."""

    hub: RunningHub
    works: Works

    async def tool(self, name: str, key: str | None = None, /, **arguments: Any) -> Any:
        """The structured answer of `orchestrator.NAME`, an error's too; as the operator unless a key is given."""
        return (await call(self.hub, f"orchestrator.{name}", arguments, key=key or self.hub.admin))["structuredContent"]

    async def refused(self, name: str, key: str | None = None, /, **arguments: Any) -> str:
        """What `orchestrator.NAME` says that is wrong."""
        found = await call(self.hub, f"orchestrator.{name}", arguments, key=key or self.hub.admin)
        assert found.get("isError"), found
        return text_of(found)

    async def run(self, *steps: dict[str, Any], inputs: dict[str, Any] | None = None, **keys: Any) -> Any:
        """A workflow of these steps, run to its end."""
        more = {name: keys.pop(name) for name in ("key", "priority", "wait_s") if name in keys}
        return await self.tool("executeWorkflow", definition=flow(*steps, **keys), inputs=inputs or {}, **more)

    async def begun(self, *steps: dict[str, Any], inputs: dict[str, Any] | None = None, **keys: Any) -> str:
        """The id of a run of these steps that nobody waits for."""
        return (await self.run(*steps, inputs=inputs, wait_s=0, **keys))["id"]

    async def get(self, run_id: str) -> Any:
        """A run as it stands."""
        return await self.tool("getWorkflow", id=run_id)

    async def until(self, run_id: str, holds: Callable[[Any], bool]) -> Any:
        """A run once that holds of it; the test's own time limit ends the waiting."""
        while True:
            run = await self.get(run_id)
            if holds(run):
                return run
            assert run["status"] not in ENDED, run
            await asyncio.sleep(0.02)

    async def standing(self, run_id: str, status: str) -> Any:
        """A run once it has that status."""
        return await self.until(run_id, lambda run: run["status"] == status)

    async def waiting(self, run_id: str, step: str, status: str = "waiting") -> Any:
        """A step of a run once it has that status; its item 0 when it has several."""
        run = await self.until(run_id, lambda run: step_of(run, step).get("status") == status)
        return step_of(run, step)

    async def saved(self, *steps: dict[str, Any], **keys: Any) -> str:
        """The name of a workflow of these steps, saved by the operator."""
        found = await self.tool("saveDefinition", definition=flow(*steps, **keys))
        assert "code" not in found, found
        return str(found["name"])

    async def settled(self, condition: Callable[[], bool]) -> None:
        """Until that holds."""
        while not condition():
            await asyncio.sleep(0.01)

    async def say(self, approval_id: str, *, approve: bool = True, by: str | None = None, **values: Any) -> None:
        """A person's word about what is held, given where people sit; the operator's unless another key is given."""
        key = self.hub.hub.keys.authenticate(by or self.hub.admin)
        assert key is not None
        how: dict[str, Any] = {"approve": approve, "reason": "as said", "channel": "cli", "values": values or None}
        await self.hub.hub.approvals.decide(key.caller, approval_id, **how)

    def key(self, name: str, role: str = "operator", **more: Any) -> str:
        """A key of that name, made now."""
        return self.hub.hub.keys.create(name, role, **more)[1]


def flow(*steps: dict[str, Any], **keys: Any) -> dict[str, Any]:
    """A definition of these steps."""
    return {"name": "demo", "steps": list(steps), **keys}


def step(name: str, tool: str = "look", /, **keys: Any) -> dict[str, Any]:
    """A step that calls a tool of the test spoke with its own name as text, unless `params` say otherwise."""
    return {"name": name, "service": NAME, "tool": tool, "params": {"text": name}, **keys}


def step_of(run: Mapping[str, Any], name: str, item: int | None = None) -> dict[str, Any]:
    """How a step of a run stands; empty while it does not at all."""
    return next((one for one in run["results"] if (one["name"], one["item"]) == (name, item)), dict[str, Any]())


def statuses(run: Mapping[str, Any]) -> dict[str, str]:
    """Every step of a run and how it stands, without single items."""
    return {one["name"]: one["status"] for one in run["results"] if one["item"] is None}


def running_flows(
    data_dir: Path, *, rows: Mapping[str, Any] | None = None, **hub: Any
) -> AbstractAsyncContextManager[Flows]:
    """A hub over the test spoke, and `rows` beside it; `hub` as in `running_hub`."""
    return in_own_task(_running(data_dir, rows or {}, hub))


@asynccontextmanager
async def _running(data_dir: Path, rows: Mapping[str, Any], hub: Mapping[str, Any]) -> AsyncGenerator[Flows]:
    works, module = Works(), types.ModuleType(f"{NAME}_mcp")
    module.__dict__["spoke"] = works_spoke(works)
    sys.modules[module.__name__] = module
    mine = {NAME: {"number": 70, "namespace": SPACE}, **rows}
    try:
        async with running_hub(data_dir, mine, hub.get("hub", SETTINGS), hub.get("policies")) as running:
            yield Flows(running, works)
    finally:
        del sys.modules[module.__name__]
