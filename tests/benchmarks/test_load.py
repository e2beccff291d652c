"""The generator believes no answer that is not exactly the one it asked for."""

from typing import Any

import orjson
import pytest
from load import ANSWER_BYTES, wrong_with

TEXT = "call-7-"
FILLED = TEXT.ljust(ANSWER_BYTES, ".")
EVENTS = "text/event-stream"


def answer(number: int = 7, text: str = FILLED, **result: Any) -> bytes:
    content = [{"type": "text", "text": text}]
    return orjson.dumps({"jsonrpc": "2.0", "id": number, "result": {"content": content, **result}})


def verdict(raw: bytes, kind: str = "application/json") -> str | None:
    return wrong_with(raw, 200, kind, 7, TEXT)


def test_the_answer_that_was_asked_for_is_right():
    assert verdict(answer()) is None


def test_the_last_event_of_a_stream_is_the_answer():
    progress = b'event: message\r\ndata: {"jsonrpc":"2.0","method":"notifications/progress"}\r\n\r\n'
    assert verdict(progress + b"event: message\r\ndata: " + answer() + b"\r\n\r\n", EVENTS) is None


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(answer(number=8), id="another call's number"),
        pytest.param(answer(text="call-8-".ljust(ANSWER_BYTES, ".")), id="another call's text"),
        pytest.param(answer(text=TEXT), id="a short answer"),
        pytest.param(b'{"jsonrpc":"2.0","id":7,"error":{"code":-32600,"message":"no"}}', id="an error"),
        pytest.param(b'{"jsonrpc":"2.0","id":7,"result":{"content":[]}}', id="no content"),
        pytest.param(b"<html>502 Bad Gateway</html>", id="a web page"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_anything_else_is_wrong_and_shown(raw: bytes):
    problem = verdict(raw)
    assert problem is not None
    assert repr(raw[:300]) in problem


def test_a_stream_without_an_answer_is_wrong():
    assert verdict(b": ping\r\n\r\n", EVENTS) == "HTTP 200: b''"
