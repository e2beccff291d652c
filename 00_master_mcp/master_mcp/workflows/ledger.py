"""What one run's steps do, written down as it happens; the run's own status follows from it."""

import asyncio
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

TOGETHER_S = 0.2  # rows that nobody waits for are written together: one write for three quick steps, not six


class Ledger:
    """The rows of one attempt at a run. `resumed`: an earlier start of this hub may have written some already."""

    def __init__(self, store: Store, run: Run, *, resumed: bool, changed: Callable[[RunStatus], None]) -> None:
        self._store = store
        self._run = run
        self._resumed = resumed
        self._changed = changed
        self._live: dict[At, StepStatus] = {}
        self._unwritten: dict[At, dict[str, Any]] = {}
        self._known: set[At] = set()  # what may have a row
        self._writing: asyncio.TimerHandle | None = None
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
        self._keep(at, status, {"status": status.value, **values})
        await self.written()

    def note(self, at: At, status: StepStatus, **values: Any) -> None:
        """Write where a step stands soon; nobody waits for it."""
        self._keep(at, status, {"status": status.value, **values})

    async def kept(self, at: At, record: StepRecord) -> None:
        """Write how a step ended and wait until that is on disk."""
        self.over(at, record)
        await self.written()

    def over(self, at: At, record: StepRecord) -> None:
        """Write how a step ended soon; its journal has it already."""
        self._keep(at, record.status, book.values_of(record))

    async def written(self, last: Callable[[sa.Connection], bool] = lambda _db: True) -> bool:
        """Wait until all of it is on disk, and with it what `last` does; what that gives."""
        return await self.sound(self._store.write(self._taken(last)))

    def close(self) -> None:
        """Queue what is left."""
        if self._writing is not None:
            self._writing.cancel()
        self._flush()

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

    def _keep(self, at: At, status: StepStatus, values: Mapping[str, Any]) -> None:
        self._tell(at, status)
        self._unwritten.setdefault(at, {}).update(values)
        if self._writing is None:
            self._writing = asyncio.get_running_loop().call_later(TOGETHER_S, self._flush)

    def _flush(self) -> None:
        self._writing = None
        rows = self._unwritten
        if rows:
            try:
                self._store.submit(self._taken())
            except FleetError:
                self._unwritten = rows  # the next row that somebody waits for takes them along, or says why not

    def _taken(self, last: Callable[[sa.Connection], bool] = lambda _db: True) -> Callable[[sa.Connection], bool]:
        """The write of every row that is not written."""
        old: dict[StepKey, dict[str, Any]] = {}
        new: dict[StepKey, dict[str, Any]] = {}
        for at, values in self._unwritten.items():
            (old if self._resumed or at in self._known else new)[self._key(at)] = values
        self._known |= self._unwritten.keys()
        self._unwritten = {}

        def work(db: sa.Connection) -> bool:
            for key, values in old.items():
                book.put(db, key, **values)
            book.put_new(db, new)
            return last(db)

        return work

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
