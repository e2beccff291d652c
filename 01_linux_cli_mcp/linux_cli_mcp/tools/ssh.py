"""Other machines over SSH: listed hosts only, known host keys only."""

import asyncio
from importlib import import_module
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from fleetkit import Assessment, Invalid, Risk
from fleetkit.secrets import SecretRef
from linux_cli_mcp import risk, spoke
from linux_cli_mcp.hosts import HostInfo
from linux_cli_mcp.programs import Step
from linux_cli_mcp.ssh.models import Direction, HostTest, RemoteResults, Transferred
from linux_cli_mcp.state import Linux

if TYPE_CHECKING:
    from linux_cli_mcp.ssh.work import Work

DEFAULT_TIMEOUT_S = 60.0
TEST_S = 25.0
TRANSFER_S = 600.0

Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")]
Seconds = Annotated[float, Field(gt=0, le=3600, description="seconds, for all hosts together")]
Credential = Annotated[
    str | None,
    Field(description="secret:// reference to a password or private key, instead of what the host's row names"),
]
Secrets = Annotated[
    dict[Variable, str] | None,
    Field(description="variable -> secret:// reference: the command finds the value in its environment"),
]


def assess(
    target_host: str,
    remote_command: str,
    timeout: float = DEFAULT_TIMEOUT_S,
    credential: str | None = None,
    secrets: dict[str, str] | None = None,
) -> Assessment:
    """The risk of the line; nothing confines it at the other end, nor what it does with a secret."""
    del timeout, credential
    given = {name: str(SecretRef.parse(reference)) for name, reference in (secrets or {}).items()}
    steps = risk.steps(remote_command, {})
    steps += [_exposed(name, shown) for name, shown in given.items()]
    plan = risk.plan(remote_command, steps, None, has_input=False)
    return Assessment(risk.overall(steps), f"over SSH on {target_host}: {plan}")


@spoke.tool(risk=Risk.read)
async def list_hosts(tag: str | None = None) -> list[HostInfo]:
    """List the SSH hosts that can be reached, with their tags and whether their host key is known.

    Args:
        tag: only hosts with this tag.
    """
    return await asyncio.to_thread(spoke.state(Linux).hosts.describe, tag)


@spoke.tool(risk=Risk.read, untrusted=True)
async def test_host(host: str, credential: Credential = None) -> HostTest:  # noqa: PT028 - a tool, no test
    """Connect to a listed host and say how that went: key, login, latency, system. An error names what fails.

    Args:
        host: its name, from listHosts.
        credential: secret:// reference to a password or private key, instead of the host's own.
    """
    work = await _work(TEST_S, credential)
    return await spoke.state(Linux).endings.run(work.test(host))


@spoke.tool(risk=Risk.destroy, assess=assess, untrusted=True, aliases=("linux.sshExecuteCommand",))
async def ssh_execute_command(
    target_host: str,
    remote_command: str,
    timeout: Seconds = DEFAULT_TIMEOUT_S,  # noqa: ASYNC109 - the caller's own word
    credential: Credential = None,
    secrets: Secrets = None,
) -> RemoteResults:
    """Run a shell line on a listed host, or at the same time on every host with a tag.

    There is no sandbox at the other end. A command that only looks runs at once; one that changes or destroys
    may need approval. At the timeout it is ended there with everything it started. With a tag a failing host
    is reported in its result and costs the others nothing.

    Args:
        target_host: a name from listHosts, or tag:web for all hosts with the tag web.
        remote_command: one line for the login shell there.
        timeout: seconds for the whole call.
        credential: secret:// reference to a password or private key, instead of the host's own.
        secrets: what the command needs besides, e.g. {"DB_PASSWORD": "secret://keepass/db/prod"}, used as
            "$DB_PASSWORD". A command that prints one shows it masked.
    """
    if not remote_command.strip() or "\0" in remote_command:
        raise Invalid("remote_command cannot be empty or hold a null byte")
    work = await _work(timeout, credential)
    return await spoke.state(Linux).endings.run(work.run(target_host, remote_command, secrets or {}))


@spoke.tool(risk=Risk.change, deadline_s=TRANSFER_S + 5)
async def transfer_file(
    host: str,
    direction: Direction,
    local_path: str,
    remote_path: str,
    overwrite: bool = False,
    credential: Credential = None,
) -> Transferred:
    """Copy one file to a listed host (upload) or from it (download), verified by SHA-256.

    The target's name changes only once the copy is proved. With overwrite, what was there is kept.

    Args:
        host: its name, from listHosts.
        direction: upload or download.
        local_path: here, absolute or relative to the workspace.
        remote_path: absolute path there.
        overwrite: replace an existing target.
        credential: secret:// reference to a password or private key, instead of the host's own.
    """
    work = await _work(TRANSFER_S, credential)
    copying = work.transfer(host, direction, local_path, remote_path, overwrite=overwrite)
    return await spoke.state(Linux).endings.run(copying)


async def _work(seconds: float, credential: str | None) -> "Work":
    """SSH loads on first use: it costs a second that nobody else should pay."""
    await asyncio.to_thread(import_module, "linux_cli_mcp.ssh.work")
    from linux_cli_mcp.ssh.work import Work

    return Work(spoke.state(Linux), seconds, credential)


def _exposed(variable: str, reference: str) -> Step:
    """What giving a secret to a command means."""
    return Step(command=f"{variable}={reference}", label="unknown", why="the command could show it")
