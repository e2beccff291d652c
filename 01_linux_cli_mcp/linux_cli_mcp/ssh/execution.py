"""Running a command on another machine so that it can always be ended there.

A signal over the channel and closing it both leave the command running when the login is root. So the
command gets a session of its own and says its number; to end it, a second channel kills that whole group.
"""

import asyncio
import re
import secrets
import shlex
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Protocol

import asyncssh

from fleetkit import Invalid, Unavailable
from linux_cli_mcp.ssh.capture import Capture, Keep
from linux_cli_mcp.ssh.models import Output

KILL_S = 5
CHUNK = 64 * 1024

# In the background, so that setsid never forks away from the process we wait for (also with busybox).
_WRAP = """setsid sh -c 'echo "$1 $$"; exec "${SHELL:-/bin/sh}" -c "$2"' fleet "$1" "$2" & wait $!"""
# Values come over standard input: no list of processes shows them. `cat` ends where we end it.
_WRAP_WITH_VALUES = f'eval "$(cat)"; {_WRAP}'
# Spelled as POSIX has it: dash knows no `kill -TERM -- -1`.
_KILL = """kill -s TERM -- "-$1" 2>/dev/null
for i in 1 2 3 4 5 6 7 8 9 10; do kill -s 0 -- "-$1" 2>/dev/null || exit 0; sleep 0.1; done
kill -s KILL -- "-$1" 2>/dev/null"""


class Reader(Protocol):
    """A stream of the remote process."""

    async def read(self, n: int = -1) -> bytes:
        """Up to `n` bytes, empty at the end."""
        ...


class Remote:
    """One command under way on `connection`."""

    def __init__(self, connection: asyncssh.SSHClientConnection, keep: Keep) -> None:
        self._connection = connection
        self._mark = f"fleet-{secrets.token_hex(8)}"
        self._group: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._early = b""
        self.stdout = Capture(keep, "stdout")
        self.stderr = Capture(keep, "stderr")

    async def run(self, command: str, values: Mapping[str, str] | None = None) -> Output:
        """Run to the end, with `values` in its environment. Left early, nothing of it keeps running there.

        Raises Unavailable when the connection breaks: then what the command did is unknown.
        """
        started = time.monotonic()
        creating = asyncio.ensure_future(self._create(command, values or {}))
        try:
            process = await asyncio.shield(creating)
            await asyncio.gather(self._read_output(process.stdout), self._read_errors(process.stderr))
            await process.wait_closed()
        except (asyncssh.Error, OSError) as error:
            raise Unavailable(f"the connection broke ({error}): what the command did is unknown") from error
        except BaseException:
            await asyncio.shield(self._end(creating))
            raise
        finally:
            self.stdout.close()
            self.stderr.close()
        return self._output(process.exit_status, started)

    async def _create(self, command: str, values: Mapping[str, str]) -> "asyncssh.SSHClientProcess[bytes]":
        wrap = _WRAP_WITH_VALUES if values else _WRAP
        line = shlex.join(["sh", "-c", wrap, "fleet", self._mark, command])
        if not values:
            return await self._connection.create_process(line, encoding=None, stdin=asyncssh.DEVNULL)
        return await self._connection.create_process(line, encoding=None, input=_exports(values))

    async def _read_output(self, stream: Reader) -> None:
        """Everything behind the line that says the group; a greeting of the login shell comes before it."""
        while not self._group.done() and (data := await stream.read(CHUNK)):
            self._early += data
            if found := re.search(rb"%s (\d+)\n" % self._mark.encode(), self._early):
                self._group.set_result(int(found.group(1)))
                self.stdout.add(self._early[found.end() :])
        while data := await stream.read(CHUNK):
            self.stdout.add(data)

    async def _read_errors(self, stream: Reader) -> None:
        while data := await stream.read(CHUNK):
            self.stderr.add(data)

    async def _end(self, creating: "asyncio.Future[asyncssh.SSHClientProcess[bytes]]") -> None:
        """Kill the whole group over a second channel; waits for its number when that is still to come."""
        with suppress(asyncssh.Error, OSError, TimeoutError):
            async with asyncio.timeout(KILL_S):
                process = await creating
                if not self._group.done():
                    reading = asyncio.ensure_future(self._read_output(process.stdout))
                    await asyncio.wait({reading, self._group}, return_when=asyncio.FIRST_COMPLETED)
                    reading.cancel()
                if self._group.done():
                    number = str(self._group.result())
                    await self._connection.run(shlex.join(["sh", "-c", _KILL, "fleet", number]))

    def _output(self, status: int | None, started: float) -> Output:
        if status is None:
            raise Unavailable("the connection broke before the command ended: what it did is unknown")
        if not self._group.done():
            raise Unavailable(f"the command could not get a session of its own there: {self.stderr.text.strip()}")
        return Output(
            exit_code=status,
            stdout=self.stdout.text,
            stderr=self.stderr.text,
            truncated=bool(self.stdout.dropped or self.stderr.dropped),
            stdout_file=self.stdout.file,
            stderr_file=self.stderr.file,
            bytes_total=self.stdout.total + self.stderr.total,
            duration_ms=int((time.monotonic() - started) * 1000),
        )


def _exports(values: Mapping[str, str]) -> bytes:
    """Shell lines that put values into the environment; raises Invalid for a value that it cannot hold."""
    unfit = [name for name, value in values.items() if "\0" in value]
    if unfit:
        raise Invalid(f"the value of {', '.join(unfit)} has a null byte, which no environment can hold")
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in values.items()).encode()
