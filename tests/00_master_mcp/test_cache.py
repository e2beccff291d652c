"""Read tools that allow it are answered from what they answered before, to whom it may be told, while it is fresh."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faulty
import pytest
import spoken
from faulty import Faulty
from hubs import RunningHub, ask, call, listening, rows, running_hub, settle, text_of
from redis_server import RedisServer, needs_redis, redis_server
from support import free_port
from wire import SessionClient

from fleetkit import Risk, Spoke
from fleetkit.metrics import Metrics
from master_mcp.catalog.tools import CacheRule
from master_mcp.resilience.cache import Cache, LocalAnswers, Message, Wish


def cached(ttl_s: object = 60, **more: Any) -> dict[str, Any]:
    """A read tool that opts in."""
    return faulty.tool(meta={"fleet/cache": {"ttl_s": ttl_s, **more}})


def state(result: Any) -> str | None:
    """What the result says of the cache."""
    return result.get("_meta", {}).get("fleet/cache")


async def counted(request: dict[str, Any], send: Any) -> None:
    """Answers differently each time."""
    counted.calls += 1  # type: ignore[attr-defined]
    await spoken.send_json(send, spoken.text_result(request, f"answer {counted.calls}"))  # type: ignore[attr-defined]


@pytest.fixture(autouse=True)
def _from_one() -> None:
    counted.calls = 0  # type: ignore[attr-defined]


async def test_the_same_question_is_answered_once(tmp_path: Path) -> None:
    odd = Faulty(always=counted)
    async with listening(odd.app(cached())) as url, running_hub(tmp_path, rows(odd=url)) as hub:
        await settle(hub, "odd")
        first, second = await call(hub, "os_odd_look"), await call(hub, "os_odd_look")
        assert (text_of(first), text_of(second)) == ("answer 1", "answer 1")
        assert (state(first), state(second)) == ("miss", "hit")
        assert (first["_meta"]["fleet/cache_age_s"], second["_meta"]["fleet/cache_age_s"] >= 0) == (0, True)
        assert first["_meta"]["fleet/correlation_id"] != second["_meta"]["fleet/correlation_id"]
        assert text_of(await call(hub, "os_odd_look", {"text": "other"})) == "answer 2"
        assert [row["outcome"] for row in hub.audit_rows()] == ["ok"] * 3
        assert 'mcp_cache_total{state="hit",tool="os.odd.look"} 1.0' in hub.hub.metrics.render().decode()


async def test_a_tool_that_does_not_opt_in_is_asked_each_time(tmp_path: Path) -> None:
    odd = Faulty(always=counted)
    async with listening(odd.app(faulty.tool())) as url, running_hub(tmp_path, rows(odd=url)) as hub:
        await settle(hub, "odd")
        assert [text_of(await call(hub, "os_odd_look")) for _ in range(2)] == ["answer 1", "answer 2"]
        assert state(await call(hub, "os_odd_look")) is None


@pytest.mark.parametrize("wish", [{"ttl_s": 0}, {"ttl_s": "long"}, {"ttl_s": True}, {}, "yes"])
async def test_a_wish_that_is_none_is_not_followed(tmp_path: Path, wish: object) -> None:
    odd = Faulty(always=counted)
    tool = faulty.tool(meta={"fleet/cache": wish})
    async with listening(odd.app(tool)) as url, running_hub(tmp_path, rows(odd=url)) as hub:
        await settle(hub, "odd")
        assert [text_of(await call(hub, "os_odd_look")) for _ in range(2)] == ["answer 1", "answer 2"]


async def test_a_tool_that_can_change_something_is_never_answered_from_memory(tmp_path: Path) -> None:
    odd = Faulty(always=counted)
    tool = faulty.tool(risk="change", meta={"fleet/cache": {"ttl_s": 60}})
    async with listening(odd.app(tool)) as url, running_hub(tmp_path, rows(odd=url)) as hub:
        await settle(hub, "odd")
        assert [text_of(await call(hub, "os_odd_look")) for _ in range(2)] == ["answer 1", "answer 2"]
    with pytest.raises(ValueError, match="not to be cached"):
        Spoke("demo").tool(risk=Risk.change, cache_ttl_s=5)(_write)


async def _write() -> None:
    """Write something."""


@pytest.mark.parametrize(("more", "told"), [({}, "answer 2"), ({"by_caller": False}, "answer 1")])
async def test_another_caller_gets_it_only_where_the_tool_says_that_all_get_the_same(
    tmp_path: Path, more: dict[str, Any], told: str
) -> None:
    odd = Faulty(always=counted)
    async with listening(odd.app(cached(**more))) as url, running_hub(tmp_path, rows(odd=url)) as hub:
        await settle(hub, "odd")
        await call(hub, "os_odd_look")
        assert text_of(await call(hub, "os_odd_look", key=hub.admin)) == told


async def test_who_may_not_call_a_tool_gets_no_kept_answer_of_it(tmp_path: Path) -> None:
    odd = Faulty(always=counted)
    async with listening(odd.app(cached(by_caller=False))) as url, running_hub(tmp_path, rows(odd=url)) as hub:
        await settle(hub, "odd")
        await call(hub, "os_odd_look")
        _, narrow = hub.hub.keys.create("narrow", scopes=["read:cmdb.*"])
        refused = await call(hub, "os_odd_look", key=narrow)
        assert refused["structuredContent"]["code"] == "refused"


async def test_a_caller_that_wants_it_fresh_gets_it_fresh_and_others_get_that(tmp_path: Path) -> None:
    odd = Faulty(always=counted)
    async with listening(odd.app(cached())) as url, running_hub(tmp_path, rows(odd=url)) as hub:
        await settle(hub, "odd")
        await call(hub, "os_odd_look")
        asked = {"name": "os_odd_look", "arguments": {}, "_meta": {"fleet/no-cache": True}}
        _, answer = await ask(hub, "tools/call", asked)
        assert (text_of(answer["result"]), state(answer["result"])) == ("answer 2", "bypass")
        header = await call(hub, "os_odd_look", headers={"Cache-Control": "max-age=0, No-Cache"})
        assert (text_of(header), state(header)) == ("answer 3", "bypass")
        assert text_of(await call(hub, "os_odd_look")) == "answer 3"


async def test_the_older_era_has_the_same_cache_and_the_same_way_around_it(tmp_path: Path) -> None:
    odd = Faulty(always=counted)
    async with listening(odd.app(cached())) as url, running_hub(tmp_path, rows(odd=url)) as hub:
        await settle(hub, "odd")
        await call(hub, "os_odd_look")
        async with SessionClient(f"{hub.url}/mcp", hub.client) as session:
            reply = await session.call("os_odd_look")
            assert (reply.said, state(reply.result)) == ("answer 1", "hit")
            fresh = await session.request(
                "tools/call", {"name": "os_odd_look", "arguments": {}, "_meta": {"fleet/no-cache": True}}
            )
            assert fresh.said == "answer 2"


async def refuse(request: dict[str, Any], send: Any) -> None:
    """A tool's own error."""
    answer = spoken.text_result(request, "no")
    answer["result"]["isError"] = True
    await spoken.send_json(send, answer)


