"""What spokes offer besides tools, through a hub: who sees it, what a failing spoke costs, what survives."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from fastmcp import Client
from fastmcp.client.transports import StreamableHttpTransport
from hubs import RunningHub, ask, call, listening, rows, running_hub, settle, text_of
from mcp_types import TextContent
from offering import Shop
from support import free_port
from wire import ModernClient, SessionClient

from master_mcp.catalog import hearing, shelf

pytestmark = pytest.mark.timeout(90)


async def listed(hub: RunningHub, method: str, under: str, name: str, **rest: Any) -> list[str]:
    """The names of one whole list, page by page."""
    found: list[str] = []
    params: dict[str, Any] = {}
    while True:
        _, answer = await ask(hub, method, params, **rest)
        found += [entry[name] for entry in answer["result"][under]]
        if "nextCursor" not in answer["result"]:
            return found
        params = {"cursor": answer["result"]["nextCursor"]}


async def uris(hub: RunningHub, **rest: Any) -> list[str]:
    """Every resource but the hub's own."""
    return [uri for uri in await listed(hub, "resources/list", "resources", "uri", **rest) if "master" not in uri]


async def read(hub: RunningHub, uri: str, **rest: Any) -> dict[str, Any]:
    """The answer to a read."""
    return (await ask(hub, "resources/read", {"uri": uri}, **rest))[1]


async def test_thousands_of_resources_come_whole_and_in_order(tmp_path: Path) -> None:
    shop = Shop([f"file:///{number:05}" for number in range(3456)])
    async with listening(shop) as url, running_hub(tmp_path, rows(shop=url)) as hub:
        await settle(hub, "shop")
        assert await uris(hub) == shop.uris
        assert len({params.get("cursor") for params in shop.of("resources/list")}) == 7
        _, first = await ask(hub, "resources/list")
        assert len(first["result"]["resources"]) == 1000


async def test_lists_are_answered_from_memory(tmp_path: Path) -> None:
    shop = Shop(["file:///a"], prompts=["one"])
    async with listening(shop) as url, running_hub(tmp_path, rows(shop=url)) as hub:
        await settle(hub, "shop")
        shop.hangs = {"resources/list", "prompts/list", "resources/templates/list"}
        assert await uris(hub) == ["file:///a"]
        assert await listed(hub, "prompts/list", "prompts", "name") == ["os_shop_one"]


async def test_only_what_the_server_says_it_has_is_listed(tmp_path: Path) -> None:
    shop = Shop(["file:///a"], prompts=["one"], capabilities={"tools": {}, "prompts": {}})
    async with listening(shop) as url, running_hub(tmp_path, rows(shop=url)) as hub:
        await settle(hub, "shop")
        assert await uris(hub) == []
        assert await listed(hub, "prompts/list", "prompts", "name") == ["os_shop_one"]
        assert shop.of("resources/list") == []


async def test_a_list_that_fails_costs_neither_the_tools_nor_the_last_good_list(tmp_path: Path) -> None:
    shop = Shop(["file:///a"], prompts=["one"])
    async with listening(shop) as url, running_hub(tmp_path, rows(shop=url)) as hub:
        await settle(hub, "shop")
        shop.refuses, shop.uris, shop.prompts = {"resources/list"}, ["file:///b"], ["two"]
        watcher = hub.hub.fleet.members["shop"].watcher
        assert watcher is not None
        watcher.relist()
        await watcher.look()
        assert watcher.health.state == "healthy"
        assert await uris(hub) == ["file:///a"]
        assert await listed(hub, "prompts/list", "prompts", "name") == ["os_shop_two"]


@pytest.mark.parametrize("hangs", ["server/discover", "resources/list"])
async def test_a_spoke_that_hangs_while_it_lists_holds_up_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hangs: str
) -> None:
    monkeypatch.setattr(shelf, "ANSWER_TIMEOUT_S", 0.2)  # the real ones would make the test wait
    monkeypatch.setattr(shelf, "LIST_TIMEOUT_S", 0.2)
    odd, fine = Shop(["file:///odd"], hangs={hangs}), Shop(["file:///fine"], prompts=["one"])
    async with (
        listening(odd) as odd_url,
        listening(fine) as fine_url,
        running_hub(tmp_path, rows(odd=odd_url, fine=fine_url)) as hub,
    ):
        await settle(hub, "odd", "fine")
        assert await uris(hub) == ["file:///fine"]
        assert hub.hub.fleet.status()["services"][-1]["health"] == "healthy"


