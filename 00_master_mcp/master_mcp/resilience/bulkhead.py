"""So many calls at a spoke at once and no more: a slow spoke fills its own room, not the hub's."""

import asyncio

from fleetkit.errors import OverBudget

PLACES = 64  # at a service without a row: the hub's own tools


class Bulkhead:
    """`places` calls at once; as many again wait up to `wait_s` seconds for a place."""

    def __init__(self, service: str, places: int, wait_s: float) -> None:
        self._service = service
        self._places = asyncio.Semaphore(places)
        self._most = places
        self._wait_s = wait_s
        self._waiting = 0
        self.inside = 0

    async def enter(self) -> None:
        """Take a place; leave with `leave`. Raises OverBudget when none becomes free in time."""
        if self._places.locked():
            await self._queue()
        else:
            await self._places.acquire()
        self.inside += 1

    def leave(self) -> None:
        """Give the place back."""
        self.inside -= 1
        self._places.release()

    async def _queue(self) -> None:
        if self._waiting >= self._most:
            raise self._full()
        self._waiting += 1
        try:
            async with asyncio.timeout(self._wait_s):
                await self._places.acquire()
        except TimeoutError as error:
            raise self._full() from error
        finally:
            self._waiting -= 1

    def _full(self) -> OverBudget:
        return OverBudget(
            f"{self._service} has {self._most} calls under way and others waiting: try again soon, or raise "
            f"spokes.{self._service}.concurrency",
            retry_after=self._wait_s,
        )
