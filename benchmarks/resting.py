"""A hub that rests: how long it takes to answer, what it costs while its runs only wait."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, cast

import orjson
import yaml
from account import Usage, usage
from children import Failed, Process, free_port
from load import MODERN, MODERN_META
from targets import HUB, SHIPPED, Target

from fleetkit.trust import write_private

WAITS_WITHIN_S = 60.0
WAITING = {"name": "waiting", "steps": [{"name": "a", "wait": {"signal": "go", "timeout": "1d"}}]}


@dataclass(frozen=True)
class Rest:
    """One hub at rest with so many runs waiting; the processor time is a share of one core."""

    waiting: int
    start_s: float
    idle_percent: float
    rss_mib: float


@dataclass(frozen=True)
class Spent:
    """What a hub had used at a moment."""

    at: float
    usage: Usage


class Resting:
    """A hub as people run it, with `waiting` runs that wait for a signal."""

    def __init__(self, directory: Path, waiting: int) -> None:
        self._directory = directory
        self._waiting = waiting
        self._starts_s: list[float] = []
        port = free_port()
        write_private(directory / "fleet.yaml", yaml.safe_dump({"spokes": {n: {"enabled": False} for n in SHIPPED}}))
        alone = {"rules": [{"name": "measured without people", "answer": "allow"}]}
        write_private(directory / "policies" / "bench.yaml", yaml.safe_dump(alone))

        def start() -> Process:
            environment = {"FLEET_DATA_DIR": str(directory), "FLEET_HUB__PORT": str(port)}
            return Process([sys.executable, str(HUB)], directory.with_suffix(".out"), environment)

        def key() -> str:
            return (directory / "admin.key").read_text(encoding="utf-8").strip()

        self._hub = Target(f"{waiting} waiting", start, f"http://127.0.0.1:{port}/mcp", key, data_dir=directory)

    def prepare(self) -> None:
        """Begin its runs, and stop it."""
        self.up()
        self._starts_s.clear()  # the first start makes the database
        for _ in range(self._waiting):
            self._call("orchestrator_executeWorkflow", {"definition": WAITING, "wait_s": 0})
        self.settle()
        self.down()

    def up(self) -> None:
        """Start it and note how long it takes until it answers."""
        process = self._hub.process = self._hub.start()
        self._starts_s.append(process.wait_until(self._answers))

    def settle(self) -> None:
        """Until every run waits."""
        self._until(lambda: self._call("orchestrator_listWorkflows", {"status": "waiting"}) == self._waiting)

    def down(self) -> None:
        """Stop it."""
        self._hub.down()

    def spent(self) -> Spent:
        """What it has used up to now."""
        assert self._hub.process is not None
        return Spent(time.perf_counter(), usage(self._hub.process.pid))

    def since(self, before: Spent) -> Rest:
        """What it cost to do nothing since then."""
        now = self.spent()
        share = 100 * (now.usage.cpu_s - before.usage.cpu_s) / (now.at - before.at)
        return Rest(self._waiting, round(median(self._starts_s), 3), round(share, 2), round(now.usage.rss_mib, 1))

    def _answers(self) -> bool:
        try:
            return b"ok" in self._hub.get(self._hub.url.removesuffix("/mcp") + "/health").lower()
        except OSError:
            return False

    def _call(self, tool: str, arguments: dict[str, Any]) -> int:
        """Call a tool; how many things its result lists."""
        params = {"name": tool, "arguments": arguments, "_meta": MODERN_META}
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        headers = {"mcp-protocol-version": MODERN, "mcp-method": "tools/call", "mcp-name": tool}
        headers |= {"content-type": "application/json", "accept": "application/json, text/event-stream"}
        raw = self._hub.get(self._hub.url, orjson.dumps(body), headers)
        answer = orjson.loads(raw.rpartition(b"data: ")[2] if raw.startswith((b"event", b"data", b":")) else raw)
        if answer.get("result", {}).get("isError", True):
            raise Failed(f"{tool} answered {raw[:500]!r}")
        found: object = answer["result"]["structuredContent"].get("result")
        return len(cast("list[object]", found)) if isinstance(found, list) else 1

    def _until(self, good: Callable[[], bool]) -> None:
        patience = time.monotonic() + WAITS_WITHIN_S
        while not good():
            if time.monotonic() > patience:
                raise Failed(f"{self._waiting} runs should wait, and do not")
            time.sleep(0.1)
