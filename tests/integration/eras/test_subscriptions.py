"""Who listens hears of changes of the lists and of the resources it watches, and of nothing else."""

import asyncio
from typing import Any

import orjson
import pytest
from hubs import RunningHub
from wire import META, Either, ModernClient, SessionClient, Stream, accepts

from master_mcp.mcp import dialogue, live, streaming

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(60)]

WATCHED = "test://watched-resource"
UPDATED = "notifications/resources/updated"


async def quiet(client: Either, stream: Stream) -> bool:
    """Whether nothing came: by the answer to a call, whatever was sent before it has arrived."""
    await client.call("test_echo")
    return stream.arrived().replace(b": ping", b"").strip() == b""


async def until(stream: Stream, method: str) -> dict[str, object]:
    """The next notification of that name."""
    while True:
        message = await stream.next()
        if message["method"] == method:
            return message["params"]


async def touch(client: Either, uri: str = WATCHED) -> None:
    await client.call("test_trigger_resource_update", {"uri": uri})


@pytest.mark.parametrize(
    ("kind", "trigger"), [("prompts", "test_trigger_prompt_change"), ("resources", "test_trigger_resource_change")]
)
async def test_a_list_that_changed_is_told_in_both_eras(
    modern: ModernClient, session: SessionClient, kind: str, trigger: str
):
    asked = {"notifications": {f"{kind}ListChanged": True}}
    async with modern.stream("subscriptions/listen", asked) as new, session.changes() as old:
        assert (await new.next())["params"]["notifications"] == {f"{kind}ListChanged": True}
        await modern.call(trigger)
        await until(new, f"notifications/{kind}/list_changed")
        await until(old, f"notifications/{kind}/list_changed")


async def test_a_watched_resource_is_told_to_a_stateless_client(modern: ModernClient):
    asked = {"notifications": {"resourceSubscriptions": [WATCHED]}}
    async with modern.stream("subscriptions/listen", asked) as stream:
        acknowledged = await stream.next()
        assert acknowledged["params"]["notifications"] == {"resourceSubscriptions": [WATCHED]}
        await touch(modern)
        told = await until(stream, UPDATED)
    assert told == {"uri": WATCHED, "_meta": {META + "subscriptionId": stream.request_id}}


async def test_a_watched_resource_is_told_on_the_sessions_stream(session: SessionClient):
    assert (await session.request("resources/subscribe", {"uri": WATCHED})).result == {}
    async with session.changes() as stream:
        await touch(session)
        assert await until(stream, UPDATED) == {"uri": WATCHED}


async def test_what_changes_between_two_streams_of_a_session_is_told_on_the_next(session: SessionClient):
    await session.request("resources/subscribe", {"uri": WATCHED})
    async with session.changes() as watching:
        await touch(session)
        await until(watching, UPDATED)
    await touch(session)
    async with session.changes() as stream:
        assert await until(stream, UPDATED) == {"uri": WATCHED}


async def test_who_unsubscribed_hears_no_more(modern: ModernClient, session: SessionClient):
    asked = {"notifications": {"resourceSubscriptions": [WATCHED]}}
    await session.request("resources/subscribe", {"uri": WATCHED})
    assert (await session.request("resources/unsubscribe", {"uri": WATCHED})).result == {}
    async with modern.stream("subscriptions/listen", asked) as other, session.changes() as stream:
        await other.next()
        await touch(modern)
        await until(other, UPDATED)
        assert await quiet(session, stream)


async def test_only_who_watches_a_resource_hears_of_it(modern: ModernClient, session: SessionClient):
    other = "test://static-text"
    await session.request("resources/subscribe", {"uri": other})
    asked = {"notifications": {"resourceSubscriptions": [WATCHED]}}
    async with modern.stream("subscriptions/listen", asked) as stream, session.changes() as changes:
        await stream.next()
        await touch(modern, other)
        assert await until(changes, UPDATED) == {"uri": other}
        assert await quiet(modern, stream)


