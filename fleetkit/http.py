"""The one outbound HTTP client.

`post_json` talks to parts of the fleet, at URLs that the configuration names. `fetch` goes to URLs that a caller can
influence, under the rules of `fleetkit.ssrf`.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urljoin

import orjson

from fleetkit import correlation
from fleetkit.errors import BY_CODE, FleetError, Invalid, OverBudget, Refused, TimedOut, Unavailable, of_body
from fleetkit.settings import MIB
from fleetkit.ssrf import Outbound, Rules, Target

if TYPE_CHECKING:
    from aiohttp.abc import AbstractResolver

TIMEOUT_S = 10.0
MAX_ANSWER = 8 * MIB
MAX_REDIRECTS = 5

Resolve = Callable[[str], Awaitable[list[str]]]  # a host name's addresses

_NO_ALLOWANCE = Rules(Outbound())
_ELSEWHERE = frozenset({"accept", "accept-language", "content-type", "user-agent"})  # headers another site may see
_OURS = frozenset({"host", "connection", "content-length", "transfer-encoding", "upgrade", "proxy-authorization"})


@dataclass(frozen=True)
class Answer:
    """What a server outside answered: `url` is where it came from after redirects; the body may be encoded."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    url: str


async def post_json(
    url: str, content: Mapping[str, Any], headers: Mapping[str, str] | None = None, timeout_s: float = TIMEOUT_S
) -> dict[str, Any]:
    """The JSON object that `url` answers to `content`. Redirects are not followed, proxies not used.

    Raises the FleetError that the other side answered with; Unavailable when it cannot be reached or
    answers something else, TimedOut, and OverBudget for an answer above 8 MiB.
    """
    import aiohttp  # a tenth of a second to import, and most spokes never call out

    context = correlation.current()
    trace = {"traceparent": correlation.traceparent(context.correlation_id)} if context else {}
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=timeout_s)) as session,
            session.post(
                url,
                data=orjson.dumps(content),
                headers={"content-type": "application/json", **trace, **(headers or {})},
                allow_redirects=False,
            ) as answer,
        ):
            return _object(url, answer.status, await _read(answer.content, url, MAX_ANSWER))
    except TimeoutError as error:
        raise TimedOut(f"{url} did not answer within {timeout_s:g} s") from error
    except aiohttp.ClientError as error:
        raise Unavailable(f"cannot reach {url} ({type(error).__name__}): check that the service runs") from error


async def deliver(url: str, content: bytes, headers: Mapping[str, str], timeout_s: float = TIMEOUT_S) -> None:
    """POST JSON bytes exactly as they are to somebody who only has to take them (any 2xx).

    Redirects are not followed, proxies not used. Raises Unavailable or TimedOut when it was not taken.
    """
    import aiohttp

    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=timeout_s)) as session,
            session.post(
                url, data=content, headers={"content-type": "application/json", **headers}, allow_redirects=False
            ) as answer,
        ):
            if not 200 <= answer.status < 300:
                raise Unavailable(f"{url} answered {answer.status}: check who listens there")
    except TimeoutError as error:
        raise TimedOut(f"{url} did not answer within {timeout_s:g} s") from error
    except aiohttp.ClientError as error:
        raise Unavailable(f"cannot reach {url} ({type(error).__name__}): check that the service runs") from error


async def _read(stream: Any, url: str, most: int) -> bytes:
    raw = bytearray()
    async for chunk in stream.iter_chunked(64 * 1024):
        raw += chunk
        if len(raw) > most:
            raise OverBudget(f"{url} answered more than {most} bytes")
    return bytes(raw)


def _object(url: str, status: int, raw: bytes) -> dict[str, Any]:
    try:
        found: object = orjson.loads(raw)
    except orjson.JSONDecodeError:
        found = None
    shape = cast("dict[str, Any]", found) if isinstance(found, dict) else None
    if status == 200 and shape is not None:
        return shape
    if shape is not None and shape.get("code") in BY_CODE:
        raise of_body(shape, "refused without a reason")
    if shape is not None and status >= 400:
        raise FleetError(str(shape.get("message", f"{url} answered {status}")))
    raise Unavailable(f"{url} answered {status} without a JSON object: is another program on that port?")


