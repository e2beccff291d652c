"""Webhooks: a signed message starts the saved workflow of its name, once, as the workflow's owner."""

import asyncio
import hashlib
import hmac
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fleetkit import correlation
from fleetkit.errors import Conflict, Invalid, Refused, Unavailable
from fleetkit.log import get_logger
from master_mcp.approvals.hooks import digest, secret_in
from master_mcp.auth.caller import Caller
from master_mcp.workflows.definition import Webhook
from master_mcp.workflows.expressions import Templates
from master_mcp.workflows.library import Entry, Library
from master_mcp.workflows.reading import read
from master_mcp.workflows.run import Run
from master_mcp.workflows.starting import Order, Starting

log = get_logger()

DOOR = "hook"
MAX_BYTES = 256 * 1024  # of a message
WITHIN_S = 300  # that a message may be old, or ahead
_NONCE = re.compile(r"[\w.:-]{8,128}", re.ASCII)
_TIMESTAMP = re.compile(r"\d{1,12}", re.ASCII)


class Forged(Refused):
    """There is no such webhook, or the message is not signed with its secret: which of them is not said."""


@dataclass(frozen=True)
class Message:
    """What was posted: `timestamp`, `nonce` and `signature` as the headers said, `content` is `body` as JSON."""

    name: str
    timestamp: str
    nonce: str
    signature: str
    body: bytes = field(repr=False)
    content: Any = field(repr=False)


class Hooks:
    """Takes messages. Relative names of secret files are below `data_dir`."""

    def __init__(
        self,
        library: Library,
        templates: Templates,
        starting: Starting,
        caller_of: Callable[[str], Caller | None],
        data_dir: Path,
    ) -> None:
        self._library = library
        self._templates = templates
        self._starting = starting
        self._caller_of = caller_of
        self._data_dir = data_dir

    async def received(self, message: Message) -> Run:
        """The run that a message starts; the same message again gives the same run, started once.

        Raises Forged, Refused for a message out of time or when the owner's key is gone, Unavailable without a
        secret, Conflict for another message under the same nonce, and what any start raises.
        """
        _check_headers(message)
        entry = (await self._library.saved()).get(message.name)
        hook = None if entry is None else read(entry.content).webhook
        if entry is None or hook is None or not await self._signed(message, hook):
            raise Forged(
                f"no webhook {message.name!r} takes this signature: check the name and the secret, and that it signs "
                "TIMESTAMP.NONCE.BODY"
            )
        owner = self._owner(entry)
        order = Order(
            definition=entry.content,
            inputs=await self._templates.fill(hook.inputs, {"body": message.content}),
            key=f"hook:{message.name}:{message.nonce}",
        )
        with correlation.bound(correlation.Context(_fingerprint(message), owner)):
            run = await self._starting.start(order, owner, DOOR)
        if run.correlation_id != _fingerprint(message):
            raise Conflict(f"nonce {message.nonce!r} came before with another message: use each once")
        return run

    async def _signed(self, message: Message, hook: Webhook) -> bool:
        file = self._data_dir / hook.secret_file
        try:
            secret = await asyncio.to_thread(secret_in, file)
        except Invalid as error:
            log.warning("workflow.hook.secret_unreadable", workflow=message.name, reason=error.message)
            raise Unavailable(
                f"the secret of webhook {message.name!r} cannot be read: its operator looks at secretFile"
            ) from error
        expected = f"sha256={digest(secret, message.timestamp, message.nonce, message.body)}"
        return hmac.compare_digest(expected.encode(), message.signature.encode())

    def _owner(self, entry: Entry) -> Caller:
        owner = None if entry.owner_id is None else self._caller_of(entry.owner_id)
        if owner is None:
            raise Refused(
                f"key {entry.owner_name!r}, as which workflow {entry.name!r} runs, was revoked or has expired: "
                "save the workflow with a live key"
            )
        return owner


def _check_headers(message: Message) -> None:
    if not (_TIMESTAMP.fullmatch(message.timestamp) and _NONCE.fullmatch(message.nonce) and message.signature):
        raise Refused(
            "a webhook needs X-Fleet-Timestamp (epoch seconds), X-Fleet-Nonce (8 to 128 letters, digits, _ . : -) and "
            "X-Fleet-Signature (sha256=HEX)"
        )
    if abs(time.time() - int(message.timestamp)) > WITHIN_S:
        raise Refused(f"X-Fleet-Timestamp is more than {WITHIN_S} s off: sign each message when it is sent")


def _fingerprint(message: Message) -> str:
    """The correlation id of the run that a message starts, which tells it from every other message."""
    return hashlib.sha256(f"{message.name}.{message.nonce}.".encode() + message.body).hexdigest()[:32]
