"""Composition root: the only file that knows all rooms."""

import asyncio
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
from master_mcp.audit import open_audit
from master_mcp.auth.keys import Keys, ensure_files
from master_mcp.auth.lockout import Lockout
from master_mcp.auth.owner import claim
from master_mcp.auth.session import Sealer
from master_mcp.catalog.tools import Catalog
from master_mcp.catalog.watcher import Watcher
from master_mcp.external.servers import Servers
from master_mcp.guard import Guard
from master_mcp.lock import DataDirLock
from master_mcp.mcp.door import mcp_routes
from master_mcp.mcp.lists import Lists
from master_mcp.mcp.methods import Methods
from master_mcp.policy.engine import open_policy
from master_mcp.proxy.call import Proxy
from master_mcp.proxy.reading import Reader
from master_mcp.proxy.rules import Rules
from master_mcp.proxy.upstream import Upstream
from master_mcp.resilience.drain import Drain, DrainedServer
from master_mcp.resilience.room import Resilience
from master_mcp.rest import gateway
from master_mcp.rest.cors import Cors
from master_mcp.rest.internal import Internal
from master_mcp.spokes import Starter
from master_mcp.status import Fleet, Member
from master_mcp.store import open_hub_store
from master_mcp.web import Web

log = get_logger()


class Hub:
    """Everything that runs behind port 8000. `app` is its ASGI app while `running()`."""

    app: Web

    def __init__(self, config: FleetSettings, rules: Rules | None = None) -> None:
        self.config = config
        self._rules = rules
        self.ring = trust.KeyRing(trust.private_dir(config.data_dir))
        self.metrics = Metrics()
        self.catalog = Catalog()
        self.fleet = Fleet(self.catalog)

    @asynccontextmanager
    async def running(self, *, processes: bool = False, only: tuple[str, ...] = ()) -> AsyncGenerator["Hub"]:
        """Open the store, start the spokes, answer; close everything in reverse."""
        async with AsyncExitStack() as stack:
            self.policy = await stack.enter_async_context(open_policy(self.config))
            self.fleet.warnings["policy"] = lambda: self.policy.problem
            self.store = open_hub_store(self.config)
            stack.callback(self.store.close)
            claim(self.store, self.ring)
            self.keys = Keys(self.store, self.ring)
            ensure_files(self.keys, self.config.data_dir)
            self.audit = open_audit(self.store, self.config, self.metrics)
            stack.callback(self.audit.close)
            self.approvals = Approvals(
                self.store, self.ring, self.audit, self.metrics, self.config.hub.approvals, self.keys.caller
            )
            await self.approvals.sweeper.recover()
            resilience = Resilience(self.config, self.store, self.metrics, self._poke)
            self.resilience = await stack.enter_async_context(resilience)
            await self._start(Starter(self.config, stack, self.ring, resilience.breakers), processes, only)
            self._open_doors()
            self.servers = Servers(
                self.config,
                self.fleet,
                self.catalog,
                self.store,
                self.metrics,
                self.ring,
                self.upstreams,
                resilience.breakers,
            )
            tasks = await stack.enter_async_context(asyncio.TaskGroup())
            running = [tasks.create_task(watcher.run()) for watcher in self._watchers()]
            rooms = (self.keys, self.audit, self.policy)
            running += [tasks.create_task(room.watch()) for room in rooms]
            running.append(tasks.create_task(self.approvals.run(self.proxy.call)))
            stack.callback(lambda: [task.cancel() for task in running])
            await stack.enter_async_context(self.servers.running())
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
        return approval_tools.add(hub_tools.build(self.fleet, self.catalog, self.resilience.breakers), self.approvals)

    def _open_doors(self) -> None:
        hub = self.config.hub
        self.upstreams: dict[str, Upstream] = {m.name: m.upstream for m in self._members() if m.upstream is not None}
        self.proxy = proxy = Proxy(
            self.catalog,
            self.upstreams,
            self.audit,
            self.metrics,
            self._rules or self.policy,
            self.approvals.desk,
            self.resilience,
            deadline_s=hub.deadline_s,
        )
        reader = Reader(
            self.catalog,
            self.upstreams,
            self.audit,
            self.metrics,
            self._rules or self.policy,
            self.resilience,
            deadline_s=hub.deadline_s,
        )
        methods = Methods(proxy, reader, Lists(self.catalog, self.fleet.status, self.policy))
        sealer = Sealer(self.ring, hub.session_ttl_s)
        mcp = mcp_routes(methods, self.catalog.news, sealer, hub.max_request_bytes)
        internal = Internal(self.config.spokes, self.ring, self.keys, proxy, lambda name: self.fleet.members[name].url)
        open_routes = {GRANT_PATH: internal.grant, CALL_PATH: internal.call}  # these check a service token themselves
        rest = gateway.build(
            self.config,
            fleet=self.fleet,
            catalog=self.catalog,
            proxy=proxy,
            keys=self.keys,
            store=self.store,
            metrics=self.metrics,
            policy=self.policy,
            approvals=self.approvals,
            draining=lambda: self.resilience.gate.closed,
        )
        guard = Guard(hub.host, hub.allowed_hosts, hub.allowed_origins)
        cors = Cors(hub.allowed_origins)
        self.app = Web(guard, cors, self.keys, Lockout(hub.lockout), open_routes, mcp, rest)

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
        web = DrainedServer(
            uvicorn.Config(
                hub.app,
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=1,  # for answers on their way and open streams: the calls have ended
            )
        )
        Drain(hub.resilience.gate, web, hub.config.hub.drain_s).on_signals()
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
