"""Bringing the fleet's rows to life: embedded in this process, or reached by URL."""

from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import TypeVar

from fleetkit import trust
from fleetkit.errors import FleetError
from fleetkit.log import get_logger
from fleetkit.server import SpokeServer, setting_for
from fleetkit.settings import FleetSettings, SpokeRow
from fleetkit.spoke import Setting, Spoke, SpokeOptions
from master_mcp.finder import find_spoke
from master_mcp.proxy.transport import App, EmbeddedTransport, Transport
from master_mcp.proxy.upstream import Upstream
from master_mcp.resilience.breakers import Breakers
from master_mcp.status import Member
from master_mcp.supervisor import Supervisor

T = TypeVar("T")

log = get_logger()

OWN = {
    name: SpokeRow(number=99, namespace=name) for name in ("master", "orchestrator", "workflows")
}  # the hub's own tools


class Starter:
    """Starts spokes for one hub; what it opens lives as long as `stack`."""

    def __init__(self, config: FleetSettings, stack: AsyncExitStack, ring: trust.KeyRing, breakers: Breakers) -> None:
        self._config = config
        self._stack = stack
        self._ring = ring
        self._breakers = breakers
        self._limit = config.hub.max_answer_bytes

    async def embedded(self, name: str) -> Member:
        """A member in this process; one that cannot start is a member with its problem."""
        row = self._config.row(name)
        member = Member(name, row.namespace, row.number, embedded=True, url=None)
        try:
            spoke = find_spoke(name)
            setting = setting_for(spoke, self._config, embedded=True)
            server = await self._stack.enter_async_context(SpokeServer(spoke, row.namespace, setting).running())
        except FleetError as error:
            return _not_started(member, error.message)
        except Exception as error:  # noqa: BLE001 - boundary: a spoke's own bug costs nobody else a call
            return _not_started(member, f"{name} cannot start: {type(error).__name__}: {error}")
        transport = EmbeddedTransport(name, server.app, self._limit)
        member.upstream = self._upstream(name, row, transport, setting.service_token)
        return member

    async def processes(self, spokes: Iterable[str]) -> None:
        """Run these spokes as processes of this machine; `remote` reaches them."""
        await self._stack.enter_async_context(Supervisor(self._config, spokes))

    async def remote(self, name: str) -> Member:
        """A member behind a URL: its row's, or its own port on this machine."""
        from master_mcp.proxy.remote import HttpTransport, open_pool

        row = self._config.row(name)
        url = row.url or f"http://127.0.0.1:{row.port}"
        session = await self._stack.enter_async_context(open_pool())
        transport = HttpTransport(name, url, session, self._limit)
        member = Member(name, row.namespace, row.number, embedded=False, url=url)
        member.upstream = self._upstream(name, row, transport, self._ring.service_token(name))
        return member

    async def own(self, spoke: Spoke) -> Member:
        """Tools of the hub itself, served like any spoke's; the namespace is the spoke's name."""
        server = SpokeServer(spoke, spoke.name, self.setting(spoke.name))
        await self._stack.enter_async_context(server.running())
        return self.served(spoke.name, server.app)

    async def opened(self, manager: AbstractAsyncContextManager[T]) -> T:
        """What a context manager gives, open as long as this hub."""
        return await self._stack.enter_async_context(manager)

    def setting(self, name: str) -> Setting:
        """What tools of the hub itself are served with."""
        return Setting(self._config.data_dir, SpokeOptions(), self._ring.service_token(name), "", embedded=True)

    def served(self, name: str, app: App) -> Member:
        """A service of the hub itself, behind an ASGI app in this process."""
        member = Member(name, name, 0, embedded=True, url=None)
        transport = EmbeddedTransport(name, app, self._limit)
        member.upstream = self._upstream(name, OWN[name], transport, self._ring.service_token(name))
        return member

    def _upstream(self, name: str, row: SpokeRow, transport: Transport, token: str) -> Upstream:
        return Upstream(name, row, transport, token, self._breakers.spoke(name))


def _not_started(member: Member, reason: str) -> Member:
    log.warning("spoke.start.failed", spoke=member.name, reason=reason)
    member.problem = reason
    return member
