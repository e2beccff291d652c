"""One subscription per service: what it tells by itself, asked for on behalf of everybody who listens here."""

import asyncio
import contextlib
from collections.abc import Callable, Collection
from typing import Protocol

from fleetkit.errors import FleetError
from master_mcp.catalog.news import UPDATED, News

ACKNOWLEDGED = "notifications/subscriptions/acknowledged"
RELISTEN_S = 5.0  # before asking again a service that ended its news
STANDS_WITHIN_S = 5.0

Heard = Callable[[str, str], None]  # the notification's method, the URI it names


class Telling(Protocol):
    """What can tell its changes."""

    name: str

    async def hear(self, uris: Collection[str], heard: Heard) -> None:
        """Stay subscribed to changes of the lists and of these resources until the service ends it.

        `heard` also gets ACKNOWLEDGED, once the subscription stands. Raises FleetError when it cannot.
        """
        ...


class Hearing:
    """Keeps the subscription to one service for as long as `wants_lists`, or while somebody watches its resources."""

    def __init__(self, service: Telling, news: News, on_lists: Callable[[], None]) -> None:
        self._service = service
        self._news = news
        self._on_lists = on_lists
        self._wants_lists = False
        self._woken = asyncio.Event()
        self._hears: tuple[frozenset[str], asyncio.Task[None]] | None = None
        self._gap, self._was_lost = True, False
        news.on_wanted(service.name, self._woken.set)

    def want_lists(self) -> None:
        """From now on also stay subscribed when nobody watches a resource."""
        if not self._wants_lists:
            self._wants_lists = True
            self._woken.set()

    def retry(self) -> None:
        """The service answers again: subscribe at once."""
        self._woken.set()

    async def run(self) -> None:
        """Subscribe, and anew whenever the wanted resources change or the subscription was lost, until cancelled."""
        try:
            while True:
                self._woken.clear()
                await self._renew()
                await self._until_something_happens()
        finally:
            self._drop()

    async def _renew(self) -> None:
        """Have the subscription that is wanted now; the old one ends when the new one stands, so nothing is missed."""
        wanted = self._news.wanted(self._service.name)
        if not wanted and not self._wants_lists:
            self._drop()
            self._gap = True
            self._news.stands(self._service.name, frozenset())
            return
        if self._hears is not None and self._hears[0] == wanted:
            return
        stands = asyncio.Event()
        task = asyncio.create_task(self._hear(wanted, stands))
        waiting = asyncio.create_task(stands.wait())
        await asyncio.wait([task, waiting], timeout=STANDS_WITHIN_S, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        self._drop()
        self._hears = (wanted, task)

    async def _hear(self, wanted: frozenset[str], stands: asyncio.Event) -> None:
        def heard(method: str, uri: str) -> None:
            if method == ACKNOWLEDGED:
                stands.set()
                self._stands(wanted)
            elif method == UPDATED:
                self._news.updated(self._service.name, uri)
            else:
                self._on_lists()

        with contextlib.suppress(FleetError):  # it is down or cannot tell: the watcher finds out which
            await self._service.hear(sorted(wanted), heard)

    def _stands(self, wanted: frozenset[str]) -> None:
        """What changed before, nobody told: lists are looked at, and after a loss every resource counts as changed."""
        if self._gap:
            self._on_lists()
        if self._was_lost:
            for uri in wanted:
                self._news.updated(self._service.name, uri)
        self._gap = self._was_lost = False
        self._news.stands(self._service.name, wanted)

    async def _until_something_happens(self) -> None:
        woken = asyncio.create_task(self._woken.wait())
        ended = [self._hears[1]] if self._hears is not None else []
        try:
            await asyncio.wait([woken, *ended], return_when=asyncio.FIRST_COMPLETED)
            if self._hears is not None and self._hears[1].done():
                self._hears, self._gap, self._was_lost = None, True, True
                self._news.stands(self._service.name, frozenset())
                await asyncio.wait([woken], timeout=RELISTEN_S)
        finally:
            woken.cancel()

    def _drop(self) -> None:
        if self._hears is not None:
            self._hears[1].cancel()
            self._hears = None
