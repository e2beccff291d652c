"""Composition root: the only file that knows all rooms."""

import asyncio
import signal
import socket
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import uvicorn
import uvloop

from fleetkit import log as logging
from fleetkit import trust
from fleetkit.errors import FleetError
from fleetkit.hub import CALL_PATH
from fleetkit.log import get_logger
from fleetkit.metrics import Metrics
from fleetkit.secrets import GRANT_PATH
from fleetkit.server import KEEP_ALIVE_S, listen, settle
from fleetkit.settings import FleetSettings
from fleetkit.spoke import Spoke
from master_mcp import approval_tools, hub_tools
from master_mcp.approvals.room import Approvals
from master_mcp.audit import Audit
from master_mcp.auth.keys import Keys, ensure_files
from master_mcp.auth.session import Sealer
from master_mcp.catalog.tools import Catalog
from master_mcp.catalog.watcher import Watcher
from master_mcp.guard import Guard
from master_mcp.lock import DataDirLock
from master_mcp.mcp.door import McpDoor
from master_mcp.mcp.legacy import LegacyEra
from master_mcp.mcp.lists import Lists
from master_mcp.mcp.modern import ModernEra
from master_mcp.proxy.call import Proxy
from master_mcp.proxy.rules import Rules, ScopeRules
from master_mcp.proxy.upstream import Upstream
from master_mcp.rest.approvals import ApprovalRoutes
from master_mcp.rest.internal import Internal
from master_mcp.rest.ops import Ops
from master_mcp.spokes import Starter
from master_mcp.status import Fleet, Member
from master_mcp.store import open_hub_store
from master_mcp.web import Web, only_managers

log = get_logger()


