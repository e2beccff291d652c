"""Client -> hub -> a spoke in its own process -> the hub's grant -> this service, all over real HTTP."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hubs import RunningHub, ask, call, in_own_task, listening, running_hub, settle
from pydantic import BaseModel
from vaults import WEB1, Outcomes

from fleetkit import Risk, Setting, Spoke, SpokeOptions, trust
from fleetkit.scrub import MASK
from fleetkit.secrets import Resolver
from fleetkit.server import SpokeServer
from secrets_mcp import spoke

REF = "secret://keepass/ssh/web1"


class Login(BaseModel):
    """What the login tool found, and what it carelessly says."""

    digest: str
    banner: str


@dataclass
class Chain:
    """The running parts. `hub_url` is told to the using spoke once the hub listens."""

    data_dir: Path
    hub_url: str = ""
    hub: RunningHub | None = None
    tokens: dict[str, str] = field(default_factory=dict[str, str])

    def setting(self, name: str, options: SpokeOptions) -> Setting:
        token = trust.KeyRing(self.data_dir).service_token(name)
        return Setting(self.data_dir / name, options, token, self.hub_url, embedded=False)

    async def login(self, credential: str, **rest: Any) -> Mapping[str, Any]:
        assert self.hub is not None
        arguments = {"host": "web1", "credential": credential}
        return await call(self.hub, "os.linux.sshLogin", arguments, **rest)

    async def secrets(self, tool: str, arguments: Mapping[str, Any], **rest: Any) -> Mapping[str, Any]:
        assert self.hub is not None
        return await call(self.hub, f"secrets.{tool}", arguments, **rest)


def login_spoke(chain: Chain) -> Spoke:
    """A stand-in for the Linux spoke with one tool that uses a credential."""
    linux = Spoke("linux_cli")

    @linux.tool(risk=Risk.change)
    async def ssh_login(host: str, credential: str) -> Login:  # pyright: ignore[reportUnusedFunction]
        """Log in and say too much about it."""
        resolver = Resolver("linux_cli", chain.setting("linux_cli", SpokeOptions()))
        value = await resolver.resolve(credential, argument="credential", destination=host)
        return Login(digest=hashlib.sha256(value.encode()).hexdigest(), banner=f"welcome, {value}")

    return linux


def at_port(server: SpokeServer) -> AbstractAsyncContextManager[str]:
    async def app(scope: Any, receive: Any, send: Any) -> None:  # uvicorn takes a bound method for ASGI 2
        await server.app(scope, receive, send)

    return listening(app)


@asynccontextmanager
async def running_chain(tmp_path: Path, options: SpokeOptions) -> AsyncGenerator[Chain]:
    chain = Chain(tmp_path / "hub")
    vault = SpokeServer(spoke, "secrets", chain.setting("secrets", options))
    linux = SpokeServer(login_spoke(chain), "os.linux", chain.setting("linux_cli", SpokeOptions()))
    async with vault.running(), linux.running(), at_port(vault) as secrets_url, at_port(linux) as linux_url:
        rows = {
            "secrets": {"number": 13, "namespace": "secrets", "url": secrets_url},
            "linux_cli": {"number": 1, "namespace": "os.linux", "url": linux_url},
        }
        async with running_hub(chain.data_dir, rows) as hub:
            await settle(hub, "secrets", "linux_cli")
            chain.hub, chain.hub_url = hub, hub.url
            yield chain


@pytest.fixture
async def chain(tmp_path: Path, database: Path, password_file: Path) -> AsyncGenerator[Chain]:
    options = spoke.read_options({"keepass_path": database, "keepass_password_file": password_file})
    async with in_own_task(running_chain(tmp_path, options)) as running:
        yield running


@pytest.fixture
def outcomes(tmp_path: Path, outcomes_in: Any) -> Outcomes:
    return outcomes_in(tmp_path / "hub" / "secrets")


async def test_an_agent_uses_a_secret_it_never_sees(chain: Chain, outcomes: Outcomes) -> None:
    result = await chain.login(REF)
    answer = result["structuredContent"]
    assert answer["digest"] == hashlib.sha256(WEB1.encode()).hexdigest()
    assert answer["banner"] == f"welcome, {MASK}"
    assert WEB1 not in str(result)
    assert outcomes() == [("resolve", REF, "allowed")]


async def test_a_lease_taken_through_the_hub_works_once_through_the_hub(chain: Chain) -> None:
    leased = (await chain.secrets("leaseSecret", {"reference": REF}))["structuredContent"]
    assert not (await chain.login(leased["reference"])).get("isError")
    again = await chain.login(leased["reference"])
    assert again["isError"]
    assert (again["structuredContent"]["code"], "used_up" in again["structuredContent"]["message"]) == ("refused", True)


async def test_a_lease_of_one_key_is_worth_nothing_to_another(chain: Chain) -> None:
    assert chain.hub is not None
    leased = (await chain.secrets("leaseSecret", {"reference": REF}))["structuredContent"]
    stolen = await chain.login(leased["reference"], key=chain.hub.admin)
    assert stolen["structuredContent"]["code"] == "not_found"


async def test_what_no_rule_allows_is_refused_with_the_reason(chain: Chain, outcomes: Outcomes) -> None:
    refused = await chain.login("secret://keepass/db/prod")
    assert refused["structuredContent"]["code"] == "refused"
    assert "spokes.secrets.rules" in refused["structuredContent"]["message"]
    assert outcomes() == [("resolve", "secret://keepass/db/prod", "refused")]


async def test_the_refusal_is_explained_as_it_happens(chain: Chain) -> None:
    asked = {"spoke_name": "linux_cli", "tool": "os.linux.sshLogin", "argument": "credential", "destination": "web1"}
    for reference, allowed in ((REF, True), ("secret://keepass/db/prod", False)):
        told = await chain.secrets("explainPolicy", asked | {"reference": reference})
        done = await chain.login(reference)
        assert told["structuredContent"]["allowed"] is allowed
        assert bool(done.get("isError")) is not allowed


async def test_many_logins_at_once_each_get_their_own_grant(chain: Chain, outcomes: Outcomes) -> None:
    results = await asyncio.gather(*(chain.login(REF) for _ in range(16)))
    assert not [result for result in results if result.get("isError")]
    assert outcomes() == [("resolve", REF, "allowed")] * 16


async def test_every_step_carries_one_correlation_id(chain: Chain, correlation_ids: Any) -> None:
    await chain.login(REF)
    assert chain.hub is not None
    assert correlation_ids(chain.data_dir / "secrets") == [chain.hub.audit_rows()[-1]["correlation_id"]]


async def test_the_hub_shows_no_internal_door_of_a_spoke(chain: Chain) -> None:
    assert chain.hub is not None
    _, answer = await ask(chain.hub, "tools/list")
    listed = {tool["name"] for tool in answer["result"]["tools"]}
    assert {"secrets_leaseSecret", "secrets_getSecret", "os_linux_sshLogin"} <= listed
    assert not [name for name in listed if "resolve" in name.lower() or "internal" in name.lower()]
