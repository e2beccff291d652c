"""A stream on which a client hears news, until it goes away."""

import asyncio
from collections.abc import Callable

from fleetkit.asgi import KEEPALIVE_S, Exchange
from master_mcp.catalog.news import Listener
from master_mcp.mcp.rpc import Message


async def tell(exchange: Exchange, listener: Listener, stamp: Callable[[Message], Message] = lambda m: m) -> None:
    """Send what `listener` is to hear, each piece through `stamp`, with a sign of life in between; never returns."""
    while True:
        try:
            async with asyncio.timeout(KEEPALIVE_S):  # wait_for can swallow a cancellation that meets the event
                await listener.woken.wait()
        except TimeoutError:
            await exchange.ping()
            continue
        for message in listener.take():
            await exchange.event(stamp(message))
