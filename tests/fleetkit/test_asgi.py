"""Exchange: one bounded request in, one answer out, as JSON or as events."""

import asyncio
from typing import Any

import orjson
import pytest

from fleetkit.asgi import Exchange
from fleetkit.errors import OverBudget


class Wire:
    """The two ends of one request; what arrives is queued, what is sent is kept."""

    def __init__(self, *arriving: dict[str, Any]) -> None:
        self.arriving: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        for message in arriving:
            self.arriving.put_nowait(message)
        self.sent: list[Any] = []

    async def keep(self, message: Any) -> None:
        """What the server sends."""
        self.sent.append(message)

    def exchange(self, *headers: tuple[bytes, bytes]) -> Exchange:
        """The request as the server sees it."""
        scope = {"type": "http", "method": "POST", "path": "/mcp", "headers": list(headers)}
        return Exchange(scope, self.arriving.get, self.keep)

    @property
    def head(self) -> dict[str, str]:
        """The header of the answer."""
        return {name.decode(): value.decode() for name, value in self.sent[0]["headers"]}

    @property
    def body(self) -> bytes:
        """Every byte of the answer so far."""
        return b"".join(message["body"] for message in self.sent[1:])


def part(body: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


GONE = {"type": "http.disconnect"}


def test_a_request_is_read_from_its_scope_with_header_values_trimmed():
    found = Wire().exchange((b"x-api-key", b" \tkey "), (b"accept", b"*/*"))
    assert (found.method, found.path, found.headers) == ("POST", "/mcp", {"x-api-key": "key", "accept": "*/*"})


async def test_a_body_in_parts_is_read_whole():
    wire = Wire(part(b"ab", more=True), part(b"", more=True), part(b"cd"))
    assert await wire.exchange().body(4) == b"abcd"


async def test_a_body_over_the_limit_is_refused_before_its_last_part_arrives():
    wire = Wire(part(b"abc", more=True), part(b"de", more=True))
    with pytest.raises(OverBudget, match=r"larger than 4 bytes: send less, or raise hub\.max_request_bytes"):
        await wire.exchange().body(4)


async def test_a_client_that_leaves_while_sending_cancels_its_request():
    with pytest.raises(asyncio.CancelledError):
        await Wire(part(b"ab", more=True), GONE).exchange().body(100)


async def test_a_json_answer_has_its_type_length_and_further_headers():
    wire = Wire()
    found = wire.exchange()
    found.extra.append((b"mcp-session-id", b"s1"))
    await found.json(202, {"a": 1}, {"www-authenticate": "Bearer"})
    assert wire.sent[0]["status"] == 202
    assert wire.head == {
        "content-length": "7",
        "mcp-session-id": "s1",
        "content-type": "application/json",
        "www-authenticate": "Bearer",
    }
    assert wire.body == b'{"a":1}'


async def test_an_answer_without_content_says_so():
    wire = Wire()
    await wire.exchange().json(204, None)
    assert (wire.sent[0]["status"], wire.head, wire.body) == (204, {"content-length": "0"}, b"")


async def test_an_answer_that_never_streamed_is_plain_json():
    wire = Wire()
    await wire.exchange().finish({"id": 1}, 404)
    assert (wire.sent[0]["status"], wire.head["content-type"], wire.body) == (404, "application/json", b'{"id":1}')


async def test_an_answer_that_streamed_ends_as_an_event_on_the_same_stream():
    wire = Wire()
    found = wire.exchange()
    await found.event({"progress": 1})
    await found.ping()
    await found.finish({"id": 1})
    assert [message["type"] for message in wire.sent].count("http.response.start") == 1
    assert wire.head["content-type"] == "text/event-stream"
    events = [orjson.loads(line[6:]) for line in wire.body.splitlines() if line.startswith(b"data: ")]
    assert (events, b": ping\n\n" in wire.body) == ([{"progress": 1}, {"id": 1}], True)
    assert [message.get("more_body", False) for message in wire.sent[1:]] == [True, True, True, False]


async def test_work_whose_client_stays_runs_to_its_end():
    wire, done = Wire(part(b"ignored")), list[str]()

    async def work() -> None:
        done.append("done")

    await wire.exchange().attached(work())
    assert done == ["done"]


async def test_work_whose_client_leaves_is_cancelled_and_that_is_no_error():
    wire, ended = Wire(part(b"ignored"), GONE), list[str]()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    await wire.exchange().attached(work())
    assert ended == ["cancelled"]
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_work_cancelled_by_anybody_else_stays_cancelled():
    started = asyncio.Event()

    async def work() -> None:
        started.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(Wire().exchange().attached(work()))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_error_in_the_work_is_the_callers():
    async def work() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await Wire().exchange().attached(work())
