"""Going through a log as it is found, until the first thing that is wrong."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain as joined
from typing import Any

from sqlalchemy.exc import DBAPIError

from master_mcp.audit.anchor import Anchored
from master_mcp.audit.chain import ChainKeys, Head
from master_mcp.audit.segments import Sealed, Values, file_rows, sealed_of, segment_is_whole

TOLD_EVERY = 10_000  # rows between two reports of progress

Progress = Callable[[int, int], None]
Body = Mapping[str, Any]


@dataclass(frozen=True)
class Report:
    """What was checked and found.

    `problem` is None when all is well, else one sentence; `first_bad_seq` is the first row that is wrong or
    missing, where one can be named. `limits` says what this check cannot prove, each in a sentence.
    `rows` counts what was looked at, from row `since` on (0: all).
    """

    ok: bool
    rows: int
    segments: int
    checkpoints: int
    since: int
    last_seq: int
    anchored_seq: int
    problem: str | None = None
    first_bad_seq: int | None = None
    limits: list[str] = field(default_factory=list[str])


@dataclass(frozen=True)
class Evidence:
    """A log as it is found: `table(after)` gives the table's rows above a number, `segment(file)` a file's bytes."""

    head: Head
    signature: str
    checkpoints: Sequence[str]
    anchor: Anchored | None
    table: Callable[[int], Iterable[Values]]
    segment: Callable[[str], bytes | None]


class _Bad(Exception):
    """The first thing that is wrong."""

    def __init__(self, problem: str, seq: int | None = None) -> None:
        super().__init__(problem)
        self.problem = problem
        self.seq = seq


def examine(evidence: Evidence, keys: ChainKeys, *, since: int = 0, progress: Progress | None = None) -> Report:
    """Check a log as found, until the first thing that is wrong."""
    check = _Check(evidence, keys, since, progress or (lambda _done, _all: None))
    bad: _Bad | None = None
    try:
        check.run()
    except _Bad as found:
        bad = found
    except (TypeError, ValueError, DBAPIError) as error:
        bad = _Bad(f"what follows row {check.last} cannot be read: {str(error).splitlines()[0]}", check.last + 1)
    return Report(
        ok=bad is None,
        rows=check.rows,
        segments=check.segments,
        checkpoints=len(evidence.checkpoints),
        since=check.begin,
        last_seq=evidence.head.seq,
        anchored_seq=check.anchored_seq,
        problem=bad and bad.problem,
        first_bad_seq=bad and bad.seq,
    )


class _Check:
    """One run over the evidence; raises _Bad."""

    def __init__(self, evidence: Evidence, keys: ChainKeys, since: int, progress: Progress) -> None:
        self._evidence = evidence
        self._keys = keys
        self._since = since
        self._progress = progress
        self._marks: dict[int, str] = {}
        self._met: set[int] = set()
        self.begin = self.last = self.rows = self.segments = self.anchored_seq = 0

    def run(self) -> None:
        head = self._evidence.head
        if self._keys.head_signature(head) != self._evidence.signature:
            raise _Bad("the chain's head was changed, or the audit key is another one")
        bodies = self._bodies(head)
        self._check_anchor(bodies, head)
        self._marks = {int(body["seq"]): str(body["mac"]) for body in bodies}
        start = max((seq for seq in self._marks if seq <= self._since), default=0)
        self.begin = self.last = start
        self._rows_of_all(bodies, start)
        unmet = [seq for seq in self._marks if seq > start and seq not in self._met]
        if unmet:
            raise _Bad(f"a checkpoint was signed at row {min(unmet)}, which does not exist", min(unmet))

    # --- what is signed ---------------------------------------------------------------------------

    def _bodies(self, head: Head) -> list[Body]:
        bodies = [self._body(line, number) for number, line in enumerate(self._evidence.checkpoints, 1)]
        if len(bodies) != head.checkpoints:
            raise _Bad(f"{head.checkpoints} checkpoints were signed, the database holds {len(bodies)}")
        if any(body["chain"] != head.chain for body in bodies):
            raise _Bad("a checkpoint belongs to another chain")
        return bodies

    def _body(self, line: str, number: int) -> Body:
        body = self._keys.read_line(line)
        if body is None:
            raise _Bad(f"checkpoint {number} was changed: its signature is wrong")
        if body["number"] != number:
            raise _Bad(f"checkpoint {number} is missing")
        return body

    def _check_anchor(self, bodies: Sequence[Body], head: Head) -> None:
        anchor = self._evidence.anchor
        if anchor is None:
            raise _Bad("the anchor file is missing: put it back, or set hub.audit.anchor_file to where it is now")
        if anchor.broken:
            raise _Bad(f"{anchor.broken} lines of the anchor file are damaged")
        own = [line.encode() for line in self._evidence.checkpoints]
        if list(anchor.lines) != own[: len(anchor.lines)]:
            raise self._disagreement(anchor.lines, own, head)
        if len(anchor.lines) < head.anchored:
            raise _Bad(
                f"the anchor file was cut: {head.anchored} checkpoints were written to it, {len(anchor.lines)} are left"
            )
        self.anchored_seq = max((int(body["seq"]) for body in bodies[: len(anchor.lines)]), default=0)

    def _disagreement(self, lines: Sequence[bytes], own: Sequence[bytes], head: Head) -> _Bad:
        """Why an anchor does not begin like the database's checkpoints."""
        at = next((i for i, (line, ours) in enumerate(zip(lines, own, strict=False)) if line != ours), len(own))
        body = self._keys.read_line(lines[at])
        if body is None:
            return _Bad(f"line {at + 1} of the anchor file was changed, or signed with another key")
        if body["chain"] != head.chain:
            return _Bad(
                f"the anchor file knows of another chain ({body['chain']}, up to row {body['seq']}): the database was "
                "replaced. If that was meant, move the lines of that chain out of the anchor file"
            )
        if body["number"] > len(own):
            cut = (
                f"the log was cut or rolled back: the anchor knows of row {body['seq']} and checkpoint {body['number']}"
            )
            return _Bad(f"{cut}, the database ends at row {head.seq}", min(head.seq + 1, int(body["seq"])))
        if body["number"] != at + 1:
            return _Bad(f"the anchor file does not hold checkpoint {at + 1} in its place")
        return _Bad(
            f"the log was written anew from row {body['seq']} at the latest: the anchor holds another checkpoint"
        )

    # --- rows -------------------------------------------------------------------------------------

    def _rows_of_all(self, bodies: Sequence[Body], start: int) -> None:
        """The table first: it is what somebody with the database in his hands would touch."""
        segments = [sealed_of(body) for body in bodies if body["kind"] == "seal" and body["seq"] > start]
        for sealed in segments:
            self._data(sealed, start)
        dropped = max((int(body["seq"]) for body in bodies if body["kind"] == "drop"), default=0)
        table = iter(self._evidence.table(start))
        first = next(table, None)
        if first is None:
            self._end(max(dropped, start))
        else:
            self.last, previous = self._before(first[0], max(dropped, start), segments)
            self._walk(joined([first], table), previous)
            self._end(self.last)
        edge = self._evidence.head.seq + 1 if first is None else first[0]
        for sealed in segments:
            self._walk_segment(sealed, start, edge)

    def _before(self, first: int, floor: int, segments: Sequence[Sealed]) -> tuple[int, str]:
        """Number and MAC of the row before the table's first, which a deletion that was cut short may have left."""
        if first > floor:
            return floor, self._mac_at(floor)
        for sealed in (one for one in segments if one.seq >= first):
            previous = sealed.previous
            for row in file_rows(self._data(sealed, 0)):
                if row[0] == first:
                    return first - 1, previous
                previous = row[-1]
        raise _Bad(f"row {first} is in the table, but was never sealed", first)

    def _mac_at(self, seq: int) -> str:
        return self._marks[seq] if seq else self._keys.genesis(self._evidence.head.chain)

    def _data(self, sealed: Sealed, start: int) -> bytes:
        """The bytes of a segment's file, which must be the one that was sealed."""
        data = self._evidence.segment(sealed.file)
        first = max(sealed.first, start + 1)
        if data is None:
            raise _Bad(f"the segment file {sealed.file} is missing: put it back", first)
        if not segment_is_whole(data, sealed):
            raise _Bad(f"the segment file {sealed.file} was changed", first)
        return data

    def _walk_segment(self, sealed: Sealed, start: int, edge: int) -> None:
        """Follow the chain through a segment, and count what is not in the table, which begins at row `edge`."""
        inside = sealed.first <= start
        previous = self._mac_at(start) if inside else sealed.previous
        self.last = start if inside else sealed.first - 1
        self._walk((row for row in file_rows(self._data(sealed, start)) if row[0] > start), previous, edge)
        self.segments += 1
        if self.last != sealed.seq:
            raise _Bad(f"the segment file {sealed.file} ends at row {self.last} instead of {sealed.seq}", self.last + 1)

    def _walk(self, rows: Iterable[Values], previous: str, edge: int | None = None) -> None:
        """Follow the chain over rows, and count those before row `edge`."""
        link, marks, met = self._keys.link, self._marks, self._met
        for row in rows:
            seq = row[0]
            mac = link(previous, row[:-1])
            if mac != row[-1] or marks.get(seq, mac) != mac:
                raise self._broken(seq)
            if seq in marks:
                met.add(seq)
            previous, self.last = mac, seq
            self.rows += edge is None or seq < edge
            if not self.rows % TOLD_EVERY:
                self._progress(self.rows, self._evidence.head.seq - self.begin)

    def _broken(self, seq: int) -> _Bad:
        if seq > self.last + 1:
            missing = f"row {self.last + 1}" if seq == self.last + 2 else f"rows {self.last + 1} to {seq - 1}"
            return _Bad(f"{missing} before row {seq}: removed", self.last + 1)
        return _Bad(f"row {seq} was changed, or put in the place of another", seq)

    def _end(self, last: int) -> None:
        head = self._evidence.head
        if last < head.seq:
            raise _Bad(f"the rows after {last} are missing: {head.seq} were written", last + 1)
        if last > head.seq:
            raise _Bad(f"there are rows after {head.seq}, the last that was written", head.seq + 1)
