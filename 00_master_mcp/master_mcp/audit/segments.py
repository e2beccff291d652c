"""Sealed segments: a stretch of the chain as one compressed file of JSON lines, checked before its rows may go."""

import gzip
import hashlib
import io
import os
import secrets
import time
import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import sqlalchemy as sa

from fleetkit.errors import Conflict
from fleetkit.shapes import mapping
from fleetkit.store import Store
from master_mcp.audit.chain import ChainKeys
from master_mcp.audit.rows import COLUMNS
from master_mcp.store import audit

STORED = (*COLUMNS, "mac")
PAGE = 5000
ABANDONED_S = 86400.0

Values = Sequence[Any]


@dataclass(frozen=True)
class Sealed:
    """What a segment's checkpoint says of it."""

    file: str
    sha256: str
    first: int
    count: int
    previous: str
    seq: int
    mac: str
    first_at: float
    last_at: float


def sealed_of(body: Mapping[str, Any]) -> Sealed:
    """The segment that a checkpoint of kind `seal` describes."""
    return Sealed(**{name: body[name] for name in Sealed.__dataclass_fields__})


def table_rows(db: sa.Connection, after: int, last: int | None = None) -> Iterator[Values]:
    """Rows of the table numbered above `after` (to `last`), in order, in the order of STORED; read in pages."""
    wanted = sa.select(*(audit.c[name] for name in STORED)).order_by(audit.c.seq).limit(PAGE)
    while True:
        page = wanted.where(audit.c.seq > after)
        rows = db.execute(page if last is None else page.where(audit.c.seq <= last)).all()
        for row in rows:
            yield tuple(row)
        if len(rows) < PAGE:
            return
        after = rows[-1][0]


def file_rows(data: bytes) -> Iterator[Values]:
    """The rows of a segment file, in the order of STORED. Raises ValueError when it is none."""
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as lines:
            for line in lines:
                row = mapping(orjson.loads(line))
                yield [row.get(name) for name in STORED]
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"not a segment ({error})") from error


def write_segment(folder: Path, number: int, rows: Iterable[Values], keys: ChainKeys, previous: str) -> Sealed:
    """Write rows as a file of its own, read it back and check its chain; it is whole under its name or absent.

    Raises Conflict when the rows are not the chain that follows the MAC `previous`.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    _sweep(folder)
    file = f"{number:06d}.jsonl.gz"
    partial = folder / f"{file}.{secrets.token_hex(4)}.partial"
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as raw:
            with gzip.GzipFile(fileobj=raw, mode="wb", filename="", mtime=0, compresslevel=6) as out:
                for row in rows:
                    out.write(orjson.dumps(dict(zip(STORED, row, strict=True))) + b"\n")
            raw.flush()
            os.fsync(raw.fileno())
        sealed = _checked(partial, file, keys, previous)
        partial.replace(folder / file)
        _sync(folder)
    finally:
        partial.unlink(missing_ok=True)
    return sealed


def read_segment(folder: Path, file: str) -> bytes | None:
    """The bytes of a segment file, None when it is not there."""
    try:
        return (folder / file).read_bytes()
    except OSError:
        return None


def segment_is_whole(data: bytes | None, sealed: Sealed) -> bool:
    """Whether a segment's file is the one that was sealed."""
    return data is not None and hashlib.sha256(data).hexdigest() == sealed.sha256


def drop_rows(store: Store, last: int, stopped: Callable[[], bool]) -> None:
    """Delete the rows up to `last` from the table, some thousand per transaction, until `stopped`."""
    while not stopped():
        first = store.read_now(lambda db: db.scalar(sa.select(sa.func.min(audit.c.seq))))
        if first is None or first > last:
            return
        until = min(first + PAGE - 1, last)
        store.write_now(lambda db, until=until: db.execute(audit.delete().where(audit.c.seq <= until)))


def _checked(path: Path, file: str, keys: ChainKeys, previous: str) -> Sealed:
    data = path.read_bytes()
    mac, numbers, times = previous, array("q"), array("d")
    for *values, found in file_rows(data):
        mac = keys.link(mac, values)
        if mac != found:
            raise Conflict(f"audit row {values[0]} does not fit the chain: run `fleet audit verify`")
        numbers.append(values[0])
        times.append(values[1])
    digest = hashlib.sha256(data).hexdigest()
    return Sealed(file, digest, numbers[0], len(numbers), previous, numbers[-1], mac, min(times), max(times))


def _sweep(folder: Path) -> None:
    """Remove what a process left that was killed while it wrote."""
    for path in folder.glob("*.partial"):
        if path.stat().st_mtime < time.time() - ABANDONED_S:
            path.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
