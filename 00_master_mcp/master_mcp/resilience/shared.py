"""What several hubs share through Redis: buckets and cached answers. Without it each hub goes on alone."""

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, TypeVar, cast

import redis.asyncio as redis
from redis.exceptions import RedisError

from fleetkit.log import get_logger
from master_mcp.resilience.limits import Buckets, Full, Take, in_ms

log = get_logger()

T = TypeVar("T")

TIMEOUT_S = 1.0
CONNECTIONS = 16  # more only makes a busy hub wait for connections to be made
ALONE_S = 2.0  # after a failure Redis is left alone this long, so that its absence costs few calls a wait
PREFIX = "mcp-fleet:"

# Takes all or none. The clock is Redis' own, so hubs whose clocks differ agree.
# A bucket holds the moment when it is full again, a quota the number of its window and what was used.
_TAKE = """
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1000000
local longest, which, writes = 0, 0, {}
for i, key in ipairs(KEYS) do
  local quota, amount, per, burst = ARGV[i*4-3] == '1', ARGV[i*4-2], ARGV[i*4-1], ARGV[i*4]
  local wait = 0
  if quota then
    local window = string.format('%.0f', math.floor(now / per))
    local used = tonumber(redis.call('HGET', key, window) or '0')
    if used >= tonumber(amount) then wait = (math.floor(now / per) + 1) * per - now end
    writes[i] = window
  else
    local each = per / amount
    local full_at = math.max(tonumber(redis.call('GET', key) or '0'), now) + each
    wait = full_at - now - each * burst
    if wait < 0.000001 then wait = 0 end
    writes[i] = full_at
  end
  if wait > longest then longest, which = wait, i end
end
if which > 0 then return {which, string.format('%.6f', longest)} end
for i, key in ipairs(KEYS) do
  local per = tonumber(ARGV[i*4-1])
  if ARGV[i*4-3] == '1' then
    redis.call('HINCRBY', key, writes[i], 1)
    redis.call('PEXPIRE', key, math.ceil(per * 1000))
  else
    redis.call('SET', key, string.format('%.6f', writes[i]), 'PX', math.ceil((writes[i] - now) * 1000) + 1)
  end
end
return {0, '0'}
"""


class _Script(Protocol):
    def __call__(self, keys: Sequence[str], args: Sequence[object]) -> Awaitable[Any]: ...


class Shared:
    """One Redis. What it cannot do for the moment is answered by `otherwise`, and said once."""

    def __init__(self, url: str, clock: Callable[[], float] = time.monotonic, timeout_s: float = TIMEOUT_S) -> None:
        pool = redis.BlockingConnectionPool.from_url(  # pyright: ignore[reportUnknownMemberType]
            url,
            max_connections=CONNECTIONS,
            timeout=timeout_s,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
        )
        self.redis = redis.Redis.from_pool(pool)
        self._clock = clock
        self._alone_until = 0.0
        self._lost = False

    async def attempt(self, work: Callable[[], Awaitable[T]], otherwise: Callable[[], Awaitable[T]]) -> T:
        """What `work` answers with Redis, else `otherwise`."""
        if self._clock() < self._alone_until:
            return await otherwise()
        try:
            found = await work()
        except (RedisError, OSError) as error:
            self._alone_until = self._clock() + ALONE_S
            if not self._lost:
                log.warning("redis.lost", reason=str(error) or type(error).__name__, until="it answers, alone")
            self._lost = True
            return await otherwise()
        if self._lost and self._clock() >= self._alone_until:
            log.info("redis.found")
            self._lost = False
        return found

    async def close(self) -> None:
        """Close its connections."""
        await self.redis.aclose()


class SharedBuckets:
    """Buckets in Redis; while it is away, this hub's own: never no limits."""

    def __init__(self, shared: Shared, own: Buckets) -> None:
        self._shared = shared
        self._own = own
        self._take = cast("_Script", shared.redis.register_script(_TAKE))

    async def take(self, takes: Sequence[Take]) -> Full | None:
        """See Buckets."""
        return await self._shared.attempt(lambda: self._ask(takes), lambda: self._own.take(takes))

    async def _ask(self, takes: Sequence[Take]) -> Full | None:
        args: list[object] = []
        for limit in (one.limit for one in takes):
            args += ["1" if limit.quota else "0", limit.amount, limit.per_s, limit.burst or limit.amount]
        keys = [f"{PREFIX}limit:{one.bucket}" for one in takes]
        answer: list[bytes] = await self._take(keys=keys, args=args)
        which, wait = int(answer[0]), float(answer[1])
        return Full(takes[which - 1].limit, in_ms(wait)) if which else None


class SharedAnswers:
    """Cached answers in Redis; while it is away nothing is found and nothing kept."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared

    async def get(self, key: str) -> bytes | None:
        """See Answers."""
        return await self._shared.attempt(lambda: self._get(key), _nothing)

    async def put(self, key: str, content: bytes, ttl_s: float) -> None:
        """See Answers."""
        await self._shared.attempt(lambda: self._put(key, content, ttl_s), _nothing)

    async def _get(self, key: str) -> bytes | None:
        found: Any = await self._shared.redis.get(PREFIX + "answer:" + key)
        return cast("bytes | None", found)

    async def _put(self, key: str, content: bytes, ttl_s: float) -> None:
        await self._shared.redis.set(PREFIX + "answer:" + key, content, px=max(int(ttl_s * 1000), 1))


async def _nothing() -> None:
    """Without Redis."""
