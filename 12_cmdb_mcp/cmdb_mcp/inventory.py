"""The open CMDB: reads on a snapshot, changes in one transaction that knows its author and time."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, cast
from urllib.parse import quote

import sqlalchemy as sa

from cmdb_mcp import seed
from cmdb_mcp.change import Author, Change
from cmdb_mcp.options import CmdbOptions
from cmdb_mcp.record import Record
from fleetkit import Assessment, Risk, Setting, correlation
from fleetkit.store import Store, open_store
from fleetkit.trust import private_dir

T = TypeVar("T")

MIGRATIONS = Path(__file__).parent / "migrations"


class _Rehearsed(Exception):
    """No error: carries a result out of a transaction that is to be undone."""

    def __init__(self, value: object) -> None:
        super().__init__()
        self.value = value


@dataclass(frozen=True)
class Inventory:
    """What the tools work on."""

    store: Store
    options: CmdbOptions
    workspace: Path
    tell: Callable[[str], Awaitable[None]]

    async def read(self, work: Callable[[sa.Connection], T]) -> T:
        """Run `work` on one consistent snapshot."""
        return await self.store.read(work)

    async def change(self, work: Callable[[Change], T], *, source: str = "manual", dry_run: bool = False) -> T:
        """Run `work` in one transaction; with `dry_run` the very same work, undone at the end.

        Who watches a CI that changed hears of it.
        """
        author = _author()
        touched: dict[int, Record] = {}

        def job(connection: sa.Connection) -> T:
            change = Change.begin(connection, author, source, self.options.source_precedence)
            value = work(change)
            if dry_run:
                raise _Rehearsed(value)
            touched.update(change.touched)
            return value

        try:
            value = await self.store.write(job)
            for path in paths(touched.values()):
                await self.tell(path)
            return value
        except _Rehearsed as end:
            return cast("T", end.value)


def paths(records: Iterable[Record]) -> list[str]:
    """The paths of the resources that show these CIs: by id, by `class:name`, by name."""
    return [f"ci/{quote(word, safe=':')}" for r in records for word in (f"ci-{r.id}", r.label, r.name)]


@asynccontextmanager
async def opened(setting: Setting, tell: Callable[[str], Awaitable[None]]) -> AsyncGenerator[Inventory]:
    """`cmdb.db` up to date, with the example fleet when it is new; `tell` hears the path of what changed."""
    options = cast("CmdbOptions", setting.options)
    store = open_store(setting.data_dir, "cmdb", MIGRATIONS)
    try:
        inventory = Inventory(store, options, private_dir(setting.data_dir / "workspace"), tell)
        if options.seed_example:
            await inventory.change(seed.load_if_empty, source=seed.SOURCE)
        yield inventory
    finally:
        store.close()


def _author() -> Author:
    context = correlation.current()
    if context is None or context.caller is None:
        return Author("cmdb", context.correlation_id if context else correlation.new_id())
    return Author(context.caller.name, context.correlation_id)


def dry_run_is_read(argument: str, plan: str, default: bool) -> Callable[..., Assessment]:
    """An `assess` for tools that only look when `argument` is true: the stricter answer for anything odd."""

    def assess(**arguments: object) -> Assessment:
        rehearsal = arguments.get(argument, default) is True
        return Assessment(Risk.read if rehearsal else Risk.change, plan)

    return assess
