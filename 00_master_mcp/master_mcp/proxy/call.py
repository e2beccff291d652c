"""proxy.call: permission, risk, breaker, deadline, transport, check, audit, metrics. Every door takes it."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from fleetkit import correlation, trust
from fleetkit.errors import BY_CODE, FleetError, Invalid, NeedsApproval, Refused, TimedOut, Unavailable
from fleetkit.metrics import Metrics
from fleetkit.risk import Risk
from fleetkit.shapes import mapping
from fleetkit.trust import DEADLINE_META
from master_mcp.audit import Audit, Row
from master_mcp.auth.caller import Caller
from master_mcp.catalog.tools import IDEMPOTENCY_KEY, Catalog, CatalogTool
from master_mcp.proxy.answer import Message
from master_mcp.proxy.upstream import Notify, Upstream, headers_for, ignore
from master_mcp.resilience.cache import FRESH_META
from master_mcp.resilience.limits import Limit
from master_mcp.resilience.room import Asked, Resilience

GRACE_S = 5.0  # between a call's end and that of its signed context
ANSWERS = {"inputResponses", "requestState"}


@dataclass(frozen=True)
class ToolCall:
    """One call, whichever door it came through.

    `params` is the caller's own params object (`_meta`, `inputResponses`, `requestState` travel with
    it); `on_notify` gets the spoke's notifications as they come. `param_headers` are the `Mcp-Param-*`
    headers a stateless client sent; None lets the hub make them. `within_s` is all the time that the call
    it is part of has left; `fresh` wants an answer that no cache kept.
    """

    name: str
    params: Mapping[str, Any]
    caller: Caller
    door: str
    request_id: object = 0
    correlation_id: str = field(default_factory=correlation.new_id)
    on_notify: Notify = ignore
    param_headers: Mapping[str, str] | None = None
    within_s: float | None = None
    fresh: bool = False


@dataclass
class _Track:
    """What is known of a call for its audit row and metrics, filled in as it goes."""

    started: float
    args_hash: str
    service: str = "hub"
    tool: str = "unknown"
    risk: str = "unknown"
    outcome: str = "ok"
    intended: bool = False


def unlimited(_caller: Caller, _tool: CatalogTool) -> Sequence[Limit]:
    """The limits of a fleet whose policies set none."""
    return ()


class Proxy:
    """The path to every tool."""

    def __init__(
        self,
        catalog: Catalog,
        upstreams: Mapping[str, Upstream],
        audit: Audit,
        metrics: Metrics,
        resilience: Resilience,
        *,
        deadline_s: float,
        limits_of: Callable[[Caller, CatalogTool], Sequence[Limit]] = unlimited,
    ) -> None:
        self._catalog = catalog
        self._upstreams = upstreams
        self._audit = audit
        self._metrics = metrics
        self._resilience = resilience
        self._deadline_s = deadline_s
        self.limits_of = limits_of

    async def call(self, call: ToolCall) -> Message:
        """The spoke's JSON-RPC answer, `result` or `error`. Raises the FleetError that stopped the call."""
        arguments = _arguments(call.params)
        track = _Track(time.perf_counter(), trust.canonical_hash(arguments))
        context = correlation.Context(call.correlation_id, call.caller)
        with self._resilience.gate, correlation.bound(context):
            return await self._counted(call, arguments, track)

    async def _counted(self, call: ToolCall, arguments: Mapping[str, Any], track: _Track) -> Message:
        try:
            answer = await self._run(call, arguments, track)
            track.outcome = _outcome_of(answer)
            track.risk = str(_meta_of(answer).get("fleet/risk", track.risk))
            return answer
        except FleetError as error:
            track.outcome = error.code
            raise
        except asyncio.CancelledError:
            track.outcome = "cancelled"
            raise
        finally:
            await self._record(call, track)

    async def _run(self, call: ToolCall, arguments: Mapping[str, Any], track: _Track) -> Message:
        tool = self._catalog.resolve(call.name)
        track.service, track.tool, track.risk = tool.service, tool.id, tool.risk.value
        allowed = permitted(call.caller, tool)
        upstream = self._upstreams.get(tool.service)
        if upstream is None:
            raise Unavailable(f"{tool.service} is not running here: see master.listServices")
        async with self._resilience.admitted(call.caller, tool, self.limits_of(call.caller, tool)):
            if tool.risk is not Risk.read and allowed is not Risk.read:
                await self._audit.commit(self._row(call, track, "intent"))
                track.intended = True
            return await self._send(call, tool, allowed, upstream, arguments, track)

    async def _send(
        self,
        call: ToolCall,
        tool: CatalogTool,
        allowed: Risk,
        upstream: Upstream,
        arguments: Mapping[str, Any],
        track: _Track,
    ) -> Message:
        headers = call.param_headers
        if headers is None and tool.has_param_headers:
            headers = headers_for(tool.definition.get("inputSchema", {}), arguments)

        async def attempt(left_s: float) -> Message:
            return await upstream.ask(
                "tools/call",
                _params_for(call, tool, allowed, upstream.token, arguments, left_s),
                request_id=call.request_id,
                name=tool.upstream,
                param_headers=headers,
                on_notify=call.on_notify,
            )

        asked = Asked(
            tool,
            call.caller.id,
            track.args_hash,
            seconds_for(call, tool, arguments, self._deadline_s),
            call.request_id,
            repeatable=may_repeat(tool, allowed, arguments),
            plain=not ANSWERS & call.params.keys(),
            fresh=call.fresh or mapping(call.params.get("_meta")).get(FRESH_META) is True,
        )
        return await self._resilience.run(asked, attempt)

    def _row(self, call: ToolCall, track: _Track, outcome: str) -> Row:
        finished = None if outcome == "intent" else (time.perf_counter() - track.started) * 1000
        return Row(
            correlation_id=call.correlation_id,
            caller=call.caller.id,
            door=call.door,
            service=track.service,
            tool=track.tool,
            risk=track.risk,
            outcome=outcome,
            args_hash=track.args_hash,
            duration_ms=finished,
        )

    async def _record(self, call: ToolCall, track: _Track) -> None:
        self._metrics.observe(track.service, track.tool, track.outcome, time.perf_counter() - track.started)
        row = self._row(call, track, track.outcome)
        if track.intended and track.outcome != "cancelled":
            await self._audit.commit(row)
        else:
            self._audit.note(row)


