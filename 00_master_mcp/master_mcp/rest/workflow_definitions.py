"""`/workflows/definitions`: what can be run by name, each request as a call of the tool that does it."""

from typing import Any

import orjson
from pydantic import ConfigDict, Field

from master_mcp.rest.hub_tools import HubTools
from master_mcp.rest.route import Answer, JsonObject, Query, Reply, Request, Route, Shape
from master_mcp.rest.workflows import TAG
from master_mcp.workflows.shelf import drawing

MERMAID = "text/plain; charset=utf-8"
_NAME = {"name": "The name of a workflow."}


class WorkflowDefinition(Shape):
    """One workflow that can be run by name; `origin` is saved, file or shipped."""

    model_config = ConfigDict(extra="allow")

    name: str
    description: str
    origin: str
    hash: str


class WorkflowDefinitions(Shape):
    """Workflows by name."""

    total: int
    definitions: list[WorkflowDefinition]


class WhichDefinitions(Query):
    """Those whose name or description holds every one of these words."""

    q: str = Field(default="", max_length=200)


class Written(Shape):
    """A whole workflow: `{name, steps: [{name, service, tool, params}]}`."""

    definition: JsonObject


class GoodDefinition(Shape):
    """A definition that can be run, the schema of its inputs, and its graph as Mermaid text."""

    name: str
    hash: str
    inputs: dict[str, Any]
    graph: str


class DefinitionDesk:
    """Turns requests into calls."""

    def __init__(self, tools: HubTools) -> None:
        self._tools = tools

    def routes(self) -> list[Route]:
        """The rows of these endpoints."""
        place = "/workflows/definitions"
        return [
            Route(
                "GET", place, self._list, "List workflows.", TAG, WorkflowDefinitions, query=WhichDefinitions,
                calls=True,
            ),
            Route("POST", place, self._save, "Save a workflow.", TAG, WorkflowDefinition, Written, calls=True),
            Route(
                "POST", f"{place}/validate", self._validate, "Look for mistakes without running.", TAG,
                GoodDefinition, Written, calls=True,
            ),
            Route(
                "GET", f"{place}/{{name}}", self._get, "Show a workflow as it is written.", TAG, "application/json",
                calls=True, path_doc=_NAME,
            ),
            Route(
                "DELETE", f"{place}/{{name}}", self._remove, "Remove a saved workflow; what is left of that name.", TAG,
                WorkflowDefinitions, calls=True, path_doc=_NAME,
            ),
            Route(
                "GET", f"{place}/{{name}}/graph", self._graph, "Draw a workflow as Mermaid text.", TAG, "text/plain",
                calls=True, path_doc=_NAME,
            ),
        ]  # fmt: skip

    async def _list(self, request: Request) -> Answer:
        query = {"query": request.read_query(WhichDefinitions).q}
        return _listed(await self._tools.call(request, "orchestrator.listDefinitions", query))

    async def _save(self, request: Request) -> Answer:
        written = request.read_body(Written).model_dump()
        return WorkflowDefinition.model_validate(
            await self._tools.call(request, "orchestrator.saveDefinition", written)
        )

    async def _validate(self, request: Request) -> Answer:
        written = request.read_body(Written).model_dump()
        return GoodDefinition.model_validate(
            await self._tools.call(request, "orchestrator.validateDefinition", written)
        )

    async def _get(self, request: Request) -> Answer:
        return Reply(orjson.dumps(await self._content(request)))

    async def _remove(self, request: Request) -> Answer:
        return _listed(await self._tools.call(request, "orchestrator.removeDefinition", dict(request.path)))

    async def _graph(self, request: Request) -> Answer:
        return Reply(drawing(await self._content(request)).encode(), kind=MERMAID)

    async def _content(self, request: Request) -> dict[str, Any]:
        return await self._tools.call(request, "orchestrator.getDefinition", dict(request.path))


def _listed(found: list[dict[str, Any]]) -> WorkflowDefinitions:
    shown = [WorkflowDefinition.model_validate(one) for one in found]
    return WorkflowDefinitions(total=len(shown), definitions=shown)
