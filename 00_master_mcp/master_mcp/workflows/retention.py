"""Ended runs are kept for a while, with their steps and journals, and then forgotten."""

import asyncio
import time

from fleetkit.errors import FleetError
from fleetkit.log import get_logger
from fleetkit.store import Store
from master_mcp.store.workflows import runs
from master_mcp.workflows import book
from master_mcp.workflows.executing import Executor
from master_mcp.workflows.record import ENDED

LOOK_S = 600.0
AT_ONCE = 200

log = get_logger()


class Retention:
    """Forgets runs that ended more than `keep_s` seconds ago."""

    def __init__(self, store: Store, executor: Executor, keep_s: float) -> None:
        self._store = store
        self._executor = executor
        self._keep_s = keep_s

    async def watch(self) -> None:
        """For ever."""
        while True:
            try:
                while await self.sweep():
                    pass
            except FleetError as error:
                log.warning("workflow.retention.failed", reason=error.message)
            await asyncio.sleep(LOOK_S)

    async def sweep(self) -> int:
        """Forget what is old, some at a time; how many went. Journals first: a run without one is only a record."""
        old = runs.c.ended_at < time.time() - self._keep_s
        found = await self._store.read(lambda db: book.listed(db, AT_ONCE, old, runs.c.status.in_(ENDED)))
        if found:
            await self._executor.forget(found)
            await self._store.write(lambda db: book.delete(db, [run.id for run in found]))
        return len(found)
