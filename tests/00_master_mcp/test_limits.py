"""Limits are exact, cost little memory, and what a quota counted survives a restart."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fleetkit.correlation import Caller
from fleetkit.errors import OverBudget
from fleetkit.metrics import Metrics
from fleetkit.risk import Risk
from fleetkit.settings import FleetSettings
from fleetkit.store import Store
from master_mcp.catalog.tools import CatalogTool
from master_mcp.resilience.limits import Limit, Limiter, LocalBuckets
from master_mcp.resilience.quotas import QuotaKeeper
from master_mcp.store import open_hub_store

ADA = Caller("k1", "ada", "agent")
BOB = Caller("k2", "bob", "agent")
DAY = 86400.0


def tool(name: str = "os.odd.look", service: str = "odd") -> CatalogTool:
    return CatalogTool(name, name.replace(".", "_"), service, name, Risk.read, False, None, {})


class Clock:
    """Time as the test says it: both clocks of a limiter."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def limiter(clock: Clock, metrics: Metrics) -> Limiter:
    return Limiter(LocalBuckets(clock, clock), metrics)


async def passes(limiter: Limiter, *limits: Limit, caller: Caller = ADA, of: CatalogTool | None = None) -> bool:
    try:
        await limiter.take(limits, caller, of or tool())
    except OverBudget:
        return False
    return True


async def refusal(limiter: Limiter, *limits: Limit) -> OverBudget:
    with pytest.raises(OverBudget) as caught:
        await limiter.take(limits, ADA, tool())
    return caught.value


async def test_a_bucket_lets_its_burst_pass_and_then_its_rate(limiter: Limiter, clock: Clock) -> None:
    limit = Limit("rate", 2, 1.0, burst=5)
    assert [await passes(limiter, limit) for _ in range(6)] == [True] * 5 + [False]
    clock.now += 0.5
    assert [await passes(limiter, limit) for _ in range(2)] == [True, False]


async def test_without_a_burst_the_amount_passes_at_once(limiter: Limiter) -> None:
    assert [await passes(limiter, Limit("rate", 3, 60.0)) for _ in range(4)] == [True] * 3 + [False]


async def test_waiting_exactly_as_long_as_told_is_enough_and_a_millisecond_less_is_not(
    limiter: Limiter, clock: Clock
) -> None:
    limit = Limit("rate", 7, 60.0, burst=1)
    await limiter.take([limit], ADA, tool())
    problem = await refusal(limiter, limit)
    assert problem.retry_after == 8.572  # 60 / 7, up to the next millisecond
    clock.now += 8.571
    assert not await passes(limiter, limit)
    clock.now += 0.001
    assert await passes(limiter, limit)


async def test_at_a_thousand_takes_a_second_a_limit_is_off_by_less_than_a_percent(
    limiter: Limiter, clock: Clock
) -> None:
    limit = Limit("rate", 700, 1.0, burst=10)
    passed = 0
    for _ in range(30_000):  # thirty seconds at 1,000 a second
        clock.now += 0.001
        passed += await passes(limiter, limit)
    assert abs(passed - 700 * 30) <= 0.01 * 700 * 30


async def test_a_call_counts_against_all_its_limits_or_none(limiter: Limiter, clock: Clock) -> None:
    wide, narrow = Limit("wide", 2, 10.0), Limit("narrow", 1, 100.0)
    await limiter.take([wide, narrow], ADA, tool())
    for _ in range(5):
        assert "'narrow'" in (await refusal(limiter, wide, narrow)).message
    assert await passes(limiter, wide)


async def test_the_longest_wait_is_told(limiter: Limiter) -> None:
    limits = [Limit("short", 1, 1.0), Limit("long", 1, 50.0), Limit("middle", 1, 20.0)]
    await limiter.take(limits, ADA, tool())
    assert (await refusal(limiter, *limits)).retry_after == 50.0


@pytest.mark.parametrize(
    ("by", "others_pass"),
    [
        (("key",), [True, False, False]),
        (("tool",), [False, True, True]),
        (("service",), [False, False, True]),
        (("key", "tool"), [True, True, True]),
        ((), [False, False, False]),
    ],
)
async def test_a_limit_counts_by_what_it_names(limiter: Limiter, by: tuple[str, ...], others_pass: list[bool]) -> None:
    limit = Limit("one", 1, 60.0, by=by)  # pyright: ignore[reportArgumentType] - the cases above are its words
    assert await passes(limiter, limit)
    found = [
        await passes(limiter, limit, caller=BOB),
        await passes(limiter, limit, of=tool("os.odd.listen")),
        await passes(limiter, limit, of=tool("os.even.look", "even")),
    ]
    assert found == others_pass


