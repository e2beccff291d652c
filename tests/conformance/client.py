"""The hub as a client: a real hub over the suite's server, of which everything it lists is asked for.

`python client.py URL`, started by the suite, which names what it wants in `MCP_CONFORMANCE_CONTEXT`. An older
client (2025-11-25) asks, so whatever the suite's server of 2026-07-28 sees is the hub's own work.
"""

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hubs import OWN, RunningHub, running_hub, settle
from wire import Message, SessionClient, accepts

ROW = {"number": 90, "namespace": "suite", "names": "verbatim"}
SAMPLES: Mapping[str, Any] = {"string": "x", "number": 2.5, "integer": 2, "boolean": True, "array": []}


async def listed(hub: RunningHub) -> None:
    """Wait until the hub knows the server: the suite refuses some first requests on purpose."""
    watcher = hub.hub.fleet.members["suite"].watcher
    assert watcher is not None
    for _ in range(20):
        await settle(hub, "suite")
        if watcher.health.state == "healthy":
            return
    sys.exit(f"the hub does not take the server: {watcher.health.reason}")


def sample(schema: Message, document: Message) -> Message:
    """Arguments that a tool with this input schema takes; an object is `document`."""
    properties: Message = schema.get("properties", {})
    kinds = {name: properties[name].get("type", "string") for name in schema.get("required", [])}
    return {name: document if kind == "object" else SAMPLES[kind] for name, kind in kinds.items()}


async def calls(session: SessionClient) -> list[Message]:
    """What to call: what the suite names, else every listed tool."""
    named: list[Message] = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT") or "{}").get("toolCalls", [])
    tools = (await session.request("tools/list")).result["tools"]
    hubs = tuple(f"{name}_" for name in OWN)
    own = [tool for tool in tools if not tool["name"].startswith(hubs)]
    return named or [
        {"name": tool["name"], "arguments": sample(tool["inputSchema"], own[0]["inputSchema"])} for tool in own
    ]


async def call(session: SessionClient, asked: Message, meanwhile: Message) -> None:
    """One call; while its question waits for the answer, another call goes by."""
    async with session.stream("tools/call", asked) as stream:
        async for message in stream:
            if "method" in message and "id" in message:
                await session.request("tools/call", meanwhile)
                answer = {"jsonrpc": "2.0", "id": message["id"], "result": accepts(message)}
                await session.post(answer, session.headers())


async def exercise(session: SessionClient) -> None:
    """Ask for everything there is."""
    asked = await calls(session)
    for one in asked:
        await call(session, one, meanwhile=asked[-1])
    for resource in (await session.request("resources/list")).result["resources"]:
        await session.request("resources/read", {"uri": resource["uri"]})
    for prompt in (await session.request("prompts/list")).result["prompts"]:
        await session.request("prompts/get", {"name": prompt["name"]})


async def main(url: str) -> None:
    """Put a hub before the server at `url` and use it."""
    row = {**ROW, "url": url.removesuffix("/mcp")}
    with tempfile.TemporaryDirectory() as data_dir:
        async with (
            running_hub(Path(data_dir), {"suite": row}) as hub,
            SessionClient(f"{hub.url}/mcp", hub.admin) as session,
        ):
            await listed(hub)
            await exercise(session)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
