"""A circuit breaker per spoke. Only transport failures and timeouts count, never a tool's own error."""

import time
from dataclasses import dataclass

from fleetkit.errors import Unavailable

THRESHOLD = 5


@dataclass
class Breaker:
    """Closed while calls get through; open after `threshold` failures in a row until a probe succeeds."""

    service: str
    threshold: int = THRESHOLD
    failures: int = 0
    opened_at: float | None = None
    reason: str = ""

    @property
    def state(self) -> str:
        """`closed` or `open`."""
        return "closed" if self.opened_at is None else "open"

    def check(self) -> None:
        """Raise Unavailable while open, so that nobody waits for a spoke known to be down."""
        if self.opened_at is not None:
            raise Unavailable(
                f"{self.service} is unavailable ({self.reason}); it is probed and comes back by itself: try again soon",
                retry_after=1.0,
            )

    def failed(self, reason: str) -> bool:
        """Count a failure; True when this one opened the breaker."""
        self.failures += 1
        self.reason = reason
        if self.opened_at is None and self.failures >= self.threshold:
            self.opened_at = time.monotonic()
            return True
        return False

    def trip(self, reason: str) -> None:
        """Open at once: the spoke is known to be down."""
        self.reason = reason
        self.opened_at = self.opened_at or time.monotonic()

    def succeeded(self) -> None:
        """Close and forget."""
        self.failures, self.opened_at, self.reason = 0, None, ""
