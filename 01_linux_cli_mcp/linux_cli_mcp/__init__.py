"""Linux: commands, jobs, files, services and SSH hosts, in a sandbox, with the risk of each call assessed."""

from fleetkit import Spoke
from linux_cli_mcp.options import LinuxOptions

__all__ = ["spoke"]

spoke = Spoke(
    "linux_cli",
    instructions="Run commands, edit files and reach SSH hosts. Prefer argv lists over shell lines.",
    options=LinuxOptions,
    tool_modules=(
        "linux_cli_mcp.tools.commands",
        "linux_cli_mcp.tools.files",
        "linux_cli_mcp.tools.system",
        "linux_cli_mcp.tools.ssh",
    ),
)
