"""Sending one permitted call to its spoke: signed context, deadline, retry, cache."""

from collections.abc import Mapping
from typing import Any

from fleetkit import correlation, trust
from fleetkit.errors import TimedOut
from fleetkit.risk import Risk
from fleetkit.shapes import mapping
from fleetkit.trust import DEADLINE_META
from master_mcp.catalog.tools import IDEMPOTENCY_KEY, CatalogTool
from master_mcp.proxy.answer import Message
from master_mcp.proxy.content import Content, heard_outside
from master_mcp.proxy.request import Asked, ToolCall
from master_mcp.proxy.upstream import Upstream, headers_for, running
from master_mcp.resilience.cache import FRESH_META
from master_mcp.resilience.room import Order, Resilience

GRACE_S = 5.0  # between a call's end and that of its signed context
ANSWERS = {"inputResponses", "requestState"}


class Sender:
    """The way from the hub to its spokes."""

    def __init__(
        self, upstreams: Mapping[str, Upstream], resilience: Resilience, content: Content, deadline_s: float
    ) -> None:
        self._upstreams = upstreams
        self._resilience = resilience
        self._content = content
        self._deadline_s = deadline_s

    def upstream(self, tool: CatalogTool) -> Upstream:
        """Where the tool is served; raises Unavailable when this hub does not run its service."""
        return running(self._upstreams, tool.service)

    async def send(self, asked: Asked, allowed: Risk) -> Message:
        """The spoke's answer to a call that may have the risk `allowed`. Raises TimedOut and Unavailable."""
        call, tool = asked.call, asked.tool
        upstream = self.upstream(tool)
        headers = call.param_headers
        if headers is None and tool.has_param_headers:
            headers = headers_for(tool.definition.get("inputSchema", {}), asked.arguments)

        async def attempt(left_s: float) -> Message:
            call.on_sent()
            return await upstream.ask(
                "tools/call",
                _params_for(asked, allowed, upstream.token, left_s),
                request_id=call.request_id,
                name=tool.upstream,
                param_headers=headers,
                on_notify=heard_outside(tool, call.on_notify),
            )

        answer = await self._resilience.run(self._order(asked, allowed), attempt)
        return await self._content.received(call.caller, tool, asked.arguments, answer)

    def _order(self, asked: Asked, allowed: Risk) -> Order:
        call = asked.call
        return Order(
            asked.tool,
            call.caller.id,
            asked.args_hash,
            seconds_for(call, asked.tool, asked.arguments, self._deadline_s),
            call.request_id,
            repeatable=may_repeat(asked.tool, allowed, asked.arguments),
            plain=not ANSWERS & call.params.keys(),
            fresh=call.fresh or mapping(call.params.get("_meta")).get(FRESH_META) is True,
        )


def deadline_of(tool: CatalogTool, arguments: Mapping[str, Any], default_s: float) -> float:
    """Seconds that a call may take: the tool's own `timeout` argument plus 5 wins."""
    asked = arguments.get("timeout")
    if tool.takes_timeout and isinstance(asked, int | float) and not isinstance(asked, bool) and asked > 0:
        return float(asked) + 5
    return tool.deadline_s or default_s


def seconds_for(call: ToolCall, tool: CatalogTool, arguments: Mapping[str, Any], default_s: float) -> float:
    """`deadline_of`, but never more than what the caller has left. Raises TimedOut when that is nothing."""
    seconds = deadline_of(tool, arguments, default_s)
    asked = mapping(call.params.get("_meta")).get(DEADLINE_META)
    for left in (call.within_s, asked):
        if isinstance(left, int | float) and not isinstance(left, bool):
            seconds = min(seconds, float(left))
    if seconds <= 0:
        raise TimedOut(f"{tool.id} was not run: the call that it is part of has no time left")
    return seconds


def may_repeat(tool: CatalogTool, allowed: Risk, arguments: Mapping[str, Any]) -> bool:
    """Whether sending this call twice does no more than sending it once."""
    if tool.repeatable or Risk.read in (tool.risk, allowed):
        return True
    return tool.takes_idempotency_key and bool(arguments.get(IDEMPOTENCY_KEY))


def _params_for(asked: Asked, allowed: Risk, token: str, seconds: float) -> dict[str, Any]:
    call = asked.call
    allowance = trust.Allowance(call.caller, asked.tool.id, asked.args_hash, allowed, call.correlation_id)
    meta = {
        **mapping(call.params.get("_meta")),
        trust.ALLOW_META: allowance.signed(token, seconds + GRACE_S, within_s=seconds),
        DEADLINE_META: round(seconds, 3),
        "traceparent": correlation.traceparent(call.correlation_id),
    }
    return {**call.params, "name": asked.tool.upstream, "_meta": meta}
