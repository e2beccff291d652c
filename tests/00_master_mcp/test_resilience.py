"""Between a permitted call and its spoke: repeated only where that is safe, within one deadline, in its own room."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import faulty
import pytest
import spoken
from faulty import Faulty
from hubs import RunningHub, ask, call, listening, rows, running_hub, settle, text_of

from fleetkit import Setting, SpokeOptions, correlation, trust
from fleetkit.correlation import Context
from fleetkit.errors import OverBudget, TimedOut
from fleetkit.hub import HubClient
from fleetkit.risk import Risk
from master_mcp.policy.verdict import Question
from master_mcp.resilience.limits import Limit

KEY = {"idempotency_key": {"type": "string"}}
CUT = [spoken.cut_off, spoken.closes_mid_stream]


async def metrics(hub: RunningHub) -> str:
    return hub.hub.metrics.render().decode()


@pytest.mark.parametrize(
    ("definition", "arguments"),
    [
        (faulty.tool(), {}),
        (faulty.tool(risk="change", annotations={"idempotentHint": True}), {}),
        (faulty.tool(risk="destroy", properties=KEY), {"idempotency_key": "7"}),
    ],
    ids=["reads", "idempotent", "has a key"],
)
async def test_what_is_safe_to_repeat_gets_through_two_cut_connections(
    tmp_path: Path, definition: dict[str, Any], arguments: dict[str, str]
) -> None:
    odd = Faulty(*CUT)
    async with listening(odd.app(definition)) as url, running_hub(tmp_path, rows(odd=url)) as hub:
        await settle(hub, "odd")
        assert text_of(await call(hub, "os_odd_look", arguments, key=hub.admin)) == "seen"
        assert len(odd.calls) == 3
        outcomes = [row["outcome"] for row in hub.audit_rows() if row["outcome"] != "intent"]
        assert outcomes == ["ok"]
        assert 'mcp_retries_total{service="odd",tool="os.odd.look"} 2.0' in await metrics(hub)
        assert hub.hub.fleet.status()["services"][-1]["breaker"] == "closed"


@pytest.mark.parametrize(
    ("definition", "arguments"),
    [
        (faulty.tool(risk="change"), {}),
        (faulty.tool(risk="change", properties=KEY), {}),
        (faulty.tool(risk="change", annotations={"idempotentHint": "yes"}), {}),
    ],
    ids=["changes", "without its key", "says something else"],
)
async def test_what_is_not_safe_to_repeat_is_sent_once(
    tmp_path: Path, definition: dict[str, Any], arguments: dict[str, str]
) -> None:
    odd = Faulty(*CUT)
    async with listening(odd.app(definition)) as url, running_hub(tmp_path, rows(odd=url)) as hub:
        await settle(hub, "odd")
        failed = await call(hub, "os_odd_look", arguments, key=hub.admin)
        assert failed["structuredContent"]["code"] == "unavailable"
        assert len(odd.calls) == 1
        assert [row["outcome"] for row in hub.audit_rows()] == ["intent", "unavailable"]


async def test_a_call_is_repeated_a_bounded_number_of_times_and_counts_once(tmp_path: Path) -> None:
    odd = Faulty(always=spoken.cut_off)
    async with listening(odd.app(faulty.tool())) as url, running_hub(tmp_path, rows(odd=url)) as hub:
        await settle(hub, "odd")
        assert "cannot be reached" in text_of(await call(hub, "os_odd_look"))
        assert len(odd.calls) == 3
        assert [breaker.failures for breaker in hub.hub.resilience.breakers.listed() if breaker.tool] == [1]


@pytest.mark.parametrize("answer", [spoken.ten_megabytes, spoken.good])
async def test_an_answer_is_final_whatever_it_is(tmp_path: Path, answer: spoken.Answer) -> None:
    odd = Faulty(always=answer)
    async with listening(odd.app(faulty.tool())) as url, running_hub(tmp_path, rows(odd=url)) as hub:
        await settle(hub, "odd")
        await call(hub, "os_odd_look")
        assert len(odd.calls) == 1


async def test_retries_can_be_switched_off(tmp_path: Path) -> None:
    odd = Faulty(*CUT)
    async with (
        listening(odd.app(faulty.tool())) as url,
        running_hub(tmp_path, rows(odd=url), {"resilience": {"retries": 0}}) as hub,
    ):
        await settle(hub, "odd")
        assert (await call(hub, "os_odd_look"))["isError"]
        assert len(odd.calls) == 1


async def test_no_retry_is_sent_to_a_spoke_that_was_found_down_meanwhile(tmp_path: Path) -> None:
    async def down(request: dict[str, Any], send: Any) -> None:
        upstream = hub.hub.fleet.members["odd"].upstream
        assert upstream is not None
        upstream.breaker.trip("the watcher said so")
        await spoken.cut_off(request, send)

    odd = Faulty(always=down)
    async with (
        listening(odd.app(faulty.tool())) as url,
        running_hub(tmp_path, rows(odd=url), {"resilience": {"retries": 1}}) as hub,
    ):
        await settle(hub, "odd")
        hub.hub.fleet.members["odd"].watcher = None  # nobody looks again: what follows is the call's alone
        assert "the watcher said so" in text_of(await call(hub, "os_odd_look"))
        assert len(odd.calls) == 1


async def test_every_attempt_has_only_the_time_that_is_left(tmp_path: Path) -> None:
    odd = Faulty(spoken.cut_off, always=None)
    tool = faulty.tool(meta={"fleet/deadline_s": 20})
    async with listening(odd.app(tool)) as url, running_hub(tmp_path, rows(odd=url)) as hub:
        await settle(hub, "odd")
        await call(hub, "os_odd_look")
        first, second = (meta["fleet/deadline"] for meta in odd.metas())
        assert 20 >= first > second > 0


async def test_a_deadline_covers_all_attempts_together(tmp_path: Path) -> None:
    odd = Faulty(spoken.cut_off, then=spoken.silent)
    tool = faulty.tool(meta={"fleet/deadline_s": 0.7})
    async with listening(odd.app(tool)) as url, running_hub(tmp_path, rows(odd=url)) as hub:
        await settle(hub, "odd")
        failed = await call(hub, "os_odd_look")
        assert failed["structuredContent"]["code"] == "timed_out"
        assert "no answer within 0.7 s" in text_of(failed)


async def test_a_caller_that_has_little_time_left_gets_no_more(tmp_path: Path) -> None:
    odd = Faulty()
    async with listening(odd.app(faulty.tool())) as url, running_hub(tmp_path, rows(odd=url)) as hub:
        await settle(hub, "odd")
        await call(hub, "os_odd_look")
        named = {"name": "os_odd_look", "arguments": {}, "_meta": {"fleet/deadline": 12.5}}
        await ask(hub, "tools/call", named)
        default, short = (meta["fleet/deadline"] for meta in odd.metas())
        assert 29 < default <= 30
        assert 12 < short <= 12.5


async def test_a_caller_with_no_time_left_reaches_nobody(tmp_path: Path) -> None:
    odd = Faulty()
    async with listening(odd.app(faulty.tool(risk="change"))) as url, running_hub(tmp_path, rows(odd=url)) as hub:
        await settle(hub, "odd")
        named = {"name": "os_odd_look", "arguments": {}, "_meta": {"fleet/deadline": 0}}
        _, answer = await ask(hub, "tools/call", named)
        assert "no time left" in text_of(answer["result"])
        assert odd.calls == []


def asker(hub: RunningHub, tmp_path: Path) -> HubClient:
    return HubClient(Setting(tmp_path, SpokeOptions(), hub.hub.ring.service_token("asker"), hub.url, embedded=False))


def working_for(hub: RunningHub, left_s: float) -> Context:
    """What the spoke `asker` has bound while it works on a call that has `left_s` seconds left."""
    key = hub.hub.keys.authenticate(hub.client)
    assert key is not None
    allowance = trust.Allowance(key.caller, "asker.ask", trust.canonical_hash({}), Risk.change, "ab" * 16)
    token = allowance.signed(hub.hub.ring.service_token("asker"), left_s + 5, within_s=left_s)
    return Context("ab" * 16, key.caller, "asker.ask", token)


async def test_a_spoke_that_calls_on_gets_at_most_what_its_own_call_has_left(tmp_path: Path) -> None:
    odd = Faulty()
    async with listening(odd.app(faulty.tool())) as url:
        spokes = {**rows(odd=url), "asker": {"number": 70, "namespace": "asker", "calls": ["os.odd.*"]}}
        async with running_hub(tmp_path, spokes) as hub:
            await settle(hub, "odd")
            with correlation.bound(working_for(hub, 9.0)):
                await asker(hub, tmp_path).call("os.odd.look")
            assert 8 < odd.metas()[0]["fleet/deadline"] <= 9
            with correlation.bound(working_for(hub, 0.0)), pytest.raises(TimedOut, match="no time left"):
                await asker(hub, tmp_path).call("os.odd.look")
            assert len(odd.calls) == 1


class Held:
    """A tool that waits for the test; `here` counts those that wait."""

    def __init__(self) -> None:
        self.here = asyncio.Semaphore(0)
        self.go = asyncio.Event()

    async def __call__(self, request: dict[str, Any], send: Any) -> None:
        self.here.release()
        await self.go.wait()
        await spoken.good(request, send)

    async def arrived(self, number: int) -> None:
        for _ in range(number):
            await self.here.acquire()


async def until(condition: Callable[[], bool]) -> None:
    """Let others run until it holds; the test's own timeout ends a wait for ever."""
    while not condition():
        await asyncio.sleep(0)


