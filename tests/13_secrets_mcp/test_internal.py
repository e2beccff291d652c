"""Resolving across processes, over real HTTP. The hub is stood in for by a door that only signs grants."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hubs import in_own_task, listening
from vaults import AGENT, OTHER, WEB1, Outcomes

from fleetkit import Spoke, correlation, http, trust
from fleetkit.correlation import Context
from fleetkit.errors import FleetError, Invalid, NotFound, Refused
from fleetkit.risk import Risk
from fleetkit.scrub import MASK, scrubber
from fleetkit.secrets import (
    GRANT_PATH,
    RESOLVE_PATH,
    TOKEN_HEADER,
    Resolver,
    SecretRef,
    Use,
    grant_for,
    make_grant,
)
from fleetkit.server import SpokeServer
from fleetkit.spoke import Setting, SpokeOptions
from secrets_mcp import spoke

SECRETS, LINUX, CMDB = "fst_secrets", "fst_linux", "fst_cmdb"
TOKENS = {f"Bearer {LINUX}": ("linux_cli", LINUX), f"Bearer {CMDB}": ("cmdb", CMDB)}
REF = "secret://keepass/ssh/web1"
TOOL = "os.linux.sshExecuteCommand"


def serving(server: SpokeServer) -> AbstractAsyncContextManager[str]:
    """The server on a loopback port of its own; yields its URL."""

    async def app(scope: Any, receive: Any, send: Any) -> None:  # uvicorn takes a bound method for ASGI 2
        await server.app(scope, receive, send)

    return listening(app)


@dataclass
class Fleet:
    """The secrets service and the signing door, each at its URL."""

    secrets_url: str
    hub_url: str

    def resolver(self, name: str = "linux_cli", token: str = LINUX) -> Resolver:
        return Resolver(name, Setting(Path("/nonexistent"), SpokeOptions(), token, self.hub_url, embedded=False))

    async def post(self, grant: object, token: str | None = LINUX, **headers: str) -> dict[str, Any]:
        presented = headers | ({TOKEN_HEADER: token} if token is not None else {})
        return await http.post_json(self.secrets_url + RESOLVE_PATH, {"grant": grant}, presented)


@asynccontextmanager
async def secrets_service(tmp_path: Path, database: Path, password_file: Path) -> AsyncGenerator[str]:
    options = spoke.read_options({"keepass_path": database, "keepass_password_file": password_file})
    setting = Setting(tmp_path / "data", options, SECRETS, "http://127.0.0.1:1", embedded=False)
    server = SpokeServer(spoke, "secrets", setting)
    async with server.running(), serving(server) as url:
        yield url


@asynccontextmanager
async def running_fleet(*where: Path) -> AsyncGenerator[Fleet]:
    async with secrets_service(*where) as url:
        door = Spoke("door")

        @door.http("POST", GRANT_PATH, open=True)
        async def grant(body: Mapping[str, Any], headers: Mapping[str, str]) -> Mapping[str, Any]:  # pyright: ignore[reportUnusedFunction]
            if headers.get("authorization") not in TOKENS:
                raise Refused("no spoke of this fleet")
            name, token = TOKENS[headers["authorization"]]
            return {"grant": grant_for(body, name, token, SECRETS), "url": url}

        setting = Setting(where[0] / "door", SpokeOptions(), "fst_door", "", embedded=False)
        server = SpokeServer(door, "door", setting)
        async with server.running(), serving(server) as hub_url:
            yield Fleet(url, hub_url)


@pytest.fixture
async def fleet(tmp_path: Path, database: Path, password_file: Path) -> AsyncGenerator[Fleet]:
    async with in_own_task(running_fleet(tmp_path, database, password_file)) as running:
        yield running


def in_call(token: str = LINUX, tool: str = TOOL) -> Any:
    """Inside a call of the agent that the hub signed for the spoke with `token`."""
    cid = correlation.new_id()
    allowance = trust.Allowance(AGENT, tool, trust.canonical_hash({}), Risk.change, cid)
    return correlation.bound(Context(cid, AGENT, tool, allowance.signed(token, 60)))


def use(**changed: Any) -> Use:
    facts: dict[str, Any] = {
        "reference": SecretRef.parse(REF),
        "caller": AGENT,
        "spoke": "linux_cli",
        "tool": TOOL,
        "argument": "credential",
        "destination": "web1",
        "correlation_id": "c" * 32,
    }
    return Use(**(facts | changed))


async def test_a_spoke_in_its_own_process_gets_the_value_and_masks_it(fleet: Fleet, outcomes: Outcomes) -> None:
    with in_call():
        assert await fleet.resolver().resolve(REF, argument="credential", destination="web1") == WEB1
    assert scrubber.text(WEB1) == MASK
    assert outcomes() == [("resolve", REF, "allowed")]


async def test_the_secrets_service_masks_what_it_handed_out_too(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrubber, "_values", {})
    monkeypatch.setattr(scrubber, "_matcher", None)
    await fleet.post(make_grant(use(), LINUX, SECRETS))
    assert scrubber.text(WEB1) == MASK


async def test_the_policy_holds_across_processes(fleet: Fleet, outcomes: Outcomes) -> None:
    with in_call(), pytest.raises(Refused, match="argument"):
        await fleet.resolver().resolve(REF, argument="command", destination="web1")
    with in_call(CMDB, "cmdb.importCsv"), pytest.raises(Refused, match="spoke"):
        await fleet.resolver("cmdb", CMDB).resolve(REF, argument="credential", destination="web1")
    assert [row[2] for row in outcomes()] == ["refused", "refused"]


async def test_errors_keep_their_kind_across_processes(fleet: Fleet) -> None:
    with in_call():
        with pytest.raises(NotFound):
            await fleet.resolver().resolve(f"{REF}x", argument="credential", destination="web1")
        with pytest.raises(Invalid):
            await fleet.resolver().resolve("hunter2", argument="credential", destination="web1")


async def test_a_context_that_was_signed_for_another_spoke_gets_no_grant(fleet: Fleet) -> None:
    with in_call(LINUX), pytest.raises(Refused):
        await fleet.resolver("cmdb", CMDB).resolve(REF, argument="credential", destination="web1")


async def test_a_grant_works_once(fleet: Fleet) -> None:
    grant = make_grant(use(), LINUX, SECRETS)
    assert await fleet.post(grant) == {"value": WEB1}
    with pytest.raises(Refused, match="used already"):
        await fleet.post(grant)


async def test_a_used_grant_stays_used_after_a_restart(tmp_path: Path, database: Path, password_file: Path) -> None:
    grant = make_grant(use(), LINUX, SECRETS)
    async with secrets_service(tmp_path, database, password_file) as url:
        assert await Fleet(url, "").post(grant) == {"value": WEB1}
    async with secrets_service(tmp_path, database, password_file) as url:
        with pytest.raises(Refused, match="used already"):
            await Fleet(url, "").post(grant)


async def test_a_grant_used_eight_times_at_once_gives_one_value(fleet: Fleet) -> None:
    grant = make_grant(use(), LINUX, SECRETS)
    ends = await asyncio.gather(*(fleet.post(grant) for _ in range(8)), return_exceptions=True)
    assert ends.count({"value": WEB1}) == 1
    assert sum(isinstance(end, Refused) for end in ends) == 7


@pytest.mark.parametrize("token", [CMDB, SECRETS, "x", LINUX.upper()])
async def test_a_stolen_grant_is_refused_and_not_used_up(fleet: Fleet, token: str) -> None:
    grant = make_grant(use(), LINUX, SECRETS)
    with pytest.raises(Refused, match="another spoke"):
        await fleet.post(grant, token)
    assert await fleet.post(grant) == {"value": WEB1}


async def test_a_grant_without_a_token_is_refused(fleet: Fleet) -> None:
    with pytest.raises(Invalid, match=TOKEN_HEADER):
        await fleet.post(make_grant(use(), LINUX, SECRETS), None)


@pytest.mark.parametrize("grant", [None, 7, True, ["x"], {"grant": "x"}])
async def test_a_token_without_a_grant_is_refused(fleet: Fleet, grant: object) -> None:
    with pytest.raises(Invalid, match=TOKEN_HEADER):
        await fleet.post(grant)


@pytest.mark.parametrize(
    "forge",
    [
        lambda: make_grant(use(), LINUX, LINUX),
        lambda: make_grant(use(), LINUX, SECRETS, ttl_s=-1),
        lambda: make_grant(use(), LINUX, SECRETS).replace(".", "A.", 1),
        lambda: make_grant(use(), LINUX, SECRETS) + "0",
        lambda: trust.sign({"exp": 9e9}, SECRETS, "allow"),
        lambda: "",
        lambda: ".",
        lambda: "ä.ö",
    ],
)
async def test_a_forged_or_old_grant_is_refused(fleet: Fleet, forge: Callable[[], str]) -> None:
    with pytest.raises(Refused):
        await fleet.post(forge())


async def test_the_service_token_alone_opens_nothing(fleet: Fleet) -> None:
    with pytest.raises(FleetError):
        await fleet.post("", SECRETS, authorization=f"Bearer {SECRETS}")


async def test_no_other_door_is_open_without_the_service_token(fleet: Fleet) -> None:
    for path in ("/mcp", "/internal/other", "/metrics"):
        with pytest.raises(Refused, match="only its hub"):
            await http.post_json(fleet.secrets_url + path, {}, {TOKEN_HEADER: LINUX})


async def test_a_lease_of_another_key_is_not_found_across_processes(fleet: Fleet, lease_of: Any) -> None:
    lease = await lease_of(AGENT)
    assert await fleet.post(make_grant(use(reference=lease), LINUX, SECRETS)) == {"value": WEB1}
    lease = await lease_of(AGENT)
    with pytest.raises(NotFound):
        await fleet.post(make_grant(use(reference=lease, caller=OTHER), LINUX, SECRETS))


@pytest.fixture
def lease_of(fleet: Fleet) -> Callable[..., Awaitable[SecretRef]]:
    from secrets_mcp.vault import Vault

    async def leased(caller: correlation.Caller) -> SecretRef:
        row = await spoke.state(Vault).records.add_lease(SecretRef.parse(REF), caller, 60, 1)
        return SecretRef("lease", row.id)

    return leased
