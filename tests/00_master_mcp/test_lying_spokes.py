"""A spoke that is dead, hung or lying gives one clear message and costs nobody else a call."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import spoken
from hubs import OWN, ask, call, listening, rows, running_hub, settle, text_of
from support import free_port

from fleetkit import server
from master_mcp.proxy import remote

LIES = [
    (spoken.invalid_json, "unavailable", "not JSON"),
    (spoken.not_an_object, "unavailable", "not a JSON-RPC message"),
    (spoken.wrong_id, "unavailable", "another request"),
    (spoken.neither, "unavailable", "neither a result nor an error"),
    (spoken.ten_megabytes, "over_budget", "larger than"),
    (spoken.endless_event, "over_budget", "larger than"),
    (spoken.closes_mid_stream, "unavailable", "ended its answer early"),
    (spoken.cut_off, "unavailable", "cannot be reached"),
    (spoken.empty, "unavailable", "HTTP 500"),
    (spoken.unauthorized, "unavailable", "token"),
    (spoken.silent, "timed_out", "no answer within 0.5 s"),
]


@pytest.mark.parametrize(("lie", "code", "words"), LIES, ids=[lie.__name__ for lie, _, _ in LIES])
async def test_a_lying_spoke_is_told_apart_and_its_neighbour_keeps_answering(
    tmp_path: Path, lie: spoken.Answer, code: str, words: str
) -> None:
    honest = spoken.spoke_app(
        spoken.good, [{**spoken.TOOL, "name": "x", "_meta": {"fleet/id": "os.fine.look", "risk": "read"}}]
    )
    async with (
        listening(spoken.spoke_app(lie)) as odd,
        listening(honest) as fine,
        running_hub(tmp_path, rows(odd=odd, fine=fine), {"deadline_s": 0.5}) as hub,
    ):
        await settle(hub, "odd", "fine")
        failed = await call(hub, "os_odd_look")
        assert failed["isError"]
        assert failed["structuredContent"]["code"] == code
        assert words in text_of(failed)
        assert text_of(await call(hub, "os_fine_look")) == "seen"


async def test_five_transport_failures_open_the_breaker_and_a_probe_closes_it(tmp_path: Path) -> None:
    async with listening(spoken.spoke_app(spoken.invalid_json)) as url, running_hub(tmp_path, rows(odd=url)) as hub:
        await settle(hub, "odd")
        upstream = hub.hub.fleet.members["odd"].upstream
        assert upstream is not None
        for _ in range(5):
            upstream.breaker.failed("told to")
        assert upstream.breaker.state == "open"
        assert "is unavailable" in text_of(await call(hub, "os_odd_look"))
        await settle(hub, "odd")
        assert upstream.breaker.state == "closed"


async def test_a_tools_own_error_never_counts_against_its_spoke(tmp_path: Path) -> None:
    async def refuse(request: dict[str, Any], send: Any) -> None:
        answer = spoken.text_result(request, "no")
        answer["result"]["isError"] = True
        await spoken.send_json(send, answer)

    async with listening(spoken.spoke_app(refuse)) as url, running_hub(tmp_path, rows(odd=url)) as hub:
        await settle(hub, "odd")
        for _ in range(10):
            assert (await call(hub, "os_odd_look"))["isError"]
        assert hub.hub.fleet.status()["services"][-1]["breaker"] == "closed"


async def test_a_spoke_that_is_gone_keeps_its_tools_listed_and_says_why_they_fail(tmp_path: Path) -> None:
    async with listening(spoken.spoke_app(spoken.good)) as url, running_hub(tmp_path, rows(odd=url)) as hub:
        await settle(hub, "odd")
    async with running_hub(tmp_path, rows(odd=url)) as hub:
        await settle(hub, "odd")
        assert [tool.id for tool in hub.hub.catalog.of("odd")] == ["os.odd.look"]
        failed = await call(hub, "os_odd_look")
        assert failed["structuredContent"]["code"] == "unavailable"
        assert failed["structuredContent"]["retryable"]
        assert "cannot be reached" in text_of(failed)
        outcome = hub.audit_rows()[-1]
        assert (outcome["tool"], outcome["outcome"]) == ("os.odd.look", "unavailable")


async def test_a_spoke_that_comes_back_answers_without_anybody_reconnecting(tmp_path: Path) -> None:
    port = free_port()
    async with running_hub(tmp_path, rows(odd=f"http://127.0.0.1:{port}")) as hub:
        await settle(hub, "odd")
        assert hub.hub.fleet.status()["services"][-1]["health"] == "unavailable"
        async with listening(spoken.spoke_app(spoken.good), port):
            await settle(hub, "odd")
            assert text_of(await call(hub, "os_odd_look")) == "seen"


async def test_an_endless_tool_list_is_given_up(tmp_path: Path) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        result: dict[str, Any] = {"resultType": "complete", "tools": [], "nextCursor": "more"}
        await spoken.send_json(send, {"jsonrpc": "2.0", "id": 0, "result": result})

    async with listening(app) as url, running_hub(tmp_path, rows(odd=url)) as hub:
        await settle(hub, "odd")
        assert "without end" in hub.hub.fleet.status()["services"][-1]["reason"]


async def test_a_spoke_that_lists_no_tools_says_so_in_its_health(tmp_path: Path) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await spoken.send_json(send, {"jsonrpc": "2.0", "id": 0, "error": {"code": -32601, "message": "what?"}})

    async with listening(app) as url, running_hub(tmp_path, rows(odd=url)) as hub:
        await settle(hub, "odd")
        assert "did not list its tools" in hub.hub.fleet.status()["services"][-1]["reason"]


async def test_a_spoke_whose_health_is_broken_is_down(tmp_path: Path) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await spoken.send_json(send, {}, 500)

    async with listening(app) as url, running_hub(tmp_path, rows(odd=url)) as hub:
        await settle(hub, "odd")
        assert "answers 500 on /health" in hub.hub.fleet.status()["services"][-1]["reason"]


async def test_the_hub_takes_a_bounded_number_of_calls_at_once(tmp_path: Path) -> None:
    async with (
        listening(spoken.spoke_app(spoken.silent)) as url,
        running_hub(tmp_path, rows(odd=url), {"max_inflight": 1, "deadline_s": 1.0}) as hub,
    ):
        await settle(hub, "odd")
        both = await asyncio.gather(call(hub, "os_odd_look"), call(hub, "os_odd_look"))
        assert sorted(result["structuredContent"]["code"] for result in both) == ["over_budget", "timed_out"]


async def test_a_hung_spoke_holds_up_neither_the_list_nor_another_spoke(tmp_path: Path) -> None:
    async def hang(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.get_running_loop().create_future()

    async with (
        listening(hang) as odd,
        listening(spoken.spoke_app(spoken.good)) as fine,
        running_hub(tmp_path, rows(odd=odd, fine=fine)) as hub,
    ):
        looking = asyncio.create_task(settle(hub, "odd"))
        await settle(hub, "fine")
        assert not looking.done()
        assert text_of(await call(hub, "os_odd_look")) == "seen"  # the neighbour lists this name
        _, listed = await ask(hub, "tools/list")
        assert len(listed["result"]["tools"]) == sum(len(hub.hub.catalog.of(name)) for name in OWN) + 1
        assert not looking.done()
        looking.cancel()


def test_an_idle_connection_is_given_up_by_the_hub_before_the_spoke_closes_it() -> None:
    assert remote.IDLE_S < server.KEEP_ALIVE_S
