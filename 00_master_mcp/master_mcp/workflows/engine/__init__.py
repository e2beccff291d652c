"""The durable engine as the workflows need it, whatever stands behind it.

An execution is a coroutine that may be ended at any moment and is begun again with the same id: what its journal
has recorded is not done again. All that an execution decides must follow from what the journal gave it.
"""

from asyncio import Task
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

Json = Any  # what JSON can say
Work = Callable[[], Awaitable[Json]]


class Journal(Protocol):
    """What one execution records."""

    def step(self, name: str, work: Work) -> Awaitable[Json]:
        """Draw a place in the journal now; awaited, it gives what is recorded there, or does the work and records it.

        Places must be drawn in the same order in each execution.
        """
        ...

    async def first_of(self, tasks: "Sequence[Task[Json]]") -> "list[Task[Json]]":
        """Those of several tasks that were over first, the same ones in each execution, in the order given."""
        ...


Body = Callable[[str, Journal], Awaitable[None]]  # execution id, its journal


class Interrupted(BaseException):
    """Ends an execution without an outcome: it goes on when it is ensured again. No handler of errors stops it."""


class DurableEngine(Protocol):
    """Runs executions so that each comes to its end, over as many starts of this process as it takes."""

    async def ensure(self, execution_id: str) -> None:
        """Begin an execution, or go on with it; nothing when it is under way here or has ended."""
        ...

    async def cancel(self, execution_id: str) -> None:
        """End an execution for good, now."""
        ...

    async def forget(self, execution_ids: Sequence[str]) -> None:
        """Delete the journals of executions that have ended."""
        ...

    def under_way(self) -> set[str]:
        """The executions that this process runs."""
        ...

    async def close(self) -> None:
        """Interrupt what runs; nothing is lost."""
        ...
