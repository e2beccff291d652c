"""proxy.call: permission, risk, breaker, deadline, transport, check, audit, metrics. Every door takes it."""

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from fleetkit import correlation, trust
from fleetkit.errors import BY_CODE, FleetError, Invalid, NeedsApproval, OverBudget, Refused, TimedOut, Unavailable
from fleetkit.log import get_logger
from fleetkit.metrics import Metrics
from fleetkit.risk import Risk
from fleetkit.shapes import mapping
from master_mcp.audit import Audit, Row
from master_mcp.auth.caller import Caller
from master_mcp.catalog.tools import Catalog, CatalogTool
from master_mcp.proxy.answer import Message
from master_mcp.proxy.upstream import Notify, Upstream, headers_for, ignore

log = get_logger()


@dataclass(frozen=True)
class ToolCall:
    """One call, whichever door it came through.

    `params` is the caller's own params object (`_meta`, `inputResponses`, `requestState` travel with
    it); `on_notify` gets the spoke's notifications as they come. `param_headers` are the `Mcp-Param-*`
    headers a stateless client sent; None lets the hub make them. `within_s` shortens the deadline.
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


class Proxy:
    """The path to every tool."""

    def __init__(
        self,
        catalog: Catalog,
        upstreams: Mapping[str, Upstream],
        audit: Audit,
        metrics: Metrics,
        *,
        deadline_s: float,
        max_inflight: int,
        on_failure: Callable[[str], None],
    ) -> None:
        self._catalog = catalog
        self._upstreams = upstreams
        self._audit = audit
        self._metrics = metrics
        self._deadline_s = deadline_s
        self._room = self._most = max_inflight
        self._on_failure = on_failure

    @property
    def under_way(self) -> int:
        """How many calls are running now."""
        return self._most - self._room

    async def call(self, call: ToolCall) -> Message:
        """The spoke's JSON-RPC answer, `result` or `error`. Raises the FleetError that stopped the call."""
        arguments = _arguments(call.params)
        track = _Track(time.perf_counter(), trust.canonical_hash(arguments))
        if self._room <= 0:
            raise OverBudget("the hub has as many calls under way as it takes: try again soon", retry_after=1.0)
        self._room -= 1
        context = correlation.Context(call.correlation_id, call.caller)
        try:
            with correlation.bound(context):
                return await self._counted(call, arguments, track)
        finally:
            self._room += 1

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
        upstream.breaker.check()
        if tool.risk is not Risk.read and allowed is not Risk.read:
            await self._audit.commit(self._row(call, track, "intent"))
            track.intended = True
        return await self._send(call, tool, allowed, upstream, arguments)

    async def _send(
        self, call: ToolCall, tool: CatalogTool, allowed: Risk, upstream: Upstream, arguments: Mapping[str, Any]
    ) -> Message:
        seconds = min(deadline_of(tool, arguments, self._deadline_s), call.within_s or math.inf)
        params = _params_for(call, tool, allowed, upstream.token, arguments, seconds)
        headers = call.param_headers
        if headers is None and tool.has_param_headers:
            headers = headers_for(tool.definition.get("inputSchema", {}), arguments)
        try:
            async with asyncio.timeout(seconds):
                answer = await upstream.ask(
                    "tools/call",
                    params,
                    request_id=call.request_id,
                    name=tool.upstream,
                    param_headers=headers,
                    on_notify=call.on_notify,
                )
        except TimeoutError as error:
            self._failed(upstream, f"no answer within {seconds:g} s")
            raise TimedOut(
                f"{tool.id} gave no answer within {seconds:g} s; its outcome is unknown. Give a longer `timeout` "
                "where the tool has one, or start it as a job"
            ) from error
        except Unavailable as error:
            self._failed(upstream, error.message)
            raise
        upstream.breaker.succeeded()
        return answer

    def _failed(self, upstream: Upstream, reason: str) -> None:
        if upstream.breaker.failed(reason):
            log.warning("breaker.opened", service=upstream.name, reason=reason)
        self._on_failure(upstream.name)

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


def _params_for(
    call: ToolCall, tool: CatalogTool, allowed: Risk, token: str, arguments: Mapping[str, Any], seconds: float
) -> dict[str, Any]:
    allowance = trust.Allowance(call.caller, tool.id, trust.canonical_hash(arguments), allowed, call.correlation_id)
    meta = {
        **mapping(call.params.get("_meta")),
        trust.ALLOW_META: allowance.signed(token, seconds + 5),
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
