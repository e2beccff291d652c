"""proxy.call: permission, risk, approval, breaker, deadline, transport, check, audit, metrics. Every door takes it."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from fleetkit import correlation, trust
from fleetkit.errors import FleetError, OverBudget, Refused, TimedOut, Unavailable
from fleetkit.log import get_logger
from fleetkit.metrics import Metrics
from fleetkit.risk import Risk
from fleetkit.shapes import mapping
from master_mcp.audit import Audit
from master_mcp.catalog.tools import Catalog, CatalogTool
from master_mcp.policy.verdict import Effect, Verdict
from master_mcp.proxy import held
from master_mcp.proxy.answer import Message
from master_mcp.proxy.held import Approvals, Grant
from master_mcp.proxy.request import Asked, ToolCall, arguments_of
from master_mcp.proxy.rules import Rules
from master_mcp.proxy.track import Track
from master_mcp.proxy.upstream import Upstream, headers_for, ignore

__all__ = ["Proxy", "ToolCall", "deadline_of"]

log = get_logger()


class Proxy:
    """The path to every tool."""

    def __init__(
        self,
        catalog: Catalog,
        upstreams: Mapping[str, Upstream],
        audit: Audit,
        metrics: Metrics,
        rules: Rules,
        approvals: Approvals,
        *,
        deadline_s: float,
        max_inflight: int,
        on_failure: Callable[[str], None],
    ) -> None:
        self._catalog = catalog
        self._upstreams = upstreams
        self._audit = audit
        self._metrics = metrics
        self._rules = rules
        self._approvals = approvals
        self._deadline_s = deadline_s
        self._room = max_inflight
        self._on_failure = on_failure

    async def call(self, call: ToolCall) -> Message:
        """The spoke's JSON-RPC answer, `result` or `error`. Raises the FleetError that stopped the call."""
        arguments = arguments_of(call.params)
        track = Track(call, trust.canonical_hash(arguments))
        if self._room <= 0:
            raise OverBudget("the hub has as many calls under way as it takes: try again soon", retry_after=1.0)
        self._audit.check()
        self._room -= 1
        context = correlation.Context(call.correlation_id, call.caller)
        try:
            with correlation.bound(context):
                return await self._counted(call, arguments, track)
        finally:
            self._room += 1

    async def _counted(self, call: ToolCall, arguments: Mapping[str, Any], track: Track) -> Message:
        try:
            tool = self._catalog.resolve(call.name)
            track.found(tool)
            answer = await self._run(Asked(call, tool, arguments, track.args_hash), track)
            track.answered(answer)
            return answer
        except FleetError as error:
            track.outcome = error.code
            track.approval_id = track.approval_id or error.approval_id
            raise
        except asyncio.CancelledError:
            track.outcome = "cancelled"
            raise
        finally:
            await self._record(track)

    async def _run(self, asked: Asked, track: Track) -> Message:
        tool = asked.tool
        if asked.call.resumes:
            return await self._resume(asked, track)
        if not tool.assesses:
            return await self._decide(asked, track, tool.risk, held.plan_for(tool))
        allowed = await self._rules.highest_allowed(asked.question(tool.risk))
        if allowed is None:
            return await self._decide(asked, track, tool.risk, held.plan_for(tool))
        answer = await self._execute(asked, track, allowed)
        found = held.assessment_in(answer, tool)
        return answer if found is None else await self._decide(asked, track, found.risk, found.plan)

    async def _decide(self, asked: Asked, track: Track, risk: Risk, plan: str) -> Message:
        """Run the call at this risk, use up an approval of it, or have it held."""
        verdict = await self._rules.decide(asked.question(risk))
        track.risk = risk.value
        _refuse_if_denied(verdict, asked)
        if verdict.effect is Effect.allow or held.decides_itself(asked.tool):
            return await self._execute(asked, track, risk)
        grant = await self._approvals.find(asked, risk, held.terms_of(verdict))
        if grant is not None:
            return await self._approved(asked, track, grant)
        plan += await self._preview(asked)
        return await self._approvals.hold(asked, risk, plan, verdict)

    async def _resume(self, asked: Asked, track: Track) -> Message:
        grant = await self._approvals.resume(asked)
        track.risk, track.approval_id = grant.risk.value, grant.approval_id
        verdict = await self._rules.decide(asked.question(grant.risk))
        _refuse_if_denied(verdict, asked)
        held.check_terms(verdict, grant)
        return await self._approved(asked, track, grant)

    async def _approved(self, asked: Asked, track: Track, grant: Grant) -> Message:
        """The one execution of an approved call: on disk before it and after it."""
        track.risk, track.approval_id, track.sent = grant.risk.value, grant.approval_id, False
        self._upstream(asked.tool)
        asked = replace(asked, call=replace(asked.call, params=grant.params))
        try:
            await self._approvals.claim(grant, asked)
            answer = await self._execute(asked, track, grant.risk)
        except (FleetError, asyncio.CancelledError) as error:
            reason = error.message if isinstance(error, FleetError) else "the caller went away"
            await self._approvals.broke(grant, reason, sent=track.sent)
            raise
        return await self._approvals.finish(grant, answer)

    async def _preview(self, asked: Asked) -> str:
        """What a dry run shows, for the plan; empty when the tool has none or it is not surely one that only reads."""
        arguments = held.dry_run_of(asked) if asked.tool.assesses else None
        if arguments is None:
            return ""
        params = {**asked.call.params, "arguments": arguments}
        call = replace(asked.call, params=params, on_notify=ignore, param_headers=None)
        try:
            answer = await self._send(call, asked.tool, Risk.read, self._upstream(asked.tool), arguments)
        except FleetError:
            return ""  # the call itself is held all the same
        return held.preview_in(answer)

    async def _execute(self, asked: Asked, track: Track, allowed: Risk) -> Message:
        upstream = self._upstream(asked.tool)
        if asked.tool.risk is not Risk.read and allowed is not Risk.read:
            await self._audit.commit(track.row("intent"))
            track.intended = True
        track.sent = True
        return await self._send(asked.call, asked.tool, allowed, upstream, asked.arguments)

    def _upstream(self, tool: CatalogTool) -> Upstream:
        """Where the tool is served; raises Unavailable when that is known to be down."""
        upstream = self._upstreams.get(tool.service)
        if upstream is None:
            raise Unavailable(f"{tool.service} is not running here: see master.listServices")
        upstream.breaker.check()
        return upstream

    async def _send(
        self, call: ToolCall, tool: CatalogTool, allowed: Risk, upstream: Upstream, arguments: Mapping[str, Any]
    ) -> Message:
        seconds = deadline_of(tool, arguments, self._deadline_s)
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

    async def _record(self, track: Track) -> None:
        self._metrics.observe(track.service, track.tool, track.outcome, track.seconds)
        row = track.row(track.outcome)
        if track.intended and track.outcome != "cancelled":
            await self._audit.commit(row)
        else:
            self._audit.note(row)


def _refuse_if_denied(verdict: Verdict, asked: Asked) -> None:
    if verdict.effect is Effect.deny:
        raise Refused(verdict.reason or f"{asked.tool.id} is denied by {verdict.rule}: ask an operator")


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
