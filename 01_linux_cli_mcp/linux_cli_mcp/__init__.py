"""Linux: commands, jobs, files, services and SSH hosts, in a sandbox, with the risk of each call assessed."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fleetkit import Setting, Spoke
from linux_cli_mcp.options import LinuxOptions

__all__ = ["spoke"]


@asynccontextmanager
async def _running(setting: Setting) -> AsyncGenerator[object]:
    """Opened on first use: importing this package stays cheap."""
    from linux_cli_mcp.state import running

    async with running(setting) as linux:
        yield linux


spoke = Spoke(
    "linux_cli",
    instructions="Run commands, edit files and reach SSH hosts. Prefer argv lists over shell lines.",
    lifespan=_running,
    options=LinuxOptions,
    tool_modules=(
        "linux_cli_mcp.tools.commands",
        "linux_cli_mcp.tools.files",
        "linux_cli_mcp.tools.system",
        "linux_cli_mcp.tools.ssh",
    ),
)
