"""Waking whoever waits for something that happens elsewhere in this process."""

import asyncio
from contextlib import suppress

LOOK_AGAIN_S = 5.0  # what another process did is seen by looking


class Ear(asyncio.Event):
    """What one listener hears with; `said` is what came with the last ring, None when nothing did."""

    said: object = None


class Bell:
    """`ring(key)` wakes everybody who waits for that key."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[Ear]] = {}

    def ring(self, key: str, said: object = None) -> None:
        """Something happened to `key`; who waits for it can hear `said` instead of looking."""
        for ear in self._waiting.get(key, ()):
            ear.said = said
            ear.set()

    async def wait(self, key: str, heard: Ear, seconds: float = LOOK_AGAIN_S) -> None:
        """Until it rings, `seconds` at most; `heard` comes from `listen`, so that nothing is missed between looks."""
        with suppress(TimeoutError):
            async with asyncio.timeout(max(min(seconds, LOOK_AGAIN_S), 0)):
                await heard.wait()
        heard.clear()

    def listen(self, key: str) -> Ear:
        """Begin to hear; end it with `leave`."""
        ear = Ear()
        self._waiting.setdefault(key, set()).add(ear)
        return ear

    def leave(self, key: str, ear: Ear) -> None:
        """Hear no more."""
        listening = self._waiting.get(key, set())
        listening.discard(ear)
        if not listening:
            self._waiting.pop(key, None)
