"""`/approvals`: held calls, their decisions and their redemption, for the room that keeps them."""

from collections.abc import Mapping
from typing import Any

from pydantic import ConfigDict, Field

from master_mcp.approvals.record import State
from master_mcp.approvals.room import MAX_LISTED, Approvals
from master_mcp.rest.route import Answer, JsonObject, Query, Request, Route, Shape

CHANNEL = "rest"
_ID = {"id": "The approval_id of a held call."}


class Approval(Shape):
    """One held call; what else the approvals room tells of it comes along."""

    model_config = ConfigDict(extra="allow")

    id: str
    status: str


class ApprovalList(Shape):
    """Held calls, newest first."""

    total: int
    approvals: list[Approval]


class WhichApprovals(Query):
    """Those in one state, or `all`."""

    status: State = "pending"
    limit: int = Field(default=100, ge=1, le=MAX_LISTED)


class Decision(Shape):
    """Why."""

    reason: str = Field(default="", max_length=2000)


class Approving(Decision):
    """Why, and what was filled in where the approval has a `form`."""

    values: JsonObject | None = None


class Redemption(Shape):
    """Nothing needs to be said."""


class ApprovalDesk:
    """Hands requests to the approvals room."""

    def __init__(self, room: Approvals) -> None:
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
                "POST", "/approvals/{id}/approve", self._approve, "Approve a held call.", tag, Approval, Approving,
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
        asked = request.read_query(WhichApprovals)
        found = await self._room.listed(request.caller, asked.status, asked.limit)
        return ApprovalList(total=len(found), approvals=[_view(one) for one in found])

    async def _get(self, request: Request) -> Answer:
        return _view(await self._room.get(request.caller, request.path["id"]))

    async def _approve(self, request: Request) -> Answer:
        said = request.read_body(Approving)
        found = await self._room.decide(
            request.caller, request.path["id"], approve=True, reason=said.reason, channel=CHANNEL, values=said.values
        )
        return _view(found)

    async def _deny(self, request: Request) -> Answer:
        reason = request.read_body(Decision).reason
        found = await self._room.decide(
            request.caller, request.path["id"], approve=False, reason=reason, channel=CHANNEL
        )
        return _view(found)

    async def _redeem(self, request: Request) -> Answer:
        return _view(await self._room.redeem(request.caller, request.path["id"]))


def _view(found: Mapping[str, Any]) -> Approval:
    return Approval.model_validate(dict(found))
