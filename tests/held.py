"""The hub's path to one spoke with held calls, over a real store, without doors: what tests of approvals share."""

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hubs import in_own_task, write_rows

from fleetkit import Assessment, Risk, Spoke, settings, trust
from fleetkit.approval_settings import ApprovalSettings
from fleetkit.errors import NeedsApproval, NotFound
from fleetkit.metrics import Metrics
from fleetkit.server import SpokeServer
from fleetkit.settings import SpokeRow
from fleetkit.shapes import mapping
from fleetkit.spoke import Setting, SpokeOptions
from fleetkit.store import Store
from master_mcp.approvals.record import Approval, Status
from master_mcp.approvals.room import Approvals
from master_mcp.audit import Audit, open_audit
from master_mcp.auth.caller import Caller
from master_mcp.catalog.tools import Catalog, CatalogTool, read_tool
from master_mcp.policy.verdict import OPERATORS, Effect, Question, Verdict
from master_mcp.proxy.call import Proxy, ToolCall
from master_mcp.proxy.transport import EmbeddedTransport
from master_mcp.proxy.upstream import Upstream
from master_mcp.resilience.limits import Limit
from master_mcp.resilience.room import Resilience
from master_mcp.store import audit, open_hub_store

TOKEN = "fst_shed"

CONFIRM = Verdict(Effect.confirm, "test: confirm")
APPROVE = Verdict(Effect.approve, "test: approve")
HIGH = ("roof", "tower", "wall", "cellar")
DENY = Verdict(Effect.deny, "test: deny", "not here")
ALLOW = Verdict(Effect.allow, "test: allow")


class ScopeRules:
    """A scope is the highest risk that a key may run alone; above it an operator approves."""

    async def decide(self, question: Question) -> Verdict:
        """Allow within the scope, approve above it, deny without one."""
        caller, tool = question.caller, question.tool
        allowed = caller.risk_on(tool.id)
        if allowed is None:
            reason = f"key {caller.name!r} may not call {tool.id}: ask an operator for a key with that scope"
            return Verdict(Effect.deny, "scopes", reason)
        if allowed.covers(question.risk):
            return Verdict(Effect.allow, "scopes")
        reason = f"above what key {caller.name!r} may run alone ({allowed})"
        return Verdict(Effect.approve, "scopes", reason, group=OPERATORS)

    def visible(self, caller: Caller, tool: CatalogTool) -> bool:
        """With a scope."""
        return caller.risk_on(tool.id) is not None

    def limits(self, question: Question) -> Sequence[Limit]:
        """None."""
        return ()

    async def highest_allowed(self, question: Question) -> Risk | None:
        """What the scope says."""
        return question.caller.risk_on(question.tool.id)


@dataclass
class ByRisk(ScopeRules):
    """What happens to a call of each risk, for every caller alike; the tools of the hub go by scope."""

    change: Verdict = ALLOW
    destroy: Verdict = APPROVE
    read: Verdict = ALLOW

    async def decide(self, question: Question) -> Verdict:
        """The verdict for the risk."""
        if question.tool.service == "master":
            return await super().decide(question)
        return getattr(self, question.risk)

    async def highest_allowed(self, question: Question) -> Risk | None:
        """The highest risk up to which everything is allowed."""
        if question.tool.service == "master":
            return await super().highest_allowed(question)
        allowed = [risk for risk in Risk if getattr(self, risk).effect is Effect.allow]
        return max(allowed, key=lambda risk: risk.rank) if Risk.read in allowed else None


@dataclass
class Clock:
    """Time that a test moves."""

    at: float = field(default_factory=time.time)

    def __call__(self) -> float:
        """Now."""
        return self.at

    def pass_by(self, seconds: float) -> None:
        """Let it be later."""
        self.at += seconds


