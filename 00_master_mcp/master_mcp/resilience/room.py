"""What stands between a permitted call and its spoke: limit, bulkhead, cache, breaker, deadline, retry."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar

from fleetkit.correlation import Caller
from fleetkit.errors import TimedOut, Unavailable
from fleetkit.metrics import Metrics
from fleetkit.settings import FleetSettings, Hub
from fleetkit.store import Store
from master_mcp.resilience.breakers import Breakers
from master_mcp.resilience.bulkhead import PLACES, Bulkhead
from master_mcp.resilience.cache import Answers, Cache, LocalAnswers, Wish
from master_mcp.resilience.gate import Gate
from master_mcp.resilience.limits import Buckets, Limit, Limiter, LocalBuckets
from master_mcp.resilience.quotas import QuotaKeeper
from master_mcp.resilience.retry import repeated
from master_mcp.resilience.subject import Tool

T = TypeVar("T")

WAKE_S = 0.5  # between looks at a spoke that is down because it was wanted

Message = dict[str, Any]
Attempt = Callable[[float], Awaitable[Message]]  # seconds left -> the spoke's answer


@dataclass(frozen=True)
class Order:
    """One call that is about to be sent: its `seconds` in all, whether it may be sent twice or answered anew."""

    tool: Tool
    caller: str
    args_hash: str
    seconds: float
    request_id: object = 0
    repeatable: bool = False
    plain: bool = True  # neither an answer to a question nor a state that travels: a cache may answer it
    fresh: bool = False


class Resilience:
    """Keeps one failing part from costing the others anything. `on_failure` hears which service failed."""

    def __init__(
        self, config: FleetSettings, store: Store, metrics: Metrics, on_failure: Callable[[str], None]
    ) -> None:
        hub = config.hub
        self.gate = Gate(hub.max_inflight)
        self.breakers = Breakers(store, metrics)
        self._config = config
        self._retries, self._queue_s = hub.resilience.retries, hub.resilience.queue_s
        self._metrics = metrics
        self._on_failure = on_failure
        self._woken: dict[str, float] = {}
        self._bulkheads: dict[str, Bulkhead] = {}
        self._own = LocalBuckets()
        self._quotas = QuotaKeeper(store, self._own)
        self._stack = AsyncExitStack()
        buckets, answers = self._shared(hub)
        self._limiter = Limiter(buckets, metrics)
        self._cache = Cache(answers, metrics)

    async def __aenter__(self) -> "Resilience":
        """Take up what the last run left."""
        self.breakers.load()
        self._quotas.load()
        self._stack.callback(self._quotas.flush)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def admitted(self, caller: Caller, tool: Tool, limits: Sequence[Limit] = ()) -> "Admission":
        """`async with` around what a call does at its spoke, from its intent on.

        Raises OverBudget when a limit is used up or the spoke is full, Unavailable when it is known to be down.
        """
        return Admission(self, caller, tool, limits)

    async def enter(self, caller: Caller, tool: Tool, limits: Sequence[Limit]) -> Bulkhead:
        """See `admitted`: the place that was taken."""
        if limits:
            await self._limiter.take(limits, caller, tool)
        if tool.cache is None:  # a kept answer is given while the spoke is down
            self._check(tool, self.breakers.check)
        bulkhead = self._bulkheads.get(tool.service) or self._bulkhead(tool.service)
        await bulkhead.enter()
        return bulkhead

    async def run(self, asked: Order, attempt: Attempt) -> Message:
        """The answer to a call: kept, or the spoke's within the deadline, asked again where that is safe.

        Raises TimedOut, and Unavailable when the spoke does not answer or is not to be asked now.
        """
        rule = asked.tool.cache
        if rule is None or not asked.plain:
            return await self._ask(asked, attempt)
        wish = Wish(asked.tool.id, rule, asked.tool.definition_hash, asked.args_hash, asked.caller, asked.fresh)
        return await self._cache.answer(wish, asked.request_id, lambda: self._ask(asked, attempt))

    async def _ask(self, asked: Order, attempt: Attempt) -> Message:
        tool = asked.tool
        trial = self._check(tool, self.breakers.claim)
        ends = time.monotonic() + asked.seconds
        try:
            async with asyncio.timeout(asked.seconds):
                answer = await repeated(
                    lambda: self._attempt(tool, attempt, ends - time.monotonic()),
                    self._retries if asked.repeatable else 0,
                    lambda: self._before_another(tool),
                )
        except TimeoutError as error:
            self._failed(tool, f"no answer within {asked.seconds:g} s")
            raise TimedOut(
                f"{tool.id} gave no answer within {asked.seconds:g} s; its outcome is unknown. Give a longer `timeout` "
                "where the tool has one, or start it as a job"
            ) from error
        except Unavailable as error:
            self._failed(tool, error.message)
            raise
        finally:
            if trial is not None:
                trial.released()
        self.breakers.succeeded(tool)
        return answer

    def _check(self, tool: Tool, check: Callable[[Tool], T]) -> T:
        """What `check` returns; when it refuses, the watcher looks at once whether that is still right."""
        try:
            return check(tool)
        except Unavailable:
            now = time.monotonic()
            if now - self._woken.get(tool.service, -WAKE_S) >= WAKE_S:
                self._woken[tool.service] = now
                self._on_failure(tool.service)
            raise

    async def _attempt(self, tool: Tool, attempt: Attempt, left_s: float) -> Message:
        try:
            return await attempt(left_s)
        except Unavailable:
            self._on_failure(tool.service)
            raise

    def _before_another(self, tool: Tool) -> None:
        self.breakers.spoke(tool.service).check()
        self._metrics.retries.labels(tool.service, tool.id).inc()

    def _failed(self, tool: Tool, reason: str) -> None:
        self.breakers.failed(tool, reason)
        self._on_failure(tool.service)

    def _bulkhead(self, service: str) -> Bulkhead:
        row = self._config.spokes.get(service)
        made = Bulkhead(service, row.concurrency if row else PLACES, self._queue_s)
        self._bulkheads[service] = made
        self._metrics.inflight.labels(service).set_function(lambda: made.inside)
        return made

    def _shared(self, hub: Hub) -> tuple[Buckets, Answers]:
        if hub.redis_url is None:
            return self._own, LocalAnswers(hub.resilience.cache_bytes)
        from master_mcp.resilience.shared import Shared, SharedAnswers, SharedBuckets  # slow to load, seldom needed

        shared = Shared(hub.redis_url)
        self._stack.push_async_callback(shared.close)
        return SharedBuckets(shared, self._own), SharedAnswers(shared)


class Admission:
    """One call's place at its spoke."""

    __slots__ = ("_asked", "_place", "_room")

    def __init__(self, room: Resilience, caller: Caller, tool: Tool, limits: Sequence[Limit]) -> None:
        self._room = room
        self._asked = (caller, tool, limits)
        self._place: Bulkhead

    async def __aenter__(self) -> None:
        self._place = await self._room.enter(*self._asked)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._place.leave()
