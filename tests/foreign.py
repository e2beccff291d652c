"""External servers for tests: a scripted program on stdio, and what a test does to have one behind a hub."""

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from hubs import RunningHub, call

from fleetkit.shapes import mapping
from master_mcp.external.gate import Gate
from master_mcp.external.records import Records
from master_mcp.external.upstream import ExternalUpstream

PROGRAM = Path(__file__).with_name("foreign_program.py")
TRIES = 1500
STEP_S = 0.02


def tool(name: str, description: str = "A tool.", **more: Any) -> dict[str, Any]:
    """A definition."""
    return {"name": name, "description": description, "inputSchema": {"type": "object"}, **more}


NAMES = (
    *("look", "environment", "reach", "tell", "ask", "hang", "die", "lie", "flood", "breed"),
    *("interfaces", "speak_for_the_hub"),
)
TOOLS = [tool(name) for name in NAMES]


class Script:
    """The manners of a scripted server, to be changed while it runs, and what it noted."""

    def __init__(self, folder: Path, name: str = "odd", **manners: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{name}.json"
        self._manners: dict[str, Any] = {"tools": TOOLS}
        self.change(**manners)

    def change(self, **manners: Any) -> None:
        """Behave so from now on."""
        self._manners |= manners
        beside = self.path.with_suffix(".new")
        beside.write_text(json.dumps(self._manners))
        beside.replace(self.path)

    @property
    def noted(self) -> list[str]:
        """What the program wrote down, line by line."""
        path = self.path.with_suffix(".noted")
        return path.read_text().splitlines() if path.exists() else []

    @property
    def pids(self) -> list[int]:
        """Every process it ever was."""
        return [int(line.split()[1]) for line in self.noted if line.startswith("pid ")]

    def row(self, **more: Any) -> dict[str, Any]:
        """A row of `external:` that starts it, without a sandbox."""
        command = [sys.executable, str(PROGRAM), str(self.path)]
        return {"transport": "stdio", "command": command, "sandbox": "none", **more}


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def put_rows(data_dir: Path, **rows: Mapping[str, Any]) -> None:
    """Rows of `external:` as `fleet servers add` writes them."""
    folder = data_dir / "external"
    folder.mkdir(parents=True, exist_ok=True)
    for name, row in rows.items():
        beside = folder / f".{name}"
        beside.write_text(yaml.safe_dump(dict(row)))
        beside.replace(folder / f"{name}.yaml")


def upstream(hub: RunningHub, name: str) -> ExternalUpstream:
    """The server as the hub holds it."""
    found = hub.hub.upstreams[name]
    assert isinstance(found, ExternalUpstream)
    return found


def gate(hub: RunningHub, name: str) -> Gate:
    """Its gate."""
    return upstream(hub, name).gate


async def look(hub: RunningHub, *names: str) -> None:
    """Have the hub list each server's tools now, however long it takes to start."""
    for name in names:
        watcher = hub.hub.fleet.members[name].watcher
        assert watcher is not None
        for _ in range(TRIES):
            watcher.relist()
            await watcher.look()
            if watcher.health.state == "healthy":
                break
            await asyncio.sleep(STEP_S)
        assert watcher.health.state == "healthy", watcher.health


async def approve(hub: RunningHub, *names: str) -> None:
    """Approve all that each server shows, and have the hub know it."""
    records = Records(hub.hub.store)
    for name in names:
        await look(hub, name)
        seen = gate(hub, name).seen
        assert seen is not None
        await records.saw(name, seen)
        records.approve(name, seen, seen, "a test")
        await hub.hub.servers.refresh()
        await look(hub, name)


async def told(hub: RunningHub, wire_name: str, **arguments: Any) -> Any:
    """What a scripted tool said, as JSON; called by the operator."""
    result = await call(hub, wire_name, arguments, key=hub.admin)
    assert not result.get("isError"), result
    return json.loads(result["content"][0]["text"])


async def refusal(hub: RunningHub, wire_name: str, **arguments: Any) -> tuple[str, str]:
    """Code and message of a call that fails."""
    result = await call(hub, wire_name, arguments, key=hub.admin)
    failed = mapping(result.get("structuredContent"))
    return str(failed["code"]), str(failed["message"])


def environment_keeper(names: tuple[str, ...] = ("PATH", "HOME", "LANG")) -> dict[str, str]:
    """What of this process's environment a server may see."""
    return {name: os.environ[name] for name in names if name in os.environ}
