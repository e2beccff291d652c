"""What may be called how often: the value that policies declare."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Limit:
    """At most `amount` calls per `per_s` seconds, counted apart by each of `by`; `burst` of them at once.

    A `quota` counts in fixed windows and is not refilled in between.
    """

    name: str
    amount: int
    per_s: float
    burst: int | None = None
    by: tuple[Literal["key", "tool", "service"], ...] = ("key",)
    quota: bool = False