def permitted(caller: Caller, tool: CatalogTool) -> Risk:
    """The highest risk this caller may run alone on this tool.

    Raises Refused when it may not call it at all, NeedsApproval when it may only ask.
    """
    allowed = caller.risk_on(tool.id)
    if allowed is None:
        raise Refused(f"key {caller.name!r} may not call {tool.id}: ask an operator for a key with that scope")
    if not allowed.covers(tool.risk) and not tool.assesses:
        raise NeedsApproval(
            f"{tool.id} can {tool.risk}, above what key {caller.name!r} may run alone ({allowed}): "
            "an operator key may run it",
            plan=f"run {tool.id} with exactly these arguments",
        )
    return allowed


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


def _params_for(
    call: ToolCall, tool: CatalogTool, allowed: Risk, token: str, arguments: Mapping[str, Any], seconds: float
) -> dict[str, Any]:
    allowance = trust.Allowance(call.caller, tool.id, trust.canonical_hash(arguments), allowed, call.correlation_id)
    meta = {
        **mapping(call.params.get("_meta")),
        trust.ALLOW_META: allowance.signed(token, seconds + GRACE_S, within_s=seconds),
        DEADLINE_META: round(seconds, 3),
        "traceparent": correlation.traceparent(call.correlation_id),
    }
    return {**call.params, "name": tool.upstream, "_meta": meta}


def _arguments(params: Mapping[str, Any]) -> Mapping[str, Any]:
    arguments = params.get("arguments")
    if arguments is None:
        return {}
    if not isinstance(arguments, dict):
        raise Invalid("`arguments` must be an object")
    return cast("Mapping[str, Any]", arguments)


def _meta_of(answer: Message) -> Mapping[str, Any]:
    return mapping(mapping(answer.get("result")).get("_meta"))


def _outcome_of(answer: Message) -> str:
    result = cast("Mapping[str, Any] | None", answer.get("result"))
    if result is None:
        return "protocol_error"
    if result.get("resultType") == "input_required":
        return "input_required"
    if not result.get("isError"):
        return "ok"
    code = mapping(result.get("structuredContent")).get("code")
    return code if code in BY_CODE else "tool_error"