async def test_what_a_dead_spoke_offered_is_still_listed_and_says_why_it_fails(tmp_path: Path) -> None:
    shop = Shop(["file:///a"], ["file:///{x}/y"], ["one"])
    async with listening(shop) as url, running_hub(tmp_path, rows(shop=url)) as hub:
        await settle(hub, "shop")
    async with running_hub(tmp_path, rows(shop=url)) as hub:
        await settle(hub, "shop")
        assert await uris(hub) == ["file:///a"]
        templates = await listed(hub, "resources/templates/list", "resourceTemplates", "uriTemplate")
        assert templates == ["file:///{x}/y"]
        assert await listed(hub, "prompts/list", "prompts", "name") == ["os_shop_one"]
        for uri in ("file:///a", "file:///1/y"):
            error = (await read(hub, uri))["error"]
            assert (error["code"], error["data"]["code"], error["data"]["retryable"]) == (-32603, "unavailable", True)
        row = hub.audit_rows()[-1]
        assert (row["tool"], row["outcome"]) == ("os.shop.resources/read", "unavailable")


async def test_a_read_that_takes_too_long_says_so(tmp_path: Path) -> None:
    shop = Shop(["file:///a"], hangs={"resources/read"})
    async with (
        listening(shop) as url,
        running_hub(tmp_path, rows(shop=url), {"deadline_s": 0.3, "max_inflight": 1}) as hub,
    ):
        await settle(hub, "shop")
        both = await asyncio.gather(read(hub, "file:///a"), read(hub, "file:///a"))
        assert sorted(answer["error"]["data"]["code"] for answer in both) == ["over_budget", "timed_out"]


async def test_failing_reads_open_the_breaker_of_the_spoke(tmp_path: Path) -> None:
    shop = Shop(["file:///a"])
    async with listening(shop) as url, running_hub(tmp_path, rows(shop=url), {"deadline_s": 0.05}) as hub:
        await settle(hub, "shop")
        shop.hangs = {"resources/read", "/health"}
        said = [(await read(hub, "file:///a"))["error"]["message"] for _ in range(20)]
        assert "gave no answer within 0.05 s" in said[0]
        assert "it is probed and comes back by itself" in said[-1]


async def test_a_row_without_a_spoke_says_that_it_is_not_running(tmp_path: Path) -> None:
    async with running_hub(tmp_path) as hub:
        hub.hub.catalog.offers.know("gone", hub.hub.config.row("cmdb"))
        error = (await read(hub, "cmdb://ci/1"))["error"]
        assert (error["data"]["code"], "not running" in error["message"]) == ("unavailable", True)


async def test_each_caller_sees_only_the_services_it_may_read(tmp_path: Path) -> None:
    one, two = Shop(["file:///one"], prompts=["p"]), Shop(["file:///two"], prompts=["p"])
    async with (
        listening(one) as first,
        listening(two) as second,
        running_hub(tmp_path, rows(one=first, two=second)) as hub,
    ):
        await settle(hub, "one", "two")
        _, narrow = hub.hub.keys.create("narrow", scopes=["read:os.one.*"])
        _, reader = hub.hub.keys.create("reader", scopes=["read:os.two.resources/read"])
        assert await uris(hub) == ["file:///one", "file:///two"]
        assert (await uris(hub, key=narrow), await uris(hub, key=reader)) == (["file:///one"], ["file:///two"])
        names = [await listed(hub, "prompts/list", "prompts", "name", key=key) for key in (narrow, reader)]
        assert names == [["os_one_p"], []]
        assert (await read(hub, "file:///one", key=narrow))["result"]["contents"][0]["text"] == "here"
        refused = [
            await read(hub, "file:///two", key=narrow),
            (await ask(hub, "prompts/get", {"name": "os_two_p"}, key=reader))[1],
            (await ask(hub, "completion/complete", completion("os_two_p"), key=narrow))[1],
        ]
        assert [answer["error"]["data"]["code"] for answer in refused] == ["refused"] * 3
        async with SessionClient(f"{hub.url}/mcp", narrow) as session:
            error = (await session.request("resources/subscribe", {"uri": "file:///two"})).error
        assert error["data"]["code"] == "refused"


