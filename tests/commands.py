"""The `fleet` command as people run it: a process with its own exit code and output."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from processes import plain_environment

FLEET = str(Path(sys.executable).with_name("fleet"))


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        """Its output as JSON."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[str]:
        """Its output line by line, each without the padding of its table."""
        return [line.strip() for line in self.out.splitlines()]


@dataclass(frozen=True)
class Fleet:
    """`fleet` on one data directory, with the hub at one port."""

    data_dir: Path
    port: int = 1  # nobody answers there

    def env(self, **more: str) -> dict[str, str]:
        """The environment of a command."""
        own = {"FLEET_DATA_DIR": str(self.data_dir), "FLEET_HUB__PORT": str(self.port), "NO_COLOR": "1"}
        return plain_environment() | own | more

    def run(self, *words: str, stdin: str = "", **env: str) -> Done:
        """One command to its end."""
        done = subprocess.run(
            [FLEET, *words], input=stdin, capture_output=True, text=True, env=self.env(**env), timeout=50, check=False
        )
        return Done(done.returncode, done.stdout, done.stderr)
