"""Webhooks: who knows the secret starts the workflow, each message once; nobody else starts anything."""

import asyncio
import hmac
import secrets
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
import pytest_asyncio
from flows import SETTINGS, Flows, flow, running_flows, step
from gateways import Answered, Gateway

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECRET = "a shared secret of some length"
TEXT = {"text": {"type": "string"}}
INPUTS = {"text": "${ .body.event.text }"}


@dataclass
class Hooks:
    """A hub with workflows that webhooks start, and whoever sends to them."""

    flows: Flows
    hub: Gateway
    folder: Path

    async def saved(self, name: str, key: str | None = None, **webhook: Any) -> str:
        """A workflow of that name that looks at what was posted, saved by the operator unless a key is given."""
        (self.folder / "hook.secret").write_text(f"{SECRET}\n", encoding="utf-8")
        hook = {"secretFile": str(self.folder / "hook.secret"), "inputs": INPUTS, **webhook}
        written = flow(step("a", params={"text": "${ .input.text }"}), name=name, input=TEXT, webhook=hook)
        done = await self.hub.post("/workflows/definitions", {"definition": written}, key=key)
        assert done.status == 200, done.body
        return name

    async def send(self, name: str, body: bytes, **headers: str | None) -> Answered:
        """Post a message that is signed well, unless headers (`timestamp`, `nonce`, `signature`) say otherwise."""
        sent: dict[str, str | None] = {"timestamp": str(int(time.time())), "nonce": secrets.token_hex(8), **headers}
        sent.setdefault("signature", signed(f"{sent['timestamp']}.{sent['nonce']}.", body))
        named = {f"X-Fleet-{key.title()}": value for key, value in sent.items() if value is not None}
        headers_ = {"Content-Type": "application/json", **named}
        return await self.hub.send("POST", f"/hooks/{name}", key="", data=body, headers=headers_)

    async def runs(self, name: str) -> list[Any]:
        """Every run of a workflow."""
        return (await self.hub.get(f"/workflows/runs?name={name}")).body["runs"]


def signed(head: str, body: bytes, secret: str = SECRET) -> str:
    """The signature of a message, as its documentation says."""
    return "sha256=" + hmac.new(secret.encode(), head.encode() + body, "sha256").hexdigest()


def message(text: str, **more: Any) -> bytes:
    """A body."""
    return orjson.dumps({"event": {"text": text}, **more})


# A process has one engine: these two have a hub of their own, and come before that of the others is there.


async def test_a_message_is_remembered_over_a_restart(tmp_path: Path):
    ids: list[str] = []
    for _ in range(2):
        async with running_flows(tmp_path) as flows:
            hooks = Hooks(flows, Gateway(flows.hub), tmp_path)
            ids.append((await hooks.send(await hooks.saved("kept"), message("kept"), nonce="delivery-1")).body["id"])
    assert ids[0] == ids[1]


async def test_who_forges_again_and_again_waits(tmp_path: Path):
    patience = {**SETTINGS, "lockout": {"failures": 3, "first_s": 600.0}}
    async with running_flows(tmp_path, hub=patience) as flows:
        hooks = Hooks(flows, Gateway(flows.hub), tmp_path)
        name = await hooks.saved("guarded")
        forged = [(await hooks.send(name, BODY, signature="sha256=0")).status for _ in range(3)]
        assert forged == [403, 403, 403]
        locked = await hooks.send(name, BODY)
        assert (locked.status, int(locked.headers["Retry-After"]) > 500) == (429, True)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hooks(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Hooks]:
    """One hub for all tests that need no other."""
    folder = tmp_path_factory.mktemp("hub")
    async with running_flows(folder) as flows:
        yield Hooks(flows, Gateway(flows.hub), folder)


async def test_a_signed_message_starts_the_workflow_with_what_it_says_as_its_owner(hooks: Hooks):
    name = await hooks.saved("starts", hooks.flows.key("owner"))
    begun = await hooks.send(name, message("hello"))
    assert (begun.status, set(begun.body)) == (202, {"id", "status"})
    run = await hooks.flows.standing(begun.body["id"], "completed")
    assert (run["started_by"], run["inputs"]) == ("owner", {"text": "hello"})
    assert hooks.flows.works.did("look hello") == ["look hello"]


async def test_the_start_is_on_the_record_under_the_owners_key(hooks: Hooks):
    owner = hooks.flows.key("recorded")
    begun = await hooks.send(await hooks.saved("recorded", owner), message("r"))
    run = await hooks.flows.standing(begun.body["id"], "completed")
    rows = [row for row in hooks.flows.hub.audit_rows() if row["correlation_id"] == run["correlation_id"]]
    assert {row["caller"] for row in rows} == {owner.split("_")[1]}
    assert {"workflow.started", "lab.works.look"} <= {row["tool"] for row in rows}


async def test_the_same_message_again_is_the_same_run_also_when_signed_anew(hooks: Hooks):
    name, earlier = await hooks.saved("again"), str(int(time.time()) - 200)
    first = await hooks.send(name, message("twice"), nonce="delivery-1", timestamp=earlier)
    replayed = await hooks.send(name, message("twice"), nonce="delivery-1", timestamp=earlier)
    signed_anew = await hooks.send(name, message("twice"), nonce="delivery-1")
    assert first.status == replayed.status == signed_anew.status == 202
    assert first.body["id"] == replayed.body["id"] == signed_anew.body["id"]
    await hooks.flows.standing(first.body["id"], "completed")
    assert hooks.flows.works.did("look twice") == ["look twice"]