def completion(prompt: str) -> dict[str, Any]:
    """What completes an argument of a prompt."""
    return {"ref": {"type": "ref/prompt", "name": prompt}, "argument": {"name": "x", "value": ""}}


async def test_a_resource_of_two_services_is_read_behind_either_namespace(tmp_path: Path) -> None:
    one, two = Shop(["file:///a"]), Shop(["file:///a"])
    async with (
        listening(one) as first,
        listening(two) as second,
        running_hub(tmp_path, rows(one=first, two=second)) as hub,
    ):
        await settle(hub, "one", "two")
        assert await uris(hub) == ["os.one+file:///a", "os.two+file:///a"]
        (found,) = (await read(hub, "os.two+file:///a"))["result"]["contents"]
        assert found["uri"] == "os.two+file:///a"
        assert (one.of("resources/read"), two.of("resources/read")[-1]["uri"]) == ([], "file:///a")
        error = (await read(hub, "file:///a"))["error"]
        assert error["data"]["code"] == "invalid"


async def test_the_callers_key_does_not_travel_with_a_read(tmp_path: Path) -> None:
    shop = Shop(["file:///a"])
    async with listening(shop) as url, running_hub(tmp_path, rows(shop=url)) as hub:
        await settle(hub, "shop")
        result = (await read(hub, "file:///a"))["result"]
        assert (result["cacheScope"], result["ttlMs"]) == ("private", 5)
        (sent,) = shop.of("resources/read")
        assert hub.client not in str(sent)
        assert "fleet/allow" in sent["_meta"]


async def test_a_server_without_completions_is_not_asked_for_any(tmp_path: Path) -> None:
    shop = Shop(prompts=["p"])
    async with listening(shop) as url, running_hub(tmp_path, rows(shop=url)) as hub:
        await settle(hub, "shop")
        _, answer = await ask(hub, "completion/complete", completion("os_shop_p"))
        assert answer["result"]["completion"]["values"] == []
        assert shop.of("completion/complete") == []


@pytest.mark.parametrize(("refusal", "outcome"), [(-32601, "result"), (-32603, "error")])
async def test_a_promise_of_completions_that_is_not_kept_completes_nothing(
    tmp_path: Path, refusal: int, outcome: str
) -> None:
    can: dict[str, Any] = {"tools": {}, "prompts": {}, "completions": {}}
    shop = Shop(prompts=["p"], capabilities=can, refuses={"completion/complete"}, refusal=refusal)
    async with listening(shop) as url, running_hub(tmp_path, rows(shop=url)) as hub:
        await settle(hub, "shop")
        _, answer = await ask(hub, "completion/complete", completion("os_shop_p"))
        assert outcome in answer
        assert hub.audit_rows()[-1]["outcome"] == {"result": "ok", "error": "protocol_error"}[outcome]


async def test_a_read_of_a_prefixed_uri_that_fails_stays_an_error(tmp_path: Path) -> None:
    shop = Shop(["file:///a"], refuses={"resources/read"})
    async with listening(shop) as url, running_hub(tmp_path, rows(shop=url)) as hub:
        await settle(hub, "shop")
        assert (await read(hub, "os.shop+file:///a"))["error"]["message"] == "not today"


async def test_a_server_that_does_not_say_what_it_can_offers_tools_alone(tmp_path: Path) -> None:
    shop = Shop(["file:///a"], prompts=["p"], refuses={"server/discover"})
    async with listening(shop) as url, running_hub(tmp_path, rows(shop=url)) as hub:
        await settle(hub, "shop")
        assert await listed(hub, "prompts/list", "prompts", "name") == []
        assert [tool.upstream for tool in hub.hub.catalog.of("shop")] == ["os_odd_look"]


async def test_fastmcps_client_reads_and_prompts(tmp_path: Path) -> None:
    shop = Shop(["file:///a"], ["file:///{x}/y"], ["p"])
    async with listening(shop) as url, running_hub(tmp_path, rows(shop=url)) as hub:
        await settle(hub, "shop")
        transport = StreamableHttpTransport(f"{hub.url}/mcp", headers={"Authorization": f"Bearer {hub.client}"})
        async with Client(transport) as client:
            assert "file:///a" in {str(entry.uri) for entry in await client.list_resources()}
            assert [entry.uri_template for entry in await client.list_resource_templates()] == ["file:///{x}/y"]
            (found,) = await client.read_resource("file:///a")
            assert getattr(found, "text", "") == "here"
            (message,) = (await client.get_prompt("os_shop_p")).messages
            assert isinstance(message.content, TextContent)
            assert message.content.text == "p"


