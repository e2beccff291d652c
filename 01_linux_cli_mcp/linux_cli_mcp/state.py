"""What the tools share while the spoke runs; they get it by `spoke.state(Linux)`."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from fleetkit import Setting
from fleetkit.secrets import Resolver
from fleetkit.trust import private_dir
from linux_cli_mcp.endings import Endings
from linux_cli_mcp.files import Files
from linux_cli_mcp.history import History
from linux_cli_mcp.hosts import Hosts
from linux_cli_mcp.jobs import Jobs
from linux_cli_mcp.options import LinuxOptions
from linux_cli_mcp.policy import Paths


@dataclass(frozen=True)
class Linux:
    """The running spoke: options, the places it keeps things, and what is allowed."""

    options: LinuxOptions
    data_dir: Path
    paths: Paths
    files: Files
    jobs: Jobs
    hosts: Hosts
    resolver: Resolver
    endings: Endings


@asynccontextmanager
async def running(setting: Setting) -> AsyncGenerator[Linux]:
    """The state for the life of the spoke."""
    options = cast("LinuxOptions", setting.options)
    paths = Paths(options, setting.data_dir)
    files = Files(options, paths, History(setting.data_dir / "backups", options.max_backups))
    hosts = Hosts(options.hosts, options.known_hosts or setting.data_dir / "known_hosts")
    endings = Endings()
    jobs = Jobs(private_dir(setting.data_dir / "jobs"), options, paths, endings)
    try:
        yield Linux(options, setting.data_dir, paths, files, jobs, hosts, Resolver("linux_cli", setting), endings)
    finally:
        await endings.close()
