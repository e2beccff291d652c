"""An external server where the proxy and the watcher expect a spoke: pinned, cleaned, marked."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from master_mcp.catalog.tools import Catalog
from master_mcp.external import hygiene
from master_mcp.external.gate import Gate
from master_mcp.external.records import Records
from master_mcp.external.session import tools_of
from master_mcp.external.transport import ExternalTransport
from master_mcp.proxy.answer import Message
from master_mcp.proxy.upstream import Notify, Upstream, ignore

_READABLE = ("resources", "prompts", "completions")
_PINNED = "tools/list"  # compared as it came; what clients see of it is cleaned by the gate


@dataclass(kw_only=True)
class ExternalUpstream(Upstream):
    """An Upstream whose answers are somebody else's words."""

    gate: Gate
    external: ExternalTransport
    records: Records
    catalog: Catalog

    async def ask(
        self,
        method: str,
        params: Mapping[str, Any],
        *,
        request_id: object = 0,
        name: str | None = None,
        param_headers: Mapping[str, str] | None = None,
        on_notify: Notify = ignore,
    ) -> Message:
        """See Upstream. Raises Refused for a tool that is not as it was approved."""

        async def notify(note: Message) -> None:
            await on_notify(hygiene.clean_answer(note))

        if method == "tools/call" and self.gate.seen is None:
            await self.list_tools()  # nothing is called before this hub has seen what there is now
        answer = await super().ask(
            method, params, request_id=request_id, name=name, param_headers=param_headers, on_notify=notify
        )
        if method != _PINNED:
            return hygiene.clean_answer(answer)
        tools_of(answer, self.name)
        return answer

    async def discover(self) -> Mapping[str, Any]:
        """What an approved server can do besides tools; nothing before its approval."""
        if self.gate.approved is None:
            return {}
        return {name: can for name, can in self.external.server.capabilities.items() if name in _READABLE}

    async def list_tools(self) -> list[Mapping[str, Any]]:
        """The definitions that may be shown: approved ones that have not changed since."""
        listed = await super().list_tools()
        seen = self.gate.see(self.external.server.said, listed)
        await self.records.saw(self.name, seen)
        self.catalog.withhold(self.name, self.gate.withheld())
        return self.gate.admitted()