async def test_one_subscription_to_the_spoke_stands_for_all_who_watch(tmp_path: Path) -> None:
    shop = Shop(["file:///a", "file:///b"])
    async with listening(shop) as url, running_hub(tmp_path, rows(shop=url)) as hub:
        await settle(hub, "shop")
        async with (
            SessionClient(f"{hub.url}/mcp", hub.client) as session,
            ModernClient(f"{hub.url}/mcp", hub.client) as modern,
        ):
            await session.request("resources/subscribe", {"uri": "file:///a"})
            await shop.heard("file:///a")
            asked = {"notifications": {"resourceSubscriptions": ["file:///a", "file:///b"]}}
            async with modern.stream("subscriptions/listen", asked) as stream, session.changes() as changes:
                await stream.next()
                await shop.heard("file:///a", "file:///b")
                await shop.update("file:///a")
                assert (await stream.next())["params"]["uri"] == "file:///a"
                assert (await changes.next())["params"] == {"uri": "file:///a"}
            await shop.heard("file:///a")
            await session.end()
            await shop.heard()


async def test_a_subscription_goes_on_after_the_spoke_was_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hearing, "RELISTEN_S", 0.05)
    port, first, second = free_port(), Shop(["file:///a"]), Shop(["file:///a"])
    async with (
        running_hub(tmp_path, rows(shop=f"http://127.0.0.1:{port}")) as hub,
        ModernClient(f"{hub.url}/mcp", hub.client) as client,
        AsyncExitStack() as stack,
    ):
        asked = {"notifications": {"resourceSubscriptions": ["file:///a"]}}
        async with listening(first, port):
            await settle(hub, "shop")
            stream = await stack.enter_async_context(client.stream("subscriptions/listen", asked))
            await stream.next()
            await first.heard("file:///a")
        await first.unheard()
        async with listening(second, port):
            await settle(hub, "shop")
            assert (await stream.next())["params"]["uri"] == "file:///a"  # it may have changed meanwhile
            await second.heard("file:///a")
            await second.update("file:///a")
            assert (await stream.next())["params"]["uri"] == "file:///a"
            await stack.aclose()


async def test_a_service_that_tells_no_changes_says_so(tmp_path: Path) -> None:
    shop = Shop(["file:///a"], capabilities={"tools": {}, "resources": {}})
    async with listening(shop) as url, running_hub(tmp_path, rows(shop=url)) as hub:
        await settle(hub, "shop")
        async with SessionClient(f"{hub.url}/mcp", hub.client) as session:
            error = (await session.request("resources/subscribe", {"uri": "file:///a"})).error
        assert (error["data"]["code"], "read file:///a again" in error["message"]) == ("refused", True)


async def test_a_service_that_cannot_be_told_yet_does_not_hold_up_who_watches(tmp_path: Path) -> None:
    shop = Shop(["file:///a"], hangs={"subscriptions/listen"})
    async with listening(shop) as url, running_hub(tmp_path, rows(shop=url)) as hub:
        await settle(hub, "shop")
        async with SessionClient(f"{hub.url}/mcp", hub.client) as session:
            assert (await session.request("resources/subscribe", {"uri": "file:///a"})).result == {}


async def test_tools_that_want_impossible_headers_are_not_shown(tmp_path: Path) -> None:
    sound: dict[str, Any] = {"name": "sound", "inputSchema": {"type": "object"}, "_meta": {"risk": "read"}}
    wrong = {"type": "object", "properties": {"x": {"type": "object", "x-mcp-header": "X"}}}
    shop = Shop(tools=[sound, {**sound, "name": "odd", "inputSchema": wrong}])
    async with listening(shop) as url, running_hub(tmp_path, rows(shop=url)) as hub:
        await settle(hub, "shop")
        assert [tool.upstream for tool in hub.hub.catalog.of("shop")] == ["sound"]
        assert "no tool" in text_of(await call(hub, "os_shop_odd"))
