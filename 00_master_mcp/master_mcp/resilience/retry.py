"""Sending a call again that is safe to repeat: after a wait that grows, with jitter, a bounded number of times.

stamina decides how long to wait. It is entered only once a call has failed, because it costs 30 us to set
up; its hooks are off, because they would log and count beside the hub's own.
"""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import stamina.instrumentation

from fleetkit.errors import Unavailable

T = TypeVar("T")

FIRST_WAIT_S = 0.05
LONGEST_WAIT_S = 1.0
JITTER_S = 0.1

stamina.instrumentation.set_on_retry_hooks(())


async def repeated(ask: Callable[[], Awaitable[T]], times: int, before: Callable[[], None]) -> T:
    """What `ask` returns, asked up to `times` more while it raises Unavailable; `before` each further time.

    Raises the last Unavailable. The caller bounds the time.
    """
    try:
        return await ask()
    except Unavailable as error:
        if not times:
            raise
        first = error
    async for attempt in stamina.retry_context(
        on=Unavailable,
        attempts=times + 1,
        timeout=None,
        wait_initial=FIRST_WAIT_S,
        wait_max=LONGEST_WAIT_S,
        wait_jitter=JITTER_S,
    ):
        with attempt:
            if attempt.num == 1:
                raise first  # it has been made: wait for the next
            before()
            return await ask()
    raise first  # never: the last attempt raises
