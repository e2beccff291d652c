"""CMDB: what the fleet runs, how it hangs together, and how it came to be so."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from cmdb_mcp.options import CmdbOptions
from fleetkit import Setting, Spoke

__all__ = ["spoke"]


@asynccontextmanager
async def _lifespan(setting: Setting) -> AsyncGenerator[object]:
    from cmdb_mcp.inventory import opened  # brings SQLAlchemy: only when served

    async with opened(setting, spoke.updated) as inventory:
        yield inventory


spoke = Spoke(
    "cmdb",
    instructions=(
        "Configuration items (CIs) with typed relations and full history. Name a CI by its id (`ci-7`), by "
        "`class:name` (`server:web-01`), or by its name alone where that is unique. Records of source "
        "`example` are a shipped demonstration; removeExample takes them away."
    ),
    lifespan=_lifespan,
    options=CmdbOptions,
    tool_modules=(
        "cmdb_mcp.tools.reading",
        "cmdb_mcp.tools.writing",
        "cmdb_mcp.tools.graph",
        "cmdb_mcp.tools.files",
        "cmdb_mcp.tools.offers",
    ),
)
