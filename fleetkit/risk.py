"""How much harm a call can do. The word has no default: every tool says it."""

from dataclasses import dataclass
from enum import StrEnum


class Risk(StrEnum):
    """`read` looks, `change` can be undone, `destroy` cannot (or nobody knows)."""

    read = "read"
    change = "change"
    destroy = "destroy"

    @property
    def rank(self) -> int:
        """0 for read, 1 for change, 2 for destroy."""
        return _RANK[self]

    def covers(self, other: "Risk") -> bool:
        """Whether somebody who may do this may also do `other`."""
        return self.rank >= other.rank


_RANK = {Risk.read: 0, Risk.change: 1, Risk.destroy: 2}


def parse_risk(word: object) -> Risk:
    """The risk a word names; anything unknown counts as destroy."""
    return Risk(word) if isinstance(word, str) and word in _RANK else Risk.destroy


@dataclass(frozen=True)
class Assessment:
    """What one call with these arguments would do: its risk and a plan a person can approve."""

    risk: Risk
    plan: str
