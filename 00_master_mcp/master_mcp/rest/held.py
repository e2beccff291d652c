"""`/approvals`: held calls, their decisions and their redemption, for the room that keeps them."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from pydantic import ConfigDict, Field

from fleetkit.errors import NotFound
from master_mcp.auth.caller import Caller
from master_mcp.rest.route import Answer, Query, Request, Route, Shape

_ID = {"id": "The approval_id of a held call."}


class Approvals(Protocol):
    """What these routes ask of the approvals room. Each raises NotFound for an id that `caller` may not see."""

    async def list(self, caller: Caller, state: str | None) -> Sequence[Mapping[str, Any]]:
        """The held calls that `caller` may see, newest first."""
        ...

    async def get(self, caller: Caller, approval_id: str) -> Mapping[str, Any]:
        """One of them, with its state and, when it ran, its result."""
        ...

    async def decide(self, caller: Caller, approval_id: str, *, approve: bool, reason: str) -> Mapping[str, Any]:
        """Approve or deny; raises Refused for who may not, Conflict when it is decided."""
        ...

    async def redeem(self, caller: Caller, approval_id: str) -> Mapping[str, Any]:
        """Run the approved call, once."""
        ...


class Approval(Shape):
    """One held call; what else the approvals room tells of it comes along."""

    model_config = ConfigDict(extra="allow")

    id: str
    state: str


class ApprovalList(Shape):
    """Held calls, newest first."""

    total: int
    approvals: list[Approval]


class WhichApprovals(Query):
    """Only those in this state."""

    state: str | None = Field(default=None, max_length=40)


class Decision(Shape):
    """Why."""

    reason: str = Field(default="", max_length=2000)


class Redemption(Shape):
    """Nothing needs to be said."""


class ApprovalDesk:
    """Hands requests to the approvals room; None where the hub has none."""

    def __init__(self, room: Approvals | None = None) -> None:
        self._room = room

    def routes(self) -> list[Route]:
        """The rows of these endpoints."""
        tag = "approvals"
        return [
            Route(
                "GET", "/approvals", self._list, "List held calls.", tag, ApprovalList, query=WhichApprovals
            ),
            Route("GET", "/approvals/{id}", self._get, "Show a held call.", tag, Approval, path_doc=_ID),
            Route(
                "POST", "/approvals/{id}/approve", self._approve, "Approve a held call.", tag, Approval, Decision,
                path_doc=_ID,
            ),
            Route(
                "POST", "/approvals/{id}/deny", self._deny, "Deny a held call.", tag, Approval, Decision, path_doc=_ID
            ),
            Route(
                "POST", "/approvals/{id}/redeem", self._redeem, "Run an approved call, once.", tag, Approval,
                Redemption, calls=True, path_doc=_ID,
            ),
        ]  # fmt: skip

    async def _list(self, request: Request) -> Answer:
        found = await self._offered().list(request.caller, request.read_query(WhichApprovals).state)
        return ApprovalList(total=len(found), approvals=[_view(one) for one in found])

    async def _get(self, request: Request) -> Answer:
        return _view(await self._offered().get(request.caller, request.path["id"]))

    async def _approve(self, request: Request) -> Answer:
        return await self._decide(request, approve=True)

    async def _deny(self, request: Request) -> Answer:
        return await self._decide(request, approve=False)

    async def _decide(self, request: Request, *, approve: bool) -> Answer:
        reason = request.read_body(Decision).reason
        room = self._offered()
        return _view(await room.decide(request.caller, request.path["id"], approve=approve, reason=reason))

    async def _redeem(self, request: Request) -> Answer:
        return _view(await self._offered().redeem(request.caller, request.path["id"]))

    def _offered(self) -> Approvals:
        if self._room is None:
            raise NotFound("this hub holds no calls for approval")
        return self._room


def _view(found: Mapping[str, Any]) -> Approval:
    return Approval.model_validate(dict(found))
