"""The REST gateway, put together from its parts."""

from collections.abc import Callable, Iterable, Mapping

from fleetkit.metrics import Metrics
from fleetkit.settings import FleetSettings
from fleetkit.store import Store
from master_mcp.approvals.room import Approvals
from master_mcp.audit import Audit
from master_mcp.auth.caller import Caller
from master_mcp.auth.keys import Keys
from master_mcp.auth.lockout import Lockout
from master_mcp.catalog.tools import Catalog, CatalogTool
from master_mcp.policy.engine import Policy
from master_mcp.proxy.call import Proxy
from master_mcp.rest.diagnostics import Diagnostics
from master_mcp.rest.door import Rest
from master_mcp.rest.execute import Execution
from master_mcp.rest.held import ApprovalDesk
from master_mcp.rest.hooks import HookDesk
from master_mcp.rest.hub_tools import HubTools
from master_mcp.rest.keys import KeyDesk
from master_mcp.rest.ops import Ops
from master_mcp.rest.servers import Listing
from master_mcp.rest.trail import AuditDesk
from master_mcp.rest.workflow_definitions import DefinitionDesk
from master_mcp.rest.workflow_watching import WatchingDesk
from master_mcp.rest.workflows import RunDesk
from master_mcp.status import Fleet
from master_mcp.workflows.room import Workflows


def build(
    config: FleetSettings,
    *,
    fleet: Fleet,
    catalog: Catalog,
    proxy: Proxy,
    keys: Keys,
    audit: Audit,
    store: Store,
    metrics: Metrics,
    policy: Policy,
    approvals: Approvals,
    workflows: Workflows,
    lockout: Lockout,
    draining: Callable[[], bool],
) -> Rest:
    """The gateway over these rooms; `draining` says whether the hub is about to stop."""

    def queues() -> Mapping[str, int]:
        return {"calls_under_way": proxy.under_way, "store_writes": store.waiting}

    def services() -> list[tuple[str, str]]:
        return [(member.name, member.namespace) for member in fleet.members.values()]

    def external(name: str) -> bool:
        if name in config.spokes:
            return config.row(name).names == "verbatim"
        member = fleet.members.get(name)
        return member is None or not member.embedded  # else a service of the hub itself

    def visible(caller: Caller, tools: Iterable[CatalogTool]) -> list[CatalogTool]:
        return [tool for tool in tools if policy.visible(caller, tool)]

    tools = HubTools(proxy)
    desks = (
        Ops(fleet.status, metrics, draining, metrics_open=config.hub.metrics_open),
        Execution(proxy, catalog, services),
        Listing(fleet, catalog, external, visible),
        Diagnostics(fleet, store, metrics, queues),
        ApprovalDesk(approvals),
        RunDesk(tools),
        WatchingDesk(workflows),
        DefinitionDesk(tools),
        HookDesk(workflows.hooks, lockout),
        AuditDesk(store, config),
        KeyDesk(keys, audit),
    )
    return Rest([route for desk in desks for route in desk.routes()], config.hub.max_request_bytes)
