"""Shipped workflows in a hub with embedded spokes, run by name as people run them."""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hubs import ALONE, RunningHub, call, in_own_task, running_hub, text_of, write_policy
from sshd import Sshd

from fleetkit.shapes import mapping

SETTINGS: dict[str, Any] = {"workflows": {"poll_s": 0.05}}


@dataclass(frozen=True)
class Shipped:
    """A hub whose operator runs workflows."""

    hub: RunningHub
    rules: Sequence[Mapping[str, Any]]

    async def tool(self, name: str, key: str | None = None, /, **arguments: Any) -> Any:
        """What a tool answered the operator, or who has `key`; an error fails the test."""
        answer = await call(self.hub, name, arguments, key=key or self.hub.admin)
        assert not answer.get("isError"), text_of(answer)
        found = mapping(answer["structuredContent"])
        return found["result"] if set(found) == {"result"} else found

    async def run(self, name: str, /, **inputs: Any) -> Any:
        """A run of a shipped workflow, at its end."""
        found = await self.tool("orchestrator.executeWorkflow", name=name, inputs=inputs, wait_s=50.0)
        assert found["status"] in ("completed", "failed"), found
        return found

    async def approved_run(self, name: str, /, **inputs: Any) -> Any:
        """The same, started by an agent under the shipped rules and approved once, as a whole."""
        async with self.under():
            asked = {"name": name, "inputs": inputs, "wait_s": 50.0}
            held = await call(self.hub, "orchestrator.executeWorkflow", asked)
            await self.tool("master.approve", id=mapping(held["structuredContent"])["approval_id"])
            answer = await call(self.hub, "orchestrator.executeWorkflow", asked)
            return answer["structuredContent"]

    @asynccontextmanager
    async def under(self, *rules: Mapping[str, Any]) -> AsyncGenerator[None]:
        """Other policy rules than usual for the length of a block, before the shipped ones."""
        hub = self.hub.hub
        write_policy(hub.config.data_dir, {"rules": rules})
        await hub.policy.load()
        try:
            yield
        finally:
            write_policy(hub.config.data_dir, {"rules": self.rules})
            await hub.policy.load()

    async def ended(self, run_id: str) -> Any:
        """A run once it has ended."""
        while (found := await self.tool("orchestrator.getWorkflow", id=run_id))["ended_at"] is None:
            await asyncio.sleep(0.02)
        return found

    async def until_waiting(self, run_id: str, step: str) -> Any:
        """A run once a step of its waits for somebody."""
        while True:
            found = await self.tool("orchestrator.getWorkflow", id=run_id)
            if step in {one["step"] for one in found["waits_for"]}:
                return found
            await asyncio.sleep(0.02)


def shipped(
    data_dir: Path,
    server: Sshd,
    rows: Mapping[str, Any],
    hosts: Mapping[str, Mapping[str, Any]],
    rules: Sequence[Mapping[str, Any]] = (),
) -> AbstractAsyncContextManager[Shipped]:
    """A hub over `rows`, and a Linux spoke that reaches `server` under the names of `hosts`, with what they add.

    Policy `rules` come before those under which tests run.
    """
    return in_own_task(_shipped(data_dir, server, rows, hosts, rules))


@asynccontextmanager
async def _shipped(
    data_dir: Path,
    server: Sshd,
    rows: Mapping[str, Any],
    hosts: Mapping[str, Mapping[str, Any]],
    rules: Sequence[Mapping[str, Any]],
) -> AsyncGenerator[Shipped]:
    known = data_dir / "known_hosts"
    data_dir.mkdir(parents=True, exist_ok=True)
    known.write_text(server.known_hosts, encoding="utf-8")
    linux = {"known_hosts": str(known), "hosts": {name: {**server.row, **more} for name, more in hosts.items()}}
    all_rules = [*rules, *ALONE["rules"]]
    policies = {"rules": all_rules}
    async with running_hub(data_dir, {"linux_cli": linux, **rows}, hub=SETTINGS, policies=policies) as hub:
        yield Shipped(hub, all_rules)
