"""Starting and ending the processes of a benchmark: only ones started here, each by its own pid."""

import os
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

STARTS_WITHIN_S = 60.0
STOPS_WITHIN_S = 15.0
_POLL_S = 0.01


class Failed(Exception):
    """The benchmark cannot go on; the message says why."""


class Process:
    """A child process whose output goes to a file."""

    def __init__(self, argv: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> None:
        self._log = log
        self.started = time.perf_counter()
        with log.open("ab") as out:
            self._child = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env={**_inherited(), **(environment or {})}
            )
        self.pid = self._child.pid

    def wait_until(self, good: Callable[[], bool]) -> float:
        """Seconds from the start until `good` holds; raises Failed with the end of its log when it does not."""
        while not good():
            if self._child.poll() is not None or time.perf_counter() - self.started > STARTS_WITHIN_S:
                self.stop()
                raise Failed(f"{self._child.args} did not come up:\n{self._log.read_text(errors='replace')[-2000:]}")
            time.sleep(_POLL_S)
        return time.perf_counter() - self.started

    def stop(self) -> None:
        """End it, by force when it does not go."""
        self._child.terminate()
        try:
            self._child.wait(STOPS_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()


def free_port(first: int = 0) -> int:
    """A free loopback port: any, or the first one from `first` on."""
    for port in range(first, first + 30) if first else [0]:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise Failed(f"no free port from {first} on")


def _inherited() -> dict[str, str]:
    """The environment without what could change the fleet under test."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("FLEET_", "FASTMCP_"))}
