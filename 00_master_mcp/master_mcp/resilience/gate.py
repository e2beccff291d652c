"""The hub's own room: how many calls are under way in all, and whether it still takes new ones."""

import asyncio
from collections import Counter
from types import TracebackType

from fleetkit.errors import OverBudget, Unavailable

BACK_WITHIN_S = 2.0  # a guess at how long a restart takes


class Gate:
    """`with gate:` around a call. Raises OverBudget when `most` are under way, Unavailable once closed."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._tasks: Counter[asyncio.Task[object]] = Counter()  # a task can make a call inside a call
        self.inside = 0
        self._empty = asyncio.Event()
        self._empty.set()
        self._cancelled = False
        self.closed = False

    def __enter__(self) -> None:
        if self.closed:
            raise Unavailable("the hub is stopping: call again when it is back", retry_after=BACK_WITHIN_S)
        if self.inside >= self._most:
            raise OverBudget("the hub has as many calls under way as it takes: try again soon", retry_after=1.0)
        task = asyncio.current_task()
        assert task is not None  # calls are made in tasks
        self._tasks[task] += 1
        self.inside += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks[task] -= 1
        if not self._tasks[task]:
            del self._tasks[task]
        self.inside -= 1
        if self.closed and not self.inside:
            self._empty.set()
        if self._cancelled and isinstance(error, asyncio.CancelledError):
            task.uncancel()  # its caller gets an answer
            raise Unavailable(
                "the hub was stopped before this call ended; its outcome is unknown: look, then call again",
                retry_after=BACK_WITHIN_S,
            ) from error

    def close(self) -> None:
        """Take no more calls."""
        self.closed = True
        if self.inside:
            self._empty.clear()

    async def empty(self) -> None:
        """Wait, after `close`, until the last call has ended."""
        await self._empty.wait()

    def cancel(self) -> None:
        """End what is under way: each call is recorded as cancelled, its caller told that it was stopped."""
        self._cancelled = True
        for task in list(self._tasks):
            task.cancel()
