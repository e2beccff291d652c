"""Answers of read tools that allow it, given again for a while.

Only whole, successful results are kept. The key holds the tool with a hash of its definition, the
arguments, and the caller unless the tool says that its answer does not depend on who asks.
"""

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast

import orjson

from fleetkit.metrics import Metrics
from fleetkit.shapes import mapping
from master_mcp.resilience.subject import CacheRule

STATE_META = "fleet/cache"  # hit, miss or bypass, in a result's `_meta`
AGE_META = "fleet/cache_age_s"
FRESH_META = "fleet/no-cache"  # a caller's wish, in a request's `_meta`

Message = dict[str, Any]


class Answers(Protocol):
    """Where answers are kept."""

    async def get(self, key: str) -> bytes | None:
        """What was kept under `key`, None when nothing, or no longer."""
        ...

    async def put(self, key: str, content: bytes, ttl_s: float) -> None:
        """Keep `content` for `ttl_s` seconds, or less."""
        ...


class LocalAnswers:
    """Answers in memory, `most` bytes at most: those not asked for longest go first."""

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._kept: OrderedDict[str, tuple[float, bytes]] = OrderedDict()
        self.size = 0

    async def get(self, key: str) -> bytes | None:
        """See Answers."""
        until, content = self._kept.get(key, (0.0, b""))
        if not content:
            return None
        if until <= self._clock():
            self._drop(key)
            return None
        self._kept.move_to_end(key)
        return content

    async def put(self, key: str, content: bytes, ttl_s: float) -> None:
        """See Answers; one that is larger than an eighth of the room is not kept."""
        if len(content) > self._most // 8:
            return
        if key in self._kept:
            self._drop(key)
        self._kept[key] = (self._clock() + ttl_s, content)
        self.size += len(content)
        while self.size > self._most:
            self._drop(next(iter(self._kept)))

    def _drop(self, key: str) -> None:
        self.size -= len(self._kept.pop(key)[1])


@dataclass(frozen=True)
class Wish:
    """One call that a cache may answer; `fresh` asks for a new answer, which is kept for others."""

    tool: str
    rule: CacheRule
    definition_hash: str
    args_hash: str
    caller: str
    fresh: bool

    @property
    def key(self) -> str:
        """Where its answer is kept."""
        who = self.caller if self.rule.by_caller else ""
        return f"{self.tool}|{self.definition_hash}|{self.args_hash}|{who}"


class Cache:
    """Answers from `answers`, else by asking; `calendar` gives seconds since the epoch."""

    def __init__(self, answers: Answers, metrics: Metrics, calendar: Callable[[], float] = time.time) -> None:
        self._answers = answers
        self._metrics = metrics
        self._calendar = calendar

    async def answer(self, wish: Wish, request_id: object, ask: Callable[[], Awaitable[Message]]) -> Message:
        """The kept answer, or what `ask` returns, with the state of the cache in the result's `_meta`."""
        kept = None if wish.fresh else await self._answers.get(wish.key)
        if kept is not None:
            at, result = orjson.loads(kept)
            age = max(self._calendar() - at, 0.0)
            if age <= wish.rule.ttl_s:
                return self._told(wish, request_id, result, "hit", age)
        answer = await ask()
        result = answer.get("result")
        if isinstance(result, dict) and _is_whole(cast("Mapping[str, Any]", result)):
            await self._answers.put(wish.key, orjson.dumps([self._calendar(), result]), wish.rule.ttl_s)
            return self._told(wish, request_id, cast("Message", result), "bypass" if wish.fresh else "miss", 0.0)
        return answer

    def _told(self, wish: Wish, request_id: object, result: Message, state: str, age: float) -> Message:
        self._metrics.cache.labels(wish.tool, state).inc()
        meta = {**mapping(result.get("_meta")), STATE_META: state, AGE_META: round(age, 3)}
        return {"jsonrpc": "2.0", "id": request_id, "result": {**result, "_meta": meta}}


def _is_whole(result: Mapping[str, Any]) -> bool:
    return not result.get("isError") and result.get("resultType", "complete") == "complete"
