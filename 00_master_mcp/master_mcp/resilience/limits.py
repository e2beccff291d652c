"""Rate limits and quotas: per key, tool and service; in this process, or shared by several hubs.

A rate limit is a token bucket (kept as one number: when it will be full again), so `retry_after` is
exact. A quota counts calls in windows that begin at multiples of their length since 1970, in UTC: a
day's quota ends at midnight.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from fleetkit.correlation import Caller
from fleetkit.errors import OverBudget
from fleetkit.metrics import Metrics
from master_mcp.resilience.subject import Tool


@dataclass(frozen=True)
class Limit:
    """`amount` calls per `per_s` seconds for each combination of `by`.

    A rate limit lets `burst` (default: `amount`) pass at once and refills evenly. A quota lets `amount`
    pass in each window, survives a restart, and has no burst.
    """

    name: str
    amount: int
    per_s: float
    burst: int | None = None
    by: tuple[Literal["key", "tool", "service"], ...] = ("key",)
    quota: bool = False


@dataclass(frozen=True)
class Take:
    """One call's share of one limit: `bucket` is where it counts."""

    bucket: str
    limit: Limit


@dataclass(frozen=True)
class Full:
    """What refused a call, and in how many seconds it would pass."""

    limit: Limit
    retry_after: float


class Buckets(Protocol):
    """Where takes are counted."""

    async def take(self, takes: Sequence[Take]) -> Full | None:
        """Count all of them, or none and say which is full."""
        ...


class Limiter:
    """Counts calls against limits."""

    def __init__(self, buckets: Buckets, metrics: Metrics) -> None:
        self._buckets = buckets
        self._metrics = metrics

    async def take(self, limits: Sequence[Limit], caller: Caller, tool: Tool) -> None:
        """Count one call against all of `limits`, or against none and raise OverBudget with its `retry_after`."""
        if not limits:
            return
        full = await self._buckets.take([Take(_bucket(limit, caller, tool), limit) for limit in limits])
        if full is None:
            return
        limit = full.limit
        self._metrics.limited.labels(limit.name).inc()
        whose = " and ".join(limit.by) or "everybody"
        raise OverBudget(
            f"limit {limit.name!r} ({limit.amount} calls in {limit.per_s:g} s by {whose}) is used up: "
            f"try again in {full.retry_after:g} s",
            retry_after=full.retry_after,
        )


def in_ms(seconds: float) -> float:
    """Rounded up to whole milliseconds: waiting that long is enough."""
    return math.ceil(seconds * 1000 - 1e-6) / 1000


def _bucket(limit: Limit, caller: Caller, tool: Tool) -> str:
    values = {"key": caller.id, "tool": tool.id, "service": tool.service}
    return "|".join([limit.name, *(f"{kind}={values[kind]}" for kind in limit.by)])


@dataclass
class Used:
    """What was used of a quota in one window; times in seconds since the epoch."""

    starts: float
    ends: float
    used: int


class LocalBuckets:
    """Buckets in memory. What is full again, or over, is dropped; at most `most` are kept.

    `clock` gives seconds that never jump, `calendar` seconds since the epoch.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        calendar: Callable[[], float] = time.time,
        most: int = 100_000,
    ) -> None:
        self._clock = clock
        self._calendar = calendar
        self._most = most
        self._full_at: dict[str, float] = {}
        self._sweep_at = min(1024, most + 1)
        self.quotas: dict[str, Used] = {}
        self.on_quota: Callable[[], None] = lambda: None

    def __len__(self) -> int:
        return len(self._full_at) + len(self.quotas)

    async def take(self, takes: Sequence[Take]) -> Full | None:
        """See Buckets."""
        now, today = self._clock(), self._calendar()
        waits = [(self._wait(one, now, today), one) for one in takes]
        longest, refused = max(waits, key=lambda pair: pair[0])
        if longest > 0:
            return Full(refused.limit, in_ms(longest))
        for one in takes:
            self._count(one, now, today)
        if len(self) >= self._sweep_at:
            self._sweep(now, today)
        return None

    def _wait(self, take: Take, now: float, today: float) -> float:
        """Seconds until this take would pass; 0 or less when it passes."""
        if take.limit.quota:
            used = self._window(take, today)
            return 0.0 if used.used < take.limit.amount else used.ends - today
        each = take.limit.per_s / take.limit.amount
        full_at = max(self._full_at.get(take.bucket, now), now)
        wait = full_at + each - now - each * (take.limit.burst or take.limit.amount)
        return wait if wait > 1e-9 else 0.0

    def _count(self, take: Take, now: float, today: float) -> None:
        if take.limit.quota:
            used = self.quotas[take.bucket] = self._window(take, today)
            used.used += 1
            self.on_quota()
        else:
            each = take.limit.per_s / take.limit.amount
            self._full_at[take.bucket] = max(self._full_at.get(take.bucket, now), now) + each

    def _window(self, take: Take, today: float) -> Used:
        """The window that counts now: a clock set back a little goes on counting in the one that was begun."""
        length = take.limit.per_s
        starts = today // length * length
        known = self.quotas.get(take.bucket)
        if known is not None and known.starts in (starts, starts + length):
            return known
        return Used(starts, starts + length, 0)

    def _sweep(self, now: float, today: float) -> None:
        self._full_at = {bucket: at for bucket, at in self._full_at.items() if at > now}
        self.quotas = {bucket: used for bucket, used in self.quotas.items() if used.ends > today}
        if len(self._full_at) > self._most:  # those that are nearly full again lose least
            emptiest = sorted(self._full_at, key=self._full_at.__getitem__)[-self._most // 2 :]
            self._full_at = {bucket: self._full_at[bucket] for bucket in emptiest}
        self._sweep_at = min(max(1024, 2 * len(self)), self._most + len(self.quotas) + 1)
