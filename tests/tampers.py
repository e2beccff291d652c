"""A log in memory and every way to tamper with it that needs no key: thousands of copies cost little."""

import gzip
import hashlib
import random
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from master_mcp.audit.anchor import Anchored
from master_mcp.audit.chain import ChainKeys, Head
from master_mcp.audit.check import Evidence
from master_mcp.audit.segments import STORED, Values, file_rows

Row = tuple[Any, ...]
Random = random.Random


@dataclass(frozen=True)
class Copy:
    """A log as verify finds it. `earlier` are heads and checkpoints that were true once: what a backup holds."""

    head: Head
    signature: str
    checkpoints: tuple[str, ...]
    anchor: tuple[bytes, ...] | None
    rows: tuple[Row, ...]
    files: Mapping[str, bytes]
    dropped: int = 0
    earlier: tuple[tuple[Head, str, tuple[str, ...]], ...] = field(default=(), repr=False)

    def evidence(self) -> Evidence:
        """What verify looks at."""
        anchor = None if self.anchor is None else Anchored(list(self.anchor), 0)
        return Evidence(self.head, self.signature, self.checkpoints, anchor, self._after, self.files.get)

    def _after(self, seq: int) -> Sequence[Values]:
        return self.rows[bisect_right(self.rows, seq, key=lambda row: row[0]) :]


# Each gives the tampered copy and the row before which everything is as it was.
Tampered = tuple[Copy, int]
Tamper = Callable[[Random, Copy], Tampered]


def other(rng: Random, value: Any) -> Any:
    """A value of the same kind that is not this one."""
    if value is None:
        return rng.choice(["", "x", "apr_1"])
    if isinstance(value, str):
        at = rng.randrange(len(value) + 1)
        return value[:at] + rng.choice("abcXYZ019.:") + value[at:]
    return value + rng.choice([-1, 1, 0.001, 3600])


def changed(rng: Random, row: Row) -> Row:
    """A row with one column changed; its number stays."""
    at = rng.randrange(1, len(row))
    return (*row[:at], other(rng, row[at]), *row[at + 1 :])


def put(copy: Copy, at: int, rows: Sequence[Row], removed: int) -> Tampered:
    """Rows in the place of `removed` others, from position `at` of the table on."""
    there = copy.rows
    return replace(copy, rows=(*there[:at], *rows, *there[at + removed :])), there[at][0] - 1 if at else copy.dropped


def edit(rng: Random, copy: Copy) -> Tampered:
    at = rng.randrange(len(copy.rows))
    return put(copy, at, [changed(rng, copy.rows[at])], 1)


def delete(rng: Random, copy: Copy) -> Tampered:
    at = rng.randrange(len(copy.rows))
    return put(copy, at, [], rng.choice([1, 1, 1, 2, 10, 500]))


def delete_and_close_the_gap(rng: Random, copy: Copy) -> Tampered:
    at = rng.randrange(len(copy.rows))
    moved = [(row[0] - 1, *row[1:]) for row in copy.rows[at + 1 :]]
    return put(copy, at, moved, len(copy.rows) - at)


def insert(rng: Random, copy: Copy) -> Tampered:
    """A row that never was; those after it move up."""
    at = rng.randrange(len(copy.rows))
    forged = changed(rng, copy.rows[at])
    moved = [(row[0] + 1, *row[1:]) for row in copy.rows[at:]]
    return put(copy, at, [forged, *moved], len(copy.rows) - at)


def append(rng: Random, copy: Copy) -> Tampered:
    last = copy.rows[-1]
    return replace(copy, rows=(*copy.rows, (last[0] + 1, *changed(rng, last)[1:]))), last[0] - 1


def insert_among_the_dropped(rng: Random, copy: Copy) -> Tampered:
    """A row with a number whose own row left the table: a search would show it."""
    seq = rng.randrange(copy.dropped - 500, copy.dropped) + 1
    return replace(copy, rows=((seq, *copy.rows[0][1:]), *copy.rows)), seq - 1


def reorder(rng: Random, copy: Copy) -> Tampered:
    """Two rows change places, with their MACs or without."""
    one, two = sorted(rng.sample(range(len(copy.rows)), 2))
    a, b = copy.rows[one], copy.rows[two]
    cut = rng.choice([len(a), len(a) - 1])
    between = copy.rows[one + 1 : two]
    return put(copy, one, [(a[0], *b[1:cut], *a[cut:]), *between, (b[0], *a[1:cut], *b[cut:])], two - one + 1)


def truncate(rng: Random, copy: Copy) -> Tampered:
    keep = rng.randrange(len(copy.rows))
    return replace(copy, rows=copy.rows[:keep]), copy.rows[keep - 1][0] if keep else copy.dropped


def truncate_the_front(rng: Random, copy: Copy) -> Tampered:
    """What retention might do, which it did not."""
    return replace(copy, rows=copy.rows[rng.randrange(1, len(copy.rows)) :]), copy.dropped


