"""The doors of the hub, opened over its rooms: MCP in every era, REST, what the fleet's own processes ask."""

from fleetkit import trust
from fleetkit.hub import CALL_PATH
from fleetkit.metrics import Metrics
from fleetkit.secrets import GRANT_PATH
from fleetkit.settings import FleetSettings
from fleetkit.store import Store
from master_mcp.approvals.room import Approvals
from master_mcp.audit import Audit
from master_mcp.auth.keys import Keys
from master_mcp.auth.lockout import Lockout
from master_mcp.auth.session import Sealer
from master_mcp.catalog.tools import Catalog
from master_mcp.guard import Guard
from master_mcp.mcp.door import mcp_routes
from master_mcp.mcp.lists import Lists
from master_mcp.mcp.methods import Methods
from master_mcp.policy.engine import Policy
from master_mcp.proxy.call import Proxy
from master_mcp.proxy.reading import Reader
from master_mcp.resilience.gate import Gate
from master_mcp.rest import gateway
from master_mcp.rest.cors import Cors
from master_mcp.rest.internal import Internal
from master_mcp.status import Fleet
from master_mcp.web import Web
from master_mcp.workflows.room import Workflows


def open_doors(
    config: FleetSettings,
    *,
    ring: trust.KeyRing,
    fleet: Fleet,
    catalog: Catalog,
    proxy: Proxy,
    reader: Reader,
    keys: Keys,
    audit: Audit,
    store: Store,
    metrics: Metrics,
    policy: Policy,
    approvals: Approvals,
    workflows: Workflows,
    gate: Gate,
) -> Web:
    """The hub's ASGI app."""
    hub = config.hub
    methods = Methods(proxy, reader, Lists(catalog, fleet.status, policy))
    mcp = mcp_routes(methods, catalog.news, Sealer(ring, hub.session_ttl_s), hub.max_request_bytes)
    internal = Internal(config.spokes, ring, keys, proxy, lambda name: fleet.members[name].url)
    own = {GRANT_PATH: internal.grant, CALL_PATH: internal.call}  # these check a service token themselves
    lockout = Lockout(hub.lockout)
    rest = gateway.build(
        config,
        fleet=fleet,
        catalog=catalog,
        proxy=proxy,
        keys=keys,
        audit=audit,
        store=store,
        metrics=metrics,
        policy=policy,
        approvals=approvals,
        workflows=workflows,
        lockout=lockout,
        draining=lambda: gate.closed,
    )
    guard = Guard(hub.host, hub.allowed_hosts, hub.allowed_origins)
    return Web(guard, Cors(hub.allowed_origins), keys, lockout, own, mcp, rest)
