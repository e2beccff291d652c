"""Tools whose arguments a schema describes rather than a function's signature: made while the fleet runs."""

from collections.abc import Awaitable, Callable
from typing import Any

import pydantic_core
from fastmcp.tools.base import ToolResult

Function = Callable[..., Awaitable[Any]]


class WholeTool:
    """What stands in for FastMCP's own tool: hands all arguments over as they are, the hub has checked them."""

    def __init__(self, function: Function) -> None:
        self._function = function

    async def run(self, arguments: dict[str, Any]) -> ToolResult:
        """The function's result, a model or a mapping, as structured content and as text."""
        return ToolResult(structured_content=pydantic_core.to_jsonable_python(await self._function(**arguments)))