async def test_a_full_spoke_keeps_few_waiting_refuses_the_rest_and_costs_its_neighbour_nothing(
    tmp_path: Path,
) -> None:
    held = Held()
    odd, fine = Faulty(always=held), Faulty()
    async with (
        listening(odd.app(faulty.tool())) as slow,
        listening(fine.app(faulty.tool("os.fine.look"))) as quick,
        running_hub(
            tmp_path,
            {**rows(odd=slow), "fine": {"number": 89, "namespace": "os.fine", "url": quick}}
            | {"odd": {**rows(odd=slow)["odd"], "concurrency": 2}},
            {"resilience": {"queue_s": 40}},
        ) as hub,
    ):
        await settle(hub, "odd", "fine")
        calls = [asyncio.create_task(call(hub, "os_odd_look")) for _ in range(5)]
        await held.arrived(2)
        await until(lambda: any(task.done() for task in calls))
        refused = next(task for task in calls if task.done()).result()
        assert refused["structuredContent"]["code"] == "over_budget"
        assert refused["structuredContent"]["retry_after"] == 40
        assert "spokes.odd.concurrency" in text_of(refused)
        assert text_of(await call(hub, "os_fine_look")) == "seen"
        assert 'mcp_inflight{service="odd"} 2.0' in await metrics(hub)
        held.go.set()
        answers = await asyncio.gather(*calls)
        assert sorted(answer.get("isError", False) for answer in answers) == [False] * 4 + [True]
        assert 'mcp_inflight{service="odd"} 0.0' in await metrics(hub)


