"""Saved workflows that are tools of their own: `workflows.NAME`, with the workflow's inputs as arguments."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fleetkit import Assessment, Risk, Spoke
from fleetkit.asgi import Receive, Scope, Send
from fleetkit.errors import FleetError
from fleetkit.log import get_logger
from fleetkit.server import SpokeServer
from fleetkit.spoke import Setting, ToolSpec
from master_mcp.orchestrator_tools import MAX_WAIT_S, RunView, caller_of, execute
from master_mcp.workflows.library import Entry
from master_mcp.workflows.reading import input_schema, read
from master_mcp.workflows.room import Workflows
from master_mcp.workflows.starting import Order

SERVICE = "workflows"
WAIT_S = 60.0  # then the answer is how the run stands, and it goes on

log = get_logger()


class Published:
    """The service of published workflows: a server that is put together anew when they change.

    `relist` has the hub list its tools again.
    """

    def __init__(self, workflows: Workflows, setting: Setting) -> None:
        self._workflows = workflows
        self._setting = setting
        self._server: SpokeServer
        self._up = asyncio.Event()
        self.relist: Callable[[], None] = lambda: None

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI app of the server of now; between two, of the next."""
        await self._up.wait()
        await self._server.app(scope, receive, send)

    @asynccontextmanager
    async def running(self) -> AsyncGenerator["Published"]:
        """Serve for the length of a block."""
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        serving = asyncio.create_task(self._serve(ready))
        await asyncio.wait([serving, ready], return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            await serving
        try:
            yield self
        finally:
            serving.cancel()
            await asyncio.wait([serving])

    async def _serve(self, ready: "asyncio.Future[None]") -> None:
        changed = self._workflows.shelf.changes()
        while True:
            changed.clear()
            entries = await self._entries()
            async with SpokeServer(self._spoke(entries), SERVICE, self._setting).running() as server:
                self._server = server
                self._up.set()
                if not ready.done():
                    ready.set_result(None)
                self.relist()
                while entries == await self._entries():  # others may be saved: what runs here goes on
                    await changed.wait()
                    changed.clear()
                self._up.clear()

    async def _entries(self) -> list[Entry]:
        return [one for one in (await self._workflows.shelf.library.saved()).values() if one.content.get("publish")]

    def _spoke(self, entries: list[Entry]) -> Spoke:
        spoke = Spoke(SERVICE, instructions="Workflows that are tools of their own.")
        for entry in entries:
            try:
                spoke.tools[entry.name] = self._tool(entry)
            except FleetError as error:  # it was good when it was saved
                log.warning("workflow.unpublished", workflow=entry.name, reason=error.message)
        return spoke

    def _tool(self, entry: Entry) -> ToolSpec:
        definition = read(entry.content)

        async def run(**inputs: Any) -> RunView:
            return await execute(self._workflows, Order(entry.name, inputs=inputs), WAIT_S)

        async def assess(**inputs: Any) -> Assessment:
            return await self._workflows.starting.assess(Order(entry.name, inputs=inputs), caller_of(self._workflows))

        run.__name__, run.__doc__ = entry.name, definition.description or f"Run the workflow {entry.name}."
        return ToolSpec(
            run,
            Risk.destroy,
            assess,
            deadline_s=MAX_WAIT_S,
            idempotent=False,
            untrusted=False,
            aliases=(),
            schema=input_schema(definition),
        )
