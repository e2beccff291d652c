"""Who did what, with which approval, and whether every call that changed something is on record."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from master_mcp.audit.rows import EVENTS, INTENT
from master_mcp.audit.search import Entry

CHANGING = ("change", "destroy")


@dataclass
class Line:
    """What one caller did with one tool, with one outcome, under one approval (or none)."""

    service: str
    caller: str
    tool: str
    risk: str
    outcome: str
    approval_id: str | None
    count: int = 0
    first_at: float = 0.0
    last_at: float = 0.0


@dataclass
class Account:
    """The report over some rows, oldest first.

    `changes` are calls that changed or could have changed something, `events` what was done to the fleet
    itself (keys, policies, decisions), `reads` the number of other calls by caller. `without_outcome` are
    intents after which nothing is known: the hub died, or the call is still under way.
    `without_intent` are changes that no intent announced: there must be none.
    """

    rows: int = 0
    first_at: float | None = None
    last_at: float | None = None
    executed: int = 0
    changes: list[Line] = field(default_factory=list[Line])
    events: list[Line] = field(default_factory=list[Line])
    reads: dict[str, int] = field(default_factory=dict[str, int])
    without_outcome: list[Entry] = field(default_factory=list[Entry])
    without_intent: list[Entry] = field(default_factory=list[Entry])

    @property
    def complete(self) -> bool:
        """Whether every executed change has both its rows."""
        return not self.without_outcome and not self.without_intent

    def as_dict(self) -> dict[str, Any]:
        """The report for machines."""
        return {**asdict(self), "complete": self.complete}


def account(rows: Iterable[Entry]) -> Account:
    """The report over rows in their order."""
    book = _Book()
    for entry in rows:
        book.enter(entry)
    return book.closed()


class _Book:
    """Pairs intents with outcomes and counts."""

    def __init__(self) -> None:
        self._account = Account()
        self._open: dict[tuple[Any, ...], list[Entry]] = defaultdict(list)
        self._lines: dict[tuple[Any, ...], Line] = {}
        self._reads: Counter[str] = Counter()

    def enter(self, entry: Entry) -> None:
        found = self._account
        found.rows += 1
        found.first_at = entry["at"] if found.first_at is None else found.first_at
        found.last_at = entry["at"]
        if entry["outcome"] == INTENT:
            self._open[_call_of(entry)].append(entry)
            return
        intent = self._intent_of(entry)
        if intent is not None:
            found.executed += 1
            self._count(entry, intent["risk"], entry["approval_id"] or intent["approval_id"])
        elif entry["service"] == EVENTS and "." in entry["tool"]:
            self._count(entry, entry["risk"], entry["approval_id"])
        elif entry["risk"] in CHANGING:
            self._count(entry, entry["risk"], entry["approval_id"])
            if entry["outcome"] == "ok":
                found.without_intent.append(entry)
        else:
            self._reads[entry["caller"]] += 1

    def closed(self) -> Account:
        found = self._account
        lines = sorted(self._lines.values(), key=lambda line: (line.caller, line.tool, line.first_at))
        found.events = [line for line in lines if line.service == EVENTS]
        found.changes = [line for line in lines if line.service != EVENTS]
        found.reads = dict(sorted(self._reads.items()))
        found.without_outcome = sorted((e for intents in self._open.values() for e in intents), key=lambda e: e["seq"])
        return found

    def _intent_of(self, entry: Entry) -> Entry | None:
        intents = self._open.get(_call_of(entry))
        return intents.pop(0) if intents else None

    def _count(self, entry: Entry, risk: str, approval_id: str | None) -> None:
        key = (entry["service"], entry["caller"], entry["tool"], risk, entry["outcome"], approval_id)
        line = self._lines.setdefault(key, Line(*key, first_at=entry["at"]))
        line.count += 1
        line.last_at = entry["at"]


def _call_of(entry: Entry) -> tuple[Any, ...]:
    """What an intent and its outcome have in common; a caller's trace may hold several calls."""
    return (entry["correlation_id"], entry["caller"], entry["service"], entry["tool"], entry["args_hash"])
