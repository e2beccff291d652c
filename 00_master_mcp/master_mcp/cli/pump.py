"""What `fleet stdio` does: a client that speaks only stdio reaches the hub, and holds no key.

Messages pass as they are, in both protocol eras; this side adds what HTTP wants beside them and writes
every message of the hub as a line.
"""

import http.client
import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import Any, BinaryIO, cast

from fleetkit.errors import FleetError
from fleetkit.settings import FleetSettings
from fleetkit.shapes import mapping
from master_mcp.cli import wire
from master_mcp.cli.wire import Message

SESSION = "Mcp-Session-Id"
FINISH_WITHIN_S = 10.0  # calls still under way when the client closes its end
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 10.0
PARSE_ERROR, INVALID_REQUEST, SERVER_ERROR = -32700, -32600, -32000


class Pump:
    """Carries lines to the hub and its messages back. One thread per request under way."""

    def __init__(self, config: FleetSettings, out: BinaryIO) -> None:
        self._config = config
        self._out = out
        self._writing = threading.Lock()
        self._links: dict[object, http.client.HTTPConnection] = {}  # of stateless requests under way
        self._cancelled: set[object] = set()
        self._workers: list[threading.Thread] = []
        self._session: dict[str, str] = {}
        self._greeting: Message | None = None

    def run(self, lines: Iterable[bytes]) -> None:
        """Until the client closes its end; then what is under way may finish."""
        for line in lines:
            if line.strip():
                self._take(line)
        until = time.monotonic() + FINISH_WITHIN_S
        for worker in self._workers:
            worker.join(max(until - time.monotonic(), 0))

    def _take(self, line: bytes) -> None:
        try:
            message: object = json.loads(line)
        except ValueError:
            self._fail(None, PARSE_ERROR, "this line is not JSON")
            return
        if isinstance(message, dict):
            self._route(cast("Message", message))
        else:
            self._fail(None, INVALID_REQUEST, "one JSON-RPC message per line, no batches")

    def _route(self, message: Message) -> None:
        method = message.get("method")
        if method == "initialize":
            self._greeting = message
            self._forward(message)
        elif method == "notifications/cancelled":
            self._cancel(message)
        elif method is None or "id" not in message:
            self._forward(message)  # in order: the next request may count on it
            if method == "notifications/initialized":
                self._start(self._listen)
        else:
            worker = self._start(self._forward, message)
            if method != "subscriptions/listen":
                self._workers = [*(w for w in self._workers if w.is_alive()), worker]

    def _start(self, target: Callable[..., None], *given: object) -> threading.Thread:
        worker = threading.Thread(target=target, args=given, daemon=True)
        worker.start()
        return worker

    def _forward(self, message: Message) -> None:
        """Post one message and write what comes back; a request gets an answer unless it was cancelled."""
        request_id = message.get("id") if "method" in message else None
        try:
            answered = self._post(message)
            problem = "the hub ended without an answer: see `fleet logs`; the outcome is unknown"
        except FleetError as error:
            answered, problem = False, error.message
        if request_id is not None and not answered and request_id not in self._cancelled:
            self._fail(request_id, SERVER_ERROR, problem)
        elif request_id is None and not answered:
            sys.stderr.write(f"fleet stdio: {problem}\n")
        self._cancelled.discard(request_id)

    def _post(self, message: Message, *, again: bool = True) -> bool:
        """Whether the hub took a notification, or answered a request."""
        modern = wire.protocol_headers(message)
        request_id = message.get("id") if "method" in message else None
        hub = self._hub()
        link = hub.connect()
        if modern and request_id is not None:
            self._links[request_id] = link
        try:
            headers = {**wire.ACCEPT, **(modern or self._session)}
            response = hub.send(link, "POST", "/mcp", json.dumps(message).encode(), headers)
            if response.status == HTTPStatus.NOT_FOUND and self._session and not modern and again:
                self._greet_again()
                return self._post(message, again=False)
            return self._pass_back(message, response) or request_id is None
        finally:
            self._links.pop(request_id, None)
            link.close()

    def _hub(self) -> wire.Hub:
        return wire.Hub(self._config.hub.reached_at, wire.read_key(self._config))  # the key may have been rotated

    def _pass_back(self, message: Message, response: http.client.HTTPResponse) -> bool:
        answered = False
        for answer in wire.messages(response):
            final = "method" not in answer
            answered = answered or final
            if final and message.get("method") == "initialize" and "result" in answer:
                self._remember(response, answer)
                if message is not self._greeting:
                    continue  # our own greeting: the client has had its answer long ago
            self._write({**answer, "id": message.get("id")} if final else answer)
        return answered

    def _remember(self, response: http.client.HTTPResponse, answer: Mapping[str, Any]) -> None:
        token = response.getheader(SESSION)
        self._session = {"MCP-Protocol-Version": str(answer["result"].get("protocolVersion"))}
        if token:
            self._session[SESSION] = token

    def _greet_again(self) -> None:
        """The hub no longer knows the session (another key, another data directory): open a new one unseen."""
        if self._greeting is not None:
            self._session = {}
            self._post(dict(self._greeting), again=False)
            self._post({"jsonrpc": "2.0", "method": "notifications/initialized"}, again=False)

    def _cancel(self, message: Message) -> None:
        """A stateless request is cancelled by closing its connection, an older one by telling the hub."""
        request_id = mapping(message.get("params")).get("requestId")
        self._cancelled.add(request_id)
        link = self._links.get(request_id)
        if link is None:
            self._forward(message)
        elif link.sock is not None:
            with suppress(OSError):
                link.sock.shutdown(socket.SHUT_RDWR)

    def _listen(self) -> None:
        """Write what the hub says unasked to an older client; reconnects for as long as the client lives."""
        wait = FIRST_WAIT_S
        while True:
            try:
                if not self._hear():
                    return
                wait = FIRST_WAIT_S
            except FleetError:  # the client hears of it from its next call
                wait = min(wait * 2, LONGEST_WAIT_S)
            time.sleep(wait)

    def _hear(self) -> bool:
        """One stream of the hub's own messages to its end; False when it offers none."""
        hub = self._hub()
        link = hub.connect()
        try:
            response = hub.send(link, "GET", "/mcp", None, {"Accept": "text/event-stream", **self._session})
            for answer in wire.messages(response):
                if "method" in answer:
                    self._write(answer)
            return response.status != HTTPStatus.METHOD_NOT_ALLOWED
        finally:
            link.close()

    def _write(self, message: Mapping[str, Any]) -> None:
        with self._writing:
            self._out.write(json.dumps(message, ensure_ascii=False).encode() + b"\n")
            self._out.flush()

    def _fail(self, request_id: object, code: int, text: str) -> None:
        self._write({"jsonrpc": "2.0", "id": request_id, "error": {"code": code, "message": text}})
