"""What the tools share while the spoke runs; they get it by `spoke.state(Linux)`."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from fleetkit import Setting
from linux_cli_mcp.options import LinuxOptions
from linux_cli_mcp.policy import Paths


@dataclass(frozen=True)
class Linux:
    """The running spoke: options, the places it keeps things, and what is allowed."""

    options: LinuxOptions
    data_dir: Path
    paths: Paths


@asynccontextmanager
async def running(setting: Setting) -> AsyncGenerator[Linux]:
    """The state for the life of the spoke."""
    options = cast("LinuxOptions", setting.options)
    yield Linux(options, setting.data_dir, Paths(options, setting.data_dir))
