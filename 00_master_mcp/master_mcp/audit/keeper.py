"""What keeps the audit in order beside the calls: checkpoints by the clock, the anchor, segments, retention."""

import threading
import time
from dataclasses import asdict

import orjson
import sqlalchemy as sa

from fleetkit.audit_settings import AuditSettings
from fleetkit.store import Store
from master_mcp.audit.anchor import publish
from master_mcp.audit.chain import Chain, Head, checkpoint_lines
from master_mcp.audit.place import Place
from master_mcp.audit.segments import (
    Sealed,
    drop_rows,
    read_segment,
    sealed_of,
    segment_is_whole,
    table_rows,
    write_segment,
)
from master_mcp.store import audit

DAY_S = 86400.0
QUIET_S = 30.0  # while no row comes nothing grows due but by age: looking each second cost half a percent of a core


class Keeper:
    """One step at a time, each complete or without effect whenever the process dies."""

    def __init__(self, store: Store, chain: Chain, place: Place, settings: AuditSettings) -> None:
        self._store = store
        self._chain = chain
        self._place = place
        self._settings = settings
        self._one = threading.Lock()
        self._stopping = threading.Event()
        self._kept: Head | None = None  # the end of the chain when nothing more was due, and when that was
        self._kept_at = 0.0

    def tick(self) -> None:
        """Do what is due. Raises FleetError when something cannot be done; it is tried again next time."""
        with self._one:
            head = self._head()
            if head == self._kept and head.seq == head.checkpoint_seq and time.time() - self._kept_at < QUIET_S:
                return
            if head.seq > head.checkpoint_seq and time.time() - head.checkpoint_at >= self._settings.checkpoint_s:
                self._checkpoint("time")
            self._anchor()
            self._seal_all()
            self._drop_all()
            self._kept, self._kept_at = head, time.time()

    def anchor(self) -> None:
        """Bring the anchor up to date with the database."""
        with self._one:
            self._publish()

    def close(self) -> None:
        """End a tick that runs, sign where the chain stands, and anchor it."""
        self._stopping.set()
        with self._one:
            head = self._head()
            if head.seq > head.checkpoint_seq:
                self._checkpoint("close")
            self._publish()

    def _head(self) -> Head:
        return self._store.read_now(self._chain.head)

    def _checkpoint(self, kind: str) -> None:
        self._store.write_now(lambda db: self._chain.checkpoint(db, kind))

    def _anchor(self) -> None:
        head = self._head()
        if head.checkpoints > head.anchored:
            self._publish()

    def _publish(self) -> None:
        publish(self._place.anchor, self._store, self._chain)

    # --- segments ---------------------------------------------------------------------------------

    def _sealed(self) -> list[Sealed]:
        lines = self._store.read_now(lambda db: checkpoint_lines(db, "seal"))
        return [sealed_of(orjson.loads(line)) for line in lines]

    def _seal_all(self) -> None:
        while not self._stopping.is_set():
            sealed = self._sealed()
            begin = sealed[-1].seq if sealed else 0
            last = self._store.read_now(lambda db, begin=begin: self._full(db, begin) or self._aged(db, begin))
            if last is None:
                return
            self._seal(len(sealed) + 1, begin, sealed[-1].mac if sealed else None, last)

    def _full(self, db: sa.Connection, begin: int) -> int | None:
        """The last row of a whole segment after row `begin`, None while there are too few."""
        rows = self._settings.segment_rows
        if self._chain.head(db).seq - begin < rows:
            return None
        unsealed = sa.select(audit.c.seq).where(audit.c.seq > begin).order_by(audit.c.seq)
        return db.scalar(unsealed.offset(rows - 1).limit(1))

    def _aged(self, db: sa.Connection, begin: int) -> int | None:
        """The last row that is too old to stay, once a day's rows are: not one segment per row that grows old."""
        if self._settings.keep_days is None:
            return None
        unsealed = sa.select(audit.c.seq).where(audit.c.seq > begin)
        cutoff = time.time() - self._settings.keep_days * DAY_S
        if db.scalar(unsealed.where(audit.c.at < cutoff - DAY_S).limit(1)) is None:
            return None
        return db.scalar(sa.select(sa.func.max(audit.c.seq)).where(audit.c.seq > begin, audit.c.at < cutoff))

    def _seal(self, number: int, begin: int, previous: str | None, last: int) -> None:
        before = previous or self._chain.keys.genesis(self._head().chain)
        sealed = self._store.read_now(
            lambda db: write_segment(
                self._place.segments, number, table_rows(db, begin, last), self._chain.keys, before
            )
        )
        self._store.write_now(lambda db: self._record(db, number, sealed))
        self._publish()

    def _record(self, db: sa.Connection, number: int, sealed: Sealed) -> None:
        """Sign the segment, unless another hub has been quicker."""
        self._chain.head(db)
        if len(checkpoint_lines(db, "seal")) == number - 1:
            self._chain.checkpoint(db, "seal", asdict(sealed))

    # --- retention --------------------------------------------------------------------------------

    def _drop_all(self) -> None:
        """First sign what may go, then let it go; what a crash left is taken up again."""
        dropped = self._dropped()
        drop_rows(self._store, dropped, self._stopping.is_set)
        for sealed in self._sealed():
            if sealed.seq > dropped and not self._stopping.is_set():
                if not self._may_go(sealed):
                    return
                mark = {"seq": sealed.seq, "mac": sealed.mac}
                self._store.write_now(lambda db, mark=mark: self._chain.checkpoint(db, "drop", mark))
                self._publish()
                dropped = sealed.seq
                drop_rows(self._store, dropped, self._stopping.is_set)

    def _dropped(self) -> int:
        lines = self._store.read_now(lambda db: checkpoint_lines(db, "drop"))
        return int(orjson.loads(lines[-1])["seq"]) if lines else 0

    def _may_go(self, sealed: Sealed) -> bool:
        keep = self._settings
        many = keep.keep_rows is not None and self._head().seq - sealed.seq >= keep.keep_rows
        old = keep.keep_days is not None and sealed.last_at < time.time() - keep.keep_days * DAY_S
        return (many or old) and segment_is_whole(read_segment(self._place.segments, sealed.file), sealed)
