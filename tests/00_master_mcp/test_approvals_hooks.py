"""Webhooks: told of what happens to held calls, signed, again and again until it was heard."""

import asyncio
import hmac
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from held import ANNA, APPROVE, HELD, Clock, shed
from hubs import listening
from support import free_port

from fleetkit import settings
from fleetkit.approval_settings import Webhook
from fleetkit.errors import Invalid
from fleetkit.scrub import scrubber
from master_mcp.approvals import hooks
from master_mcp.approvals.hooks import Hooks

SECRET = "a shared secret of some length"


@dataclass
class Listener:
    """A receiver that answers with each of `statuses` in turn, then 204."""

    statuses: list[int] = field(default_factory=list[int])
    heard: list[tuple[dict[str, str], bytes]] = field(default_factory=list[tuple[dict[str, str], bytes]])
    news: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """The ASGI app."""
        body = (await receive())["body"]
        self.heard.append(({k.decode(): v.decode() for k, v in scope["headers"]}, body))
        status = self.statuses.pop(0) if self.statuses else 204
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b""})
        self.news.set()

    async def until(self, count: int) -> list[dict[str, Any]]:
        """The first `count` messages, waited for."""
        while len(self.heard) < count:
            self.news.clear()
            await self.news.wait()
        return [orjson.loads(body) for _, body in self.heard]


def secret_in(folder: Path, text: str = SECRET) -> Path:
    path = folder / "webhook.secret"
    path.write_text(f"{text}\n", encoding="utf-8")
    return path


@asynccontextmanager
async def sending(webhook: Webhook, pauses_s: Sequence[float] = (0.0, 0.0)) -> AsyncGenerator[Hooks]:
    """Hooks at work for the length of a block."""
    made = Hooks([webhook], pauses_s)
    running = asyncio.create_task(made.run())
    try:
        yield made
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_who_is_configured_hears_of_a_call_from_held_to_decided(tmp_path: Path) -> None:
    listener = Listener()
    async with listening(listener) as url:
        webhook = Webhook(url=f"{url}/hook", secret_file=secret_in(tmp_path))
        async with shed(tmp_path, webhooks=[webhook]) as place:
            place.rules.destroy = replace(APPROVE, escalate_after_s=5.0)
            approval_id = await place.held()
            await place.later(5)
            await place.say(ANNA, approval_id, reason="go")
            await place.call()
            told = await listener.until(3)
    assert [one["event"] for one in told] == ["held", "escalated", "approved"]
    assert {one["approval"]["id"] for one in told} == {approval_id}
    assert told[0]["approval"]["plan"] == "run shed.burn with exactly these arguments"
    assert [{"arguments", "result", "claim"} & set(one["approval"]) for one in told] == [set(), set(), set()]


async def test_a_receiver_can_check_who_sent_it_and_when(tmp_path: Path) -> None:
    listener = Listener()
    async with (
        listening(listener) as url,
        sending(Webhook(url=url, secret_file=secret_in(tmp_path))) as made,
    ):
        made.tell("held", HELD)
        await listener.until(1)
    headers, body = listener.heard[0]
    stamp, event_id = headers["fleet-timestamp"], headers["fleet-event-id"]
    expected = hmac.new(SECRET.encode(), f"{stamp}.{event_id}.".encode() + body, "sha256").hexdigest()
    assert headers["fleet-signature"] == f"v1={expected}"
    assert headers["content-type"] == "application/json"
    assert 0 <= time.time() - int(stamp) < 300


async def test_only_the_events_that_were_asked_for_are_sent(tmp_path: Path) -> None:
    listener = Listener()
    webhook = Webhook.model_validate({"url": "http://x", "secret_file": secret_in(tmp_path), "events": ["denied"]})
    async with listening(listener) as url, sending(webhook.model_copy(update={"url": url})) as made:
        made.tell("held", HELD)
        made.tell("denied", HELD)
        assert [one["event"] for one in await listener.until(1)] == ["denied"]


async def test_a_message_is_sent_again_under_the_same_id_until_it_is_taken(tmp_path: Path) -> None:
    listener = Listener([500, 302])
    async with listening(listener) as url, sending(Webhook(url=url, secret_file=secret_in(tmp_path))) as made:
        made.tell("held", HELD)
        made.tell("denied", HELD)
        told = await listener.until(4)
    assert [one["event"] for one in told] == ["held", "held", "held", "denied"]
    ids = [headers["fleet-event-id"] for headers, _ in listener.heard]
    assert (len(set(ids[:3])), ids[3] in ids[:3]) == (1, False)


async def test_a_message_that_nobody_takes_is_given_up_and_the_next_one_sent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listener = Listener([500, 500, 500])
    async with listening(listener) as url, sending(Webhook(url=url, secret_file=secret_in(tmp_path))) as made:
        made.tell("held", HELD)
        made.tell("denied", HELD)
        assert [one["event"] for one in await listener.until(4)][2:] == ["held", "denied"]
    assert "approvals.webhook.given_up" in capsys.readouterr().out


async def test_a_receiver_that_is_down_stops_no_call_and_its_queue_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(hooks, "QUEUED", 2)  # 1000 messages would only take longer
    webhook = Webhook(url=f"http://127.0.0.1:{free_port()}", secret_file=secret_in(tmp_path))
    async with shed(tmp_path, clock=Clock(), webhooks=[webhook]) as place:
        for number in range(5):
            await place.approved(arguments={"what": f"barn {number}"})
            await place.call(arguments={"what": f"barn {number}"})
        assert len(place.done) == 5
    assert "approvals.webhook.dropped" in capsys.readouterr().out


async def test_a_message_holds_no_known_secret(tmp_path: Path) -> None:
    listener = Listener()
    scrubber.add("plan-secret-9041")
    async with listening(listener) as url, sending(Webhook(url=url, secret_file=secret_in(tmp_path))) as made:
        made.tell("held", replace(HELD, plan="burn plan-secret-9041"))
        assert (await listener.until(1))[0]["approval"]["plan"] == "burn [secret]"


@pytest.mark.parametrize(("text", "words"), [(None, "cannot read the webhook secret"), ("short", "is too short")])
def test_a_webhook_without_a_good_secret_is_refused_at_start(tmp_path: Path, text: str | None, words: str) -> None:
    path = tmp_path / "none" if text is None else secret_in(tmp_path, text)
    with pytest.raises(Invalid, match=words):
        Hooks([Webhook(url="http://127.0.0.1:1", secret_file=path)])


def test_webhooks_stand_in_the_settings_and_are_checked(tmp_path: Path) -> None:
    text = "hub: {approvals: {max_pending: 5, webhooks: [{url: 'https://x/y', secret_file: /s, events: [held]}]}}"
    (tmp_path / "fleet.yaml").write_text(text, encoding="utf-8")
    found = settings.load(tmp_path).hub.approvals
    assert (found.max_pending, found.webhooks[0].url, found.webhooks[0].events) == (5, "https://x/y", ["held"])
    for wrong in ("{url: 'ftp://x', secret_file: /s}", "{url: 'http://x', secret_file: /s, events: [eaten]}"):
        (tmp_path / "fleet.yaml").write_text(f"hub: {{approvals: {{webhooks: [{wrong}]}}}}", encoding="utf-8")
        with pytest.raises(Invalid, match=r"hub\.approvals\.webhooks\.0"):
            settings.load(tmp_path)
