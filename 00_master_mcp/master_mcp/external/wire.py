"""The way to one external server: a pipe to a process, or HTTP with a session. What it carries is `session.py`'s."""

from collections.abc import Awaitable, Callable
from typing import Protocol

from fleetkit.errors import FleetError, Unavailable
from master_mcp.proxy.answer import Message


class SessionLost(Unavailable):
    """The server no longer knows the session, or its process is gone: a new one has to be opened."""


Deliver = Callable[[Message], Awaitable[None]]
Fail = Callable[[object, FleetError], None]  # the id of the request that cannot be answered; None for all


class Wire(Protocol):
    """Carries messages both ways. What arrives goes to the `Deliver` and `Fail` it was made with."""

    async def send(self, message: Message) -> None:
        """Send one message without waiting for an answer; raises Unavailable (SessionLost) when it cannot be sent."""
        ...

    def forget(self, request_id: object) -> None:
        """Nobody waits for that answer any more."""
        ...

    def agreed(self, version: str) -> None:
        """The handshake is over: this version is spoken."""
        ...

    def hear(self) -> None:
        """Listen to what the server tells by itself."""
        ...

    async def close(self) -> None:
        """End the process or the session; never raises."""
        ...

    @property
    def open(self) -> bool:
        """Whether messages can still be sent."""
        ...
