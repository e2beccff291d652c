"""The anchor: a file that repeats every checkpoint, append-only, best kept where the database's owner cannot write.

It is what finds a log that was cut, or rolled back, together with its checkpoints.
"""

import fcntl
import os
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from fleetkit.errors import Conflict, Unavailable
from fleetkit.store import Store
from master_mcp.audit.chain import Chain, ChainKeys, Head, checkpoint_lines

TAIL = 64 * 1024
ADVICE = "run `fleet audit verify`"


@dataclass(frozen=True)
class Anchored:
    """Lines of an anchor that are whole, and how many are not though a crash cannot explain it."""

    lines: list[bytes]
    broken: int


def publish(path: Path, store: Store, chain: Chain) -> None:
    """Append the checkpoints that the anchor does not hold yet, durably.

    What was once written there is never written again: an anchor that lost lines stays visibly short. Raises
    Unavailable when it cannot be written, Conflict when it knows of checkpoints that the database has lost.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            number = _catch_up(handle, store, chain)
        finally:
            os.close(handle)
    except OSError as error:
        raise Unavailable(f"the audit's anchor {path}: {error.strerror}") from error
    if number:
        store.write_now(lambda db: chain.mark_anchored(db, number))


def _catch_up(handle: int, store: Store, chain: Chain) -> int:
    """The number of the newest anchored checkpoint, 0 when the database knows it already."""
    head, tail = store.read_now(chain.head), _tail(handle)
    there = _last(tail, chain.keys, head)
    if there > head.checkpoints:
        raise Conflict(f"the audit's anchor knows {there} checkpoints, the database {head.checkpoints}: {ADVICE}")
    held = max(there, head.anchored)
    fresh = store.read_now(lambda db: checkpoint_lines(db, after=held))
    if fresh:
        _sync_wal(store)  # the anchor must not know of rows that a power cut takes from the database
        _append(handle, tail, fresh)
    newest = held + len(fresh)
    return newest if newest > head.anchored else 0


def read_anchor(path: Path) -> Anchored | None:
    """The whole lines of an anchor, None when there is no file. A line that a crash cut short is left out."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Unavailable(f"the audit's anchor {path}: {error.strerror}") from error
    return whole_lines(raw)


def whole_lines(raw: bytes) -> Anchored:
    """Lines that end; of two where the first is the beginning of the second, a crash explains the first."""
    parts = raw.split(b"\n")
    whole: list[bytes] = []
    broken = 0
    for line, after in pairwise(parts):
        if line.endswith(b"}"):
            whole.append(line)
        elif not after.startswith(line):
            broken += 1
    return Anchored(whole, broken)


def _append(handle: int, tail: bytes, lines: list[str]) -> None:
    begin = b"" if not tail or tail.endswith(b"\n") else b"\n"
    rest = begin + "".join(f"{line}\n" for line in lines).encode()
    while rest:
        rest = rest[os.write(handle, rest) :]
    os.fsync(handle)


def _tail(handle: int) -> bytes:
    size = os.fstat(handle).st_size
    return os.pread(handle, TAIL, max(size - TAIL, 0))


def _last(tail: bytes, keys: ChainKeys, head: Head) -> int:
    """The number of the newest checkpoint of this chain near the end."""
    for line in reversed(tail.split(b"\n")):
        body = keys.read_line(line)
        if body is not None:
            return int(body["number"]) if body["chain"] == head.chain else 0
    return 0


def _sync_wal(store: Store) -> None:
    wal = Path(f"{store.engine.url.database}-wal")
    if store.engine.dialect.name != "sqlite" or not wal.exists():
        return
    handle = os.open(wal, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
