"""Keeping what one service offers besides tools: listed when its tools are, the last good lists kept on disk."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any, Protocol

import sqlalchemy as sa

from fleetkit.errors import FleetError, TimedOut
from fleetkit.log import get_logger
from fleetkit.settings import SpokeRow
from fleetkit.store import Store
from master_mcp.catalog.offers import KINDS, TEMPLATES, Definition, Kind
from master_mcp.catalog.tools import Catalog
from master_mcp.store import offers as table

log = get_logger()

ANSWER_TIMEOUT_S = 5.0  # for what the service can at all
LIST_TIMEOUT_S = 30.0  # for one list, however many pages it has


class Offering(Protocol):
    """What can be asked for its lists."""

    name: str
    row: SpokeRow

    async def discover(self) -> Mapping[str, Any]:
        """The capabilities of the service, as `server/discover` names them; raises FleetError when it does not say."""
        ...

    async def list_all(self, method: str, listed: str) -> list[Definition]:
        """Every page of a list whose entries stand under `listed`; raises FleetError when it is none."""
        ...


class Shelf:
    """The resources, templates and prompts of one service, in the catalog and in the database."""

    def __init__(self, service: Offering, catalog: Catalog, store: Store) -> None:
        self._service = service
        self._offers, self._news = catalog.offers, catalog.news
        self._store = store
        self._offers.know(service.name, service.row)
        self._complained = ""

    async def load(self) -> None:
        """Serve the lists of last time until the service answers."""
        query = sa.select(table.c.kind, table.c.listed).where(table.c.service == self._service.name)
        for kind, listed in await self._store.read(lambda db: db.execute(query).all()):
            if kind in KINDS:
                self._offers.replace(self._service.name, kind, listed)

    async def restock(self) -> None:
        """List anew what the service says it has. A list that fails stays as it was, and costs nothing else."""
        problem = ""
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                can = await self._service.discover()
            self._offers.capabilities[self._service.name] = can
            for name, kind in KINDS.items():
                await self._list(name, kind, promised=can.get(kind.capability) is not None)
        except TimeoutError:
            problem = TimedOut(f"{self._service.name} does not say in time what it offers").message
        except FleetError as error:
            problem = error.message
        if problem and problem != self._complained:
            log.warning("offers.unlisted", spoke=self._service.name, reason=problem)
        self._complained = problem

    async def _list(self, name: str, kind: Kind, *, promised: bool) -> None:
        found: list[Definition] = []
        if promised:
            async with asyncio.timeout(LIST_TIMEOUT_S):
                listed = await self._service.list_all(kind.method, kind.listed)
            found = [definition for definition in listed if isinstance(definition.get(kind.name), str)]
        if self._offers.replace(self._service.name, name, found):
            self._news.changed("resources" if name == TEMPLATES else name)
            await self._store.write(lambda db: _keep(db, self._service.name, name, found, time.time()))


def _keep(db: sa.Connection, service: str, kind: str, items: list[Definition], now: float) -> None:
    db.execute(table.delete().where(table.c.service == service, table.c.kind == kind))
    db.execute(table.insert().values(service=service, kind=kind, listed_at=now, listed=items))
