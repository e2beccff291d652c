"""The one outbound HTTP client: JSON in, JSON out, a deadline, and the correlation id on its way."""

from collections.abc import Mapping
from typing import Any, cast

import orjson

from fleetkit import correlation
from fleetkit.errors import BY_CODE, FleetError, OverBudget, TimedOut, Unavailable
from fleetkit.settings import MIB

TIMEOUT_S = 10.0
MAX_ANSWER = 8 * MIB


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
            return _object(url, answer.status, await _read(answer.content, url))
    except TimeoutError as error:
        raise TimedOut(f"{url} did not answer within {timeout_s:g} s") from error
    except aiohttp.ClientError as error:
        raise Unavailable(f"cannot reach {url} ({type(error).__name__}): check that the service runs") from error


async def _read(stream: Any, url: str) -> bytes:
    raw = bytearray()
    async for chunk in stream.iter_chunked(64 * 1024):
        raw += chunk
        if len(raw) > MAX_ANSWER:
            raise OverBudget(f"{url} answered more than {MAX_ANSWER} bytes")
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
        message = str(shape.get("message", "refused without a reason"))
        raise BY_CODE[shape["code"]](message, retry_after=shape.get("retry_after"))
    if shape is not None and status >= 400:
        raise FleetError(str(shape.get("message", f"{url} answered {status}")))
    raise Unavailable(f"{url} answered {status} without a JSON object: is another program on that port?")
