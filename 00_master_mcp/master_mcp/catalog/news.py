"""Who wants to hear of what: changes of the lists, and of the resources that somebody watches.

News are level triggers ("look again"): what a listener has not been told yet is kept once, so nothing piles up.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Collection, Generator
from contextlib import contextmanager
from typing import Any

from master_mcp.catalog.offers import Place

SETTLES_WITHIN_S = 2.0  # how long a client waits at most until its service was told what it watches
UPDATED = "notifications/resources/updated"
LISTS = ("tools", "prompts", "resources")
MAX_WATCHED = 200  # resources that one listener may watch


def list_changed(kind: str) -> str:
    """The notification that a list of this kind changed."""
    return f"notifications/{kind}/list_changed"


class Listener:
    """One client: the lists and resources it wants to hear of, and what it has not been told yet."""

    def __init__(self, lists: Collection[str] = LISTS) -> None:
        self.lists = frozenset(lists)
        self.watched: dict[str, Place] = {}
        self.woken = asyncio.Event()
        self._pending: dict[tuple[str, str], None] = {}

    def hear(self, method: str, uri: str = "") -> None:
        """Remember one piece of news until it is taken."""
        self._pending[method, uri] = None
        self.woken.set()

    def take(self) -> list[dict[str, Any]]:
        """What is to be told, oldest first, as JSON-RPC notifications."""
        taken, self._pending = list(self._pending), {}
        self.woken.clear()
        return [{"jsonrpc": "2.0", "method": method, "params": {"uri": uri} if uri else {}} for method, uri in taken]


class News:
    """Brings what services tell to those who listen."""

    def __init__(self) -> None:
        self._listeners: set[Listener] = set()
        self._wanted: dict[str, Counter[str]] = {}
        self._wakers: dict[str, Callable[[], None]] = {}
        self._standing: dict[str, frozenset[str]] = {}
        self._moved = asyncio.Event()

    @property
    def listeners(self) -> int:
        """How many listen."""
        return len(self._listeners)

    @contextmanager
    def listening(self, listener: Listener) -> Generator[Listener]:
        """Tell `listener` for the length of a block."""
        self.add(listener)
        try:
            yield listener
        finally:
            self.remove(listener)

    def add(self, listener: Listener) -> None:
        """Tell `listener` from now on."""
        self._listeners.add(listener)
        for place in listener.watched.values():
            self._count(place, 1)

    def remove(self, listener: Listener) -> None:
        """Tell `listener` nothing any more."""
        if listener in self._listeners:
            self._listeners.remove(listener)
            for place in listener.watched.values():
                self._count(place, -1)

    def watch(self, listener: Listener, uri: str, place: Place) -> None:
        """Also tell `listener` when the resource `uri` changes."""
        if uri not in listener.watched:
            listener.watched[uri] = place
            if listener in self._listeners:
                self._count(place, 1)

    def unwatch(self, listener: Listener, uri: str) -> None:
        """Tell `listener` of that resource no more."""
        place = listener.watched.pop(uri, None)
        if place is not None and listener in self._listeners:
            self._count(place, -1)

    def wanted(self, service: str) -> frozenset[str]:
        """Every URI of `service`, as it knows them, that somebody watches."""
        return frozenset(self._wanted.get(service, ()))

    def on_wanted(self, service: str, wake: Callable[[], None]) -> None:
        """Call `wake` whenever `wanted(service)` has changed."""
        self._wakers[service] = wake

    def stands(self, service: str, uris: frozenset[str]) -> None:
        """From now on `service` tells when one of these resources changes, and of no other."""
        self._standing[service] = uris
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    async def settled(self, listener: Listener) -> None:
        """Wait until what `listener` watches is told by its services, or one of them takes too long for that."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SETTLES_WITHIN_S):
                while not all(p.uri in self._standing.get(p.service, ()) for p in listener.watched.values()):
                    await self._moved.wait()

    def changed(self, kind: str) -> None:
        """A list of this kind is another one now."""
        for listener in self._listeners:
            if kind in listener.lists:
                listener.hear(list_changed(kind))

    def updated(self, service: str, uri: str) -> None:
        """A resource of `service` (as it knows it), or a part of it, is another one now."""
        for listener in self._listeners:
            for shown, place in listener.watched.items():
                if place.service == service and _covers(place.uri, uri):
                    listener.hear(UPDATED, shown)

    def _count(self, place: Place, by: int) -> None:
        counts = self._wanted.setdefault(place.service, Counter())
        before = counts[place.uri]
        counts[place.uri] = before + by
        if counts[place.uri] <= 0:
            del counts[place.uri]
        wake = self._wakers.get(place.service)
        if wake is not None and (before == 0 or place.uri not in counts):
            wake()


def _covers(watched: str, uri: str) -> bool:
    return uri == watched or uri.startswith(f"{watched.rstrip('/')}/")