def person(name: str, *groups: str, role: str = "operator") -> Caller:
    """A caller of this name; its id is the name's too."""
    scopes = ("destroy:*", "manage") if role == "operator" else ("change:*",)
    return Caller(f"id-{name}", name, role, scopes, (f"{role}s", *groups))


AGENT, OTHER = person("agent", role="agent"), person("other", role="agent")
ANNA, BERT, CARL = person("anna"), person("bert"), person("carl")

HELD = Approval(
    id="ap_1", status=Status.pending, service="shed", tool="shed.burn", schema_hash="s", args_hash="a",
    requester_id=AGENT.id, requester_name=AGENT.name, door="mcp", correlation_id="c", risk=Risk.destroy, plan="burn",
    rule="r", effect=Effect.approve, quorum=1, group_name="operators", escalate_to=None, execute_on_approval=False,
    created_at=0.0, expires_at=2000.0, execution_s=60.0,
)  # fmt: skip


LOOKS: dict[str, dict[str, Any]] = {
    "tower": {"look": "a painted tower", "sides": ["north", "south"], "coats": 2, "note": None},
    "wall": {"bricks": ["b" * 1000]},
}


def shed_spoke(done: list[str]) -> Spoke:
    """A spoke whose tools write down in `done` what they did."""
    spoke = Spoke("shed")

    def assess(what: str, dry_run: bool = False) -> Assessment:
        risk = Risk.read if dry_run or what == "nothing" else Risk.destroy if what in HIGH else Risk.change
        return Assessment(risk, f"paint {what}")

    @spoke.tool(risk=Risk.destroy)
    async def burn(what: str, size: int = 1, options: dict[str, int] | None = None) -> str:
        """Burn something down."""
        done.append(f"burn {what}")
        return f"burnt {what}"

    @spoke.tool(risk=Risk.destroy, assess=assess)
    async def paint(what: str, dry_run: bool = False) -> dict[str, Any]:
        """Paint something; with dry_run only show it."""
        if not dry_run:
            done.append(f"paint {what}")
        elif what == "cellar":
            raise NotFound("no cellar")
        elif what in LOOKS:
            return LOOKS[what]
        return {"diff": f"- {what}\n+ painted {what}"}

    @spoke.tool(risk=Risk.destroy, reveals="value")
    async def open_safe() -> dict[str, str]:
        """Open the safe."""
        done.append("open")
        return {"value": "tresor"}

    @spoke.tool(risk=Risk.destroy)
    async def fail() -> str:
        """Fail."""
        done.append("fail")
        raise NeedsApproval("the inner call is held", plan="inner", approval_id="ap_inner")

    @spoke.tool(risk=Risk.destroy)
    async def hang() -> str:
        """Never end."""
        done.append("hang")
        return await asyncio.get_running_loop().create_future()

    _ = (burn, paint, open_safe, fail, hang)
    return spoke


