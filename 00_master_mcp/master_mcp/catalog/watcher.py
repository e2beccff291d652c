"""One watcher per spoke: lists what it has, notices when it goes and comes back, keeps the last good lists."""

import asyncio
import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import sqlalchemy as sa

from fleetkit.errors import FleetError, TimedOut
from fleetkit.log import get_logger
from fleetkit.metrics import Metrics
from fleetkit.settings import SpokeRow
from fleetkit.store import Store, upsert
from master_mcp.catalog.hearing import Hearing, Telling
from master_mcp.catalog.shelf import Offering, Shelf
from master_mcp.catalog.tools import Catalog, read_tool
from master_mcp.store import catalog as table

log = get_logger()

PROBE_S = 2.0  # between looks at a healthy spoke
RELIST_S = 60.0  # a spoke that cannot say whether its tools changed is asked again this often
LIST_TIMEOUT_S = 5.0
FIRST_WAIT_S = 0.2
LONGEST_WAIT_S = 60.0


class Watched(Telling, Offering, Protocol):
    """What a watcher needs of a spoke."""

    name: str
    row: SpokeRow

    async def alive(self) -> str:
        """A word that changes with the spoke's tools; raises Unavailable when nothing answers."""
        ...

    async def list_tools(self) -> list[Mapping[str, Any]]:
        """Every tool definition; raises Unavailable when the spoke does not list them."""
        ...

    def lost(self, reason: str) -> None:
        """Hear that the spoke is down."""
        ...

    def found(self) -> None:
        """Hear that the spoke answers."""
        ...


@dataclass
class Health:
    """How one spoke is: `starting`, `healthy` or `unavailable` with the reason."""

    state: str = "starting"
    reason: str = ""
    since: float = 0.0
    listed_at: float | None = None


class Watcher:
    """Watches one spoke until cancelled. `poke()` makes it look now."""

    def __init__(self, spoke: Watched, catalog: Catalog, store: Store, metrics: Metrics) -> None:
        self._spoke = spoke
        self._catalog = catalog
        self._store = store
        self._gauge = metrics.health.labels(spoke.name)
        self._poked = asyncio.Event()
        self._seen: str | None = None
        self._told = False
        self._attempt = 0
        self._shelf = Shelf(spoke, catalog, store)
        self._hearing = Hearing(spoke, catalog.news, self.relist)
        self._looking = asyncio.Lock()
        self.health = Health(since=time.time())

    def poke(self) -> None:
        """Somebody saw a failure: look at once."""
        self._poked.set()

    async def load(self) -> None:
        """Serve the lists of last time until the spoke answers."""
        await self._shelf.load()
        query = sa.select(table.c.tools, table.c.listed_at).where(table.c.service == self._spoke.name)
        row = await self._store.read(lambda db: db.execute(query).one_or_none())
        if row is not None:
            self._catalog.replace(
                self._spoke.name, [read_tool(self._spoke.name, self._spoke.row, t) for t in row.tools]
            )
            self.health.listed_at = row.listed_at

    async def run(self) -> None:
        """Look, wait, look again; meanwhile hear what the spoke tells by itself."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_looking())
            tasks.create_task(self._hearing.run())

    async def _keep_looking(self) -> None:
        while True:
            await self.look()
            wait = PROBE_S if self.health.state == "healthy" else backoff(self._attempt)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):  # wait_for can swallow a cancellation that meets the event
                    await self._poked.wait()
            self._poked.clear()

    def relist(self) -> None:
        """What the spoke may offer changed: list its tools at once."""
        self._told = True
        self._poked.set()

    async def reload(self) -> None:
        """List the tools now, whatever the spoke says of changes; `health` tells how that went."""
        self._told = True
        await self.look()

    async def look(self) -> None:
        """One look: is it there, has its list changed? Looks at the same time follow each other.

        What it offers besides tools decides nothing of its health.
        """
        async with self._looking:
            await self._look()

    async def _look(self) -> None:
        listed = False
        try:
            async with asyncio.timeout(LIST_TIMEOUT_S):
                word = await self._spoke.alive()
                if self._must_list(word):
                    self._told = False  # what is told from here on needs another list
                    await self._list()
                    self._seen, listed = word, True
                if not word and self._spoke.row.url is not None:
                    self._hearing.want_lists()
        except TimeoutError:
            self._down(TimedOut(f"{self._spoke.name} does not answer within {LIST_TIMEOUT_S:g} s").message)
        except FleetError as error:
            self._down(error.message)
        else:
            self._up()
        if listed:
            await self._shelf.restock()

    def _must_list(self, word: str) -> bool:
        if self.health.state != "healthy" or self._told or word != self._seen or self.health.listed_at is None:
            return True
        return not word and time.time() - self.health.listed_at > RELIST_S

    async def _list(self) -> None:
        await self.take(await self._spoke.list_tools())
        self.health.listed_at = time.time()

    async def take(self, definitions: list[Mapping[str, Any]]) -> None:
        """Offer these tools from now on, also after a restart."""
        tools = [read_tool(self._spoke.name, self._spoke.row, definition) for definition in definitions]
        if self._catalog.replace(self._spoke.name, tools):
            row = {"service": self._spoke.name, "listed_at": time.time(), "tools": definitions}
            await self._store.write(lambda db: upsert(db, table, row))

    def _up(self) -> None:
        if self.health.state != "healthy":
            log.info("spoke.healthy", spoke=self._spoke.name, tools=len(self._catalog.of(self._spoke.name)))
            self.health = Health("healthy", "", time.time(), self.health.listed_at)
            self._hearing.retry()
        self._attempt = 0
        self._gauge.set(1)
        self._spoke.found()

    def _down(self, reason: str) -> None:
        if self.health.state != "unavailable":
            log.warning("spoke.unavailable", spoke=self._spoke.name, reason=reason)
            self.health = Health("unavailable", reason, time.time(), self.health.listed_at)
        self.health.reason = reason
        self._attempt += 1
        self._gauge.set(0)
        self._spoke.lost(reason)


def backoff(attempt: int) -> float:
    """Seconds before probe number `attempt` (1, 2, ...) of a spoke that is down: 0.2 doubling to 60."""
    return min(FIRST_WAIT_S * 2 ** min(max(attempt - 1, 0), 16), LONGEST_WAIT_S)
