"""Waking whoever waits for something that happens elsewhere in this process."""

import asyncio
from contextlib import suppress

LOOK_AGAIN_S = 5.0  # what another process did is seen by looking


class Bell:
    """`ring(key)` wakes everybody who waits for that key."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Event]] = {}

    def ring(self, key: str) -> None:
        """Something happened to `key`."""
        for event in self._waiting.get(key, ()):
            event.set()

    async def wait(self, key: str, heard: asyncio.Event, seconds: float = LOOK_AGAIN_S) -> None:
        """Until it rings, `seconds` at most; `heard` comes from `listen`, so that nothing is missed between looks."""
        with suppress(TimeoutError):
            async with asyncio.timeout(max(min(seconds, LOOK_AGAIN_S), 0)):
                await heard.wait()
        heard.clear()

    def listen(self, key: str) -> asyncio.Event:
        """Begin to hear; end it with `leave`."""
        event = asyncio.Event()
        self._waiting.setdefault(key, set()).add(event)
        return event

    def leave(self, key: str, event: asyncio.Event) -> None:
        """Hear no more."""
        listening = self._waiting.get(key, set())
        listening.discard(event)
        if not listening:
            self._waiting.pop(key, None)
