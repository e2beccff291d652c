"""The deprecated HTTP+SSE transport: its stream, its endpoint, and what keeps one session from another."""

import asyncio
import io
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import orjson
import processes
import pytest
import pytest_asyncio
from hubs import RunningHub, running_hub, settle
from mcp import ClientSession
from mcp.client.sse import sse_client
from mcp_types import TextContent, TextResourceContents
from wire import CLIENT_INFO

from fleetkit import asgi
from master_mcp.mcp import sse

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(60)]

Events = AsyncGenerator[tuple[str, str]]


@pytest.fixture(scope="module")
def server() -> Generator[processes.Program]:
    """The fixture server of the conformance suite: its tools wait, and ask."""
    with processes.program("conformance/fixture/server.py") as program:
        yield program


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hub(server: processes.Program, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[RunningHub]:
    """A hub over the CMDB with its example fleet, and the fixture server."""
    rows = {"cmdb": {}, "conformance": processes.row_of(server)}
    async with running_hub(tmp_path_factory.mktemp("sse"), rows) as found:
        await settle(found, "conformance")
        yield found


async def events_of(response: aiohttp.ClientResponse) -> Events:
    """Name and data of each event as it comes; a comment is the event `:`."""
    name = ""
    async for raw in response.content:
        line = raw.decode().rstrip("\n")
        if line.startswith(":"):
            yield ":", line[1:].strip()
        elif line.startswith("event: "):
            name = line[7:]
        elif line.startswith("data: "):
            yield name, line[6:]


class Raw:
    """One SSE session by hand."""

    def __init__(self, hub: RunningHub, http: aiohttp.ClientSession, events: Events, endpoint: str) -> None:
        self.url, self.http, self.events = hub.url + endpoint, http, events

    async def post(self, message: dict[str, Any] | bytes, key: str | None = None) -> int:
        """The HTTP status of one POST to the endpoint."""
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        body = message if isinstance(message, bytes) else orjson.dumps({"jsonrpc": "2.0", **message})
        async with self.http.post(self.url, data=io.BytesIO(body), headers=headers) as answer:
            return answer.status

    async def message(self) -> dict[str, Any]:
        """The next JSON-RPC message on the stream."""
        async for name, data in self.events:
            if name == "message":
                return orjson.loads(data)
        raise AssertionError("the stream ended")

    async def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """A request and its answer."""
        assert await self.post({"id": 7, "method": method, "params": params}) == 202
        return await self.message()


def call_of(tool: str, arguments: dict[str, Any] | None = None, meta: dict[str, Any] | None = None) -> dict[str, Any]:
    """A call with the id 9."""
    params = {"name": tool, "arguments": arguments or {}, "_meta": meta or {}}
    return {"id": 9, "method": "tools/call", "params": params}


async def status_of(http: aiohttp.ClientSession, url: str) -> int:
    """The HTTP status of a notification posted there."""
    async with http.post(url, data=b'{"jsonrpc": "2.0", "method": "notifications/x"}') as answer:
        return answer.status


CAN: dict[str, Any] = {"elicitation": {}}


@asynccontextmanager
async def raw(hub: RunningHub, *, begin: bool = True) -> AsyncGenerator[Raw]:
    """A session of the operator's, begun or not."""
    headers = {"Authorization": f"Bearer {hub.admin}"}
    async with aiohttp.ClientSession(headers=headers) as http, http.get(f"{hub.url}/sse") as response:
        assert (response.status, response.content_type) == (200, "text/event-stream")
        events = events_of(response)
        name, endpoint = await anext(events)
        assert name == "endpoint"
        session = Raw(hub, http, events, endpoint)
        if begin:
            asked = {"protocolVersion": "2024-11-05", "capabilities": CAN, "clientInfo": CLIENT_INFO}
            assert (await session.ask("initialize", **asked))["result"]["protocolVersion"] == "2024-11-05"
        yield session


@asynccontextmanager
async def sdk(hub: RunningHub) -> AsyncGenerator[ClientSession]:
    """The SDK's own SSE client."""
    headers = {"Authorization": f"Bearer {hub.client}"}
    async with sse_client(f"{hub.url}/sse", headers=headers) as streams, ClientSession(*streams) as session:
        await session.initialize()
        yield session


async def test_the_sdks_client_lists_calls_and_reads(hub: RunningHub):
    async with sdk(hub) as session:
        names = {tool.name for tool in (await session.list_tools()).tools}
        assert {"cmdb_getCi", "master_listServices"} <= names
        called = await session.call_tool("cmdb_getCi", {"ci": "ci-1"})
        assert called.structured_content is not None
        (found,) = (await session.read_resource("cmdb://ci/ci-1")).contents
        assert isinstance(found, TextResourceContents)
        assert f'"name": "{called.structured_content["name"]}"' in found.text


async def test_the_sdks_client_gets_a_prompt(hub: RunningHub):
    async with sdk(hub) as session:
        (message,) = (await session.get_prompt("cmdb_planOutage", {"ci": "ci-1"})).messages
        assert isinstance(message.content, TextContent)
        assert "fails, or is to be taken down" in message.content.text


async def test_a_watched_resource_is_told_on_the_stream(hub: RunningHub):
    async with raw(hub) as session:
        kept: dict[str, Any] = {"ci_class": "server", "attributes": {"hostname": "told.example.com"}}
        made = await session.ask("tools/call", name="cmdb_upsertCi", arguments=kept)
        assert made["result"]["isError"] is False, made
        uri = "cmdb://ci/server:told.example.com"
        assert (await session.ask("resources/subscribe", uri=uri))["result"] == {}
        kept["attributes"]["os_type"] = "linux"
        await session.post(call_of("cmdb_upsertCi", kept))
        both = [await session.message(), await session.message()]
    told = {"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {"uri": uri}}
    assert told in both
    assert {message.get("id") for message in both} == {None, 9}


async def test_a_question_comes_on_the_stream_and_its_answer_to_the_endpoint(hub: RunningHub):
    async with raw(hub) as session:
        question = await session.ask("tools/call", name="test_elicitation", arguments={"message": "?"})
        assert question["method"] == "elicitation/create"
        assert await session.post({"id": question["id"], "result": {"action": "decline"}}) == 202
        assert "action=decline" in (await session.message())["result"]["content"][0]["text"]


async def test_a_call_is_cancelled_without_an_answer(hub: RunningHub):
    async with raw(hub) as session:
        await session.post(call_of("test_wait", meta={"progressToken": 1}))
        assert (await session.message())["method"] == "notifications/progress"
        await session.post({"method": "notifications/cancelled", "params": {"requestId": 9}})
        over = await session.ask("tools/call", name="test_wait_over", arguments={})
        assert (over["id"], over["result"]["content"][0]["text"][-9:]) == (7, "cancelled")


async def test_a_client_that_leaves_cancels_its_calls(hub: RunningHub):
    async with raw(hub) as session:
        await session.post(call_of("test_wait", meta={"progressToken": 1}))
        await session.message()
    async with raw(hub) as other:
        over = await other.ask("tools/call", name="test_wait_over", arguments={})
        assert over["result"]["content"][0]["text"].endswith("cancelled")


async def test_nothing_is_answered_before_the_session_has_begun(hub: RunningHub):
    async with raw(hub, begin=False) as session:
        assert (await session.ask("tools/list"))["error"]["message"] == "initialize first"
        assert await session.post({"method": "notifications/initialized"}) == 202


async def test_an_unknown_method_is_not_found(hub: RunningHub):
    async with raw(hub) as session:
        assert (await session.ask("no/such"))["error"]["code"] == -32601


@pytest.mark.parametrize(("body", "status"), [(b"{", 400), (b"[]", 400), (b"x" * 5_000_000, 413)])
async def test_what_is_not_one_message_is_refused(hub: RunningHub, body: bytes, status: int):
    async with raw(hub) as session:
        assert await session.post(body) == status


async def test_the_stream_and_its_endpoint_belong_to_one_key(hub: RunningHub):
    async with raw(hub) as session:
        assert await session.post({"id": 1, "method": "ping"}, hub.client) == 404
        assert (await session.ask("ping"))["result"] == {}


@pytest.mark.parametrize("path", ["/sse", "/messages/?session_id=x"])
async def test_both_ends_need_a_key(hub: RunningHub, path: str):
    async with aiohttp.ClientSession() as http, http.request("GET", hub.url + path) as answer:
        assert answer.status == 401


@pytest.mark.parametrize("header", [{"Host": "evil.example.com"}, {"Origin": "http://evil.example.com"}])
async def test_a_foreign_page_gets_no_stream(hub: RunningHub, header: dict[str, str]):
    headers = {"Authorization": f"Bearer {hub.client}", **header}
    async with aiohttp.ClientSession() as http, http.get(f"{hub.url}/sse", headers=headers) as answer:
        assert answer.status == 403


@pytest.mark.parametrize(("method", "path"), [("POST", "/sse"), ("GET", "/messages/")])
async def test_each_end_has_its_one_method(hub: RunningHub, method: str, path: str):
    headers = {"Authorization": f"Bearer {hub.client}"}
    async with aiohttp.ClientSession() as http, http.request(method, hub.url + path, headers=headers) as answer:
        assert answer.status == 405


async def test_a_session_that_nobody_opened_is_unknown(hub: RunningHub):
    headers = {"Authorization": f"Bearer {hub.client}"}
    url = f"{hub.url}/messages/?session_id=made-up"
    async with aiohttp.ClientSession() as http, http.post(url, data=b"{}", headers=headers) as answer:
        assert answer.status == 404
        assert "open /sse first" in (await answer.json())["detail"]


async def test_a_session_ends_with_its_stream(hub: RunningHub):
    async with raw(hub) as session:
        url = session.url
    headers = {"Authorization": f"Bearer {hub.admin}"}
    async with aiohttp.ClientSession(headers=headers) as http:
        while await status_of(http, url) != 404:  # until the hub has noticed
            await asyncio.sleep(0)


async def test_sessions_are_bounded(hub: RunningHub, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sse, "MAX_SESSIONS", 0)  # opening 256 connections would test the machine
    headers = {"Authorization": f"Bearer {hub.client}"}
    async with aiohttp.ClientSession() as http, http.get(f"{hub.url}/sse", headers=headers) as answer:
        assert answer.status == 429


async def test_requests_under_way_are_bounded(hub: RunningHub, monkeypatch: pytest.MonkeyPatch):
    async with raw(hub) as session:
        monkeypatch.setattr(sse, "MAX_CALLS", 0)
        assert "under way" in (await session.ask("ping"))["error"]["message"]


async def test_an_idle_stream_shows_signs_of_life(hub: RunningHub, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sse, "KEEPALIVE_S", 0.01)  # the real one is 15 seconds
    assert asgi.KEEPALIVE_S < 60
    async with raw(hub, begin=False) as session:
        assert await anext(session.events) == (":", "ping")


async def test_a_stream_that_is_not_read_ends(hub: RunningHub, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sse, "MAX_UNREAD", 1)  # the buffers of a real connection hold thousands
    async with raw(hub) as session:
        for kind in ("tools", "prompts", "resources"):
            hub.hub.catalog.news.changed(kind)
        left = [name async for name, _ in session.events]
    assert left.count("message") <= 1
