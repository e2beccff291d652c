"""What the SSH tools do: test a host, run on one or many, copy a file."""

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager

import asyncssh

from fleetkit import FleetError, Refused, TimedOut
from linux_cli_mcp.hosts import TAG
from linux_cli_mcp.ssh.capture import Keep
from linux_cli_mcp.ssh.connection import Dialer
from linux_cli_mcp.ssh.execution import Remote
from linux_cli_mcp.ssh.models import Direction, HostResult, HostTest, Output, Problem, RemoteResults, Transferred
from linux_cli_mcp.ssh.transfer import Transfer
from linux_cli_mcp.state import Linux

PROBE = "uname -srm; . /etc/os-release 2>/dev/null; echo ${PRETTY_NAME:-unknown}"


class Work:
    """One call: everything in it ends `seconds` after it began."""

    def __init__(self, linux: Linux, seconds: float, credential: str | None) -> None:
        self._linux = linux
        self._dialer = Dialer(linux.hosts, linux.resolver)
        self._credential = credential
        self._until = asyncio.get_running_loop().time() + seconds

    async def test(self, name: str) -> HostTest:
        """How reaching and entering one host goes; raises what fails."""
        host = self._linux.hosts.one(name)
        started = time.monotonic()
        async with self._connected(name) as connection:
            connected = time.monotonic()
            output = await Remote(connection, self._keep(name)).run(PROBE)
            ended = time.monotonic()
            key = connection.get_server_host_key()
        lines = [*output.stdout.splitlines(), "unknown", "unknown"]
        return HostTest(
            host=name,
            address=host.address,
            port=host.port,
            user=host.user,
            host_key=f"{key.get_algorithm()} {key.get_fingerprint()}" if key else "unknown",
            connect_ms=int((connected - started) * 1000),
            round_trip_ms=int((ended - connected) * 1000),
            kernel=lines[0],
            os=lines[1],
        )

    async def run(self, target: str, command: str, secrets: Mapping[str, str]) -> RemoteResults:
        """Run on a host, raising what fails; or on every host of a tag, each answering for itself.

        `secrets` are variables of the command by reference.
        """
        names = self._linux.hosts.select(target)
        if not target.startswith(TAG):
            return _count([_result(target, await self._run_one(target, command, secrets))])
        gate = asyncio.Semaphore(self._linux.options.max_parallel_hosts)

        async def one(name: str) -> HostResult:
            async with gate:
                try:
                    return _result(name, await self._run_one(name, command, secrets))
                except FleetError as error:
                    return HostResult(host=name, ok=False, problem=Problem(code=error.code, message=error.message))

        return _count(await asyncio.gather(*map(one, names)))

    async def transfer(
        self, name: str, direction: Direction, local: str, remote: str, *, overwrite: bool
    ) -> Transferred:
        """Copy one file, verified."""
        linux = self._linux
        (linux.paths.readable if direction == "upload" else linux.paths.writable)(local)  # before anything is dialled
        async with self._connected(name) as connection:
            sftp = await _sftp(name, connection)
            try:
                transfer = Transfer(name, sftp, linux.options.max_transfer_bytes)
                if direction == "upload":
                    return await transfer.upload(linux.paths, local, remote, overwrite=overwrite)
                return await transfer.download(linux.files, remote, local, overwrite=overwrite)
            finally:
                sftp.exit()

    async def _run_one(self, name: str, command: str, secrets: Mapping[str, str]) -> Output:
        async with self._connected(name) as connection:
            values = {
                variable: await self._dialer.value(name, reference, f"secrets.{variable}")
                for variable, reference in secrets.items()
            }
            return await Remote(connection, self._keep(name)).run(command, values)

    def _keep(self, name: str) -> Keep:
        return Keep(self._linux.paths, name, self._linux.options.max_output_bytes)

    @asynccontextmanager
    async def _connected(self, name: str) -> AsyncGenerator[asyncssh.SSHClientConnection]:
        try:
            async with asyncio.timeout_at(self._until), self._dialer.connected(name, self._credential) as connection:
                yield connection
        except TimeoutError as error:
            raise TimedOut(f"{name}: the time is up; a command that was running there was ended") from error


async def _sftp(name: str, connection: asyncssh.SSHClientConnection) -> asyncssh.SFTPClient:
    try:
        return await connection.start_sftp_client()
    except asyncssh.Error as error:
        raise Refused(f"{name} offers no SFTP ({error}): its sshd needs Subsystem sftp internal-sftp") from error


def _result(name: str, output: Output) -> HostResult:
    return HostResult(host=name, ok=output.exit_code == 0, output=output)


def _count(results: list[HostResult]) -> RemoteResults:
    good = sum(result.ok for result in results)
    return RemoteResults(results=results, ok=good, failed=len(results) - good)
