"""One command on several machines at once: each host answers for itself."""

import asyncio
import time

from pydantic import BaseModel, Field

from fleetkit import FleetError, TimedOut
from linux_cli_mcp.ssh.connection import Dialer
from linux_cli_mcp.ssh.execution import Output, Remote


class Problem(BaseModel):
    """Why a host has no output."""

    code: str
    message: str


class HostResult(BaseModel):
    """What one host answered: an output, or a problem."""

    host: str
    ok: bool = Field(description="it ran and ended with 0")
    output: Output | None = None
    problem: Problem | None = None


class RemoteResults(BaseModel):
    """Every host's answer, in the order of the configuration."""

    results: list[HostResult]
    ok: int
    failed: int


class Fleet:
    """Runs commands over `dialer`, at most `parallel` hosts at a time, `limit` bytes kept of each stream."""

    def __init__(self, dialer: Dialer, parallel: int, limit: int) -> None:
        self._dialer = dialer
        self._parallel = parallel
        self._limit = limit

    async def run_one(self, host: str, command: str, credential: str | None, until: float) -> Output:
        """Run on one host; raises TimedOut at `until` (monotonic), everything it started ended there."""
        try:
            async with (
                asyncio.timeout(until - time.monotonic()),
                self._dialer.connected(host, credential) as connection,
            ):
                return await Remote(connection, self._limit).run(command)
        except TimeoutError as error:
            raise TimedOut(f"{host}: the time is up; what the command started there was ended") from error

    async def run_all(self, hosts: list[str], command: str, credential: str | None, until: float) -> RemoteResults:
        """Run on every host; a failing host costs the others nothing."""
        gate = asyncio.Semaphore(self._parallel)

        async def one(host: str) -> HostResult:
            async with gate:
                try:
                    output = await self.run_one(host, command, credential, until)
                except FleetError as error:
                    return HostResult(host=host, ok=False, problem=Problem(code=error.code, message=error.message))
                return HostResult(host=host, ok=output.exit_code == 0, output=output)

        results = await asyncio.gather(*map(one, hosts))
        good = sum(result.ok for result in results)
        return RemoteResults(results=list(results), ok=good, failed=len(results) - good)