def truncate_with_checkpoints(rng: Random, copy: Copy) -> Tampered:
    """Rows, checkpoints and head as an older backup has them: every signature is good."""
    head, signature, checkpoints = rng.choice(copy.earlier)
    rows = tuple(row for row in copy.rows if row[0] <= head.seq)
    return replace(copy, head=head, signature=signature, checkpoints=checkpoints, rows=rows), 0


def truncate_with_checkpoints_and_anchor(rng: Random, copy: Copy) -> Tampered:
    """Rows and checkpoints cut in the database and in the anchor; the head still says how many there were."""
    cut, since = truncate(rng, copy)
    keep = rng.randrange(1, len(copy.checkpoints))
    assert copy.anchor is not None
    return replace(cut, checkpoints=copy.checkpoints[:keep], anchor=copy.anchor[:keep]), since


def truncate_and_rewrite_the_head(rng: Random, copy: Copy) -> Tampered:
    cut, since = truncate(rng, copy)
    last = cut.rows[-1] if cut.rows else copy.rows[0]
    head = replace(copy.head, seq=last[0], mac=last[-1])
    return replace(cut, head=head, signature=rng.choice([copy.signature, FALSE_KEYS.head_signature(head)])), since


FALSE_KEYS = ChainKeys(b"of somebody who has not the key.")


def write_anew(rng: Random, copy: Copy) -> Tampered:
    """Everything from one row on chained again, with another key; the last MAC as it was."""
    at = rng.randrange(len(copy.rows) - 1)
    mac, rows = copy.rows[at][-1], list[Row]()
    for row in (changed(rng, copy.rows[at]), *copy.rows[at + 1 : at + 50]):
        mac = FALSE_KEYS.link(mac, row[:-1])
        rows.append((*row[:-1], mac))
    return put(copy, at, rows, len(rows))


def change_the_head(rng: Random, copy: Copy) -> Tampered:
    name = rng.choice(list(vars(copy.head)))
    return replace(copy, head=replace(copy.head, **{name: other(rng, getattr(copy.head, name))})), 0


def change_a_checkpoint(rng: Random, copy: Copy) -> Tampered:
    at = rng.randrange(len(copy.checkpoints))
    body = orjson.loads(copy.checkpoints[at])
    name = rng.choice(list(body))
    line = orjson.dumps({**body, name: other(rng, body[name])}, option=orjson.OPT_SORT_KEYS).decode()
    lines = (*copy.checkpoints[:at], line, *copy.checkpoints[at + 1 :])
    anchor = rng.choice([copy.anchor, tuple(one.encode() for one in lines)])
    return replace(copy, checkpoints=lines, anchor=anchor), copy.rows[-1][0]


def delete_a_checkpoint(rng: Random, copy: Copy) -> Tampered:
    at = rng.randrange(len(copy.checkpoints))
    lines = (*copy.checkpoints[:at], *copy.checkpoints[at + 1 :])
    anchor = rng.choice([copy.anchor, tuple(one.encode() for one in lines)])
    return replace(copy, checkpoints=lines, anchor=anchor), copy.rows[-1][0]


def change_the_anchor(rng: Random, copy: Copy) -> Tampered:
    assert copy.anchor is not None
    lines = list(copy.anchor)
    at = rng.randrange(len(lines))
    line = bytearray(lines[at])
    line[rng.randrange(len(line))] ^= 1 << rng.randrange(7)
    lines[at] = bytes(line)
    return replace(copy, anchor=tuple(lines)), copy.rows[-1][0]


def cut_the_anchor(rng: Random, copy: Copy) -> Tampered:
    assert copy.anchor is not None
    return replace(copy, anchor=rng.choice([None, copy.anchor[: rng.randrange(len(copy.anchor))]])), copy.rows[-1][0]


def in_a_file(rng: Random, copy: Copy, change: Callable[[bytes], bytes | None]) -> Tampered:
    """One segment's file changed, or gone."""
    seals = [body for body in map(orjson.loads, copy.checkpoints) if body["kind"] == "seal"]
    seal = rng.choice(seals)
    data = change(copy.files[seal["file"]])
    files = {**copy.files, seal["file"]: data}
    return replace(copy, files={name: one for name, one in files.items() if one is not None}), seal["first"] - 1


def flip_a_bit_of_a_segment(rng: Random, copy: Copy) -> Tampered:
    def flipped(data: bytes) -> bytes:
        at = rng.randrange(len(data))
        return data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]

    return in_a_file(rng, copy, flipped)


