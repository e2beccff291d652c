"""A spoke over HTTP. Loaded where one is remote: aiohttp costs a tenth of a second and 9 MiB."""

from collections.abc import Mapping

import aiohttp

from fleetkit.errors import OverBudget, Unavailable
from master_mcp.proxy.transport import EventReader, OnEvent, Reply

IDLE_S = 30  # below the time after which a spoke closes an idle connection


class HttpTransport:
    """A spoke behind a URL, over one kept-alive pool of its own."""

    def __init__(self, service: str, url: str, session: aiohttp.ClientSession, limit: int) -> None:
        self._service = service
        self._url = url.rstrip("/")
        self._session = session
        self._limit = limit

    async def post(self, body: bytes, headers: Mapping[str, str], on_event: OnEvent) -> Reply:
        """See Transport."""
        try:
            async with self._session.post(f"{self._url}/mcp", data=body, headers=headers) as answer:
                if answer.content_type == "text/event-stream":
                    await read_events(answer, self._limit, on_event)
                    return Reply(answer.status, b"")
                return Reply(answer.status, await read_whole(answer, self._limit, self._service))
        except (aiohttp.ClientError, ConnectionError, TimeoutError) as error:
            raise Unavailable(f"{self._service} cannot be reached ({_why(error)}): is it running?") from error

    async def alive(self) -> str:
        """See Transport: the ETag of the spoke's `/health`, any answer below 500 counts."""
        try:
            async with self._session.get(f"{self._url}/health", timeout=aiohttp.ClientTimeout(total=5)) as answer:
                if answer.status < 500:
                    return answer.headers.get("etag", "")
                raise Unavailable(f"{self._service} answers {answer.status} on /health")
        except (aiohttp.ClientError, ConnectionError, TimeoutError) as error:
            raise Unavailable(f"{self._service} cannot be reached ({_why(error)}): is it running?") from error


async def read_events(answer: aiohttp.ClientResponse, limit: int, on_event: OnEvent) -> None:
    """Hand on the events of an answer as they come; raises OverBudget for one above `limit` bytes."""
    reader = EventReader(limit)
    async for chunk in answer.content.iter_any():
        for event in reader.feed(chunk):
            await on_event(event)


async def read_whole(answer: aiohttp.ClientResponse, limit: int, service: str) -> bytes:
    """The body of an answer; raises OverBudget for one above `limit` bytes."""
    body = bytearray()
    async for chunk in answer.content.iter_any():
        body += chunk
        if len(body) > limit:
            answer.close()
            raise OverBudget(f"the answer of {service} is larger than {limit} bytes: ask for less")
    return bytes(body)


def _why(error: Exception) -> str:
    return str(error) or type(error).__name__


def open_pool() -> aiohttp.ClientSession:
    """One pool per spoke: a hung spoke can use up only its own connections."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_S),
        timeout=aiohttp.ClientTimeout(total=None, connect=5),
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
    )
