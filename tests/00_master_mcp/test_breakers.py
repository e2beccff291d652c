"""Breakers open, are tried, close, outlive a restart, and can be closed by hand."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faulty
import pytest
import spoken
from faulty import Faulty
from hubs import OWN, RunningHub, call, listening, rows, running_hub, settle, text_of

from fleetkit.correlation import Caller
from fleetkit.errors import NotFound, Unavailable
from fleetkit.metrics import Metrics
from fleetkit.risk import Risk
from fleetkit.settings import FleetSettings
from fleetkit.store import Store
from master_mcp.catalog.tools import CatalogTool
from master_mcp.resilience.breaker import State
from master_mcp.resilience.breakers import Breakers
from master_mcp.store import open_hub_store

OPERATOR = Caller("k", "k", "operator")
LOOK = CatalogTool("os.odd.look", "os_odd_look", "odd", "look", Risk.read, False, None, {})
LISTEN = CatalogTool("os.odd.listen", "os_odd_listen", "odd", "listen", Risk.read, False, None, {})


class Clock:
    """Seconds that pass when the test says so."""

    now = 50.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = open_hub_store(FleetSettings(data_dir=tmp_path))
    yield made
    made.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def breakers(store: Store, metrics: Metrics, clock: Clock) -> Breakers:
    return Breakers(store, metrics, clock)


def failing(breakers: Breakers, times: int, of: CatalogTool = LOOK) -> None:
    for _ in range(times):
        breakers.failed(of, "no answer")


def states(breakers: Breakers) -> dict[str, str]:
    return {breaker.name: breaker.state.value for breaker in breakers.listed()}


def only_the_tool_is_open(breakers: Breakers) -> None:
    """Its spoke is open too after five failures, and the watcher finds that one well."""
    failing(breakers, 5)
    breakers.spoke("odd").succeeded()
    assert states(breakers) == {"odd": "closed", "os.odd.look": "open"}


async def test_four_failures_in_a_row_open_nothing_and_five_do(breakers: Breakers) -> None:
    failing(breakers, 4)
    assert set(states(breakers).values()) == {"closed"}
    failing(breakers, 1)
    assert set(states(breakers).values()) == {"open"}
    with pytest.raises(Unavailable, match="odd is unavailable"):
        breakers.check(LISTEN)


async def test_a_success_between_failures_starts_the_count_anew(breakers: Breakers) -> None:
    failing(breakers, 4)
    breakers.succeeded(LOOK)
    failing(breakers, 4)
    assert states(breakers) == {"odd": "closed", "os.odd.look": "closed"}


async def test_a_tool_that_fails_alone_is_stopped_alone(breakers: Breakers) -> None:
    for _ in range(5):
        failing(breakers, 1)
        breakers.succeeded(LISTEN)
    assert states(breakers) == {"odd": "closed", "os.odd.look": "open"}
    breakers.check(LISTEN)
    with pytest.raises(Unavailable, match=r"os\.odd\.look failed 5 times in a row \(no answer\)") as caught:
        breakers.check(LOOK)
    assert caught.value.retry_after == 1.0


async def test_after_its_wait_a_tool_is_tried_by_one_call_and_closes_when_that_succeeds(
    breakers: Breakers, clock: Clock
) -> None:
    only_the_tool_is_open(breakers)
    clock.now += 1.0
    trial = breakers.claim(LOOK)
    assert trial is not None
    assert trial.state is State.half_open
    with pytest.raises(Unavailable):
        breakers.claim(LOOK)
    breakers.succeeded(LOOK)
    assert breakers.claim(LOOK) is None


async def test_a_trial_that_fails_doubles_the_wait_up_to_a_minute(breakers: Breakers, clock: Clock) -> None:
    only_the_tool_is_open(breakers)
    waits: list[float] = []
    for _ in range(8):
        tool_breaker = breakers.listed()[-1]
        clock.now += tool_breaker.wait_s
        trial = breakers.claim(LOOK)
        assert trial is not None
        breakers.failed(LOOK, "still nothing")
        trial.released()
        waits.append(tool_breaker.wait_s)
        breakers.spoke("odd").succeeded()
    assert waits == [2, 4, 8, 16, 32, 60, 60, 60]


async def test_a_trial_that_was_cancelled_lets_another_try(breakers: Breakers, clock: Clock) -> None:
    only_the_tool_is_open(breakers)
    clock.now += 1.0
    trial = breakers.claim(LOOK)
    assert trial is not None
    trial.released()
    assert breakers.claim(LOOK) is trial


async def test_a_call_from_before_that_ends_meanwhile_lets_no_second_one_try(breakers: Breakers, clock: Clock) -> None:
    failing(breakers, 1)
    assert breakers.claim(LOOK) is None  # a call under way, no trial
    only_the_tool_is_open(breakers)
    clock.now += 1.0
    assert breakers.claim(LOOK) is not None
    with pytest.raises(Unavailable):
        breakers.claim(LOOK)


async def test_when_a_spoke_that_was_down_is_back_its_tools_are_forgiven(breakers: Breakers) -> None:
    failing(breakers, 5)
    breakers.spoke("odd").trip("cannot be reached")
    breakers.spoke("odd").succeeded()
    assert states(breakers) == {"odd": "closed"}


async def test_while_it_is_probed_a_spoke_is_half_open_and_still_not_called(breakers: Breakers) -> None:
    breakers.spoke("odd").trip("cannot be reached")
    breakers.spoke("odd").probed()
    assert states(breakers) == {"odd": "half_open"}
    with pytest.raises(Unavailable):
        breakers.check(LOOK)
    breakers.spoke("odd").trip("cannot be reached")
    assert states(breakers) == {"odd": "open"}


async def test_the_metrics_show_each_state_and_forget_a_tool_that_is_well(breakers: Breakers, metrics: Metrics) -> None:
    only_the_tool_is_open(breakers)
    shown = metrics.render().decode()
    assert 'mcp_breaker_state{service="odd",tool=""} 0.0' in shown
    assert 'mcp_breaker_state{service="odd",tool="os.odd.look"} 2.0' in shown
    breakers.reset("os.odd.look")
    assert 'tool="os.odd.look"' not in metrics.render().decode()


async def test_what_is_open_outlives_a_restart_with_the_rest_of_its_wait(
    breakers: Breakers, store: Store, clock: Clock
) -> None:
    only_the_tool_is_open(breakers)
    breakers.spoke("down").trip("cannot be reached")
    breakers.spoke("removed").trip("cannot be reached")
    store.write_now(lambda _: None)
    again = Breakers(store, Metrics(), clock)
    again.load()
    assert [again.spoke(name).state for name in ("odd", "down")] == ["closed", "open"]
    assert states(again) == {"odd": "closed", "down": "open", "os.odd.look": "open"}
    with pytest.raises(Unavailable, match="no answer"):
        again.check(LOOK)
    clock.now += 1.0
    assert again.claim(LOOK) is not None


async def test_what_closed_is_not_open_after_a_restart(breakers: Breakers, store: Store) -> None:
    only_the_tool_is_open(breakers)
    breakers.reset("all")
    store.write_now(lambda _: None)
    again = Breakers(store, Metrics())
    again.load()
    again.check(LOOK)
    assert states(again) == {"odd": "closed"}


async def test_a_breaker_works_when_its_state_cannot_be_written(
    breakers: Breakers, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    store.close()
    failing(breakers, 5)
    assert set(states(breakers).values()) == {"open"}
    assert "breaker.not_kept" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "was_open", "left"),
    [
        ("os.odd.look", ["os.odd.look"], {"odd": "open"}),
        ("odd", ["odd", "os.odd.look"], {"odd": "closed"}),
        ("all", ["odd", "os.odd.look"], {"odd": "closed"}),
    ],
)
async def test_a_reset_closes_what_it_names(
    breakers: Breakers, name: str, was_open: list[str], left: dict[str, str]
) -> None:
    failing(breakers, 5)
    assert breakers.reset(name) == was_open
    assert states(breakers) == left
    with pytest.raises(NotFound, match="fleet breaker list"):
        breakers.reset("nobody")


async def breaker_lines(hub: RunningHub) -> list[dict[str, Any]]:
    return (await call(hub, "master.listBreakers"))["structuredContent"]["result"]


async def test_a_tool_that_lies_is_stopped_while_its_neighbour_and_its_spoke_answer(tmp_path: Path) -> None:
    async def answer(request: dict[str, Any], send: Any) -> None:
        lies = request["params"]["name"] == "os_odd_write"
        await (spoken.invalid_json if lies else spoken.good)(request, send)

    odd = Faulty(always=answer)
    tools = (faulty.tool(), faulty.tool("os.odd.write", "change"))
    async with listening(odd.app(*tools)) as url, running_hub(tmp_path, rows(odd=url)) as hub:
        await settle(hub, "odd")
        for _ in range(5):
            assert "not JSON" in text_of(await call(hub, "os_odd_write", key=hub.admin))
            assert text_of(await call(hub, "os_odd_look")) == "seen"
        reached = len(odd.calls)
        refused = await call(hub, "os_odd_write", key=hub.admin)
        assert "failed 5 times in a row" in text_of(refused)
        assert refused["structuredContent"]["retry_after"] > 0
        assert len(odd.calls) == reached
        assert text_of(await call(hub, "os_odd_look")) == "seen"
        lines = {line["tool"] or line["service"]: line["state"] for line in await breaker_lines(hub)}
        assert lines == dict.fromkeys((*OWN, "odd"), "closed") | {"os.odd.write": "open"}
        odd.always = spoken.good
        reset = await call(hub, "master.resetBreaker", {"name": "os.odd.write"}, key=hub.admin)
        assert reset["structuredContent"] == {"result": ["os.odd.write"]}
        assert text_of(await call(hub, "os_odd_write", key=hub.admin)) == "seen"


async def test_only_an_operator_resets_a_breaker(tmp_path: Path) -> None:
    async with running_hub(tmp_path) as hub:
        refused = await call(hub, "master.resetBreaker", {"name": "all"})
        assert refused["structuredContent"]["code"] == "refused"
        assert "operator" in text_of(refused)


async def test_a_change_refused_by_a_breaker_leaves_no_intent(tmp_path: Path) -> None:
    odd = Faulty()
    async with (
        listening(odd.app(faulty.tool("os.odd.write", "change"))) as url,
        running_hub(tmp_path, rows(odd=url)) as hub,
    ):
        await settle(hub, "odd")
        upstream = hub.hub.fleet.members["odd"].upstream
        assert upstream is not None
        upstream.breaker.trip("told to")
        assert (await call(hub, "os_odd_write"))["structuredContent"]["code"] == "unavailable"
        assert [row["outcome"] for row in hub.audit_rows()] == ["unavailable"]
        assert odd.calls == []


async def test_a_breaker_that_was_open_when_the_hub_stopped_closes_at_the_first_look(tmp_path: Path) -> None:
    async with running_hub(tmp_path, rows(odd="http://127.0.0.1:9")) as hub:
        await settle(hub, "odd")
    async with listening(Faulty().app(faulty.tool())) as url, running_hub(tmp_path, rows(odd=url)) as hub:
        await settle(hub, "odd")
        assert text_of(await call(hub, "os_odd_look")) == "seen"


async def test_a_spoke_that_is_down_is_looked_at_when_it_is_wanted(tmp_path: Path) -> None:
    async with running_hub(tmp_path, rows(odd="http://127.0.0.1:9")) as hub:
        await settle(hub, "odd")
        watcher = hub.hub.fleet.members["odd"].watcher
        assert watcher is not None
        looks: list[None] = []
        watcher.poke = lambda: looks.append(None)  # what it would do is its own test
        for _ in range(3):
            await wanted(hub)
        assert len(looks) == 1


async def wanted(hub: RunningHub) -> None:
    """Ask for a tool of the spoke that is down, as if it were listed."""
    with pytest.raises(Unavailable):
        async with hub.hub.resilience.admitted(OPERATOR, LOOK):
            raise AssertionError("it was let through")
