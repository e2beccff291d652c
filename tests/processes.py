"""Real processes for tests: started, known to be ready by what they print, ended by their own pid."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hubs import write_rows

CHECKOUT = Path(__file__).resolve().parent.parent
READY_WITHIN_S = 45.0

Line = dict[str, Any]


class Process:
    """A program that writes one JSON object per line; every line is kept."""

    def __init__(self, *argv: str, env: Mapping[str, str]) -> None:
        self._lines: list[Line] = []
        self._noise: list[str] = []
        self._news = threading.Condition()
        self._process = subprocess.Popen(
            argv, env=dict(env), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=CHECKOUT
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def _read(self) -> None:
        assert self._process.stdout is not None
        for text in self._process.stdout:
            with self._news:
                if text.startswith("{"):
                    self._lines.append(json.loads(text))
                else:
                    self._noise.append(text)
                self._news.notify_all()
        with self._news:
            self._news.notify_all()

    @property
    def printed(self) -> int:
        """How many JSON lines there are so far."""
        return len(self._lines)

    def last(self, lines: int) -> list[Line]:
        """The last JSON lines, to say what happened."""
        return self._lines[-lines:]

    def until(self, wanted: Callable[[Line], bool], after: int = 0) -> Line:
        """The first line that `wanted` accepts, from line number `after` on, waited for.

        Fails with all output when it does not come.
        """

        def found() -> Line | None:
            return next((line for line in self._lines[after:] if wanted(line)), None)

        with self._news:
            self._news.wait_for(lambda: found() or self._process.poll() is not None, READY_WITHIN_S)
            line = found()
        assert line is not None, f"not printed by {self._process.args}: {self._noise[-40:]} {self._lines[-10:]}"
        return line

    def first_text(self) -> str:
        """The first line that is not JSON, waited for."""
        with self._news:
            self._news.wait_for(lambda: self._noise or self._process.poll() is not None, READY_WITHIN_S)
            assert self._noise, f"nothing printed by {self._process.args}"
            return self._noise[0].rstrip("\n")

    def stop(self) -> int:
        """End it with SIGTERM; its exit code."""
        self._process.terminate()
        return self._wait()

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def ended(self) -> int:
        """Wait for its own end; its exit code."""
        return self._wait()

    def kill(self) -> None:
        """End it with SIGKILL, as a power cut would."""
        self._process.kill()
        self._wait()

    def _wait(self) -> int:
        code = self._process.wait(READY_WITHIN_S)
        self._reader.join(READY_WITHIN_S)
        assert self._process.stdout is not None
        self._process.stdout.close()
        return code


@contextmanager
def running(*argv: str, env: Mapping[str, str] | None = None) -> Generator[Process]:
    """`argv` as a process for the length of a block."""
    process = Process(*argv, env=env if env is not None else plain_environment())
    try:
        yield process
    finally:
        process.stop()


def plain_environment() -> dict[str, str]:
    """What a child needs of this environment, and nothing of the fleet's settings."""
    wanted = ("PATH", "HOME", "LANG", "TMPDIR", "COVERAGE_PROCESS_CONFIG")
    return {name: os.environ[name] for name in wanted if name in os.environ}


@dataclass(frozen=True)
class Program:
    """A helper program under `tests/` and the port it printed."""

    process: Process
    port: int

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def program(path: str, *arguments: str) -> Generator[Program]:
    """`python tests/<path> <arguments>`, which prints `{"port": ...}` when it listens."""
    with running(sys.executable, str(CHECKOUT / "tests" / path), *arguments) as process:
        yield Program(process, int(process.until(lambda line: "port" in line)["port"]))


class Hub:
    """The hub as a process on a data directory of its own; it can be restarted on the same port."""

    program = CHECKOUT / "00_master_mcp" / "mcp_server.py"
    environment: Mapping[str, str] = {}

    def __init__(self, data_dir: Path, spokes: Mapping[str, Mapping[str, Any]], settings: Mapping[str, Any]) -> None:
        self.data_dir = data_dir
        self.port = 0
        self._remote = [name for name, row in spokes.items() if "url" in row]
        write_rows(data_dir, spokes, settings)
        self.process = self._start()

    def _start(self) -> Process:
        env = plain_environment() | {"FLEET_DATA_DIR": str(self.data_dir), "FLEET_HUB__PORT": str(self.port)}
        process = Process(sys.executable, str(self.program), env=env | dict(self.environment))
        self.port = int(process.until(lambda line: line["event"] == "hub.started")["port"])
        for name in self._remote:
            process.until(lambda line, name=name: line["event"] == "spoke.healthy" and line["spoke"] == name)
        return process

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"http://127.0.0.1:{self.port}"

    def key(self, which: str) -> str:
        """The key in `admin.key` or `client.key`."""
        return (self.data_dir / f"{which}.key").read_text(encoding="utf-8").strip()

    def restart(self) -> None:
        """Kill it and start it again on the same port and data."""
        self.process.kill()
        self.process = self._start()

    def stop(self) -> int:
        """End it; its exit code."""
        return self.process.stop()


@contextmanager
def hub(data_dir: Path, spokes: Mapping[str, Mapping[str, Any]], **settings: Any) -> Generator[Hub]:
    """A hub with the shipped spokes off and `spokes` on, ready for calls."""
    found = Hub(data_dir, spokes, settings)
    try:
        yield found
    finally:
        found.stop()


def row_of(server: Program) -> dict[str, Any]:
    """A row of fleet.yaml for the conformance fixture: a server that is not of this fleet."""
    return {"number": 90, "namespace": "conformance", "names": "verbatim", "url": server.url}
