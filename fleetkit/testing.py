"""For tests: a spoke in memory, called as the hub calls it."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastmcp import Client

from fleetkit import correlation, names, trust
from fleetkit.correlation import Caller
from fleetkit.errors import BY_CODE, FleetError
from fleetkit.risk import Risk
from fleetkit.server import SpokeServer
from fleetkit.spoke import Setting, Spoke

TOKEN = "fst_test"  # noqa: S105 - a token of the test's own
OPERATOR = Caller("test", "test", "operator")


@dataclass
class SpokeClient:
    """Calls tools of one spoke; `client` is FastMCP's own for everything else."""

    client: Client[Any]
    namespace: str

    async def call(
        self,
        tool: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        allow: Risk = Risk.destroy,
        as_caller: Caller = OPERATOR,
        **named: Any,
    ) -> Any:
        """The structured result of `tool` (its Python or camelCase name) under an allowance up to `allow`.

        Raises the FleetError that the spoke answered with.
        """
        given = {**(arguments or {}), **named}
        canonical = names.canonical(self.namespace, tool)
        allowance = trust.Allowance(as_caller, canonical, trust.canonical_hash(given), allow, correlation.new_id())
        answer = await self.client.call_tool(
            names.wire(canonical),
            given,
            meta={trust.ALLOW_META: allowance.signed(TOKEN, 60)},
            raise_on_error=False,
        )
        found = answer.structured_content or {}
        if answer.is_error:
            raise BY_CODE.get(found.get("code", ""), FleetError)(
                str(found.get("message", answer.content)), plan=found.get("plan")
            )
        return found["result"] if set(found) == {"result"} else found


@asynccontextmanager
async def running(spoke: Spoke, data_dir: Path, namespace: str, **options: Any) -> AsyncGenerator[SpokeClient]:
    """The spoke started in this process on `data_dir`, with `options` as its row's own keys."""
    setting = Setting(data_dir, spoke.read_options(options), TOKEN, "http://127.0.0.1:8000", embedded=True)
    server = SpokeServer(spoke, namespace, setting)
    async with _in_a_task_of_its_own(server.running()), Client(server.server) as client:
        yield SpokeClient(client, namespace)


@asynccontextmanager
async def _in_a_task_of_its_own(entered: AbstractAsyncContextManager[object]) -> AsyncGenerator[None]:
    """So that a fixture can hold it: its end runs in another task than its start, which anyio refuses."""
    opened, leave = asyncio.Event(), asyncio.Event()

    async def host() -> None:
        async with entered:
            opened.set()
            await leave.wait()

    task = asyncio.create_task(host())
    task.add_done_callback(lambda _: opened.set())
    await opened.wait()
    try:
        if not task.done():
            yield
    finally:
        leave.set()
        await task
