"""Circuit breakers. Only transport failures and timeouts count, never a tool's own error.

A spoke's breaker is probed by its watcher and closes when that gets an answer. A tool's own breaker
half-opens by itself after a wait that grows, and lets one call through to try.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from fleetkit.errors import Unavailable

THRESHOLD = 5
FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 60.0


class State(StrEnum):
    """Calls pass; they are answered at once; it is being tried."""

    closed = "closed"
    half_open = "half_open"
    open = "open"

    @property
    def gauge(self) -> int:
        """0 closed, 1 half open, 2 open: what `/metrics` shows."""
        return list(State).index(self)


def _unheard(_breaker: "Breaker") -> None:
    """For a breaker whose changes nobody follows."""


@dataclass
class Breaker:
    """A spoke's breaker: open after `threshold` failures in a row until a probe succeeds.

    `since` is when the state began (seconds since the epoch); `tool` is empty for the spoke's own breaker.
    """

    service: str
    tool: str = ""
    threshold: int = THRESHOLD
    changed: Callable[["Breaker"], None] = field(default=_unheard, repr=False)
    failures: int = 0
    state: State = State.closed
    reason: str = ""
    since: float = field(default_factory=time.time)
    wait_s: float = 0.0
    was_lost: bool = False

    @property
    def name(self) -> str:
        """The tool's id, or the spoke's name."""
        return self.tool or self.service

    def check(self) -> None:
        """Raise Unavailable unless closed, so that nobody waits for a spoke known to be down."""
        if self.state is not State.closed:
            raise Unavailable(
                f"{self.service} is unavailable ({self.reason}); it is probed and comes back by itself: try again soon",
                retry_after=1.0,
            )

    def probed(self) -> None:
        """The watcher looks whether the spoke is back."""
        if self.state is State.open:
            self._move(State.half_open)

    def failed(self, reason: str) -> bool:
        """Count a failure; True when this one opened the breaker."""
        self.failures += 1
        self.reason = reason
        if self.state is State.closed and self.failures >= self.threshold:
            self._move(State.open)
            return True
        return False

    def trip(self, reason: str) -> None:
        """Open at once: the spoke is known to be down."""
        self.reason, self.was_lost = reason, True
        if self.state is not State.open:
            self._move(State.open)

    def succeeded(self) -> None:
        """Close and forget."""
        self.failures = 0
        if self.state is not State.closed:
            self._move(State.closed)
        self.reason, self.was_lost = "", False

    def _move(self, state: State) -> None:
        if State.closed in (state, self.state):
            self.since = time.time()
        self.state = state
        self.changed(self)


@dataclass
class ToolBreaker(Breaker):
    """One tool's breaker; `clock` gives seconds that never jump."""

    clock: Callable[[], float] = time.monotonic
    trying: bool = False
    _retry_at: float = 0.0

    def check(self) -> None:
        """Raise Unavailable while the tool is not to be called; half-open it when its time has come."""
        if self.state is State.closed:
            return
        left = self.left_s
        if left == 0 and not self.trying:
            if self.state is State.open:
                self._move(State.half_open)
            return
        raise Unavailable(
            f"{self.tool} failed {self.failures} times in a row ({self.reason}); it is tried again by itself: "
            "try again soon",
            retry_after=round(max(left, 0.1), 3),
        )

    def claim(self) -> None:
        """`check`, and while half open be the one call that tries it; give it back with `released`."""
        self.check()
        self.trying = self.state is State.half_open

    def released(self) -> None:
        """The trial ended, whatever came of it."""
        self.trying = False

    def failed(self, reason: str) -> bool:
        """Count a failure; True when it opened the breaker. A trial that fails doubles the wait."""
        opened = super().failed(reason)
        if self.state is State.half_open:
            self._wait(min(max(self.wait_s, FIRST_WAIT_S) * 2, LONGEST_WAIT_S))
            self._move(State.open)
        return opened

    @property
    def left_s(self) -> float:
        """Seconds until it lets a call through to try."""
        return max(self._retry_at - self.clock(), 0.0)

    def resume(self, left_s: float) -> None:
        """Open with `left_s` seconds to wait: what was kept over a restart."""
        self.state = State.open
        self._retry_at = self.clock() + left_s

    def _move(self, state: State) -> None:
        if state is State.open and self.state is State.closed:
            self._wait(FIRST_WAIT_S)
        super()._move(state)

    def _wait(self, seconds: float) -> None:
        self.wait_s = seconds
        self._retry_at = self.clock() + seconds
