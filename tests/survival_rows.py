"""A test of a fault and its row of the survival table (docs/survival.md). Imports nothing that pytest rewrites."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])
GOOD_S = "first_good_s"  # the property that a test of the table reports


@dataclass(frozen=True)
class Row:
    """One line of the survival table."""

    fault: str
    callers: str
    afterwards: str


def survives(fault: str, *, callers: str, afterwards: str) -> Callable[[F], F]:
    """Give a test its line of the table: what fails, what its callers see meanwhile, what holds afterwards."""

    def marked(test: F) -> F:
        test.survival = Row(fault, callers, afterwards)  # type: ignore[attr-defined]
        return test

    return marked