async def test_a_refusal_says_which_limit_and_is_counted(limiter: Limiter, metrics: Metrics) -> None:
    limit = Limit("burst of mine", 1, 30.0, by=("key", "tool"))
    await limiter.take([limit], ADA, tool())
    problem = await refusal(limiter, limit)
    assert problem.message == "limit 'burst of mine' (1 calls in 30 s by key and tool) is used up: try again in 30 s"
    assert 'mcp_limited_total{limit="burst of mine"} 1.0' in metrics.render().decode()


async def test_a_quota_ends_with_its_window_not_evenly(limiter: Limiter, clock: Clock) -> None:
    clock.now = 10 * DAY + 3600
    quota = Limit("daily", 3, DAY, quota=True)
    assert [await passes(limiter, quota) for _ in range(4)] == [True] * 3 + [False]
    assert (await refusal(limiter, quota)).retry_after == DAY - 3600
    clock.now = 11 * DAY - 1
    assert not await passes(limiter, quota)
    clock.now = 11 * DAY
    assert [await passes(limiter, quota) for _ in range(4)] == [True] * 3 + [False]


async def test_a_clock_set_back_over_midnight_gives_no_second_quota(limiter: Limiter, clock: Clock) -> None:
    clock.now = 11 * DAY + 10
    quota = Limit("daily", 1, DAY, quota=True)
    assert await passes(limiter, quota)
    clock.now = 11 * DAY - 10
    assert not await passes(limiter, quota)


async def test_a_clock_that_was_years_ahead_locks_nobody_out(limiter: Limiter, clock: Clock) -> None:
    quota = Limit("daily", 1, DAY, quota=True)
    clock.now = 5000 * DAY
    assert await passes(limiter, quota)
    clock.now = 11 * DAY
    assert await passes(limiter, quota)
    assert not await passes(limiter, quota)


async def test_buckets_that_are_full_again_are_forgotten(clock: Clock, metrics: Metrics) -> None:
    buckets = LocalBuckets(clock, clock)
    limiter = Limiter(buckets, metrics)
    for number in range(5000):
        clock.now += 0.01
        await limiter.take([Limit("rate", 1, 1.0)], Caller(f"k{number}", "x", "agent"), tool())
    assert len(buckets) <= 1024


async def test_however_many_callers_there_are_memory_is_bounded(clock: Clock, metrics: Metrics) -> None:
    buckets = LocalBuckets(clock, clock, most=100)
    limiter = Limiter(buckets, metrics)
    limit = Limit("rate", 1, 1000.0)
    for number in range(1000):
        await limiter.take([limit], Caller(f"k{number}", "x", "agent"), tool())
    assert len(buckets) <= 100
    assert not await passes(limiter, limit, caller=Caller("k999", "x", "agent"))


async def test_quotas_that_are_over_are_forgotten(clock: Clock, metrics: Metrics) -> None:
    buckets = LocalBuckets(clock, clock, most=10)
    limiter = Limiter(buckets, metrics)
    for number in range(9):
        await limiter.take([Limit("hourly", 1, 3600.0, quota=True)], Caller(f"k{number}", "x", "agent"), tool())
    clock.now += 7200
    for number in range(9):
        await limiter.take([Limit("rate", 1, 1000.0)], Caller(f"k{number}", "x", "agent"), tool())
    assert buckets.quotas == {}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = open_hub_store(FleetSettings(data_dir=tmp_path))
    yield made
    made.close()


def kept(store: Store, clock: Clock) -> tuple[Limiter, QuotaKeeper]:
    """A hub that starts on this database: what was queued before is on disk."""
    store.write_now(lambda _: None)
    buckets = LocalBuckets(clock, clock)
    keeper = QuotaKeeper(store, buckets)
    keeper.load()
    return Limiter(buckets, Metrics()), keeper


async def test_a_quota_survives_a_restart(store: Store, clock: Clock) -> None:
    quota = Limit("daily", 3, DAY, quota=True)
    limiter, keeper = kept(store, clock)
    assert await passes(limiter, quota)
    assert await passes(limiter, quota)
    keeper.flush()
    again, keeper = kept(store, clock)
    assert [await passes(again, quota) for _ in range(2)] == [True, False]
    keeper.flush()
    keeper.flush()  # nothing new
    third, _ = kept(store, clock)
    assert not await passes(third, quota)


async def test_a_quota_goes_on_when_it_cannot_be_written(
    tmp_path: Path, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    closed = open_hub_store(FleetSettings(data_dir=tmp_path))
    limiter, keeper = kept(closed, clock)
    closed.close()
    quota = Limit("daily", 1, DAY, quota=True)
    assert await passes(limiter, quota)
    keeper.flush()
    assert not await passes(limiter, quota)
    assert "quotas.not_kept" in capsys.readouterr().out