async def ask_back(request: dict[str, Any], send: Any) -> None:
    """A tool that needs input first."""
    result: dict[str, Any] = {"resultType": "input_required", "inputRequests": {}, "requestState": "s"}
    await spoken.send_json(send, {"jsonrpc": "2.0", "id": request["id"], "result": result})


async def protocol_error(request: dict[str, Any], send: Any) -> None:
    """A JSON-RPC error."""
    await spoken.send_json(send, {"jsonrpc": "2.0", "id": request["id"], "error": {"code": -32602, "message": "no"}})


@pytest.mark.parametrize("first", [refuse, ask_back, protocol_error])
async def test_only_a_whole_successful_answer_is_kept(tmp_path: Path, first: spoken.Answer) -> None:
    odd = Faulty(first)
    async with listening(odd.app(cached())) as url, running_hub(tmp_path, rows(odd=url)) as hub:
        await settle(hub, "odd")
        await ask(hub, "tools/call", {"name": "os_odd_look", "arguments": {}})
        assert state(await call(hub, "os_odd_look")) == "miss"
        assert len(odd.calls) == 2


async def test_an_answer_to_a_question_is_not_looked_up(tmp_path: Path) -> None:
    odd = Faulty(always=counted)
    async with listening(odd.app(cached())) as url, running_hub(tmp_path, rows(odd=url)) as hub:
        await settle(hub, "odd")
        await call(hub, "os_odd_look")
        answered: dict[str, Any] = {"name": "os_odd_look", "arguments": {}, "inputResponses": {}, "requestState": "s"}
        _, answer = await ask(hub, "tools/call", answered)
        assert text_of(answer["result"]) == "answer 2"


async def test_a_kept_answer_is_given_while_its_spoke_is_down(tmp_path: Path) -> None:
    port = free_port()
    async with running_hub(tmp_path, rows(odd=f"http://127.0.0.1:{port}")) as hub:
        odd = Faulty(always=counted)
        async with listening(odd.app(cached()), port):
            await settle(hub, "odd")
            await call(hub, "os_odd_look")
        await settle(hub, "odd")
        assert state(await call(hub, "os_odd_look")) == "hit"
        assert (await call(hub, "os_odd_look", {"text": "new"}))["structuredContent"]["code"] == "unavailable"


