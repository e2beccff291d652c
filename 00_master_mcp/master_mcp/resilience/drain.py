"""Stopping without cutting anybody off: no new calls, those under way may end, then the doors close."""

import asyncio
import signal
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Protocol

import uvicorn

from fleetkit.log import get_logger
from master_mcp.resilience.gate import Gate

log = get_logger()

CANCELLED_WITHIN_S = 2.0  # what a cancelled call gets to record itself


class Server(Protocol):
    """A web server that ends when told."""

    should_exit: bool


class DrainedServer(uvicorn.Server):
    """uvicorn's server that leaves signals to `Drain`: its own handlers would close the doors at once."""

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Capture none."""
        yield


class Drain:
    """The first signal closes `gate` and ends `server` after its calls, or `within_s` seconds; a second one at once."""

    def __init__(self, gate: Gate, server: Server, within_s: float) -> None:
        self._gate = gate
        self._server = server
        self._within_s = within_s
        self._task: asyncio.Task[None] | None = None

    def on_signals(self) -> None:
        """Follow SIGTERM and SIGINT from now on."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)

    def stop(self) -> None:
        """What a signal does."""
        if self._task is None:
            self._gate.close()
            self._task = asyncio.get_running_loop().create_task(self._run())
            return
        log.info("hub.stopped_at_once", cancelled=self._gate.inside)
        self._task.cancel()
        self._gate.cancel()
        self._server.should_exit = True

    async def _run(self) -> None:
        if self._gate.inside:
            log.info("hub.draining", calls=self._gate.inside, within_s=self._within_s)
        if not await self._empty_within(self._within_s):
            log.warning("hub.calls_cancelled", calls=self._gate.inside)
            self._gate.cancel()
            await self._empty_within(CANCELLED_WITHIN_S)
        self._server.should_exit = True

    async def _empty_within(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._gate.empty(), seconds)
        return self._gate.inside == 0
