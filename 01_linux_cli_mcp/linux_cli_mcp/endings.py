"""Work that ends in its own time when its caller goes away.

A server cancels a call again and again until it returns, which would cut off the clean-up that a remote
command needs. So the work is a task of its own: cancelled once, and waited for when the service stops.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Endings:
    """The tasks under way. `close()` cancels them and waits until they have cleaned up."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`; when the caller is cancelled, `work` is cancelled and cleans up behind it."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            _cancel_once(task)
            raise

    async def close(self) -> None:
        """Cancel what is left; returns when all of it has ended."""
        for task in self._tasks:
            _cancel_once(task)
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _forget(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # its caller has it, or is gone


def _cancel_once(task: "asyncio.Task[Any]") -> None:
    """A second cancel would cut off the clean-up that the first one began."""
    if not task.cancelling():
        task.cancel()
