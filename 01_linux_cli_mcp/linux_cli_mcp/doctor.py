"""For `fleet doctor`: whether commands can be confined here."""

from typing import cast

from fleetkit import Setting
from linux_cli_mcp.options import LinuxOptions
from linux_cli_mcp.policy import Paths
from linux_cli_mcp.sandbox.launch import choose
from linux_cli_mcp.sandbox.view import view


async def examine(setting: Setting) -> str:
    """What confines commands on this machine, tried; raises Refused saying what to install."""
    options = cast("LinuxOptions", setting.options)
    backend = await choose(options, view(Paths(options, setting.data_dir), options))
    return f"commands are confined by {backend.name}"
