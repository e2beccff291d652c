"""One transaction of changes: one author, one source, one time, and a history row for every effect."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from cmdb_mcp import classes, tables
from cmdb_mcp.classes import Catalog
from cmdb_mcp.models import Delta
from cmdb_mcp.record import Record
from fleetkit import Invalid

_ADD = tables.history.insert()


@dataclass(frozen=True)
class Author:
    """Who changes something, under which call."""

    who: str
    correlation_id: str


@dataclass
class Change:
    """The transaction that a write works in."""

    connection: sa.Connection
    author: Author
    source: str
    at: str
    precedence: Sequence[str]
    catalog: Catalog
    touched: dict[int, Record] = field(default_factory=dict[int, Record])

    @classmethod
    def begin(cls, connection: sa.Connection, author: Author, source: str, precedence: Sequence[str]) -> "Change":
        """Stamp a transaction: later than every one before, even when the clock went back."""
        last = connection.scalar(sa.select(tables.history.c.at).order_by(tables.history.c.seq.desc()).limit(1))
        now = datetime.now(UTC)
        if last is not None:
            now = max(now, datetime.fromisoformat(last) + timedelta(microseconds=1))
        return cls(connection, author, source, stamp(now), precedence, classes.load(connection))

    def rank(self, source: str) -> int:
        """The place of a source in the precedence, 0 the strongest."""
        order = list(self.precedence)
        for name in (source, "*"):
            if name in order:
                return order.index(name)
        return len(order)

    def note(
        self,
        action: str,
        subject: Record,
        *,
        deltas: Mapping[str, Delta] | None = None,
        other: Record | None = None,
        relation: str | None = None,
    ) -> None:
        """Write history. Without `other` the CI itself changed, and its whole state is kept with it."""
        changes: dict[str, Any] = {
            name: delta.model_dump(include={"before", "after"}) for name, delta in (deltas or {}).items()
        }
        self.touched |= {record.id: record for record in (subject, other) if record is not None}
        self._insert(
            action=action,
            ci=subject.id,
            other_ci=other.id if other else None,
            ci_class=subject.ci_class,
            label=subject.label,
            changes={"relation": relation} if relation else changes,
            state=None if other else subject.state(),
        )

    def note_class(self, name: str, definition: Mapping[str, Any]) -> None:
        """Write history of a class."""
        self._insert(
            action="class_saved",
            ci=None,
            other_ci=None,
            ci_class=name,
            label=f"class {name}",
            changes={"definition": definition},
            state=None,
        )

    def _insert(self, **row: Any) -> None:
        stamped = {"at": self.at, "source": self.source, "who": self.author.who}
        row |= stamped | {"correlation_id": self.author.correlation_id}
        self.connection.execute(_ADD, row)


def stamp(moment: datetime) -> str:
    """A UTC time as text of fixed width, so that text order is time order."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def parse_time(text: str) -> str:
    """A caller's ISO 8601 time as the database writes it (UTC when it names no zone); raises Invalid."""
    try:
        moment = datetime.fromisoformat(text.strip())
        return stamp(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    except (ValueError, OverflowError) as error:
        raise Invalid(f"{text!r} is no time: write 2030-12-31T08:00:00Z or 2030-12-31") from error
