"""Three calls of one tool, one way in a process of its own: `python ways.py WAY DIRECTORY`.

Every way has the same hub with the same embedded spoke around it. The process answers each job (JSON, a line of
input) with an outcome; at the end of its input it checks that the books of the hub hold every call, and ends with 1
when they do not.
"""

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson
import sqlalchemy as sa
import uvloop
import yaml
from account import usage
from sqlalchemy import event
from targets import SHIPPED

from fleetkit import log, settings
from fleetkit.server import settle
from fleetkit.trust import write_private
from master_mcp.app import Hub
from master_mcp.auth.caller import Caller
from master_mcp.proxy.request import ToolCall
from master_mcp.store import audit
from master_mcp.workflows.record import RunStatus
from master_mcp.workflows.starting import Order

TEXTS = ("first", "second", "third")
READS, CHANGES = "bench.echo", "bench.store"
ALONE = {"rules": [{"name": "measured without people", "answer": "allow"}]}

Once = Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class Job:
    """One measurement."""

    concurrency: int
    seconds: float
    warmup_s: float


@dataclass
class Outcome:
    """What it came to; the processor time is that of this process and all below it."""

    runs: int = 0
    seconds: float = 0.0
    cpu_s: float = 0.0
    times_ms: list[float] = field(default_factory=list[float])


class Ways:
    """The ways to make three calls; each method gives what makes them once."""

    def __init__(self, hub: Hub, caller: Caller, directory: Path) -> None:
        self._hub = hub
        self._caller = caller
        self._directory = directory

    def calls(self) -> Once:
        """One after the other through the hub's proxy."""

        async def once() -> None:
            for text in TEXTS:
                await self._call(READS, {"text": text})

        return once

    def dbos(self) -> Once:
        """Each in a step of a DBOS workflow, nothing else around it."""
        from dbos import DBOS, DBOSPortableJSONSerializer

        @DBOS.step()
        async def step(text: str) -> str:
            answer = await self._call(READS, {"text": text})
            return str(answer["structuredContent"]["result"])

        @DBOS.workflow()
        async def workflow() -> list[str]:
            return [await step(text) for text in TEXTS]

        url = f"sqlite:///{self._directory / 'dbos.db'}"
        DBOS(
            config={
                "name": "bare",
                "system_database_url": url,
                "system_database_engine": _as_the_hub_opens_it(url),
                "serializer": DBOSPortableJSONSerializer(),
                "log_level": "WARNING",
            }
        )
        DBOS.launch()

        async def once() -> None:
            await workflow()

        return once

    def workflow(self) -> Once:
        """Each in a step of a workflow of the hub."""
        return self._run(READS, TEXTS)

    def expressions(self) -> Once:
        """The same, the arguments given by expressions over the inputs."""
        return self._run(READS, tuple(f"${{ .input.{text} }}" for text in TEXTS), dict(zip(TEXTS, TEXTS, strict=True)))

    def changes(self) -> Once:
        """The same with a tool that changes something: its intent is on disk before it is called."""
        return self._run(CHANGES, TEXTS)

    def tool(self) -> Once:
        """The same workflow through orchestrator.executeWorkflow, as clients call it."""
        definition = _definition(READS, TEXTS, {})

        async def once() -> None:
            answer = await self._call("orchestrator.executeWorkflow", {"definition": definition})
            _completed(answer["structuredContent"]["status"])

        return once

    def _run(self, tool: str, texts: tuple[str, ...], inputs: Mapping[str, str] | None = None) -> Once:
        order = Order(definition=_definition(tool, texts, inputs or {}), inputs=inputs)
        workflows = self._hub.workflows

        async def once() -> None:
            run = await workflows.starting.start(order, self._caller, "mcp")
            _completed((await workflows.looking.ended(run.id, 60.0)).status)

        return once

    async def _call(self, tool: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        params = {"name": tool, "arguments": dict(arguments)}
        return (await self._hub.proxy.call(ToolCall(tool, params, self._caller, "mcp", "ben-1")))["result"]


NAMES = ("calls", "dbos", "workflow", "expressions", "changes", "tool")


def _definition(tool: str, texts: tuple[str, ...], inputs: Mapping[str, str]) -> dict[str, Any]:
    steps = [{"name": name, "tool": tool, "params": {"text": text}} for name, text in zip("abc", texts, strict=True)]
    return {"name": "three_calls", "input": {name: {"type": "string"} for name in inputs}, "steps": steps}


def _completed(status: str) -> None:
    if status != RunStatus.completed:
        raise SystemExit(f"a run ended {status}")


def _as_the_hub_opens_it(url: str) -> sa.Engine:
    engine = sa.create_engine(url)

    def prepare(connection: Any, _record: object) -> None:
        connection.isolation_level = "IMMEDIATE"
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", "busy_timeout=30000"):
            connection.execute(f"PRAGMA {pragma}").close()

    event.listen(engine, "connect", prepare)
    return engine


class Measured:
    """One way, measured as often as it is asked; `runs` counts all, those of warm-ups too."""

    def __init__(self, once: Once) -> None:
        self._once = once
        self.runs = 0

    async def measure(self, job: Job) -> Outcome:
        """So many at a time, for so long."""
        await self._together(job.concurrency, job.warmup_s)
        before = usage(os.getpid()).cpu_s
        outcome = await self._together(job.concurrency, job.seconds)
        outcome.cpu_s = usage(os.getpid()).cpu_s - before
        return outcome

    async def _together(self, concurrency: int, seconds: float) -> Outcome:
        outcome = Outcome()
        began = time.perf_counter()

        async def worker() -> None:
            while (started := time.perf_counter()) < began + seconds:
                await self._once()
                outcome.times_ms.append((time.perf_counter() - started) * 1000)

        await asyncio.gather(*(worker() for _ in range(concurrency)))
        outcome.seconds = time.perf_counter() - began
        outcome.runs = len(outcome.times_ms)
        self.runs += outcome.runs
        return outcome


async def serve(way: str, directory: Path) -> None:
    """Answer every job of the input; raises SystemExit when the hub wrote down more or fewer calls than were made."""
    row = {"number": 60, "namespace": "bench"}
    others = {name: {"enabled": False} for name in SHIPPED}
    write_private(directory / "fleet.yaml", yaml.safe_dump({"spokes": {"bench": row, **others}}))
    write_private(directory / "policies" / "bench.yaml", yaml.safe_dump(ALONE))
    config = settings.load(directory)
    log.configure("bench", "warning", sys.stderr)  # to standard error: standard output carries the outcomes
    async with Hub(config).running() as hub:
        key = hub.keys.authenticate((directory / "admin.key").read_text(encoding="utf-8").strip())
        assert key is not None
        measured = Measured(getattr(Ways(hub, key.caller, directory), way)())
        settle()
        while line := await asyncio.to_thread(sys.stdin.readline):
            outcome = await measured.measure(Job(**orjson.loads(line)))
            sys.stdout.buffer.write(orjson.dumps(asdict(outcome)) + b"\n")
            sys.stdout.flush()
        await asyncio.wrap_future(hub.audit.flush())
        check(hub, measured.runs * len(TEXTS))


def check(hub: Hub, calls: int) -> None:
    """Raises SystemExit unless the audit holds so many calls of the benchmark's tools, each with its answer."""
    query = sa.select(sa.func.count()).where(audit.c.tool.in_((READS, CHANGES)), audit.c.outcome == "ok")
    found = hub.store.read_now(lambda db: db.execute(query).scalar_one())
    if found != calls:
        raise SystemExit(f"{calls} calls were made, the audit holds {found}")


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1], Path(sys.argv[2])))
