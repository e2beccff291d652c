"""So many at once and no more; the next is whoever matters most, then whoever came first."""

import asyncio
import heapq
import itertools
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

MOST_IMPORTANT, LEAST_IMPORTANT = 0, 9
USUAL = 5


class Places:
    """`async with places.taken(priority):`, 0 before 9."""

    def __init__(self, most: int) -> None:
        self._free = most
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._numbers = itertools.count()

    @asynccontextmanager
    async def taken(self, priority: int = USUAL) -> AsyncGenerator[None]:
        """A place for the length of a block."""
        await self.take(priority)
        try:
            yield
        finally:
            self.leave()

    def take_free(self) -> bool:
        """Take a place if there is one now."""
        if not self._free:
            return False
        self._free -= 1
        return True

    async def take(self, priority: int = USUAL) -> None:
        """Wait for a place; give it back with `leave`."""
        if self.take_free():
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (priority, next(self._numbers), turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave()  # it was given a place that it does not use
            raise

    def leave(self) -> None:
        """Give a place back."""
        while self._waiting:
            turn = heapq.heappop(self._waiting)[2]
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
