"""The command line's own MCP client, against a server that answers whatever a test wants."""

import http.server
import json
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import pytest

from fleetkit.errors import FleetError, NotFound, Refused, Unavailable
from master_mcp.cli.wire import Hub, protocol_headers


class _Scripted(http.server.BaseHTTPRequestHandler):
    """Sends each of `answers` in turn, and closes the connection after it."""

    answers: ClassVar[list[tuple[int, str, bytes]]]
    seen: ClassVar[list[tuple[Mapping[str, str], Any]]]

    def do_POST(self) -> None:
        """Answer as written in the script."""
        body = self.rfile.read(int(self.headers["content-length"]))
        self.seen.append((dict(self.headers), json.loads(body)))
        status, kind, content = self.answers.pop(0)
        self.send_response(status)
        self.send_header("content-type", kind)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@contextmanager
def _scripted(*answers: tuple[int, str, bytes]) -> Generator[tuple[Hub, list[tuple[Mapping[str, str], Any]]]]:
    handler = type("Handler", (_Scripted,), {"answers": list(answers), "seen": []})
    with http.server.HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield Hub(f"http://127.0.0.1:{server.server_port}", "the-key"), handler.seen
        server.shutdown()
        thread.join()


def _json(content: Mapping[str, Any], status: int = 200) -> tuple[int, str, bytes]:
    return status, "application/json", json.dumps({"jsonrpc": "2.0", "id": 1, **content}).encode()


def _events(*messages: Mapping[str, Any]) -> tuple[int, str, bytes]:
    lines = b"\n".join(b"event: message\ndata: " + json.dumps(message).encode() + b"\n" for message in messages)
    return 200, "text/event-stream", b": hello\n\n" + lines + b"\n"


def test_a_request_is_stateless_and_carries_the_key_and_its_headers() -> None:
    with _scripted(_json({"result": {"tools": []}})) as (hub, seen):
        assert hub.tools() == []
    headers, body = seen[0]
    assert headers["Authorization"] == "Bearer the-key"
    assert (headers["MCP-Protocol-Version"], headers["Mcp-Method"]) == ("2026-07-28", "tools/list")
    assert body["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"] == "2026-07-28"
    assert body["params"]["_meta"]["io.modelcontextprotocol/clientInfo"]["name"] == "fleet"


def test_every_page_of_a_list_is_fetched() -> None:
    pages = [{"tools": [{"name": "a"}], "nextCursor": "2"}, {"tools": [{"name": "b"}]}]
    with _scripted(*(_json({"result": page}) for page in pages)) as (hub, seen):
        assert [tool["name"] for tool in hub.tools()] == ["a", "b"]
    assert seen[1][1]["params"]["cursor"] == "2"


def test_notifications_are_heard_before_the_result() -> None:
    heard: list[Any] = []
    progress = {"method": "notifications/progress", "params": {"progress": 1}}
    with _scripted(_events(progress, {"id": 1, "result": {"content": []}})) as (hub, _):
        assert hub.call("x", {}, heard.append) == {"content": []}
    assert heard == [progress]


def test_a_list_in_structured_content_comes_without_its_wrapping() -> None:
    with _scripted(_json({"result": {"structuredContent": {"result": [1, 2]}}})) as (hub, _):
        assert hub.ask("x") == [1, 2]


def test_a_failed_tool_raises_the_error_it_answered_with() -> None:
    shape = {"code": "not_found", "message": "no such thing", "retryable": False}
    with (
        _scripted(_json({"result": {"isError": True, "structuredContent": shape}})) as (hub, _),
        pytest.raises(NotFound, match="no such thing"),
    ):
        hub.ask("x")


@pytest.mark.parametrize(
    ("answer", "kind", "reason"),
    [
        (_json({"error": {"code": -32601, "message": "no such method"}}), FleetError, "no such method"),
        ((403, "application/problem+json", b'{"code": "refused", "detail": "not you"}'), Refused, "not you"),
        ((502, "text/html", b"<h1>Bad gateway</h1>"), FleetError, "HTTP 502: is another program on this port"),
        ((200, "application/json", b"{not json"), Unavailable, "ended without an answer"),
        (_events({"method": "notifications/progress"}), Unavailable, "ended without an answer"),
        ((200, "text/event-stream", b'data: {"id": 1, "resu'), Unavailable, "without an answer"),
    ],
)
def test_whatever_else_comes_is_one_clear_error(
    answer: tuple[int, str, bytes], kind: type[FleetError], reason: str
) -> None:
    with _scripted(answer) as (hub, _), pytest.raises(kind, match=reason):
        hub.request("tools/list")


def test_an_answer_that_is_cut_short_is_one_clear_error() -> None:
    cut_short = (200, "application/json\r\ncontent-length: 500", b"{}")
    with _scripted(cut_short) as (hub, _), pytest.raises(Unavailable, match="broke off"):
        hub.request("tools/list")


@pytest.mark.parametrize(
    ("params", "header"),
    [
        ({"name": "os_linux_runCommand"}, "os_linux_runCommand"),
        ({"uri": "master://status"}, "master://status"),
        ({"name": "größe"}, "=?base64?Z3LDtsOfZQ==?="),
        ({"name": " padded"}, "=?base64?IHBhZGRlZA==?="),
    ],
)
def test_the_name_goes_into_a_header_encoded_where_http_needs_it(params: dict[str, Any], header: str) -> None:
    meta = {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}
    assert protocol_headers({"method": "m", "params": {**params, "_meta": meta}})["Mcp-Name"] == header


def test_older_messages_get_no_headers() -> None:
    assert protocol_headers({"method": "tools/list", "params": {}}) == {}
    assert protocol_headers({"method": "ping"}) == {}
