"""What the proxy asks of whoever decides what a call may do."""

from collections.abc import Sequence
from typing import Protocol

from fleetkit.risk import Risk
from master_mcp.auth.caller import Caller
from master_mcp.catalog.tools import CatalogTool
from master_mcp.policy.verdict import Question, Verdict
from master_mcp.resilience.limits import Limit


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