class Hub:
    """Everything that runs behind port 8000. `app` is its ASGI app while `running()`."""

    app: Web

    def __init__(self, config: FleetSettings, rules: Rules | None = None) -> None:
        self.config = config
        self.rules = rules or ScopeRules()
        self.ring = trust.KeyRing(trust.private_dir(config.data_dir))
        self.metrics = Metrics()
        self.catalog = Catalog()
        self.fleet = Fleet(self.catalog)

    @asynccontextmanager
    async def running(self, *, processes: bool = False, only: tuple[str, ...] = ()) -> AsyncGenerator["Hub"]:
        """Open the store, start the spokes, answer; close everything in reverse."""
        async with AsyncExitStack() as stack:
            self.store = open_hub_store(self.config)
            stack.callback(self.store.close)
            self.keys = Keys(self.store, self.ring)
            ensure_files(self.keys, self.config.data_dir)
            self.audit = Audit(self.store)
            stack.callback(self.audit.flush)
            self.approvals = Approvals(
                self.store, self.ring, self.audit, self.metrics, self.config.hub.approvals, self.keys.caller
            )
            await self.approvals.sweeper.recover()
            await self._start(Starter(self.config, stack, self.ring), processes, only)
            proxy = self._open_doors()
            tasks = await stack.enter_async_context(asyncio.TaskGroup())
            running = [tasks.create_task(watcher.run()) for watcher in self._watchers()]
            running.append(tasks.create_task(self.keys.watch()))
            running.append(tasks.create_task(self.approvals.run(proxy.call)))
            stack.callback(lambda: [task.cancel() for task in running])
            yield self

    async def _start(self, starter: Starter, processes: bool, only: tuple[str, ...]) -> None:
        rows = {name: self.config.row(name) for name in only or self.config.spokes}
        members = [await starter.master(self._own_tools)]
        local = [name for name, row in rows.items() if row.enabled and row.url is None]
        if processes:
            await starter.processes(local)
        for name, row in rows.items():
            if row.enabled:
                embedded = name in local and not processes
                members.append(await (starter.embedded(name) if embedded else starter.remote(name)))
        for member in members:
            self.fleet.members[member.name] = member
            if member.upstream is not None:
                member.watcher = Watcher(member.upstream, self.catalog, self.store, self.metrics)
                await member.watcher.load()
        await asyncio.gather(*(member.watcher.look() for member in members if member.watcher and member.embedded))

    def _own_tools(self) -> Spoke:
        return approval_tools.add(hub_tools.build(self.fleet, self.catalog), self.approvals)

    def _open_doors(self) -> Proxy:
        hub = self.config.hub
        upstreams: dict[str, Upstream] = {m.name: m.upstream for m in self._members() if m.upstream is not None}
        proxy = Proxy(
            self.catalog,
            upstreams,
            self.audit,
            self.metrics,
            self.rules,
            self.approvals.desk,
            deadline_s=hub.deadline_s,
            max_inflight=hub.max_inflight,
            on_failure=self._poke,
        )
        lists = Lists(self.catalog, self.fleet.status)
        sealer = Sealer(self.ring, hub.session_ttl_s)
        mcp = McpDoor(ModernEra(proxy, lists), LegacyEra(proxy, lists, sealer), hub.max_request_bytes)
        ops = Ops(self.fleet.status, self.metrics)
        internal = Internal(self.config.spokes, self.ring, self.keys, proxy, lambda name: self.fleet.members[name].url)
        open_routes = {
            "/health": ops.health,
            "/ready": ops.ready,
            GRANT_PATH: internal.grant,  # these two check a service token themselves
            CALL_PATH: internal.call,
        }
        if hub.metrics_open:
            open_routes["/metrics"] = ops.metrics
        guard = Guard(hub.host, hub.allowed_hosts, hub.allowed_origins)
        held = ApprovalRoutes(self.approvals, hub.max_request_bytes)
        keyed_routes = {"/mcp": mcp, "/metrics": only_managers(ops.metrics), "/approvals": held, "/approvals/*": held}
        self.app = Web(guard, self.keys, open_routes, keyed_routes)
        return proxy

    def _members(self) -> list[Member]:
        return list(self.fleet.members.values())

    def _watchers(self) -> list[Watcher]:
        return [member.watcher for member in self._members() if member.watcher is not None]

    def _poke(self, service: str) -> None:
        watcher = self.fleet.members[service].watcher
        if watcher is not None:
            watcher.poke()


def serve(
    config: FleetSettings,
    *,
    processes: bool = False,
    only: tuple[str, ...] = (),
    announce: Callable[[int], None] = lambda _port: None,
) -> None:
    """Run the hub in the foreground until SIGTERM or SIGINT; `announce` hears the port once it answers.

    Raises FleetError, before anything is changed, when it cannot start.
    """
    advice = "stop what uses it, or set FLEET_HUB__PORT"
    with DataDirLock(config.data_dir), listen(config.hub.host, config.hub.port, advice) as listener:
        uvloop.run(_serve(Hub(config), listener, processes, only, announce))


async def _serve(
    hub: Hub, listener: socket.socket, processes: bool, only: tuple[str, ...], announce: Callable[[int], None]
) -> None:
    async with hub.running(processes=processes, only=only):
        web = uvicorn.Server(
            uvicorn.Config(
                hub.app,
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=3,
            )
        )
        for number in (signal.SIGTERM, signal.SIGINT):  # without them uvicorn re-raises, and nothing is closed
            asyncio.get_running_loop().add_signal_handler(number, lambda: setattr(web, "should_exit", True))
        settle()
        port = int(listener.getsockname()[1])
        log.info("hub.started", host=hub.config.hub.host, port=port)
        announce(port)
        await web.serve(sockets=[listener])


def main() -> None:
    """Run the hub as configured; exits 2 with one sentence when it cannot start."""
    from fleetkit import settings

    try:
        config = settings.load()
        logging.configure("master", config.hub.log_level)
        serve(config)
    except FleetError as error:
        sys.stderr.write(f"fleet: {error.message}\n")
        raise SystemExit(2) from error
