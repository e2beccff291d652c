"""The append-only record of every call and every decision: who, what, what came of it, how long it took.

Rows are collected, chained and inserted by the store's writer, many per transaction. A call that can
change something waits until its intent row is on disk before anything is sent; a read does not wait.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from fleetkit.errors import FleetError, OverBudget, Unavailable
from fleetkit.log import get_logger
from fleetkit.metrics import Metrics
from fleetkit.settings import FleetSettings
from fleetkit.store import Store
from master_mcp.audit.chain import Chain
from master_mcp.audit.keeper import Keeper
from master_mcp.audit.place import chain_keys, place_of
from master_mcp.audit.rows import INTENT, Row, event_row, shape_of

__all__ = ["Audit", "Row", "event_row", "open_audit", "shape_of"]

log = get_logger()

NOTED_WITHIN_S = 0.01
KEPT_EVERY_S = 1.0
PENDING = 20_000  # rows waiting for the disk at most; beyond it calls are refused

Values = dict[str, Any]


class Audit:
    """Appends rows. `watch()` keeps the log in order meanwhile, `close()` signs where it ends."""

    def __init__(self, store: Store, chain: Chain, keeper: Keeper, metrics: Metrics) -> None:
        self._store = store
        self._chain = chain
        self._keeper = keeper
        self._metrics = metrics
        self._waiting: list[Values] = []
        self._lock = threading.RLock()  # a flush that fails at once settles while it is being queued
        self._flush: Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def check(self) -> None:
        """Raises OverBudget while the disk lags so far behind that a row could not be queued."""
        if len(self._waiting) >= PENDING:
            raise OverBudget("the audit log cannot keep up: slow down and repeat", retry_after=1.0)

    def note(self, row: Row) -> None:
        """Queue a row that nobody waits for: it is written within 10 ms, in one go with its neighbours.

        Raises OverBudget when the disk lags behind.
        """
        self._queue(row)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(NOTED_WITHIN_S, self.flush)

    def append(self, row: Row) -> "Future[None]":
        """Queue a row; the future resolves when it is committed. Raises OverBudget when the disk lags behind."""
        with self._lock:  # the row is written by this flush, or fails with it
            self._queue(row)
            return self.flush()

    def event(
        self,
        action: str,
        *,
        caller: str,
        door: str,
        outcome: str = "ok",
        risk: str = "change",
        detail: Mapping[str, Any] | None = None,
        approval_id: str | None = None,
        correlation_id: str | None = None,
    ) -> "Future[None]":
        """`append` for something that is no call, such as `keys.create`; see `event_row` for the arguments."""
        row = event_row(
            action, caller=caller, door=door, outcome=outcome, risk=risk, detail=detail,
            approval_id=approval_id, correlation_id=correlation_id,
        )  # fmt: skip
        return self.append(row)

    async def commit(self, row: Row) -> None:
        """Append a row and wait until it is on disk; raises Unavailable when it cannot be."""
        try:
            await asyncio.wrap_future(self.append(row))
        except (SQLAlchemyError, Unavailable) as error:
            raise _unwritten(row, error) from error

    def commit_now(self, row: Row) -> None:
        """`commit` for synchronous callers (command line)."""
        try:
            self.append(row).result()
        except (SQLAlchemyError, Unavailable) as error:
            raise _unwritten(row, error) from error

    def write_in(self, db: sa.Connection, *rows: Row) -> None:
        """Append rows within the caller's own write transaction: both are on disk, or neither is."""
        self._chain.append(db, [_values(row) for row in rows])

    @contextmanager
    def recorded(self, action: str, *, caller: str, door: str, detail: Mapping[str, Any]) -> Generator[dict[str, Any]]:
        """Around a change made by hand: its intent is on disk before the block runs, its outcome after.

        The block may add to the detail of the outcome, which it gets. Raises Unavailable, before the block runs,
        when the intent cannot be written.
        """
        intent = event_row(action, caller=caller, door=door, outcome=INTENT, detail=detail)
        self.commit_now(intent)
        outcome, known = "failed", dict(detail)
        try:
            yield known
            outcome = "ok"
        except FleetError as error:
            outcome = error.code
            raise
        finally:
            row = event_row(action, caller=caller, door=door, outcome=outcome, detail=known)
            self.commit_now(replace(row, correlation_id=intent.correlation_id, args_hash=intent.args_hash))

    def flush(self) -> "Future[None]":
        """Have all queued rows written now; the future resolves when they are committed."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        with self._lock:
            if self._flush is None or self._flush.done():
                taken: list[Values] = []
                self._flush = self._store.submit(lambda db: self._insert(db, taken))
                self._flush.add_done_callback(lambda flush: self._settle(flush, taken))
            return self._flush

    async def watch(self) -> None:
        """Checkpoints, anchor, segments and retention, once a second for ever; a failure is logged and tried again."""
        while True:
            await asyncio.sleep(KEPT_EVERY_S)
            if self._waiting:
                self.flush()
            await asyncio.to_thread(self._tend, self._keeper.tick)

    def anchor(self) -> None:
        """Bring the anchor up to date with the database; what hinders it is logged."""
        self._tend(self._keeper.anchor)

    def close(self) -> None:
        """Write what is queued, sign where the chain ends, anchor it."""
        try:
            self.flush().exception()
        except FleetError as error:  # the store takes nothing any more
            log.error("audit.write.failed", reason=error.message)
            return
        self._tend(self._keeper.close)

    def _tend(self, step: "Callable[[], None]") -> None:
        try:
            step()
        except FleetError as error:
            log.error("audit.keeping.failed", reason=error.message)
        except (SQLAlchemyError, OSError, ValueError) as error:
            log.error("audit.keeping.failed", reason=str(error).splitlines()[0])

    def _queue(self, row: Row) -> None:
        values = _values(row)
        with self._lock:
            self.check()
            self._waiting.append(values)

    def _insert(self, db: sa.Connection, taken: list[Values]) -> None:
        with self._lock:
            taken[:], self._waiting = self._waiting, []
            self._flush = None
        if taken:
            self._chain.append(db, taken)

    def _settle(self, flush: "Future[None]", taken: list[Values]) -> None:
        """What happened stays due when it could not be written; an intent does not, as nothing was sent."""
        problem = flush.exception()
        if problem is None:
            self._metrics.audit_rows.inc(len(taken))
            return
        self._metrics.audit_failures.inc()
        with self._lock:
            if self._flush is flush:  # it never ran: what it should have written is still waiting
                self._flush, taken, self._waiting = None, self._waiting, []
            self._waiting[:0] = [values for values in taken if values["outcome"] != INTENT]
        log.error("audit.write.failed", reason=str(problem).splitlines()[0])


def open_audit(store: Store, config: FleetSettings, metrics: Metrics | None = None) -> Audit:
    """The audit of a hub's store, its chain begun. Raises Unavailable when its key or its chain is not right."""
    place = place_of(config)
    chain = Chain(chain_keys(place, create=True), config.hub.audit.checkpoint_rows)
    store.write_now(chain.start)
    audit = Audit(store, chain, Keeper(store, chain, place, config.hub.audit), metrics or Metrics())
    audit.anchor()
    return audit


def _values(row: Row) -> Values:
    values = {"at": time.time(), **vars(row)}
    if row.duration_ms is not None:
        values["duration_ms"] = float(row.duration_ms)  # as the database gives it back, for the MAC
    return values


def _unwritten(row: Row, error: Exception) -> Unavailable:
    reason = error.message if isinstance(error, Unavailable) else str(error).splitlines()[0]
    done = "nothing was sent" if row.outcome == INTENT else f"what was done ended with {row.outcome!r}"
    return Unavailable(f"the audit log cannot be written, {done}: {reason}. `fleet doctor` looks at it")
