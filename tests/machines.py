"""Several machines for tests of workflows: one sshd for each, on each of which one folder is another one."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hubs import ALONE, RunningHub, call, in_own_task, running_hub
from sshd import Sshd, needs_sshd, sshd
from support import free_port, need

needs_machines = [needs_sshd, need("bwrap", "bubblewrap")]
TAG = "web"
ENDED = ("completed", "failed", "cancelled")


@dataclass(frozen=True)
class Machines:
    """Running machines. What is at `place` on a machine, is here in `folders` under its name."""

    place: Path
    folders: dict[str, Path]
    servers: dict[str, Sshd]

    @property
    def row(self) -> dict[str, Any]:
        """The row of the Linux spoke that reaches them by name or tag; nobody listens at `dead`."""
        hosts: dict[str, Any] = {name: server.row | {"tags": [TAG]} for name, server in self.servers.items()}
        dead = next(iter(self.servers.values())).row | {"port": free_port()}
        return {"hosts": hosts | {"dead": dead}}

    @property
    def known_hosts(self) -> str:
        """Their lines for a known_hosts file."""
        return "".join(server.known_hosts for server in self.servers.values())

    def holding(self, name: str) -> set[str]:
        """The machines that have that file."""
        return {machine for machine, folder in self.folders.items() if (folder / name).exists()}


@contextmanager
def machines(root: Path, *names: str) -> Generator[Machines]:
    """Machines of these names; each finds its own in the file `name` at its place."""
    place = root.resolve() / "place"
    place.mkdir()
    folders = {name: root.resolve() / name for name in names}
    servers: dict[str, Sshd] = {}
    with ExitStack() as stack:
        for name, folder in folders.items():
            folder.mkdir()
            (folder / "name").write_text(f"{name}\n")
            view = ["bwrap", "--dev-bind", "/", "/", "--bind", folder, place, "--cap-add", "ALL", "--die-with-parent"]
            servers[name] = stack.enter_context(sshd(root / "sshd" / name, within=view))
        yield Machines(place, folders, servers)


@dataclass(frozen=True)
class Site:
    """A hub that reaches machines and has a CMDB; `other` is the key of a second operator."""

    hub: RunningHub
    machines: Machines
    other: str

    async def call(self, tool: str, key: str | None = None, /, **arguments: Any) -> Any:
        """The structured answer of a tool, an error's too; as the operator unless a key is given."""
        found = (await call(self.hub, tool, arguments, key=key or self.hub.admin))["structuredContent"]
        return found["result"] if set(found) == {"result"} else found

    async def run(self, name: str, /, *, wait_s: float = 50.0, **inputs: Any) -> Any:
        """A shipped workflow, run to its end or for so many seconds; or why it did not begin."""
        return await self.call("orchestrator.executeWorkflow", name=name, inputs=inputs, wait_s=wait_s)

    async def until(self, run_id: str, holds: Callable[[Any], bool]) -> Any:
        """A run once that holds of it; the test's own time limit ends the waiting."""
        while True:
            run = await self.call("orchestrator.getWorkflow", id=run_id)
            if holds(run):
                return run
            assert run["status"] not in ENDED, run
            await asyncio.sleep(0.1)


def running_site(root: Path, *names: str, rules: Sequence[Any] = ()) -> AbstractAsyncContextManager[Site]:
    """A hub over machines of these names; its files are below `root`, `rules` come before scopes alone decide."""
    return in_own_task(_running(root, names, rules))


@asynccontextmanager
async def _running(root: Path, names: tuple[str, ...], rules: Sequence[Any]) -> AsyncGenerator[Site]:
    data = root / "data"
    data.mkdir()
    with machines(root, *names) as found:
        (data / "known_hosts").write_text(found.known_hosts)
        rows = {"linux_cli": found.row, "cmdb": {"seed_example": False}}
        policies = {"rules": [*rules, *ALONE["rules"]]}
        async with running_hub(data, rows, {"workflows": {"poll_s": 0.05}}, policies) as hub:
            yield Site(hub, found, hub.hub.keys.create("other", "operator")[1])
