"""Steps that wait: for time, a signal, people, another run. What they wait for is on disk; waking is only quicker."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from master_mcp.workflows.bell import LOOK_AGAIN_S, Bell

T = TypeVar("T")


async def until_found(bell: Bell, key: str, look: Callable[[], Awaitable[T | None]], due_at: float | None) -> T | None:
    """What `look` finds, asked again whenever `key` rings; None when it is past `due_at` (epoch seconds)."""
    heard = bell.listen(key)
    try:
        while True:
            found = await look()
            if found is not None:
                return found
            left = LOOK_AGAIN_S if due_at is None else due_at - time.time()
            if left <= 0:
                return None
            await bell.wait(key, heard, left)
    finally:
        bell.leave(key, heard)


async def until_moment(at: float) -> None:
    """Until the clock on the wall says so, also when it is set meanwhile."""
    while (left := at - time.time()) > 0:  # noqa: ASYNC110 - nothing tells when the clock is set
        await asyncio.sleep(min(left, LOOK_AGAIN_S))
