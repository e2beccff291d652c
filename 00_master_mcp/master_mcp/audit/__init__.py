"""The append-only record of every call: who, which tool, what came of it, how long it took.

Rows are collected and inserted by the store's writer, many per transaction. A call that can change
something waits until its intent row is on disk before anything is sent; a read does not wait.
"""

import asyncio
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from fleetkit.errors import OverBudget, Unavailable
from fleetkit.log import get_logger
from fleetkit.store import Store
from master_mcp.store import audit

log = get_logger()

NOTED_WITHIN_S = 0.01
PENDING = 20_000  # rows waiting for the disk at most; beyond it calls are refused


@dataclass(frozen=True)
class Row:
    """One audit row; `outcome` is `intent`, `ok`, or an error code."""

    correlation_id: str
    caller: str
    door: str
    service: str
    tool: str
    risk: str
    outcome: str
    args_hash: str
    duration_ms: float | None = None
    approval_id: str | None = None


class Audit:
    """Appends rows."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        self._flush: Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def note(self, row: Row) -> None:
        """Queue a row that nobody waits for: it is written within 10 ms, in one go with its neighbours.

        Raises OverBudget when the disk lags behind.
        """
        self._queue(row)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(NOTED_WITHIN_S, self.flush)

    def append(self, row: Row) -> "Future[None]":
        """Queue a row; the future resolves when it is committed. Raises OverBudget when the disk lags behind."""
        self._queue(row)
        return self.flush()

    def flush(self) -> "Future[None]":
        """Have all queued rows written now; the future resolves when they are committed."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        with self._lock:
            if self._flush is None or self._flush.done() or self._flush.running():
                self._flush = self._store.submit(self._insert)
                self._flush.add_done_callback(_report)
            return self._flush

    async def commit(self, row: Row) -> None:
        """Append a row and wait until it is on disk; raises Unavailable when it cannot be."""
        try:
            await asyncio.wrap_future(self.append(row))
        except SQLAlchemyError as error:
            raise Unavailable(f"the audit log cannot be written ({error.args[0]}): run `fleet doctor`") from error

    def _queue(self, row: Row) -> None:
        with self._lock:
            if len(self._waiting) >= PENDING:
                raise OverBudget("the audit log cannot keep up: slow down and repeat", retry_after=1.0)
            self._waiting.append({"at": time.time(), **vars(row)})

    def _insert(self, db: sa.Connection) -> None:
        with self._lock:
            rows, self._waiting = self._waiting, []
            self._flush = None
        if rows:
            db.execute(audit.insert(), rows)


def _report(flush: "Future[None]") -> None:
    problem = flush.exception()
    if problem is not None:
        log.error("audit.write.failed", reason=str(problem).splitlines()[0])
