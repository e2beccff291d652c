"""Several hubs share their limits and cached answers through a real Redis; without it none is without limits."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from redis_server import RedisServer, needs_redis, redis_server

from fleetkit.correlation import Caller
from fleetkit.errors import OverBudget
from fleetkit.metrics import Metrics
from fleetkit.risk import Risk
from master_mcp.catalog.tools import CatalogTool
from master_mcp.resilience.limits import Limit, Limiter, LocalBuckets
from master_mcp.resilience.shared import Shared, SharedAnswers, SharedBuckets

pytestmark = needs_redis

ADA = Caller("k1", "ada", "agent")
TOOL = CatalogTool("os.odd.look", "os_odd_look", "odd", "look", Risk.read, False, None, {})
SLOW = Limit("slow", 50, 36_000.0)  # one more in twelve minutes: nothing refills while a test runs
DAILY = Limit("daily", 5, 86_400.0, quota=True)


class Clock:
    """When a hub tries Redis again, as the test says it."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server() as running:
        yield running


@pytest.fixture(autouse=True)
def _empty(server: RedisServer) -> None:
    server.stop()
    server.start()


class SharingHub:
    """What one hub makes of `hub.redis_url`."""

    def __init__(self, server: RedisServer) -> None:
        self.clock = Clock()
        self.shared = Shared(server.url, self.clock, timeout_s=20)
        self.limiter = Limiter(SharedBuckets(self.shared, LocalBuckets()), Metrics())
        self.answers = SharedAnswers(self.shared)

    async def passes(self, *limits: Limit) -> bool:
        try:
            await self.limiter.take(limits, ADA, TOOL)
        except OverBudget:
            return False
        return True


@pytest.fixture
async def hubs(server: RedisServer) -> AsyncIterator[list[SharingHub]]:
    made = [SharingHub(server), SharingHub(server)]
    yield made
    for hub in made:
        await hub.shared.close()


async def test_two_hubs_together_let_exactly_the_amount_pass(hubs: list[SharingHub]) -> None:
    passed = await asyncio.gather(*(hub.passes(SLOW) for hub in hubs for _ in range(60)))
    assert sum(passed) == 50


async def test_two_hubs_share_a_quota(hubs: list[SharingHub], server: RedisServer) -> None:
    passed = await asyncio.gather(*(hub.passes(DAILY) for hub in hubs for _ in range(20)))
    assert sum(passed) == 5
    assert server.keys() == ["mcp-fleet:limit:daily|key=k1"]


async def test_a_shared_refusal_says_how_long(hubs: list[SharingHub]) -> None:
    one = Limit("one", 1, 3600.0)
    assert await hubs[0].passes(one)
    with pytest.raises(OverBudget) as caught:
        await hubs[1].limiter.take([one], ADA, TOOL)
    assert caught.value.retry_after is not None
    assert 3000 < caught.value.retry_after <= 3600
    with pytest.raises(OverBudget) as caught:
        await hubs[1].limiter.take([Limit("none", 1, 86_400.0 * 365, quota=True)] * 1 + [one], ADA, TOOL)
    assert "'one'" in caught.value.message


async def test_a_call_counts_against_all_shared_limits_or_none(hubs: list[SharingHub], server: RedisServer) -> None:
    one, many = Limit("one", 1, 3600.0), Limit("many", 5, 3600.0)
    assert await hubs[0].passes(one)
    assert not await hubs[1].passes(many, one)
    assert server.keys() == ["mcp-fleet:limit:one|key=k1"]


async def test_without_redis_each_hub_limits_alone_and_says_so_once(
    hubs: list[SharingHub], server: RedisServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.stop()
    three = Limit("three", 3, 36_000.0)
    assert [await hubs[0].passes(three) for _ in range(4)] == [True, True, True, False]
    assert [await hubs[1].passes(three) for _ in range(4)] == [True, True, True, False]
    assert capsys.readouterr().out.count("redis.lost") == 2
    server.start()


async def test_when_redis_is_back_the_hubs_share_again(
    hubs: list[SharingHub], server: RedisServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.stop()
    assert await hubs[0].passes(SLOW)
    hubs[0].clock.now += 60
    assert await hubs[0].passes(SLOW)  # asked again, still away
    server.start()
    assert await hubs[0].passes(SLOW)
    assert server.keys() == []  # left alone for a while
    hubs[0].clock.now += 60
    assert await hubs[0].passes(SLOW)
    assert server.keys() == ["mcp-fleet:limit:slow|key=k1"]
    said = capsys.readouterr().out
    assert (said.count("redis.lost"), said.count("redis.found")) == (1, 1)


async def test_an_answer_kept_by_one_hub_is_found_by_the_other(hubs: list[SharingHub]) -> None:
    assert await hubs[0].answers.get("k") is None
    await hubs[0].answers.put("k", b"answer", 60)
    assert await hubs[1].answers.get("k") == b"answer"


async def test_without_redis_no_answer_is_kept_and_nothing_fails(hubs: list[SharingHub], server: RedisServer) -> None:
    server.stop()
    await hubs[0].answers.put("k", b"answer", 60)
    assert await hubs[0].answers.get("k") is None
    server.start()
