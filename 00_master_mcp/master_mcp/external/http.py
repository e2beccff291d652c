"""A server behind a URL, in either era. Loaded where a row has one: aiohttp costs a tenth of a second."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager

import aiohttp
import orjson
from mcp_types.jsonrpc import UNSUPPORTED_PROTOCOL_VERSION

from fleetkit.errors import OverBudget, Unavailable
from fleetkit.shapes import mapping
from master_mcp.external.wire import Deliver, Fail, SessionLost
from master_mcp.proxy.answer import Message, read_message
from master_mcp.proxy.remote import read_events, read_whole
from master_mcp.proxy.transport import OnEvent, Reply

SESSION = "mcp-session-id"
VERSION = "mcp-protocol-version"
_BOTH = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
NOTIFY_S = 10.0
END_S = 3.0
RELISTEN_S = 5.0
IDLE_S = 4.0  # many servers close an idle connection after 5 seconds: one that is about to be used must not be it


class Endpoint:
    """The URL of one server with what is sent along every time. Redirects are not followed."""

    def __init__(self, name: str, url: str, session: aiohttp.ClientSession, limit: int) -> None:
        self.name = name
        self.headers: Mapping[str, str] = {}
        self._url = url
        self._session = session
        self._limit = limit

    async def post(self, body: bytes, headers: Mapping[str, str], on_event: OnEvent) -> tuple[Reply, Mapping[str, str]]:
        """The answer and its headers; the data of each event goes to `on_event`.

        Raises Unavailable when the server cannot be reached, breaks off or rejects the row's credentials.
        """
        async with self._ask("POST", headers, body) as answer:
            if answer.content_type == "text/event-stream":
                await read_events(answer, self._limit, on_event)
                return Reply(answer.status, b""), answer.headers
            return Reply(answer.status, await read_whole(answer, self._limit, self.name)), answer.headers

    async def listen(self, headers: Mapping[str, str], on_event: OnEvent) -> bool:
        """Hear the stream that a session has for news until it ends; False when the server has none."""
        async with self._ask("GET", headers) as answer:
            if answer.status != 200 or answer.content_type != "text/event-stream":
                return False
            await read_events(answer, self._limit, on_event)
            return True

    async def end(self, headers: Mapping[str, str]) -> None:
        """Say that a session is over; what the server answers does not matter."""
        try:
            async with asyncio.timeout(END_S), self._ask("DELETE", headers):
                pass
        except (Unavailable, TimeoutError):
            return

    @asynccontextmanager
    async def _ask(
        self, method: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> AsyncGenerator[aiohttp.ClientResponse]:
        sent = {**_BOTH, **headers, **self.headers}
        try:
            async with self._session.request(
                method, self._url, data=body, headers=sent, allow_redirects=False
            ) as answer:
                if answer.status in (401, 403):
                    self.headers = {}  # they are read anew for the next request: the credential may have been renewed
                    raise Unavailable(
                        f"{self.name} does not accept the credentials of its row (HTTP {answer.status}): "
                        f"check external.{self.name}.headers"
                    )
                if 300 <= answer.status < 400:
                    raise Unavailable(f"{self.name} sends elsewhere (HTTP {answer.status}): write the final URL")
                yield answer
        except (aiohttp.ClientError, ConnectionError) as error:
            why = str(error) or type(error).__name__
            raise Unavailable(f"{self.name} cannot be reached ({why}): is it running?") from error


class HttpWire:
    """A session of the older protocol: a POST per message, answers on the POST's own response. See Wire."""

    def __init__(self, endpoint: Endpoint, deliver: Deliver, fail: Fail) -> None:
        self._endpoint = endpoint
        self._deliver = deliver
        self._fail = fail
        self._headers: dict[str, str] = {}
        self._asking: dict[object, asyncio.Task[None]] = {}
        self._listening: asyncio.Task[None] | None = None
        self._open = True

    @property
    def open(self) -> bool:
        """See Wire."""
        return self._open

    async def send(self, message: Message) -> None:
        """See Wire."""
        if "method" in message and "id" in message:
            request_id = message["id"]
            self._asking[request_id] = task = asyncio.create_task(self._exchange(message))
            task.add_done_callback(lambda _: self._asking.pop(request_id, None))
            return
        try:
            async with asyncio.timeout(NOTIFY_S):
                reply, _ = await self._endpoint.post(orjson.dumps(message), self._headers, self._on_event)
        except TimeoutError as error:
            raise Unavailable(f"{self._endpoint.name} does not take notifications: is it overloaded?") from error
        self._check(reply)

    def forget(self, request_id: object) -> None:
        """See Wire: the answer's stream is closed."""
        task = self._asking.get(request_id)
        if task is not None:
            task.cancel()

    def agreed(self, version: str) -> None:
        """See Wire: from now on every message names the version."""
        self._headers[VERSION] = version

    def hear(self) -> None:
        """See Wire: the GET stream of the session."""
        self._listening = self._listening or asyncio.create_task(self._listen())

    async def close(self) -> None:
        """See Wire."""
        self._open = False
        tasks = [*self._asking.values(), *([self._listening] if self._listening else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if SESSION in self._headers:
            await self._endpoint.end(self._headers)

    async def _exchange(self, message: Message) -> None:
        try:
            reply, headers = await self._endpoint.post(orjson.dumps(message), self._headers, self._on_event)
            if message["method"] == "initialize" and SESSION in headers:
                self._headers[SESSION] = headers[SESSION]
            self._check(reply)
            if reply.body:
                await self._on_event(reply.body)
            ended = f"{self._endpoint.name} ended its answer early: the outcome is unknown, look at its log"
            self._fail(message["id"], Unavailable(ended))  # nothing when the answer came
        except (Unavailable, OverBudget) as error:
            self._fail(message["id"], error)

    def _check(self, reply: Reply) -> None:
        """Raises SessionLost when the server does not know the session, Unavailable for a body that is none."""
        if reply.status < 400:
            return
        problem = mapping(_json(reply.body).get("error"))
        told = str(problem.get("message", ""))[:200]
        strange = problem.get("code") == UNSUPPORTED_PROTOCOL_VERSION
        if reply.status == 404 or strange or "session" in told.lower():
            self._open = False
            raise SessionLost(f"{self._endpoint.name} no longer knows the session")
        if not problem:
            raise Unavailable(f"{self._endpoint.name} answered HTTP {reply.status}: is that its MCP endpoint?")

    async def _listen(self) -> None:
        try:
            while await self._endpoint.listen(self._headers, self._on_event):  # noqa: ASYNC110 - it waits by itself
                await asyncio.sleep(RELISTEN_S)
        except (Unavailable, OverBudget):
            return

    async def _on_event(self, raw: bytes) -> None:
        if raw.strip():
            await self._deliver(read_message(raw, self._endpoint.name))


def _json(raw: bytes) -> Mapping[str, object]:
    try:
        return mapping(orjson.loads(raw))
    except orjson.JSONDecodeError:
        return {}


def open_pool() -> aiohttp.ClientSession:
    """Connections of one server's own, without cookies and without a limit of time in all."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_S),
        timeout=aiohttp.ClientTimeout(total=None, connect=5),
        cookie_jar=aiohttp.DummyCookieJar(),
    )
