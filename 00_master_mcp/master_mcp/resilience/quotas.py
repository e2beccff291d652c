"""Quotas over a restart: read at start, written behind a second after they were used."""

import asyncio
from concurrent.futures import Future

import sqlalchemy as sa

from fleetkit.errors import FleetError
from fleetkit.log import get_logger
from fleetkit.store import Store
from master_mcp.resilience.limits import LocalBuckets, Used
from master_mcp.store import quotas as table

log = get_logger()

WRITTEN_WITHIN_S = 1.0  # what a SIGKILL can lose


class QuotaKeeper:
    """Keeps the quotas of `buckets` in the database."""

    def __init__(self, store: Store, buckets: LocalBuckets) -> None:
        self._store = store
        self._buckets = buckets
        self._timer: asyncio.TimerHandle | None = None
        buckets.on_quota = self._soon

    def load(self) -> None:
        """Go on counting where the last run ended; for start-up."""
        rows = self._store.read_now(lambda db: db.execute(sa.select(table)).all())
        self._buckets.quotas.update({row.bucket: Used(row.starts, row.ends, row.used) for row in rows})

    def flush(self) -> None:
        """Queue what is to be written; it is on disk when the store is closed."""
        if self._timer is None:
            return
        self._timer.cancel()
        self._timer = None
        rows = [{"bucket": bucket, **vars(used)} for bucket, used in self._buckets.quotas.items()]
        try:
            self._store.submit(lambda db: _replace(db, rows)).add_done_callback(_report)
        except FleetError as error:
            log.warning("quotas.not_kept", reason=error.message)

    def _soon(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(WRITTEN_WITHIN_S, self.flush)


def _replace(db: sa.Connection, rows: list[dict[str, str | float | int]]) -> None:
    db.execute(table.delete())
    if rows:
        db.execute(table.insert(), rows)


def _report(written: "Future[None]") -> None:
    problem = written.exception()
    if problem is not None:
        log.warning("quotas.not_kept", reason=str(problem).splitlines()[0])
