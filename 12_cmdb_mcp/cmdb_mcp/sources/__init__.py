"""Where CIs come from: a file today, another CMDB tomorrow. A source only reads; the importer reconciles."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True)
class Item:
    """One CI as a source describes it; `line` says where, for messages about it."""

    line: int
    ci_class: str
    attributes: Mapping[str, object]
    relations: Sequence[tuple[str, str]] = ()  # (type, reference to the far end)


@dataclass(frozen=True)
class Delivery:
    """What a source had, how its fields were understood, and what looked odd."""

    items: Sequence[Item]
    columns: Mapping[str, str] = field(default_factory=dict[str, str])
    warnings: Sequence[tuple[int, str]] = ()


class Source(Protocol):
    """Read-only access to somebody else's CIs."""

    @property
    def name(self) -> str:
        """What is written as the provenance of each attribute."""
        ...

    async def fetch(self, ci_class: str) -> Delivery:
        """Every CI of a class; raises Invalid or Unavailable when the source cannot deliver."""
        ...