async def test_waiting_for_a_place_is_bounded(tmp_path: Path) -> None:
    held = Held()
    odd = Faulty(always=held)
    async with (
        listening(odd.app(faulty.tool())) as url,
        running_hub(
            tmp_path, {"odd": {**rows(odd=url)["odd"], "concurrency": 1}}, {"resilience": {"queue_s": 0.05}}
        ) as hub,
    ):
        await settle(hub, "odd")
        first = asyncio.create_task(call(hub, "os_odd_look"))
        await held.arrived(1)
        assert (await call(hub, "os_odd_look"))["structuredContent"]["code"] == "over_budget"
        held.go.set()
        assert text_of(await first) == "seen"
        assert text_of(await call(hub, "os_odd_look")) == "seen"


async def test_a_call_that_goes_away_gives_its_place_back(tmp_path: Path) -> None:
    held = Held()
    odd = Faulty(always=held)
    async with (
        listening(odd.app(faulty.tool())) as url,
        running_hub(tmp_path, {"odd": {**rows(odd=url)["odd"], "concurrency": 1}}) as hub,
    ):
        await settle(hub, "odd")
        gone = asyncio.create_task(call(hub, "os_odd_look"))
        await held.arrived(1)
        gone.cancel()
        await asyncio.wait([gone])
        held.go.set()
        await until(lambda: hub.hub.resilience.gate.inside == 0)
        assert text_of(await call(hub, "os_odd_look")) == "seen"


