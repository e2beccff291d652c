"""What one run's steps do, written down as it happens; the run's own status follows from it."""

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import sqlalchemy as sa

from fleetkit.errors import FleetError, OverBudget, Unavailable
from fleetkit.store import Store
from master_mcp.workflows import book
from master_mcp.workflows.book import WHOLE, StepKey
from master_mcp.workflows.engine import Interrupted
from master_mcp.workflows.record import RunStatus, StepRecord, StepStatus
from master_mcp.workflows.run import Run

T = TypeVar("T")

At = tuple[str, int | None]  # a step, and its item when it has several


class Ledger:
    """The rows of one attempt at a run. `resumed`: an earlier start of this hub may have written some already."""

    def __init__(self, store: Store, run: Run, *, resumed: bool, changed: Callable[[RunStatus], None]) -> None:
        self._store = store
        self._run = run
        self._resumed = resumed
        self._changed = changed
        self._live: dict[At, StepStatus] = {}
        self.attempts: dict[At, int] = {}

    async def found(self, at: At) -> Mapping[str, Any] | None:
        """What was written about a step before this start of the hub."""
        if not self._resumed:
            return None
        row = await self.sound(self._store.read(lambda db: book.step(db, self._key(at))))
        if row is not None:
            self.attempts[at] = row["attempts"]
        return row

    async def sure(self, at: At, status: StepStatus, **values: Any) -> None:
        """Write where a step stands and wait until that is on disk."""
        key = self._key(at)
        self._tell(at, status)
        await self.sound(self._store.write(lambda db: book.put(db, key, status=status.value, **values)))

    def note(self, at: At, status: StepStatus, **values: Any) -> None:
        """Write where a step stands; nobody waits for it."""
        key = self._key(at)
        self._tell(at, status)
        self._queued(lambda db: book.put(db, key, status=status.value, **values))

    async def kept(self, at: At, record: StepRecord) -> None:
        """Write how a step ended and wait until that is on disk."""
        key = self._key(at)
        self._tell(at, record.status)
        await self.sound(self._store.write(lambda db: book.put_record(db, key, record)))

    def over(self, at: At, record: StepRecord) -> None:
        """Write how a step ended; its journal has it already."""
        key = self._key(at)
        self._tell(at, record.status)
        self._queued(lambda db: book.put_record(db, key, record))

    async def signal(self, name: str) -> Mapping[str, Any] | None:
        """What was sent to the run under that name."""
        return await self.sound(self._store.read(lambda db: book.signal(db, self._run.id, name)))

    @property
    def status(self) -> RunStatus:
        """Where the run stands: what somebody has to look at comes first, then whether anything moves."""
        states = self._live.values()
        if StepStatus.in_doubt in states:
            return RunStatus.in_doubt
        if StepStatus.running in states or not states:
            return RunStatus.running
        return RunStatus.waiting

    async def sound(self, work: Awaitable[T]) -> T:
        """What the database gives; one that fails interrupts the execution, which goes on when it is well again."""
        try:
            return await work
        except (Unavailable, OverBudget) as error:
            raise Interrupted(error.message) from error

    def _queued(self, work: Callable[[sa.Connection], None]) -> None:
        try:
            self._store.submit(work)
        except FleetError as error:
            raise Interrupted(error.message) from error

    def _tell(self, at: At, status: StepStatus) -> None:
        before = self.status
        if status in (StepStatus.running, StepStatus.waiting, StepStatus.in_doubt):
            self._live[at] = status
        else:
            self._live.pop(at, None)
        if self.status is not before:
            self._changed(self.status)

    def _key(self, at: At) -> StepKey:
        step, item = at
        return self._run.id, self._run.epoch, step, WHOLE if item is None else item


def now() -> float:
    """Seconds since the epoch."""
    return time.time()
