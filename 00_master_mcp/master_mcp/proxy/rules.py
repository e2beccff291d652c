"""What the proxy asks of whoever decides what a call may do, and the plainest such rules: a key's scopes."""

from collections.abc import Sequence
from typing import Protocol

from fleetkit.risk import Risk
from master_mcp.auth.caller import Caller
from master_mcp.catalog.tools import CatalogTool
from master_mcp.policy.verdict import OPERATORS, Effect, Question, Verdict
from master_mcp.resilience.limits import Limit

SCOPES = "scopes"


class Rules(Protocol):
    """Decides about calls. Both answers come from memory."""

    async def decide(self, question: Question) -> Verdict:
        """What happens to a call of this risk."""
        ...

    async def highest_allowed(self, question: Question) -> Risk | None:
        """The highest risk that these arguments may reach without being held; None when not even reading is."""
        ...

    def limits(self, question: Question) -> Sequence[Limit]:
        """Every limit and quota that counts this call."""
        ...

    def visible(self, caller: Caller, tool: CatalogTool) -> bool:
        """Whether a caller may call a tool at all."""
        ...


class ScopeRules:
    """A scope is the highest risk that a key may run alone; above it an operator approves."""

    async def decide(self, question: Question) -> Verdict:
        """Allow within the scope, approve above it, deny without one."""
        caller, tool = question.caller, question.tool
        allowed = caller.risk_on(tool.id)
        if allowed is None:
            reason = f"key {caller.name!r} may not call {tool.id}: ask an operator for a key with that scope"
            return Verdict(Effect.deny, SCOPES, reason)
        if allowed.covers(question.risk):
            return Verdict(Effect.allow, SCOPES)
        reason = f"above what key {caller.name!r} may run alone ({allowed})"
        return Verdict(Effect.approve, SCOPES, reason, group=OPERATORS)

    def visible(self, caller: Caller, tool: CatalogTool) -> bool:
        """With a scope."""
        return caller.risk_on(tool.id) is not None

    def limits(self, question: Question) -> Sequence[Limit]:
        """None."""
        return ()

    async def highest_allowed(self, question: Question) -> Risk | None:
        """What the scope says."""
        return question.caller.risk_on(question.tool.id)
