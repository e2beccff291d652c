"""What the hub's own tools offer of this room: every breaker, and closing one by hand."""

from pydantic import BaseModel

from fleetkit import Risk, Spoke, correlation
from fleetkit.errors import Refused
from master_mcp.resilience.breakers import Breakers


class BreakerLine(BaseModel):
    """One breaker; `tool` is empty for a service's own, `since` is seconds since the epoch."""

    service: str
    tool: str
    state: str
    failures: int
    since: float
    reason: str


def add_breaker_tools(spoke: Spoke, breakers: Breakers) -> None:
    """Declare `listBreakers` and `resetBreaker` on `spoke`."""

    @spoke.tool(risk=Risk.read)
    async def list_breakers() -> list[BreakerLine]:
        """Every circuit breaker: one per service, and one per tool that has failed lately."""
        return [
            BreakerLine(
                service=breaker.service,
                tool=breaker.tool,
                state=breaker.state,
                failures=breaker.failures,
                since=breaker.since,
                reason=breaker.reason,
            )
            for breaker in breakers.listed()
        ]

    @spoke.tool(risk=Risk.change, idempotent=True)
    async def reset_breaker(name: str) -> list[str]:
        """Close a circuit breaker by hand, for operators; returns what was not closed.

        Args:
            name: a service (its tools' breakers close with it), a tool's id, or `all`.
        """
        context = correlation.current()
        if context is None or context.caller is None or context.caller.role != "operator":
            raise Refused("only an operator may reset a breaker: use an operator key")
        return breakers.reset(name)

    _ = (list_breakers, reset_breaker)  # the decorator registers them
