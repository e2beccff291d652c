"""`/workflows/runs`: starting, finding and steering runs, each request as a call of the tool that does it."""

from typing import Any, Literal

import orjson
from pydantic import ConfigDict, Field

from master_mcp.rest.hub_tools import HubTools
from master_mcp.rest.route import Answer, JsonObject, Query, Reply, Request, Route, Shape
from master_mcp.workflows.looking import MAX_LISTED
from master_mcp.workflows.record import RunStatus

TAG = "workflows"
RUN_ID = {"id": "The id of a run."}
_NAME = r"^[A-Za-z][A-Za-z0-9_]{0,39}$"


class WorkflowRun(Shape):
    """One run; what else there is to tell of it comes along: inputs, outputs, `results` by step, what it waits for."""

    model_config = ConfigDict(extra="allow")

    id: str
    workflow_name: str
    status: RunStatus = Field(strict=False)


class WorkflowRuns(Shape):
    """Runs, newest first."""

    total: int
    runs: list[WorkflowRun]


class WhichRuns(Query):
    """Those in one state, of one workflow."""

    status: Literal["all"] | RunStatus = "all"
    name: str | None = Field(default=None, min_length=1)
    limit: int = Field(default=50, ge=1, le=MAX_LISTED)


class RunOrder(Shape):
    """A workflow by its `name`, or its `definition`; the same `key` again gives the same run, started once."""

    name: str | None = Field(default=None, pattern=_NAME)
    definition: JsonObject | None = None
    inputs: JsonObject = {}
    key: str | None = Field(default=None, min_length=1, max_length=200)
    priority: int = Field(default=5, ge=0, le=9, description="0 first, 9 last.")
    wait_s: float = Field(default=20.0, ge=0, le=3600, description="Seconds to wait for the end of the run.")


class Cancellation(Shape):
    """Why."""

    reason: str = Field(default="", max_length=2000)


_BOTH_OR_NEITHER: JsonObject = {
    "anyOf": [
        {"properties": {"step": {"type": "null"}, "outcome": {"type": "null"}}},
        {"properties": {"step": {"type": "string"}, "outcome": {"type": "string"}}, "required": ["step", "outcome"]},
    ]
}


class Resumption(Shape):
    """What became of a step in doubt; without it a failed or cancelled run goes on."""

    model_config = ConfigDict(json_schema_extra=_BOTH_OR_NEITHER)

    step: str | None = Field(default=None, min_length=1)
    item: int | None = Field(default=None, ge=0, le=2**31)
    outcome: Literal["done", "repeat", "failed"] | None = None
    result: Any = None


class Retrial(Shape):
    """From which step on; `fork` makes a run of its own, `definition` is a mended one."""

    step: str = Field(min_length=1)
    fork: bool = False
    definition: JsonObject | None = None


class Signal(Shape):
    """A signal that a step waits for, or will; its payload is the step's result."""

    name: str = Field(pattern=_NAME)
    payload: Any = None


class RunDesk:
    """Turns requests into calls."""

    def __init__(self, tools: HubTools) -> None:
        self._tools = tools

    def routes(self) -> list[Route]:
        """The rows of these endpoints."""
        return [
            Route(
                "POST", "/workflows/runs", self._start, "Run a workflow and wait for its end.", TAG, WorkflowRun,
                RunOrder, calls=True,
            ),
            Route(
                "GET", "/workflows/runs", self._list, "List runs.", TAG, WorkflowRuns, query=WhichRuns, calls=True
            ),
            Route(
                "GET", "/workflows/runs/{id}", self._get, "Show a run.", TAG, WorkflowRun, calls=True, path_doc=RUN_ID
            ),
            Route(
                "POST", "/workflows/runs/{id}/cancel", self._cancel, "End a run now.", TAG, WorkflowRun, Cancellation,
                calls=True, path_doc=RUN_ID,
            ),
            Route(
                "POST", "/workflows/runs/{id}/resume", self._resume, "Have a run go on.", TAG, WorkflowRun, Resumption,
                calls=True, path_doc=RUN_ID,
            ),
            Route(
                "POST", "/workflows/runs/{id}/retry", self._retry, "Do a step again and what depends on it.", TAG,
                WorkflowRun, Retrial, calls=True, path_doc=RUN_ID,
            ),
            Route(
                "POST", "/workflows/runs/{id}/signal", self._signal, "Send a run a signal.", TAG, WorkflowRun, Signal,
                calls=True, path_doc=RUN_ID,
            ),
            Route(
                "GET", "/workflows/runs/{id}/artifacts/{name}", self._artifact, "Fetch a large result of a run.", TAG,
                "application/json", calls=True, path_doc={**RUN_ID, "name": "As the step's result names it."},
            ),
        ]  # fmt: skip

    async def _start(self, request: Request) -> Answer:
        order = request.read_body(RunOrder).model_dump(exclude_unset=True)
        return WorkflowRun.model_validate(await self._tools.call(request, "orchestrator.executeWorkflow", order))

    async def _list(self, request: Request) -> Answer:
        asked = request.read_query(WhichRuns).model_dump(mode="json", exclude_none=True)
        found = await self._tools.call(request, "orchestrator.listWorkflows", asked)
        return WorkflowRuns(total=len(found), runs=[WorkflowRun.model_validate(one) for one in found])

    async def _get(self, request: Request) -> Answer:
        return await self._run(request, "orchestrator.getWorkflow")

    async def _cancel(self, request: Request) -> Answer:
        return await self._run(request, "orchestrator.cancelWorkflow", request.read_body(Cancellation))

    async def _resume(self, request: Request) -> Answer:
        return await self._run(request, "orchestrator.resumeWorkflow", request.read_body(Resumption))

    async def _retry(self, request: Request) -> Answer:
        return await self._run(request, "orchestrator.retryFromStep", request.read_body(Retrial))

    async def _signal(self, request: Request) -> Answer:
        return await self._run(request, "orchestrator.signalWorkflow", request.read_body(Signal))

    async def _artifact(self, request: Request) -> Answer:
        wanted = {"run": request.path["id"], "name": request.path["name"]}
        found = await self._tools.call(request, "orchestrator.getArtifact", wanted)
        return Reply(orjson.dumps(found["content"]))

    async def _run(self, request: Request, tool: str, said: Shape | None = None) -> WorkflowRun:
        """The run of the request after a call of `tool`, which was told what the body said and no more."""
        more = {} if said is None else said.model_dump(exclude_unset=True)
        return WorkflowRun.model_validate(await self._tools.call(request, tool, {"id": request.path["id"], **more}))
