"""A server as a process of this machine: started without a shell, with a scrubbed environment, in a sandbox."""

import asyncio
import json
import os
import shutil
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import orjson

from fleetkit import settings, trust
from fleetkit.errors import Unavailable
from fleetkit.external import ExternalRow
from fleetkit.log import get_logger
from fleetkit.scrub import scrubber
from master_mcp.external import sandbox
from master_mcp.external.hygiene import clean_text
from master_mcp.external.wire import Deliver, Fail, SessionLost
from master_mcp.logfile import LogFile
from master_mcp.proxy.answer import Message, read_message

log = get_logger()

KEEPER = Path(__file__).with_name("keeper.py")
LEAVE_S = 1.0  # to end by itself once its input has ended
GRACE_S = 6.0  # for the keeper to end everything below it
MAX_LINE = 2000  # of its log; a longer line is cut


class Launcher:
    """Starts processes of one server. Its stderr goes to `$FLEET_DATA_DIR/logs/<name>.log`."""

    def __init__(self, name: str, row: ExternalRow, data_dir: Path, limit: int) -> None:
        self.name = name
        self._row = row
        self._data_dir = data_dir
        self._limit = limit
        self._log = LogFile(data_dir / "logs" / f"{name}.log")
        self._checked = False
        self.last_words = ""

    async def start(self, env: Mapping[str, str], deliver: Deliver, fail: Fail) -> "ProcessWire":
        """A running process. Raises Refused without a sandbox, Unavailable when the program cannot be started."""
        command, home = await self._command()
        inherited = settings.environment("PATH", "HOME", "LANG")
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", str(KEEPER), str(os.getpid()), *command),
                env={**inherited, **home, **env},
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                cwd=None if self._row.cwd is None else str(self._row.cwd),
                start_new_session=True,
                limit=self._limit,
            )
        except OSError as error:
            raise Unavailable(f"{self.name} cannot be started: {error.strerror}") from error
        log.info("external.process.started", server=self.name, pid=process.pid)
        return ProcessWire(self, process, deliver, fail)

    def close(self) -> None:
        """Close the log."""
        with self._log:
            pass

    def note(self, line: str) -> None:
        """A line that the server wrote to its stderr, as `fleet logs` reads it."""
        text = clean_text(scrubber.text(line))[:MAX_LINE]
        self.last_words = text.strip() or self.last_words
        entry = {"timestamp": datetime.now(UTC).isoformat(), "level": "info", "service": self.name, "event": text}
        self._log.write(json.dumps(entry) + "\n")

    async def _command(self) -> tuple[list[str], dict[str, str]]:
        """The command line in its sandbox, and what that changes in the environment."""
        row = self._row
        found = shutil.which(row.command[0], path=settings.environment("PATH").get("PATH"))
        if found is None:
            raise Unavailable(f"{self.name} cannot be started: there is no program {row.command[0]!r}: install it")
        program = Path(os.getcwd(), found)  # the link counts: a virtual environment's python is one
        if row.sandbox == "none":
            return [str(program), *row.command[1:]], {}
        bubblewrap = sandbox.bubblewrap()
        if not self._checked:
            await sandbox.check(bubblewrap)
            self._checked = True
        state = trust.private_dir(self._data_dir / "external" / self.name)
        words = sandbox.words(row.sandbox, program, row.cwd, self._data_dir, state)
        return [bubblewrap, *words, "--", str(program), *row.command[1:]], {"HOME": sandbox.HOME, "TMPDIR": "/tmp"}  # noqa: S108


class ProcessWire:
    """One line of JSON per message. See Wire."""

    def __init__(self, launcher: Launcher, process: Process, deliver: Deliver, fail: Fail) -> None:
        self._launcher = launcher
        self._process = process
        self._deliver = deliver
        self._fail = fail
        self._reason = ""
        self._reading = [asyncio.create_task(self._read()), asyncio.create_task(self._read_log())]

    @property
    def pid(self) -> int:
        """The process group."""
        return self._process.pid

    @property
    def open(self) -> bool:
        """See Wire."""
        return self._process.returncode is None and not self._reason

    async def send(self, message: Message) -> None:
        """See Wire."""
        assert self._process.stdin is not None
        if not self.open:
            raise SessionLost(self._reason or self._ended())
        try:
            self._process.stdin.write(orjson.dumps(message) + b"\n")
            await self._process.stdin.drain()
        except (ConnectionError, RuntimeError) as error:
            raise SessionLost(self._ended()) from error

    def forget(self, request_id: object) -> None:
        """See Wire: a late answer is dropped by the session."""

    def agreed(self, version: str) -> None:
        """See Wire: a pipe says no versions."""

    def hear(self) -> None:
        """See Wire: a pipe is always heard."""

    async def close(self) -> None:
        """See Wire: end of input, a moment, SIGTERM to the keeper, SIGKILL to what is left of the group."""
        self._reason = self._reason or f"{self._launcher.name} was stopped"
        assert self._process.stdin is not None
        self._process.stdin.close()
        for number, seconds in ((None, LEAVE_S), (signal.SIGTERM, GRACE_S)):
            if number is not None:
                self._signal(number)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), seconds)
                break
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()
        for task in self._reading:
            task.cancel()
        await asyncio.gather(*self._reading, return_exceptions=True)

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            self._process.send_signal(number)

    def _ended(self) -> str:
        words = f" ({self._launcher.last_words[:200]})" if self._launcher.last_words else ""
        return f"{self._launcher.name} has ended{words}: look at logs/{self._launcher.name}.log"

    async def _read(self) -> None:
        assert self._process.stdout is not None
        try:
            while line := await self._process.stdout.readline():
                if line.strip():
                    await self._deliver(read_message(line, self._launcher.name))
            self._reason = self._reason or self._ended()
        except ValueError:  # what asyncio raises for a line beyond the limit
            self._reason = f"{self._launcher.name} wrote a message larger than the hub takes: its process is ended"
        except Unavailable as error:
            self._reason = f"{error.message}: its process is ended"
        self._fail(None, SessionLost(self._reason))
        self._signal(signal.SIGTERM)

    async def _read_log(self) -> None:
        assert self._process.stderr is not None
        while chunk := await self._process.stderr.read(4096):
            for line in chunk.decode("utf-8", "replace").splitlines():
                self._launcher.note(line)