async def test_one_message_sent_many_times_at_once_is_one_run(hooks: Hooks):
    name = await hooks.saved("crowd")
    sent = await asyncio.gather(*(hooks.send(name, message("crowd"), nonce="delivery-1") for _ in range(12)))
    assert {one.status for one in sent} == {202}
    assert len({one.body["id"] for one in sent}) == len(await hooks.runs(name)) == 1


@pytest.mark.parametrize("other", [message("other"), message("first", unused=1)])
async def test_another_message_under_the_same_nonce_is_refused(hooks: Hooks, other: bytes):
    name, nonce = await hooks.saved("nonces"), secrets.token_hex(8)
    first = await hooks.send(name, message("first"), nonce=nonce)
    assert first.status == 202
    before = len(await hooks.runs(name))
    refused = await hooks.send(name, other, nonce=nonce)
    assert (refused.status, refused.body["code"]) == (409, "conflict")
    assert len(await hooks.runs(name)) == before


BODY = message("forged")


async def nothing_started(hooks: Hooks, words: str, **headers: str | None) -> None:
    """That a message with these headers is refused with these words and starts nothing."""
    name = await hooks.saved("forged")
    refused = await hooks.send(name, BODY, **headers)
    assert (refused.status, refused.kind, refused.body["code"]) == (403, "application/problem+json", "refused")
    assert words in refused.body["message"]
    assert await hooks.runs(name) == []


@pytest.mark.parametrize(
    "headers",
    [
        {"signature": None},
        {"timestamp": None},
        {"timestamp": "soon"},
        {"timestamp": "-1"},
        {"nonce": None},
        {"nonce": "short"},
        {"nonce": "with a space"},
        {"nonce": "n" * 129},
    ],
)
async def test_a_message_without_its_headers_is_told_which_it_needs(hooks: Hooks, headers: dict[str, str | None]):
    await nothing_started(hooks, "X-Fleet-Timestamp (epoch seconds), X-Fleet-Nonce", **headers)


@pytest.mark.parametrize("off", [-400, 900])
async def test_a_message_that_is_old_or_ahead_starts_nothing(hooks: Hooks, off: int):
    await nothing_started(hooks, "more than 300 s off", timestamp=str(int(time.time()) + off))


FORGERIES: list[Callable[[str], str]] = [
    lambda _: "sha256=" + "0" * 64,
    lambda _: "\u00e9",
    lambda head: signed(f"1{head}", BODY),
    lambda head: signed(head, message("else")),
    lambda head: signed(head, BODY, "another secret of some length"),
    lambda head: signed(head, BODY).replace("sha256=", "v1="),
    lambda head: signed(head, BODY).upper(),
]


@pytest.mark.parametrize("forge", FORGERIES)
async def test_a_message_that_is_signed_otherwise_starts_nothing(hooks: Hooks, forge: Callable[[str], str]):
    at, nonce = str(int(time.time())), secrets.token_hex(8)
    await nothing_started(hooks, "takes this signature", timestamp=at, nonce=nonce, signature=forge(f"{at}.{nonce}."))


async def test_which_workflows_have_a_webhook_is_told_to_nobody(hooks: Hooks):
    plain = flow(step("a"), name="plain")
    await hooks.hub.post("/workflows/definitions", {"definition": plain})
    real = await hooks.saved("real")
    wrong = {"signature": "sha256=" + "0" * 64}
    answers = [await hooks.send(name, BODY, **wrong) for name in ("plain", "nothing", real)]
    assert {one.status for one in answers} == {403}
    assert len({one.body["message"].partition("takes")[2] for one in answers}) == 1


@pytest.mark.parametrize(
    ("body", "status"), [(b"{", 400), (b'"' + b"x" * 256 * 1024 + b'"', 413), (message("x" * 200_000), 202)]
)
async def test_a_body_is_json_of_at_most_256_kib(hooks: Hooks, body: bytes, status: int):
    assert (await hooks.send(await hooks.saved("sizes"), body)).status == status


async def test_a_body_that_gives_no_inputs_is_refused_by_the_workflow(hooks: Hooks):
    wrong = await hooks.send(await hooks.saved("inputs"), b'{"event": {"text": 7}}')
    assert (wrong.status, "input text" in wrong.body["message"]) == (422, True)
    assert await hooks.runs("inputs") == []


@pytest.mark.parametrize("content", [None, "too short"])
async def test_without_a_secret_nothing_is_taken_and_no_path_is_told(hooks: Hooks, content: str | None):
    file = hooks.folder / f"{content}.secret"
    if content is not None:
        file.write_text(content, encoding="utf-8")
    failed = await hooks.send(await hooks.saved("secretless", secretFile=str(file)), BODY)
    assert (failed.status, failed.body["code"]) == (503, "unavailable")
    assert str(hooks.folder) not in failed.body["message"]


async def test_a_secret_file_may_be_named_from_the_data_directory(hooks: Hooks):
    assert (await hooks.send(await hooks.saved("nearby", secretFile="hook.secret"), BODY)).status == 202


async def test_a_message_starts_nothing_once_the_owners_key_is_revoked(hooks: Hooks):
    name = await hooks.saved("orphan", hooks.flows.key("leaving"))
    await hooks.hub.post("/keys/leaving/revoke")
    refused = await hooks.send(name, BODY)
    assert (refused.status, "'leaving'" in refused.body["message"]) == (403, True)
    assert await hooks.runs(name) == []


async def test_a_removed_workflow_takes_no_messages(hooks: Hooks):
    name = await hooks.saved("removed")
    await hooks.hub.send("DELETE", f"/workflows/definitions/{name}")
    assert (await hooks.send(name, BODY)).status == 403
