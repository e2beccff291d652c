"""The Linux spoke with SSH hosts, for tests."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncssh

from fleetkit.testing import SpokeClient, running
from linux_cli_mcp import spoke


@asynccontextmanager
async def linux_with(data: Path, hosts: dict[str, Any], known: str, **options: Any) -> AsyncGenerator[SpokeClient]:
    (data / "known_hosts").write_text(known)
    async with running(spoke, data, "os.linux", hosts=hosts, **options) as client:
        yield client


def new_key() -> asyncssh.SSHKey:
    return asyncssh.generate_private_key("ssh-ed25519")  # pyright: ignore[reportUnknownMemberType]


async def run(linux: SpokeClient, target: str, line: str, **arguments: Any) -> Any:
    return await linux.call("sshExecuteCommand", target_host=target, remote_command=line, **arguments)
