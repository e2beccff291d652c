"""The chain of MACs over the audit's rows, its head and its signed checkpoints, inside one transaction.

A row's MAC covers all its columns, its number and the MAC before it. The head (the newest number and MAC)
is one signed row, locked by whoever adds to the chain, so that two processes cannot fork it. A checkpoint
is a signed line about the chain at one row; it is numbered, and repeated in the anchor file.
"""

import hmac
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson
import sqlalchemy as sa

from fleetkit.errors import Unavailable
from fleetkit.shapes import mapping
from master_mcp.audit.rows import COLUMNS, canonical
from master_mcp.store import audit, audit_chain, audit_checkpoints

PAGE = 1000

# Built once: every flush runs these.
_INSERT = audit.insert()
_HEAD = sa.select(audit_chain).where(audit_chain.c.id == 1).with_for_update()
_PUT = sa.text(
    "UPDATE audit_chain SET chain = :chain, seq = :seq, mac = :mac, checkpoints = :checkpoints, "
    "checkpoint_seq = :checkpoint_seq, checkpoint_at = :checkpoint_at, anchored = :anchored, signature = :signature "
    "WHERE id = 1"
)


@dataclass(frozen=True)
class Head:
    """Where the chain ends; `checkpoints` were signed, the newest at `checkpoint_seq`, `anchored` are in the anchor."""

    chain: str
    seq: int
    mac: str
    checkpoints: int = 0
    checkpoint_seq: int = 0
    checkpoint_at: float = 0.0
    anchored: int = 0


class ChainKeys:
    """The two keys of a chain, for its rows and for what is signed about them."""

    def __init__(self, secret: bytes) -> None:
        self.rows = hmac.digest(secret, b"audit rows", "sha256")
        self._signatures = hmac.digest(secret, b"audit signatures", "sha256")

    def genesis(self, chain: str) -> str:
        """What stands for the MAC before the first row."""
        return self.sign(b"genesis " + chain.encode())

    def link(self, previous: str, values: object) -> str:
        """The MAC of a row (its values in the order of COLUMNS) that follows the one with MAC `previous`."""
        return hmac.digest(self.rows, previous.encode() + canonical(values), "sha256").hex()

    def sign(self, body: bytes) -> str:
        """The signature of a head or a checkpoint."""
        return hmac.digest(self._signatures, body, "sha256").hex()

    def head_signature(self, head: Head) -> str:
        """What must stand beside this head."""
        return self.sign(b"head " + orjson.dumps(list(vars(head).values())))

    def line(self, body: Mapping[str, Any]) -> str:
        """A checkpoint as the signed line that database and anchor hold."""
        signed = {**body, "signature": self.sign(b"checkpoint " + _sorted(body))}
        return _sorted(signed).decode()

    def read_line(self, line: str | bytes) -> dict[str, Any] | None:
        """The checkpoint of a line, None when it was not signed with this key or is not whole."""
        try:
            body = dict(mapping(orjson.loads(line)))
        except orjson.JSONDecodeError:
            return None
        signature = str(body.pop("signature", ""))
        good = hmac.compare_digest(signature.encode(), self.sign(b"checkpoint " + _sorted(body)).encode())
        return body if good else None


