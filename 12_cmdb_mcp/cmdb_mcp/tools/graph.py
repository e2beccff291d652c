"""Tools that follow relations."""

from typing import Annotated

from pydantic import Field

from cmdb_mcp import graph, spoke
from cmdb_mcp.graph import Direction
from cmdb_mcp.models import Impact, Route
from cmdb_mcp.tools.common import Depth, Ref, inventory
from fleetkit import Risk


@spoke.tool(risk=Risk.read)
async def get_impact(
    ci: Ref,
    direction: Direction = "downstream",
    max_depth: Depth = 10,
    limit: Annotated[int, Field(ge=1, le=1000)] = 200,
) -> Impact:
    """What fails when a CI fails (downstream), what it needs to work (upstream); nearest first, with the path.

    Args:
        ci: id, class:name or a unique name.
        direction: downstream, upstream or both.
        max_depth: Relations to follow at most.
        limit: CIs per direction at most.
    """
    return await inventory().read(lambda connection: graph.impact(connection, ci, direction, max_depth, limit))


@spoke.tool(risk=Risk.read)
async def find_path(ci: Ref, target: Ref, max_depth: Depth = 10) -> Route:
    """How two CIs are connected: a shortest path over relations of any type and direction.

    Args:
        ci: Where to start.
        target: Where to arrive.
        max_depth: Relations to follow at most.
    """
    return await inventory().read(lambda connection: graph.route(connection, ci, target, max_depth))