async def test_a_part_of_a_watched_resource_counts(hub: RunningHub, modern: ModernClient):
    asked = {"notifications": {"resourceSubscriptions": ["test://template/1/data"]}}
    async with modern.stream("subscriptions/listen", asked) as stream:
        await stream.next()
        hub.hub.catalog.news.updated("conformance", "test://template/1/data/part")
        assert (await until(stream, UPDATED))["uri"] == "test://template/1/data"


async def test_what_nobody_may_watch_is_left_out_of_the_acknowledgement(modern: ModernClient):
    asked = {"notifications": {"resourceSubscriptions": ["test://nowhere", WATCHED]}}
    async with modern.stream("subscriptions/listen", asked) as stream:
        assert (await stream.next())["params"]["notifications"] == {"resourceSubscriptions": [WATCHED]}


async def test_subscribing_to_what_nobody_has_is_an_error(session: SessionClient):
    error = (await session.request("resources/subscribe", {"uri": "test://nowhere"})).error
    assert (error["code"], error["data"]["uri"]) == (-32002, "test://nowhere")


@pytest.mark.parametrize("uris", ["test://static-text", ["test://x"] * 201])
async def test_a_subscription_without_end_is_refused(modern: ModernClient, uris: object):
    asked = {"notifications": {"resourceSubscriptions": uris}}
    assert (await modern.request("subscriptions/listen", asked)).error["code"] == -32602


async def test_a_session_may_watch_a_bounded_number_of_resources(
    session: SessionClient, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(dialogue, "MAX_WATCHED", 2)  # the real bound takes hundreds of round trips
    for number in range(2):
        assert (await session.request("resources/subscribe", {"uri": f"test://template/{number}/data"})).result == {}
    error = (await session.request("resources/subscribe", {"uri": WATCHED})).error
    assert error["data"]["code"] == "over_budget"


async def test_a_session_that_ends_watches_nothing(hub: RunningHub, session: SessionClient):
    await session.request("resources/subscribe", {"uri": "test://template/gone/data"})
    assert "test://template/gone/data" in hub.hub.catalog.news.wanted("conformance")
    await session.end()
    assert "test://template/gone/data" not in hub.hub.catalog.news.wanted("conformance")


async def test_the_longest_kept_idle_session_makes_room(hub: RunningHub, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(live, "MAX_KEPT", 1)  # the real bound is thousands
    uris = [f"test://template/room-{number}/data" for number in range(3)]
    for uri in uris:
        async with SessionClient(f"{hub.url}/mcp", hub.admin) as session:
            await session.request("resources/subscribe", {"uri": uri})
    watched = hub.hub.catalog.news.wanted("conformance")
    assert watched & set(uris) == {uris[-1]}


async def test_a_session_that_only_listed_is_not_kept(hub: RunningHub, session: SessionClient):
    before = hub.hub.catalog.news.listeners
    await session.request("tools/list")
    await session.call("test_echo")
    assert hub.hub.catalog.news.listeners == before


async def test_an_idle_stream_shows_signs_of_life(modern: ModernClient, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(streaming, "KEEPALIVE_S", 0.01)  # the real one is 15 seconds
    async with modern.changes() as stream:
        while b": ping" not in stream.arrived():
            await asyncio.sleep(0)


async def test_the_rounds_of_a_question_are_requests_of_their_own(
    hub: RunningHub, session: SessionClient, monkeypatch: pytest.MonkeyPatch
):
    upstream = hub.hub.fleet.members["conformance"].upstream
    assert upstream is not None
    ids: list[object] = []
    post = upstream.transport.post

    async def noting(body: bytes, *rest: Any) -> Any:
        ids.append(orjson.loads(body)["id"])
        return await post(body, *rest)

    monkeypatch.setattr(upstream.transport, "post", noting)  # the request is the real one; only its id is noted
    session.answer = accepts
    await session.request("prompts/get", {"name": "test_input_required_result_prompt"}, request_id="mine")
    asked = [found for found in ids if found != 0]
    assert asked[0] == "mine"
    assert len(set(asked)) == len(asked) == 2