async def test_a_tool_that_changed_its_definition_is_asked_anew(tmp_path: Path) -> None:
    odd = Faulty(always=counted)
    tools = [cached()]
    async with listening(spoken.spoke_app(odd, tools)) as url, running_hub(tmp_path, rows(odd=url)) as hub:
        await settle(hub, "odd")
        await call(hub, "os_odd_look")
        tools[0] = {**cached(), "description": "Look at something else."}
        watcher = hub.hub.fleet.members["odd"].watcher
        assert watcher is not None
        watcher.health.listed_at = 0.0  # due
        await settle(hub, "odd")
        assert text_of(await call(hub, "os_odd_look")) == "answer 2"


class Clock:
    """Seconds that pass when the test says so."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


WISH = Wish("os.odd.look", CacheRule(10.0), "d", "a", "k1", fresh=False)


async def one() -> Message:
    return {"jsonrpc": "2.0", "id": 1, "result": {"content": [{"type": "text", "text": "x"}]}}


async def test_an_answer_is_old_after_its_time_and_says_its_age_before() -> None:
    clock = Clock()
    cache = Cache(LocalAnswers(10_000, clock), Metrics(), clock)
    await cache.answer(WISH, 1, one)
    clock.now += 9.5
    kept = await cache.answer(WISH, 7, one)
    assert (kept["id"], kept["result"]["_meta"]) == (7, {"fleet/cache": "hit", "fleet/cache_age_s": 9.5})
    clock.now += 1
    assert state((await cache.answer(WISH, 1, one))["result"]) == "miss"


async def test_a_calendar_set_forward_makes_an_answer_old_and_set_back_no_answer_younger_than_now() -> None:
    clock, calendar = Clock(), Clock()
    cache = Cache(LocalAnswers(10_000, clock), Metrics(), calendar)
    await cache.answer(WISH, 1, one)
    calendar.now += 86_400
    assert state((await cache.answer(WISH, 1, one))["result"]) == "miss"
    calendar.now -= 86_400
    found = await cache.answer(WISH, 1, one)
    assert found["result"]["_meta"]["fleet/cache_age_s"] == 0


async def test_room_is_bounded_and_what_was_not_asked_for_longest_goes_first() -> None:
    answers = LocalAnswers(800, Clock())
    for key in "abcdefgh":
        await answers.put(key, b"x" * 100, 60)
    assert await answers.get("a") == b"x" * 100
    await answers.put("i", b"x" * 100, 60)
    assert answers.size == 800
    assert await answers.get("b") is None
    assert await answers.get("a") is not None
    await answers.put("huge", b"x" * 101, 60)
    assert await answers.get("huge") is None
    await answers.put("a", b"y", 60)
    assert (await answers.get("a"), answers.size) == (b"y", 701)


async def test_what_is_too_old_leaves_its_room() -> None:
    clock = Clock()
    answers = LocalAnswers(800, clock)
    await answers.put("a", b"x" * 100, 5)
    clock.now += 5
    assert await answers.get("a") is None
    assert answers.size == 0


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server() as running:
        yield running


@needs_redis
async def test_hubs_with_one_redis_share_their_answers(tmp_path: Path, server: RedisServer) -> None:
    odd = Faulty(always=counted)
    told: list[str | None] = []
    async with listening(odd.app(cached(by_caller=False))) as url:
        for name in ("first", "second"):
            async with running_hub(tmp_path / name, rows(odd=url), {"redis_url": server.url}) as hub:
                await settle(hub, "odd")
                told.append(state(await call(hub, "os_odd_look")))
    assert told == ["miss", "hit"]


async def test_a_hub_whose_redis_is_away_answers_all_the_same(tmp_path: Path) -> None:
    odd = Faulty(always=counted)
    async with (
        listening(odd.app(cached())) as url,
        running_hub(tmp_path, rows(odd=url), {"redis_url": "redis://127.0.0.1:9/0"}) as hub,
    ):
        await settle(hub, "odd")
        assert [text_of(await call(hub, "os_odd_look")) for _ in range(2)] == ["answer 1", "answer 2"]


async def test_the_linux_spoke_describes_its_machine_from_memory_for_a_few_seconds(tmp_path: Path) -> None:
    async with running_hub(tmp_path, {"linux_cli": {"number": 1, "namespace": "os.linux"}}) as hub:
        assert await described(hub) == "miss"
        assert hub.hub.catalog.resolve("os.linux.getOsInfo").cache == CacheRule(5.0, by_caller=False)


async def described(hub: RunningHub) -> str | None:
    return state(await call(hub, "os.linux.getOsInfo"))
