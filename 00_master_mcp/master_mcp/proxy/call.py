"""proxy.call: permission, risk, approval, breaker, deadline, transport, check, audit, metrics. Every door takes it."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fleetkit import correlation, trust
from fleetkit.errors import FleetError, Refused
from fleetkit.governed import ASSESS_META
from fleetkit.metrics import Metrics
from fleetkit.risk import Assessment, Risk
from fleetkit.shapes import mapping
from master_mcp.audit import Audit
from master_mcp.catalog.tools import Catalog, CatalogTool
from master_mcp.policy.verdict import Effect, Verdict, terms_of
from master_mcp.proxy import held
from master_mcp.proxy.answer import Message
from master_mcp.proxy.content import Content
from master_mcp.proxy.held import Approvals, Grant
from master_mcp.proxy.request import Asked, ToolCall, arguments_of
from master_mcp.proxy.rules import Rules
from master_mcp.proxy.sending import Sender
from master_mcp.proxy.track import Track
from master_mcp.proxy.upstream import Upstream, ignore
from master_mcp.resilience.room import Resilience

__all__ = ["Proxy", "ToolCall"]


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
        resilience: Resilience,
        *,
        deadline_s: float,
    ) -> None:
        self._catalog = catalog
        self._content = Content()
        self._sender = Sender(upstreams, resilience, self._content, deadline_s)
        self._audit = audit
        self._metrics = metrics
        self._rules = rules
        self._approvals = approvals
        self._resilience = resilience

    @property
    def under_way(self) -> int:
        """How many calls are running now."""
        return self._resilience.gate.inside

    async def call(self, call: ToolCall) -> Message:
        """The spoke's JSON-RPC answer, `result` or `error`. Raises the FleetError that stopped the call."""
        arguments = arguments_of(call.params)
        track = Track(call, trust.canonical_hash(arguments), call.params.get("arguments"))
        self._audit.check()
        context = correlation.Context(call.correlation_id, call.caller)
        with self._resilience.gate, correlation.bound(context):
            return await self._counted(call, arguments, track)

    async def assessed(self, call: ToolCall) -> Assessment:
        """What a call would risk with these arguments; nothing is run. Raises the FleetError that hinders it."""
        tool, arguments = self._catalog.resolve(call.name), arguments_of(call.params)
        plain = Assessment(tool.risk, held.plan_for(tool))
        if not tool.assesses:
            return plain
        params = {**call.params, "_meta": {**mapping(call.params.get("_meta")), ASSESS_META: True}}
        asked = self._asked(replace(call, params=params), tool, arguments, trust.canonical_hash(arguments))
        return held.assessment_in(await self._sender.send(asked, Risk.read), tool) or plain

    async def _counted(self, call: ToolCall, arguments: Mapping[str, Any], track: Track) -> Message:
        try:
            with track.watched():
                tool = self._catalog.resolve(call.name)
                track.found(tool)
                asked = self._asked(call, tool, arguments, track.args_hash)
                question = asked.question(tool.risk)
                if not self._rules.visible(call.caller, tool):  # refused without using up what others share
                    _refuse_if_denied(await self._rules.decide(question), asked)
                async with self._resilience.admitted(call.caller, tool, self._rules.limits(question)):
                    answer = await self._run(asked, track)
                track.answered(answer)
                return answer
        finally:
            await self._record(track)

    def _asked(self, call: ToolCall, tool: CatalogTool, arguments: Mapping[str, Any], args_hash: str) -> Asked:
        self._sender.upstream(tool)
        if call.caller.risk_on(tool.id) is not None:  # who may not call it learns nothing of its arguments
            self._content.check(tool, arguments)
        tainted = tool.risk is not Risk.read and self._content.tainted(call.caller, tool, arguments)
        return Asked(call, tool, arguments, args_hash, tainted)

    async def _run(self, asked: Asked, track: Track) -> Message:
        tool = asked.tool
        if asked.call.resumes:
            return await self._resume(asked, track)
        if not tool.assesses:
            return await self._decide(asked, track, tool.risk, held.plan_for(tool))
        allowed = await self._rules.highest_allowed(asked.question(tool.risk))
        if allowed is not None and asked.call.only_reads:
            allowed = Risk.read
        if allowed is None:
            return await self._decide(asked, track, tool.risk, held.plan_for(tool))
        answer = await self._execute(asked, track, allowed)
        found = held.assessment_in(answer, tool)
        return answer if found is None else await self._decide(asked, track, found.risk, found.plan)

    async def _decide(self, asked: Asked, track: Track, risk: Risk, plan: str) -> Message:
        """Run the call at this risk, use up an approval of it, or have it held."""
        if asked.call.only_reads and risk is not Risk.read:
            raise Refused(f"{asked.tool.id} would {risk}, and was asked to read only: {plan}")
        verdict = await self._rules.decide(asked.question(risk))
        track.risk = risk.value
        _refuse_if_denied(verdict, asked)
        if verdict.effect is Effect.allow or held.decides_itself(asked.tool):
            return await self._execute(asked, track, risk)
        under = asked.call.under
        if under is not None and under.covers(asked.tool.id, asked.args_hash, risk, terms_of(verdict)):
            track.approval_id = under.approval_id
            return await self._execute(asked, track, risk)
        grant = await self._approvals.find(asked, risk, terms_of(verdict))
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
            dry = Asked(call, asked.tool, arguments, trust.canonical_hash(arguments))
            return held.preview_in(await self._sender.send(dry, Risk.read))
        except FleetError:
            return ""  # the call itself is held all the same

    async def _execute(self, asked: Asked, track: Track, allowed: Risk) -> Message:
        if asked.tool.risk is not Risk.read and allowed is not Risk.read:
            await self._audit.commit(track.row("intent"))
            track.intended = True
        track.sent = True
        return await self._sender.send(asked, allowed)

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