@dataclass
class Shed:
    """One path with its approvals. `callers` are those that live, by id."""

    store: Store
    approvals: Approvals
    proxy: Proxy
    metrics: Metrics
    audit: Audit
    catalog: Catalog
    clock: Clock
    done: list[str]
    callers: dict[str, Caller]
    rules: ByRisk
    upstream: Upstream

    async def call(
        self, tool: str = "shed.burn", arguments: Mapping[str, Any] | None = None, *, by: Caller = AGENT, **params: Any
    ) -> Mapping[str, Any]:
        """The result of one call."""
        given: dict[str, Any] = {"name": tool, "arguments": {"what": "barn"} if arguments is None else dict(arguments)}
        answer = await self.proxy.call(ToolCall(tool, {**given, **params}, by, "mcp"))
        return mapping(answer["result"])

    async def held(
        self, tool: str = "shed.burn", arguments: Mapping[str, Any] | None = None, *, by: Caller = AGENT, **params: Any
    ) -> str:
        """The id under which a call is held."""
        with pytest.raises(NeedsApproval) as held:
            await self.call(tool, arguments, by=by, **params)
        assert held.value.approval_id is not None
        return held.value.approval_id

    async def approved(self, **call: Any) -> str:
        """The id of a call that Anna approved."""
        approval_id = await self.held(**call)
        await self.say(ANNA, approval_id)
        return approval_id

    async def say(
        self, who: Caller, approval_id: str, approve: bool = True, channel: str = "rest", reason: str = ""
    ) -> Mapping[str, Any]:
        """One decision; the approval after it."""
        return await self.approvals.decide(who, approval_id, approve=approve, reason=reason, channel=channel)

    async def look(self, approval_id: str, by: Caller = ANNA) -> Mapping[str, Any]:
        """One approval."""
        return await self.approvals.get(by, approval_id)

    async def status(self, approval_id: str) -> str:
        """Where one approval stands."""
        return str((await self.look(approval_id))["status"])

    async def later(self, seconds: float) -> list[str]:
        """Let time pass and everything happen that is due; ids of the calls that the hub is to run."""
        self.clock.pass_by(seconds)
        return [one.id for one in await self.approvals.sweeper.sweep()]

    def audit_rows(self) -> list[tuple[str, str, str | None]]:
        """Caller, outcome and approval of every audit row."""
        self.audit.flush().result()
        columns = (audit.c.caller, audit.c.outcome, audit.c.approval_id)
        rows = self.store.read_now(lambda db: db.execute(sa.select(*columns).order_by(audit.c.seq)).all())
        return [(row[0], row[1], row[2]) for row in rows]

    def counted(self, event: str) -> float:
        """How often something happened to a held call."""
        return self.metrics.registry.get_sample_value("mcp_approvals_total", {"event": event}) or 0.0


def shed(
    data_dir: Path,
    rules: ByRisk | None = None,
    clock: Clock | None = None,
    done: list[str] | None = None,
    **changes: Any,
) -> AbstractAsyncContextManager[Shed]:
    """A path on a data directory, running for the length of a block; `changes` are settings of approvals."""
    return in_own_task(_shed(data_dir, rules or ByRisk(), clock or Clock(), [] if done is None else done, changes))


@asynccontextmanager
async def _shed(
    data_dir: Path, rules: ByRisk, clock: Clock, done: list[str], changes: Mapping[str, Any]
) -> AsyncGenerator[Shed]:
    write_rows(data_dir, {"shed": {"number": 80, "namespace": "shed", "concurrency": 1000}})
    config, metrics, catalog = settings.load(data_dir), Metrics(), Catalog()
    store = open_hub_store(config)
    log = open_audit(store, config, metrics)
    resilience = Resilience(config, store, metrics, lambda _service: None)
    callers = {who.id: who for who in (AGENT, OTHER, ANNA, BERT, CARL)}
    approvals = Approvals(store, trust.KeyRing(data_dir), log, metrics, ApprovalSettings(**changes), callers.get, clock)
    setting = Setting(data_dir, SpokeOptions(), TOKEN, "", embedded=True)
    server = SpokeServer(shed_spoke(done), "shed", setting)
    row = SpokeRow(number=80, namespace="shed")
    transport, breaker = EmbeddedTransport("shed", server.app, 1_000_000), resilience.breakers.spoke("shed")
    upstream = Upstream("shed", row, transport, TOKEN, breaker)
    proxy = Proxy(
        catalog, {"shed": upstream}, log, metrics, rules, approvals.desk, resilience, deadline_s=30
    )  # fmt: skip
    async with server.running(), resilience:
        catalog.replace("shed", [read_tool("shed", row, one) for one in await upstream.list_tools()])
        await approvals.sweeper.recover()
        running = asyncio.create_task(approvals.run(proxy.call))
        await asyncio.sleep(0)
        try:
            yield Shed(store, approvals, proxy, metrics, log, catalog, clock, done, callers, rules, upstream)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            log.close()
            store.close()
