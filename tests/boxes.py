"""The Linux spoke in each of its sandboxes, with secrets planted where no command may see them."""

import os
import tempfile
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support import need

from fleetkit.testing import SpokeClient, running
from linux_cli_mcp import policy, spoke
from linux_cli_mcp.state import Linux

PLANTED = "planted-0f1e2d3c4b5a"

PLACES = (
    *("data/admin.key", "data/keys/root.key", "data/hub.db", "data/fleet.yaml"),
    *("home/.ssh/id_ed25519", "home/.aws/credentials", "home/.kube/config"),
    *("checkout/secrets/db.txt", "checkout/config/fleet.yaml"),
)

# Back end, and whether it may use namespaces (a container often forbids them).
SANDBOXES = [
    pytest.param(("bubblewrap", True), id="bubblewrap", marks=need("bwrap", "bubblewrap")),
    pytest.param(("landlock", True), id="landlock"),
    pytest.param(("landlock", False), id="landlock-without-namespaces"),
]


@dataclass(frozen=True)
class Box:
    """A running spoke, its workspace and the planted files."""

    client: SpokeClient
    data_dir: Path
    workspace: Path
    planted: tuple[Path, ...]

    async def run(self, command: list[str] | str, **arguments: Any) -> dict[str, Any]:
        """The result of runCommand."""
        return await self.client.call("runCommand", command=command, **arguments)

    async def seen(self, command: list[str] | str, **arguments: Any) -> str:
        """Everything a command let out: its streams and the files of the workspace."""
        done = await self.run(command, **arguments)
        files = [path.read_text(errors="replace") for path in self.workspace.rglob("*") if _is_own(path)]
        return "\n".join([done["stdout"], done["stderr"], *files])


def _is_own(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


@contextmanager
def planted(monkeypatch: pytest.MonkeyPatch) -> Generator[tuple[Path, tuple[Path, ...]]]:
    """A data directory with secrets in it and around it; not below /tmp, which every command has for its own."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="fleet-") as name:
        root = Path(os.path.realpath(name))
        places = ("data/admin.key", "data/keys/root.key", "data/hub.db", "data/fleet.yaml", "home/.ssh/id_ed25519")
        places += (
            "home/.aws/credentials",
            "home/.kube/config",
            "checkout/secrets/db.txt",
            "checkout/config/fleet.yaml",
        )
        files = tuple(root / place for place in places)
        for path in files:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(PLANTED)
        monkeypatch.setenv("HOME", str(root / "home"))
        monkeypatch.setattr(policy, "CHECKOUT", root / "checkout")
        yield root / "data", files


@asynccontextmanager
async def box(monkeypatch: pytest.MonkeyPatch, sandbox: tuple[str, bool], **options: Any) -> AsyncGenerator[Box]:
    """The spoke over planted secrets, in one of SANDBOXES."""
    backend, namespaces = sandbox
    with planted(monkeypatch) as (data_dir, files):
        async with running(spoke, data_dir, "os.linux", sandbox=backend, **options) as client:
            spoke.state(Linux).jobs.namespaces = namespaces
            yield Box(client, data_dir, data_dir / "workspace", files)
