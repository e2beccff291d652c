"""A hub in the test's own process, listening on a loopback port, with spokes of the test's choosing."""

import asyncio
import socket
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import orjson
import sqlalchemy as sa
import uvicorn
import yaml

from fleetkit import settings
from fleetkit.shapes import mapping
from master_mcp.app import Hub
from master_mcp.proxy.rules import Rules
from master_mcp.store import audit

T = TypeVar("T")

OWN = ("master", "orchestrator", "workflows")  # the services of the hub itself, first in every list


@dataclass
class RunningHub:
    """A hub that answers; `admin` and `client` are the keys a new user finds."""

    hub: Hub
    url: str
    admin: str
    client: str

    def audit_rows(self) -> list[Mapping[str, Any]]:
        """Every committed audit row, oldest first."""
        self.hub.audit.flush().result()
        rows = self.hub.store.read_now(lambda db: db.execute(sa.select(audit).order_by(audit.c.seq)).mappings().all())
        return [dict(row) for row in rows]


@asynccontextmanager
async def listening(app: Any, port: int = 0) -> AsyncGenerator[str]:
    """An ASGI app on a (free) loopback port for the length of a block; yields its base URL."""
    listener = socket.create_server(("127.0.0.1", port))
    server = uvicorn.Server(
        uvicorn.Config(app, lifespan="off", log_config=None, access_log=False, timeout_graceful_shutdown=1)
    )
    task = asyncio.create_task(server._serve([listener]))  # pyright: ignore[reportPrivateUsage] - serve() would take the signals
    while not server.started and not task.done():
        await asyncio.sleep(0)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task
        listener.close()


ALONE = {"rules": [{"name": "a key runs alone what its scopes cover", "answer": "allow"}]}


def write_rows(
    data_dir: Path,
    spokes: Mapping[str, Any],
    hub: Mapping[str, Any] | None = None,
    policies: Mapping[str, Any] | None = None,
) -> None:
    """The user's fleet.yaml: these rows and hub settings over the shipped ones, which are switched off.

    `policies` goes into policies/tests.yaml: without it scopes alone decide, `{}` leaves the shipped rules.
    """
    shipped = mapping(yaml.safe_load((settings.CHECKOUT / "config/fleet.yaml").read_text(encoding="utf-8")))
    rows: dict[str, Any] = {name: {"enabled": False} for name in mapping(shipped["spokes"])}
    for name, row in spokes.items():
        rows[name] = {**rows.get(name, {}), "enabled": True, **row}
    (data_dir / "policies").mkdir(parents=True, exist_ok=True)
    write_policy(data_dir, ALONE if policies is None else policies)
    (data_dir / "fleet.yaml").write_text(yaml.safe_dump({"spokes": rows, "hub": dict(hub or {})}), encoding="utf-8")


def write_policy(data_dir: Path, content: Mapping[str, Any], name: str = "tests.yaml") -> None:
    """A policy file of the user's."""
    (data_dir / "policies" / name).write_text(yaml.safe_dump(dict(content)), encoding="utf-8")


@asynccontextmanager
async def in_own_task(manager: AbstractAsyncContextManager[T]) -> AsyncGenerator[T]:
    """Enter and leave `manager` in one task, as its cancel scopes demand; a fixture does not."""
    entered: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    leave = asyncio.Event()

    async def own() -> None:
        async with manager as value:
            entered.set_result(value)
            await leave.wait()

    task = asyncio.create_task(own())
    await asyncio.wait([task, entered], return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        await task
    try:
        yield await entered
    finally:
        leave.set()
        await task


def running_hub(
    data_dir: Path,
    spokes: Mapping[str, Any] | None = None,
    hub: Mapping[str, Any] | None = None,
    policies: Mapping[str, Any] | None = None,
    rules: Rules | None = None,
) -> AbstractAsyncContextManager[RunningHub]:
    """A hub over `spokes` (rows of fleet.yaml by name) on a free port.

    It runs under `policies` as in `write_rows`, or under `rules` instead of any files.
    """
    return in_own_task(_running_hub(data_dir, spokes, hub, policies, rules))


@asynccontextmanager
async def _running_hub(
    data_dir: Path,
    spokes: Mapping[str, Any] | None,
    hub: Mapping[str, Any] | None,
    policies: Mapping[str, Any] | None,
    rules: Rules | None,
) -> AsyncGenerator[RunningHub]:
    write_rows(data_dir, spokes or {}, hub, policies)
    made = Hub(settings.load(data_dir), rules)
    async with made.running(), listening(made.app) as url:
        admin, client = ((data_dir / f"{name}.key").read_text(encoding="utf-8").strip() for name in ("admin", "client"))
        yield RunningHub(made, url, admin, client)


MODERN = "2026-07-28"


async def ask(
    hub: RunningHub, method: str, params: Mapping[str, Any] | None = None, *, key: str | None = None, **changes: Any
) -> tuple[int, Any]:
    """One stateless request: HTTP status and the JSON answer. `headers=` and `body=` replace what would be sent."""
    named = mapping(params)
    meta: dict[str, Any] = {
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientCapabilities": {},
        **mapping(named.get("_meta")),
    }
    body: dict[str, Any] = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**named, "_meta": meta}}
    headers = {
        "Authorization": f"Bearer {key or hub.client}",
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": MODERN,
        "Mcp-Method": method,
    }
    if "name" in named or "uri" in named:
        headers["Mcp-Name"] = str(named.get("name", named.get("uri")))
    headers.update(changes.get("headers", {}))
    data = changes.get("body", orjson.dumps(body))
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{hub.url}/mcp", data=data, headers={k: v for k, v in headers.items() if v}) as answer,
    ):
        raw = await answer.read()
        if answer.content_type == "text/event-stream":
            raw = raw.rpartition(b"data: ")[2]
        return answer.status, orjson.loads(raw) if raw else None


async def call(
    hub: RunningHub, tool: str, arguments: Mapping[str, Any] | None = None, **rest: Any
) -> Mapping[str, Any]:
    """The result of one tool call."""
    _, answer = await ask(hub, "tools/call", {"name": tool, "arguments": dict(arguments or {})}, **rest)
    return mapping(answer)["result"]


def text_of(result: Mapping[str, Any]) -> str:
    """The text of a tool result."""
    return str(result["content"][0]["text"])


def rows(**urls: str) -> dict[str, Any]:
    """Rows of fleet.yaml for spokes behind these URLs, in the namespace os.<name>."""
    return {
        name: {"number": 80 + i, "namespace": f"os.{name}", "url": url} for i, (name, url) in enumerate(urls.items())
    }


async def settle(hub: RunningHub, *services: str) -> None:
    """Have the watchers look until each of these services is known."""
    for service in services:
        watcher = hub.hub.fleet.members[service].watcher
        assert watcher is not None
        await watcher.look()