def edit_a_segment(rng: Random, copy: Copy) -> Tampered:
    """A row of a segment changed, removed or doubled, and the file packed again."""

    def edited(data: bytes) -> bytes:
        rows = [tuple(row) for row in file_rows(data)]
        at = rng.randrange(len(rows))
        rows[at : at + 1] = rng.choice([[], [rows[at], rows[at]], [changed(rng, rows[at])]])
        lines = [orjson.dumps(dict(zip(STORED, row, strict=True))) for row in rows]
        return gzip.compress(b"\n".join(lines) + b"\n", 1, mtime=0)

    return in_a_file(rng, copy, edited)


def cut_a_segment(rng: Random, copy: Copy) -> Tampered:
    return in_a_file(rng, copy, lambda data: data[: rng.randrange(len(data))])


def remove_a_segment(rng: Random, copy: Copy) -> Tampered:
    return in_a_file(rng, copy, lambda _data: None)


def exchange_segments(rng: Random, copy: Copy) -> Tampered:
    one, two = sorted(rng.sample(sorted(copy.files), 2))
    return replace(copy, files={**copy.files, one: copy.files[two], two: copy.files[one]}), 0


# --- with the key -----------------------------------------------------------------------------------


def signed(copy: Copy, keys: ChainKeys, head: Head, lines: Sequence[str]) -> Copy:
    """A head and checkpoints whose signatures are good."""
    return replace(copy, head=head, signature=keys.head_signature(head), checkpoints=tuple(lines))


def forge_the_last_rows(copy: Copy, keys: ChainKeys) -> Copy:
    """The last 150 rows and every checkpoint about them written anew: in the database all is right."""
    kept, mac, rows = copy.rows[:-150], copy.rows[-151][-1], list[Row]()
    for row in copy.rows[-150:]:
        forged = (*row[:3], "somebody else", *row[4:-1])
        mac = keys.link(mac, forged)
        rows.append((*forged, mac))
    macs = {row[0]: row[-1] for row in rows}
    bodies = [keys.read_line(line) or {} for line in copy.checkpoints]
    lines = [keys.line({**body, "mac": macs.get(body["seq"], body["mac"])}) for body in bodies]
    forged_copy = replace(copy, rows=(*kept, *rows))
    return signed(forged_copy, keys, replace(copy.head, mac=mac), lines)


def leave_out_the_row_of_a_checkpoint(copy: Copy, keys: ChainKeys) -> Copy:
    """The row that the last checkpoint is about renumbered away, and chained again."""
    mac = copy.rows[-2][-1]
    last = (copy.rows[-1][0] + 1, *copy.rows[-1][1:-1])
    mac = keys.link(mac, last)
    head = replace(copy.head, seq=last[0], mac=mac)
    return signed(replace(copy, rows=(*copy.rows[:-1], (*last, mac))), keys, head, copy.checkpoints)


def add_a_row_behind_the_head(copy: Copy, keys: ChainKeys) -> Copy:
    row = (copy.rows[-1][0] + 1, *copy.rows[-1][1:-1])
    return replace(copy, rows=(*copy.rows, (*row, keys.link(copy.rows[-1][-1], row))))


def take_a_checkpoint_of_another_chain(copy: Copy, keys: ChainKeys) -> Copy:
    body = keys.read_line(copy.checkpoints[-1]) or {}
    lines = (*copy.checkpoints[:-1], keys.line({**body, "chain": "another"}))
    assert copy.anchor is not None
    return replace(copy, checkpoints=lines, anchor=copy.anchor[:-1])


def seal_a_shorter_segment(copy: Copy, keys: ChainKeys) -> Copy:
    """A segment without its last row, sealed as if it had it, in database and anchor."""
    bodies = [keys.read_line(line) or {} for line in copy.checkpoints]
    at = next(n for n, body in enumerate(bodies) if body["kind"] == "seal")
    file = bodies[at]["file"]
    lines = gzip.decompress(copy.files[file]).splitlines(keepends=True)
    data = gzip.compress(b"".join(lines[:-1]), 1, mtime=0)
    bodies[at] = {**bodies[at], "sha256": hashlib.sha256(data).hexdigest()}
    checkpoints = tuple(keys.line(body) for body in bodies)
    anchor = tuple(line.encode() for line in checkpoints)
    return replace(copy, checkpoints=checkpoints, anchor=anchor, files={**copy.files, file: data})


# The share of each among ten thousand.
KINDS: dict[Tamper, int] = {
    edit: 20, delete: 10, delete_and_close_the_gap: 5, insert: 8, append: 4, insert_among_the_dropped: 1,
    reorder: 10, truncate: 8, truncate_the_front: 2, truncate_with_checkpoints: 10,
    truncate_with_checkpoints_and_anchor: 5, truncate_and_rewrite_the_head: 5, write_anew: 5, change_the_head: 4,
    change_a_checkpoint: 6, delete_a_checkpoint: 4, change_the_anchor: 6, cut_the_anchor: 3,
    flip_a_bit_of_a_segment: 6, edit_a_segment: 1, cut_a_segment: 3, remove_a_segment: 2, exchange_segments: 1,
}  # fmt: skip
