"""Webhooks: told of held calls, signed, retried, never waited for."""

import asyncio
import hmac
import secrets
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from fleetkit import http
from fleetkit.approval_settings import Event, Webhook
from fleetkit.errors import FleetError, Invalid
from fleetkit.log import get_logger
from master_mcp.approvals.record import Approval, shown

log = get_logger()

QUEUED = 1000  # messages per webhook that wait at most; beyond it the newest is dropped and logged
PAUSES_S = (1.0, 5.0, 30.0, 120.0, 600.0)  # between the tries for one message
MIN_SECRET = 16

ID, TIMESTAMP, SIGNATURE = "fleet-event-id", "fleet-timestamp", "fleet-signature"


@dataclass(frozen=True)
class _Line:
    url: str
    events: frozenset[str]
    secret: bytes = field(repr=False)
    queue: asyncio.Queue[bytes] = field(repr=False)


class Hooks:
    """Sends events to the configured URLs. Raises Invalid at once for a secret that is missing or short."""

    def __init__(self, webhooks: Iterable[Webhook], pauses_s: Sequence[float] = PAUSES_S) -> None:
        self._lines = [
            _Line(hook.url, frozenset(hook.events), secret_in(hook.secret_file), asyncio.Queue(QUEUED))
            for hook in webhooks
        ]
        self._pauses_s = pauses_s

    def tell(self, event: Event, approval: Approval) -> None:
        """Queue a message for everybody who wants this event."""
        for line in self._lines:
            if event in line.events:
                try:
                    line.queue.put_nowait(_message(event, approval))
                except asyncio.QueueFull:
                    log.error("approvals.webhook.dropped", url=line.url, approval=approval.id)

    async def run(self) -> None:
        """Send for ever, to each URL in order."""
        async with asyncio.TaskGroup() as tasks:
            for line in self._lines:
                tasks.create_task(self._serve(line))

    async def _serve(self, line: _Line) -> None:
        while True:
            body = await line.queue.get()
            await self._deliver(line, body)

    async def _deliver(self, line: _Line, body: bytes) -> None:
        event_id = secrets.token_hex(16)
        for pause in (*self._pauses_s, None):
            try:
                await http.deliver(line.url, body, _headers(line.secret, event_id, body))
                return
            except FleetError as error:
                log.warning("approvals.webhook.failed", url=line.url, event_id=event_id, reason=error.message)
            if pause is not None:
                await asyncio.sleep(pause)
        log.error("approvals.webhook.given_up", url=line.url, event_id=event_id)


def signature(secret: bytes, timestamp: str, event_id: str, body: bytes) -> str:
    """HMAC-SHA256 over `<timestamp>.<event id>.<body>`, as `v1=<hex>`."""
    return f"v1={digest(secret, timestamp, event_id, body)}"


def digest(secret: bytes, timestamp: str, message_id: str, body: bytes) -> str:
    """HMAC-SHA256 over `<timestamp>.<message id>.<body>` in hex: what signs a message in either direction."""
    return hmac.new(secret, f"{timestamp}.{message_id}.".encode() + body, "sha256").hexdigest()


def _headers(secret: bytes, event_id: str, body: bytes) -> dict[str, str]:
    timestamp = str(int(time.time()))
    return {ID: event_id, TIMESTAMP: timestamp, SIGNATURE: signature(secret, timestamp, event_id, body)}


def _message(event: Event, approval: Approval) -> bytes:
    """Who wants what: no arguments and no result, which are shown to those who may see them."""
    facts = {name: value for name, value in shown(approval).items() if name not in ("arguments", "result")}
    return orjson.dumps({"event": event, "approval": facts})


def secret_in(file: Path) -> bytes:
    """The secret that a file holds. Raises Invalid when it cannot be read or is too short."""
    try:
        secret = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(f"cannot read the webhook secret {file}: {error}") from error
    if len(secret) < MIN_SECRET:
        raise Invalid(f"the webhook secret {file} is too short: write at least {MIN_SECRET} characters")
    return secret.encode()