async def fetch(
    url: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    max_bytes: int = MAX_ANSWER,
    timeout_s: float = TIMEOUT_S,
    rules: Rules = _NO_ALLOWANCE,
    resolve: Resolve | None = None,
) -> Answer:
    """What `url` answers, whatever its status; up to 5 redirects are followed, each under the same rules.

    The host is resolved once and the connection goes to the addresses that were looked at. Another site sees none
    of the headers but harmless ones. Raises Refused for a URL that is not followed (`hub.outbound`), Invalid for
    headers that cannot be sent, OverBudget above `max_bytes`, TimedOut, Unavailable.
    """
    request = _Request(method.upper(), _sendable(headers or {}), body)
    target = rules.read(url)
    try:
        async with asyncio.timeout(timeout_s):
            for _ in range(MAX_REDIRECTS + 1):
                answer = await _once(target, request, rules.check(target, await _addresses(target, resolve)), max_bytes)
                location = answer.headers.get("location") if answer.status in (301, 302, 303, 307, 308) else None
                if location is None:
                    return answer
                following = rules.read(urljoin(target.url, location))
                request = request.redirected(answer.status, target, following)
                target = following
    except TimeoutError as error:
        raise TimedOut(f"{target.host} did not answer within {timeout_s:g} s") from error
    raise Refused(f"{target.host} redirects more than {MAX_REDIRECTS} times")


@dataclass(frozen=True)
class _Request:
    method: str
    headers: Mapping[str, str]
    body: bytes | None

    def redirected(self, status: int, before: Target, after: Target) -> "_Request":
        """What is sent on: what a browser would, and nothing that proves who asks to another site."""
        if before.scheme == "https" and after.scheme == "http":
            raise Refused(f"{before.host} redirects from https to http")
        headers = self.headers
        if before.origin != after.origin:
            headers = {name: value for name, value in headers.items() if name.lower() in _ELSEWHERE}
        if status in (307, 308) or self.method in ("GET", "HEAD"):
            return _Request(self.method, headers, self.body)
        return _Request("GET", {n: v for n, v in headers.items() if n.lower() != "content-type"}, None)


def _sendable(headers: Mapping[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        if name.lower() in _OURS or not name.isascii() or any(ord(letter) < 32 for letter in name + value):
            raise Invalid(f"header {name[:64]!r} cannot be sent")
    return {**headers, "accept-encoding": "identity"}


async def _addresses(target: Target, resolve: Resolve | None) -> list[str]:
    if target.address is not None:
        return [str(target.address)]
    try:
        return await (resolve or _system_addresses)(target.host)
    except OSError as error:
        raise Unavailable(f"cannot find {target.host}: check the name") from error


async def _system_addresses(host: str) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


async def _once(target: Target, request: _Request, addresses: list[str], max_bytes: int) -> Answer:
    """One request over a connection to one of `addresses`, whatever the name means by now."""
    import aiohttp
    import yarl

    url = yarl.URL(target.url, encoded=True)
    connector = aiohttp.TCPConnector(resolver=_pinned(target, addresses), use_dns_cache=False, force_close=True)
    try:
        async with (
            aiohttp.ClientSession(
                connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False, auto_decompress=False
            ) as session,
            session.request(
                request.method, url, data=request.body, headers=request.headers, allow_redirects=False
            ) as answer,
        ):
            whole = await _read(answer.content, target.host, max_bytes)
            return Answer(answer.status, {n.lower(): v for n, v in answer.headers.items()}, whole, target.url)
    except (aiohttp.ClientError, OSError) as error:
        raise Unavailable(f"cannot reach {target.host} ({type(error).__name__})") from error


def _pinned(target: Target, addresses: list[str]) -> "AbstractResolver":
    """A resolver that knows one host, by the addresses that were checked."""
    from aiohttp.abc import AbstractResolver, ResolveResult

    class Pinned(AbstractResolver):
        async def resolve(
            self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
        ) -> list[ResolveResult]:
            if host != target.host:
                raise OSError(f"{host} was not looked at")
            return [_result(host, port, address) for address in addresses]

        async def close(self) -> None:
            pass

    def _result(host: str, port: int, address: str) -> ResolveResult:
        kind = socket.AF_INET6 if ":" in address else socket.AF_INET
        return ResolveResult(hostname=host, host=address, port=port, family=kind, proto=0, flags=socket.AI_NUMERICHOST)

    return Pinned()