def limited(hub: RunningHub, *limits: Limit) -> None:
    """Have every call of `os.odd.*` count against these limits, as a policy would."""

    def of(question: Question) -> tuple[Limit, ...]:
        return limits if question.tool.service == "odd" else ()

    hub.hub.policy.limits = of


async def test_a_limit_refuses_a_call_before_anything_of_it_happens(tmp_path: Path) -> None:
    odd = Faulty()
    async with listening(odd.app(faulty.tool(risk="change"))) as url, running_hub(tmp_path, rows(odd=url)) as hub:
        await settle(hub, "odd")
        limited(hub, Limit("hourly", 1, 3600.0))
        assert text_of(await call(hub, "os_odd_look")) == "seen"
        refused = await call(hub, "os_odd_look")
        assert refused["structuredContent"]["code"] == "over_budget"
        assert 3000 < refused["structuredContent"]["retry_after"] <= 3600
        assert "'hourly'" in text_of(refused)
        assert not (await call(hub, "master.listServices"))["isError"]
        assert len(odd.calls) == 1
        outcomes = [row["outcome"] for row in hub.audit_rows() if row["service"] == "odd"]
        assert outcomes == ["intent", "ok", "over_budget"]


async def test_a_quota_of_one_run_counts_in_the_next(tmp_path: Path) -> None:
    async with listening(Faulty().app(faulty.tool())) as url:
        for expected in ("seen", "limit 'yearly'"):
            async with running_hub(tmp_path, rows(odd=url)) as hub:
                await settle(hub, "odd")
                limited(hub, Limit("yearly", 1, 1e12, quota=True))
                assert expected in text_of(await call(hub, "os_odd_look"))


async def test_a_spoke_that_calls_on_hears_how_long_to_wait_in_the_header_and_in_the_error(tmp_path: Path) -> None:
    async with listening(Faulty().app(faulty.tool())) as url:
        spokes = {**rows(odd=url), "asker": {"number": 70, "namespace": "asker", "calls": ["os.odd.*"]}}
        async with running_hub(tmp_path, spokes) as hub:
            await settle(hub, "odd")
            limited(hub, Limit("fifth", 1, 5.0, burst=1))
            with correlation.bound(working_for(hub, 20.0)):
                await asker(hub, tmp_path).call("os.odd.look")
                with pytest.raises(OverBudget, match="'fifth'") as caught:
                    await asker(hub, tmp_path).call("os.odd.look")
            assert caught.value.retry_after is not None
            assert 0 < caught.value.retry_after <= 5
            assert await told_to_wait(hub) == (429, "5")


async def told_to_wait(hub: RunningHub) -> tuple[int, str | None]:
    """The status and the `Retry-After` of a call onward that a used-up limit refuses."""
    limited(hub, Limit("none left", 1, 4.2, burst=1))
    context = working_for(hub, 20.0)
    wish: dict[str, Any] = {"context": context.token, "tool": "os.odd.look", "arguments": {}}
    headers = {"Authorization": f"Bearer {hub.hub.ring.service_token('asker')}"}
    told: list[tuple[int, str | None]] = []
    async with aiohttp.ClientSession() as http:
        for _ in range(2):
            async with http.post(f"{hub.url}/internal/call", json=wish, headers=headers) as answer:
                told.append((answer.status, answer.headers.get("Retry-After")))
    return told[-1]
