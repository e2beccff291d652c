"""`/workflows/runs/{id}/events`, `graph` and `view`: runs as they go, for consoles. They ask the room itself."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Literal

import orjson

from fleetkit.asgi import KEEPALIVE_S
from fleetkit.errors import FleetError
from master_mcp.rest.route import Answer, JsonObject, Reply, Request, Route, Shape
from master_mcp.rest.workflow_definitions import MERMAID
from master_mcp.rest.workflows import RUN_ID, TAG, WorkflowRun
from master_mcp.workflows.room import Workflows

EVENTS = "text/event-stream"
UNBUFFERED = {"cache-control": "no-store, no-transform", "x-accel-buffering": "no"}


class Undo(Shape):
    """What takes a step back."""

    tool: str
    status: str


class DrawnStep(Shape):
    """A step as a node: `status` is pending before it begins, `items` counts those of a step with forEach by status.

    `kind` says what it does, `does` with which tool, workflow or signal. Times are in seconds since the epoch.
    """

    name: str
    kind: Literal["tool", "approval", "wait", "signal", "workflow"]
    does: str | None
    needs: list[str]
    status: str
    items: dict[str, int] | None
    undo: Undo | None
    attempts: int
    started_at: float | None
    ended_at: float | None
    error: JsonObject | None
    approval_id: str | None
    waits_for: str | None
    due_at: float | None


class Edge(Shape):
    """From one step to another: when it is over, or has failed."""

    source: str
    target: str
    kind: Literal["then", "error"]


class DrawnRun(Shape):
    """A run, and what to draw of it."""

    run: WorkflowRun
    nodes: list[DrawnStep]
    edges: list[Edge]


class WatchingDesk:
    """Shows runs to those who may see them."""

    def __init__(self, room: Workflows) -> None:
        self._room = room

    def routes(self) -> list[Route]:
        """The rows of these endpoints."""
        place = "/workflows/runs/{id}"
        return [
            Route(
                "GET", f"{place}/events", self._events, "Follow a run: an event with all of it for each change.", TAG,
                EVENTS, streams=True, path_doc=RUN_ID,
            ),
            Route(
                "GET", f"{place}/graph", self._graph, "Draw a run as Mermaid text.", TAG, "text/plain", path_doc=RUN_ID
            ),
            Route(
                "GET", f"{place}/view", self._view, "Show what to draw of a run.", TAG, DrawnRun, path_doc=RUN_ID
            ),
        ]  # fmt: skip

    async def _events(self, request: Request) -> Answer:
        return Reply(self._changes(request), kind=EVENTS, headers=UNBUFFERED)

    async def _changes(self, request: Request) -> AsyncIterator[bytes]:
        """What has begun ends without an error: then the key was revoked, or the run is kept no longer."""
        caller, begun = request.caller, False
        try:
            async with aclosing(self._room.looking.watched(caller, request.path["id"], KEEPALIVE_S)) as changes:
                async for run in changes:
                    self._room.caller(caller.id)
                    yield b": ping\n\n" if run is None else b"event: run\ndata: %b\n\n" % orjson.dumps(run)
                    begun = True
        except FleetError:
            if not begun:
                raise

    async def _graph(self, request: Request) -> Answer:
        drawn = await self._room.looking.graph(request.caller, request.path["id"])
        return Reply(drawn.encode(), kind=MERMAID)

    async def _view(self, request: Request) -> Answer:
        return DrawnRun.model_validate(await self._room.looking.picture(request.caller, request.path["id"]))