class Chain:
    """Adds to the chain; every method works in the caller's write transaction."""

    def __init__(self, keys: ChainKeys, checkpoint_rows: int) -> None:
        self.keys = keys
        self._checkpoint_rows = checkpoint_rows

    def start(self, db: sa.Connection) -> None:
        """Begin the chain where there is none yet, over the rows of the time before it, oldest first.

        Raises Unavailable when there was a chain whose head is gone, or it is not of this key.
        """
        if _stored(db)["chain"]:
            self.head(db)
            return
        if db.scalar(sa.select(sa.func.count()).select_from(audit_checkpoints)) or _any_mac(db):
            raise Unavailable(
                "the audit log has rows but its chain's head is gone: restore a backup of the hub's database, or move "
                "the database away to begin a new one"
            )
        chain = secrets.token_hex(8)
        head, adopted = self._adopt(db, Head(chain, 0, self.keys.genesis(chain)))
        self._put(db, self._checkpoint(db, head, "start", {"adopted": adopted}))

    def append(self, db: sa.Connection, rows: Sequence[dict[str, Any]]) -> None:
        """Chain and insert rows; each gets its `seq` and `mac`. Raises Unavailable when the head was tampered with."""
        head = self.head(db)
        seq, mac = head.seq, head.mac
        for row in rows:
            seq += 1
            row["seq"] = seq
            mac = row["mac"] = self.keys.link(mac, [row[name] for name in COLUMNS])
        db.execute(_INSERT, rows)
        head = replace(head, seq=seq, mac=mac)
        if seq - head.checkpoint_seq >= self._checkpoint_rows:
            head = self._checkpoint(db, head, "rows", {})
        self._put(db, head)

    def checkpoint(self, db: sa.Connection, kind: str, at: Mapping[str, Any] | None = None) -> None:
        """Sign where the chain stands (or what `at` says of an older row), and remember it."""
        self._put(db, self._checkpoint(db, self.head(db), kind, at or {}))

    def mark_anchored(self, db: sa.Connection, number: int) -> None:
        """Remember that the anchor holds the checkpoints up to this number."""
        head = self.head(db)
        if number > head.anchored:
            self._put(db, replace(head, anchored=number))

    def head(self, db: sa.Connection) -> Head:
        """The head, locked against other writers until the transaction ends; raises Unavailable when it is not ours."""
        stored = _stored(db)
        head = head_of(stored)
        if not hmac.compare_digest(self.keys.head_signature(head), str(stored["signature"])):
            raise Unavailable(
                "the audit log was not written with this audit key, or its head was changed: check hub.audit.key_file "
                "and run `fleet audit verify`"
            )
        return head

    def _adopt(self, db: sa.Connection, head: Head) -> tuple[Head, int]:
        """Chain rows that have no MAC yet, page by page."""
        link = audit.update().where(audit.c.seq == sa.bindparam("at_seq")).values(mac=sa.bindparam("link"))
        adopted = 0
        while page := _values(db, after=head.seq):
            links: list[dict[str, object]] = []
            for values in page:
                head = replace(head, seq=int(values[0]), mac=self.keys.link(head.mac, values))
                links.append({"at_seq": head.seq, "link": head.mac})
            db.execute(link, links)
            adopted += len(page)
        return head, adopted

    def _checkpoint(self, db: sa.Connection, head: Head, kind: str, about: Mapping[str, Any]) -> Head:
        number, now = head.checkpoints + 1, time.time()
        body = {"chain": head.chain, "number": number, "kind": kind, "at": now, "seq": head.seq, "mac": head.mac}
        line = self.keys.line({**body, **about})
        db.execute(audit_checkpoints.insert().values(number=number, kind=kind, line=line))
        head = replace(head, checkpoints=number)
        return head if "seq" in about else replace(head, checkpoint_seq=head.seq, checkpoint_at=now)

    def _put(self, db: sa.Connection, head: Head) -> None:
        db.execute(_PUT, {**vars(head), "signature": self.keys.head_signature(head)})


def head_of(stored: Mapping[str, Any]) -> Head:
    """The head as its row says it is, unchecked."""
    return Head(**{name: stored[name] for name in Head.__dataclass_fields__})


def checkpoint_lines(db: sa.Connection, kind: str | None = None, after: int = 0) -> list[str]:
    """The signed lines numbered above `after`, of one kind or of all, in order."""
    wanted = sa.select(audit_checkpoints.c.line).where(audit_checkpoints.c.number > after)
    if kind is not None:
        wanted = wanted.where(audit_checkpoints.c.kind == kind)
    return list(db.execute(wanted.order_by(audit_checkpoints.c.number)).scalars())


def _stored(db: sa.Connection) -> Mapping[str, Any]:
    """The head's row; locked where the database locks rows, SQLite has locked itself at BEGIN."""
    found = db.execute(_HEAD).mappings().first()
    if found is None:
        raise Unavailable("the audit log's head is gone: restore a backup of the hub's database")
    return dict(found)


def _any_mac(db: sa.Connection) -> bool:
    return db.execute(sa.select(audit.c.seq).where(audit.c.mac.is_not(None)).limit(1)).first() is not None


def _values(db: sa.Connection, after: int) -> list[Sequence[Any]]:
    columns: Iterable[sa.Column[Any]] = (audit.c[name] for name in COLUMNS)
    page = sa.select(*columns).where(audit.c.seq > after).order_by(audit.c.seq).limit(PAGE)
    return [tuple(row) for row in db.execute(page)]


def _sorted(body: Mapping[str, Any]) -> bytes:
    return orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
