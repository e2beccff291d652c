"""One call, whichever door it came through, and what is asked about it on its way."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from fleetkit import correlation
from fleetkit.errors import Invalid
from fleetkit.risk import Assessment, Risk
from master_mcp.auth.caller import Caller
from master_mcp.catalog.tools import CatalogTool
from master_mcp.policy.verdict import Effect, Question, Terms
from master_mcp.proxy.answer import Message
from master_mcp.proxy.upstream import Notify, ignore

APPROVAL_STATE = "fleet-approval."  # how a `requestState` begins that the hub itself sealed


@dataclass(frozen=True)
class Under:
    """What a person approved as a whole: these calls, as `(tool, hash of arguments)`, up to a risk, on these terms."""

    approval_id: str
    risk: Risk
    terms: Terms
    calls: frozenset[tuple[str, str]]

    def covers(self, tool: str, args_hash: str, risk: Risk, wanted: Terms) -> bool:
        """Whether that approval is as good as the one that this call would need."""
        if (tool, args_hash) not in self.calls or not self.risk.covers(risk):
            return False
        if wanted.effect is Effect.confirm:
            return True
        same = self.terms.effect is Effect.approve and self.terms.group == wanted.group
        return same and self.terms.quorum >= wanted.quorum


def unnoticed() -> None:
    """Nobody needs to know."""


@dataclass(frozen=True)
class ToolCall:
    """One call, whichever door it came through.

    `params` is the caller's own params object (`_meta`, `inputResponses`, `requestState` travel with
    it); `on_notify` gets the spoke's notifications as they come. `param_headers` are the `Mcp-Param-*`
    headers a stateless client sent; None lets the hub make them. `approval` is the id of the approval
    that the call redeems. `within_s` is all the time that the call it is part of has left; `fresh` wants an
    answer that no cache kept. `under` is what a person approved of the run it belongs to; `on_sent` is told before
    its spoke can have got it; `only_reads` refuses it where it would do more, whatever its caller may do.
    """

    name: str
    params: Mapping[str, Any]
    caller: Caller
    door: str
    request_id: object = 0
    correlation_id: str = field(default_factory=correlation.new_id)
    on_notify: Notify = ignore
    param_headers: Mapping[str, str] | None = None
    approval: str | None = None
    within_s: float | None = None
    fresh: bool = False
    under: Under | None = None
    on_sent: Callable[[], None] = unnoticed
    only_reads: bool = False

    @property
    def resumes(self) -> bool:
        """Whether it continues a call that was held: by id, or by the state that the hub gave out."""
        state = self.params.get("requestState")
        return self.approval is not None or (isinstance(state, str) and state.startswith(APPROVAL_STATE))


@dataclass(frozen=True)
class Asked:
    """A call with the tool it means: what a policy is asked about and an approval is bound to."""

    call: ToolCall
    tool: CatalogTool
    arguments: Mapping[str, Any]
    args_hash: str
    tainted: bool = False

    def question(self, risk: Risk) -> Question:
        """The question whether this call may have that risk."""
        return Question(self.call.caller, self.tool, risk, self.arguments, self.call.door, self.tainted)


Run = Callable[[ToolCall], Awaitable[Message]]  # `Proxy.call`
Assess = Callable[[ToolCall], Awaitable[Assessment]]  # `Proxy.assessed`


def arguments_of(params: Mapping[str, Any]) -> Mapping[str, Any]:
    """The arguments of a call; raises Invalid when they are no object."""
    arguments = params.get("arguments")
    if arguments is None:
        return {}
    if not isinstance(arguments, dict):
        raise Invalid("`arguments` must be an object")
    return cast("Mapping[str, Any]", arguments)
