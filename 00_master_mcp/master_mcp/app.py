"""Composition root: the only file that knows all rooms."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

from fleetkit import correlation, trust
from fleetkit.log import get_logger
from fleetkit.metrics import Metrics
from fleetkit.settings import FleetSettings
from fleetkit.spoke import Spoke
from master_mcp import approval_tools, hub_tools, orchestrator_tools
from master_mcp.approvals.room import Approvals
from master_mcp.audit import open_audit
from master_mcp.auth.keys import Keys, ensure_files
from master_mcp.auth.owner import claim
from master_mcp.catalog.tools import Catalog, CatalogTool
from master_mcp.catalog.watcher import Watcher
from master_mcp.doors import open_doors
from master_mcp.external.servers import Servers
from master_mcp.policy.engine import open_policy
from master_mcp.proxy.call import Proxy
from master_mcp.proxy.reading import Reader
from master_mcp.proxy.rules import Rules
from master_mcp.proxy.upstream import Upstream
from master_mcp.published import SERVICE as PUBLISHED
from master_mcp.published import Published
from master_mcp.resilience.room import Resilience
from master_mcp.spokes import Starter
from master_mcp.status import Fleet, Member
from master_mcp.store import open_hub_store
from master_mcp.web import Web
from master_mcp.workflows.room import Workflows

log = get_logger()


class Hub:
    """Everything that runs behind port 8000. `app` is its ASGI app while `running()`."""

    app: Web

    def __init__(self, config: FleetSettings, rules: Rules | None = None) -> None:
        self.config = config
        self.rules = rules
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
            self.policy.on_change(self._record_policy)
            self.approvals = Approvals(
                self.store, self.ring, self.audit, self.metrics, self.config.hub.approvals, self.keys.caller
            )
            await self.approvals.sweeper.recover()
            resilience = Resilience(self.config, self.store, self.metrics, self._poke)
            self.resilience = await stack.enter_async_context(resilience)
            self.workflows = Workflows(
                self.config, self.store, self.catalog, self.policy, self.approvals, self.audit, self.metrics
            )
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
            running.append(tasks.create_task(self.workflows.run(self.proxy.call, self.proxy.assessed)))
            stack.callback(lambda: [task.cancel() for task in running])
            await stack.enter_async_context(self.servers.running())
            yield self

    async def _start(self, starter: Starter, processes: bool, only: tuple[str, ...]) -> None:
        rows = {name: self.config.row(name) for name in only or self.config.spokes}
        members = [await starter.own(spoke) for spoke in self._own_tools()]
        published = Published(self.workflows, starter.setting(PUBLISHED))
        members.append(starter.served(PUBLISHED, (await starter.opened(published.running())).app))
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
                if member.name == PUBLISHED:
                    published.relist = member.watcher.relist
        await asyncio.gather(*(member.watcher.look() for member in members if member.watcher and member.embedded))

    def _own_tools(self) -> list[Spoke]:
        master = hub_tools.build(self.fleet, self.catalog, self.resilience.breakers, self._sees)
        return [approval_tools.add(master, self.approvals), orchestrator_tools.build(self.workflows)]

    def _sees(self, tool: CatalogTool) -> bool:
        """Whether whoever calls a tool of the hub may call this one."""
        context = correlation.current()
        caller = self.keys.caller(context.caller.id) if context and context.caller else None
        return caller is not None and self.policy.visible(caller, tool)

    def _open_doors(self) -> None:
        hub = self.config.hub
        self.upstreams: dict[str, Upstream] = {m.name: m.upstream for m in self._members() if m.upstream is not None}
        self.proxy = Proxy(
            self.catalog,
            self.upstreams,
            self.audit,
            self.metrics,
            self.rules or self.policy,
            self.approvals.desk,
            self.resilience,
            deadline_s=hub.deadline_s,
        )
        reader = Reader(
            self.catalog,
            self.upstreams,
            self.audit,
            self.metrics,
            self.rules or self.policy,
            self.resilience,
            deadline_s=hub.deadline_s,
        )
        self.app = open_doors(
            self.config,
            ring=self.ring,
            fleet=self.fleet,
            catalog=self.catalog,
            proxy=self.proxy,
            reader=reader,
            keys=self.keys,
            audit=self.audit,
            store=self.store,
            metrics=self.metrics,
            policy=self.policy,
            approvals=self.approvals,
            workflows=self.workflows,
            gate=self.resilience.gate,
        )

    def _record_policy(self) -> None:
        detail = {"rules": len(self.policy.rules), "sha256": self.policy.digest}
        self.audit.event("policy.load", caller="hub", door="hub", detail=detail)

    def _members(self) -> list[Member]:
        return list(self.fleet.members.values())

    def _watchers(self) -> list[Watcher]:
        return [member.watcher for member in self._members() if member.watcher is not None]

    def _poke(self, service: str) -> None:
        watcher = self.fleet.members[service].watcher
        if watcher is not None:
            watcher.poke()
