"""`/hooks`: signed messages that start workflows. They come without a key; the signature is the proof."""

from typing import Any

from pydantic import RootModel

from master_mcp.auth.lockout import Lockout
from master_mcp.rest.route import Access, Answer, Request, Route, Shape
from master_mcp.workflows.hooks import MAX_BYTES, Forged, Hooks, Message


class Posted(RootModel[Any]):
    """Any JSON; the workflow's `webhook.inputs` say what becomes of it."""


class Started(Shape):
    """The run that the message started, now or when it came before."""

    id: str
    status: str


class HookDesk:
    """Hands messages to the workflows; who forges them again and again waits."""

    def __init__(self, hooks: Hooks, lockout: Lockout) -> None:
        self._hooks = hooks
        self._lockout = lockout

    def routes(self) -> list[Route]:
        """The rows of these endpoints."""
        return [
            Route(
                "POST", "/hooks/{name}", self._take,
                "Start a workflow by a message signed in X-Fleet-Timestamp, X-Fleet-Nonce and X-Fleet-Signature.",
                "workflows", Started, Posted, access=Access.open, status=202, max_bytes=MAX_BYTES,
                path_doc={"name": "A saved workflow with `webhook`."},
            ),
        ]  # fmt: skip

    async def _take(self, request: Request) -> Answer:
        headers, client = request.exchange.headers, request.exchange.client
        message = Message(
            name=request.path["name"],
            timestamp=headers.get("x-fleet-timestamp", ""),
            nonce=headers.get("x-fleet-nonce", ""),
            signature=headers.get("x-fleet-signature", ""),
            body=request.raw,
            content=request.read_body(Posted).root,
        )
        self._lockout.check(client, f"hook:{message.name}")
        try:
            run = await self._hooks.received(message)
        except Forged:
            self._lockout.failed(client, f"hook:{message.name}")
            raise
        return Started(id=run.id, status=run.status)
